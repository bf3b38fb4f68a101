"""From attention scores to the probabilities that are read: dense or sparse.

``off`` is the softmax that the network computes. Sparse attention at inference is PLADIS's idea
(Kim et al., arXiv 2503.07677); here it is only read, so that the network's latents stay as they
are. The mappings are alpha-entmax (Peters, Niculae, Martins, ACL 2019) for alpha 1.5 and 2::

    entmax15(z)_k  = [z_k / 2 - tau]_+ ^ 2       sum_k = 1
    sparsemax(z)_k = [z_k - tau]_+               sum_k = 1      (Martins, Astudillo, ICML 2016)

Both are exact: the scores are sorted, and ``tau`` follows from how many of them are in the support.
Positions that prefer another token by enough get exactly 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cxrg.options import Sparse


def probabilities(scores: Tensor, sparse: Sparse) -> Tensor:
    """Probabilities over the last axis, of the shape of ``scores`` (any, float32)."""
    if sparse == "off":
        return torch.softmax(scores, dim=-1)
    return entmax15(scores) if sparse == "entmax15" else sparsemax(scores)


def sparsemax(scores: Tensor) -> Tensor:
    """The nearest point of the simplex (Martins and Astudillo 2016, algorithm 1)."""
    shifted, ordered, count = _descending(scores)
    tau = (ordered.cumsum(dim=-1) - 1) / count
    return (shifted - _last(tau, ordered > tau)).clamp(min=0)


def entmax15(scores: Tensor) -> Tensor:
    """1.5-entmax (Peters, Niculae, Martins 2019, algorithm 2)."""
    shifted, ordered, count = _descending(scores / 2)
    mean = ordered.cumsum(dim=-1) / count
    spread = ordered.square().cumsum(dim=-1) - count * mean.square()
    tau = mean - ((1 - spread) / count).clamp(min=0).sqrt()
    return (shifted - _last(tau, ordered >= tau)).clamp(min=0).square()


def _descending(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores with their maximum at 0, the same in descending order, and 1 .. L."""
    shifted = scores - scores.amax(dim=-1, keepdim=True)
    count = torch.arange(1, scores.shape[-1] + 1, device=scores.device, dtype=scores.dtype)
    return shifted, shifted.sort(dim=-1, descending=True).values, count


def _last(tau: Tensor, inside: Tensor) -> Tensor:
    """The threshold of the support, whose size is the number of scores above their own."""
    return tau.gather(-1, inside.sum(dim=-1, keepdim=True) - 1)
