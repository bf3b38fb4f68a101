r"""The terms of the loss: where the attention of words falls, and how well the model denoises.

With :math:`a` an attention map scaled to sum 1 over its positions :math:`p`, and :math:`m` the
place's mask, averaged over the same positions (our choice after arXiv 2506.10633)::

    inside     -log(sum_p a_loc[p] m[p] + 1e-6)
    outside     sum_p a_path[p] (1 - dilate(m, 1)[p])
    dice        1 - 2 sum(h m) / (sum h + sum m),   h = minmax(a_loc)
    nce         InfoNCE of the finding's image features against the features of its words
    diffusion   mean squared error of the denoiser's output
    residual    sum of the residuals' squares

All are means over the rows of a batch, float32 scalars.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

TEMPERATURE = 0.07


def normalised(attention: Tensor) -> Tensor:
    """Maps ``(B, h, w)`` of at least 0, each scaled to sum 1."""
    return attention / attention.sum((1, 2), keepdim=True).clamp_min(1e-12)


def energy(attention: Tensor, mask: Tensor) -> Tensor:
    """The share ``(B,)`` of each map ``(B, h, w)`` inside its mask in [0, 1]."""
    return (normalised(attention) * mask).sum((1, 2))


def inside(location: Tensor, mask: Tensor) -> Tensor:
    """Negative log of the share of the place's attention inside its mask."""
    return -torch.log(energy(location, mask) + 1e-6).mean()


def outside(finding: Tensor, mask: Tensor) -> Tensor:
    """The share of the finding's attention beyond the mask and the positions next to it."""
    wide = F.max_pool2d(mask[:, None], 3, stride=1, padding=1)[:, 0]
    return (normalised(finding) * (1 - wide)).sum((1, 2)).mean()


def dice(location: Tensor, mask: Tensor) -> Tensor:
    """One less the overlap of the place's attention, scaled to [0, 1], and the mask."""
    low = location.amin((1, 2), keepdim=True)
    high = location.amax((1, 2), keepdim=True)
    heat = (location - low) / (high - low).clamp_min(1e-12)
    both = 2 * (heat * mask).sum((1, 2))
    return (1 - both / (heat.sum((1, 2)) + mask.sum((1, 2))).clamp_min(1e-12)).mean()


def nce(seen: Tensor, words: Tensor, same: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al., 2018) from image to words, several positives joined.

    Args:
        seen: ``(B, D)``, image features under the finding's attention.
        words: ``(B, D)``, the finding's words in the same space.
        same: bool ``(B, B)``, whether two rows have the same phrase; True on the diagonal.
    """
    scores = F.normalize(seen, dim=1) @ F.normalize(words, dim=1).T / TEMPERATURE
    right = scores.masked_fill(~same, -torch.inf).logsumexp(1)
    return (scores.logsumexp(1) - right).mean()
