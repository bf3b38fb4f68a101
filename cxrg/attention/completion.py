"""Self-attention completion: a map is spread over image positions that resemble each other.

DiffSegmenter (Wang et al., arXiv 2309.02773): with ``S`` the self-attention at the finest
resolution, mean over layers and heads, and ``c`` a cross-attention map enlarged to it::

    S[p, q] = softmax_q(Q[p] . K[q] * scale)         completed = S c

``S`` and ``c`` are those of one network evaluation. ``S c`` is linear in ``c``, so each layer's map
is completed by itself and all that follows (means over layers and steps, scaling) stays as it is.
``S`` (64 MB for a 64 x 64 map) is never held: ``S c`` is an attention whose values are the maps.

iSeg (Sun et al., arXiv 2409.03209, released code) lowers the entropy of ``S`` first, so that far
likeness does not spread, and repeats::

    S' = S / max_p S[p, q],   S' = max(0, S' + e log10(2.718 S')),   rows scaled to sum 1
    c = S' c,   c = (c - min c) / sum (c - min c)                      ten times, e = 0.015

There ``c`` is one map of a whole image; here it is each layer's map by itself, so that means over
layers and steps, which iSeg has not, weigh all alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

ENTROPY, ITERATIONS = 0.015, 10  # iSeg's for PASCAL VOC


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Projections:
    """One self-attention layer: ``query`` and ``key`` ``(B, P, heads * d)``, over a grid (h, w)."""

    query: Tensor
    key: Tensor
    heads: int
    scale: float
    grid: tuple[int, int]


def complete(maps: Mapping[str, Tensor], seen: Sequence[Projections]) -> dict[str, Tensor]:
    """Complete cross-attention maps by self-attention.

    Args:
        maps: ``(B, K, h, w)`` per layer, of any resolution.
        seen: self-attention layers of the same evaluation, all over one grid.

    Returns:
        ``(B, K, *grid)`` per layer.
    """
    values = _enlarged(maps, seen[0].grid)
    completed = torch.stack([_attend(layer, values) for layer in seen]).mean(dim=0)
    return _parted(completed, maps, seen[0].grid)


def complete_iterated(maps: Mapping[str, Tensor], seen: Sequence[Projections]) -> dict[str, Tensor]:
    """Complete cross-attention maps by iSeg's iterations; arguments and result as of `complete`.

    Every map then sums to 1, or is 0 where it was the same everywhere.
    """
    values = _enlarged(maps, seen[0].grid)
    matrix = _sharpened(torch.stack([_matrix(layer) for layer in seen]).mean(dim=0))
    for _ in range(ITERATIONS):
        values = matrix @ values
        values = values - values.amin(dim=1, keepdim=True)
        values = values / values.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return _parted(values, maps, seen[0].grid)


def _enlarged(maps: Mapping[str, Tensor], grid: tuple[int, int]) -> Tensor:
    """All maps on one grid, ``(B, P, N)``."""
    enlarged = [
        F.interpolate(each, grid, mode="bilinear", align_corners=False) for each in maps.values()
    ]
    return torch.cat(enlarged, dim=1).flatten(2).mT


def _parted(values: Tensor, maps: Mapping[str, Tensor], grid: tuple[int, int]) -> dict[str, Tensor]:
    """``(B, P, N)`` as maps ``(B, K, *grid)`` by the names of ``maps``."""
    parts = values.mT.reshape(len(values), len(maps), -1, *grid)
    return {name: parts[:, index] for index, name in enumerate(maps)}


def _matrix(layer: Projections) -> Tensor:
    """``S`` of one layer ``(B, P, P)``, mean over heads, one head in memory at a time."""
    queries = layer.query.float().chunk(layer.heads, dim=-1)
    keys = layer.key.float().chunk(layer.heads, dim=-1)
    total = layer.query.new_zeros((), dtype=torch.float32)
    for query, key in zip(queries, keys, strict=True):
        total = total + torch.softmax(query @ key.mT * layer.scale, dim=-1)
    return total / layer.heads


def _sharpened(matrix: Tensor) -> Tensor:
    """``S`` of lower entropy, rows of sum 1."""
    matrix = matrix / matrix.amax(dim=1, keepdim=True)
    # log10(2.718 x) as in the released code; where x is 0, the sum is clamped to 0.
    lowered = (matrix + ENTROPY * torch.log10(2.718 * matrix)).clamp_min(0)
    return lowered / lowered.sum(dim=-1, keepdim=True)


def _attend(layer: Projections, values: Tensor) -> Tensor:
    """``S values`` of one layer, mean over heads; ``values`` and the result are ``(B, P, N)``."""
    rows, positions, width = layer.query.shape
    split = (rows, positions, layer.heads, width // layer.heads)
    query = layer.query.float().view(split).transpose(1, 2)
    key = layer.key.float().view(split).transpose(1, 2)
    value = values[:, None].expand(-1, layer.heads, -1, -1)
    # Of one width they need no more memory than the network's own attention; zeros change nothing.
    wide = max(query.shape[-1], value.shape[-1])
    query, key, value = (F.pad(each, (0, wide - each.shape[-1])) for each in (query, key, value))
    out = F.scaled_dot_product_attention(query, key, value, scale=layer.scale)
    return out[..., : values.shape[-1]].mean(dim=1)
