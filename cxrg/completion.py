"""Self-attention completion: a map spread over the image positions that look alike.

DiffSegmenter (Wang et al., arXiv 2309.02773): with ``S`` the self-attention at the finest
resolution, mean over layers and heads, and ``c`` a cross-attention map enlarged to it::

    S[p, q] = softmax_q(Q[p] . K[q] * scale)         completed = S c

``S`` and ``c`` are those of one network evaluation. ``S c`` is linear in ``c``, so each layer's map
is completed by itself and all that follows (means over layers and steps, scaling) stays as it is.
``S`` (64 MB for a 64 x 64 map) is never held: ``S c`` is an attention whose values are the maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor


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
    height, width = seen[0].grid
    enlarged = [
        F.interpolate(each, (height, width), mode="bilinear", align_corners=False)
        for each in maps.values()
    ]
    values = torch.cat(enlarged, dim=1).flatten(2).mT
    completed = torch.stack([_attend(layer, values) for layer in seen]).mean(dim=0).mT
    parts = completed.reshape(len(values), len(enlarged), -1, height, width)
    return {name: parts[:, index] for index, name in enumerate(maps)}


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
