"""Named anatomical regions, by geometry, from a few primary masks.

The same rules serve phantoms (exact masks) and real images (masks of a segmenter). They follow
methods.md 2.3: each lung's height in thirds; apex the top 18 %; base the bottom 25 %;
costophrenic angle the lateral third of the bottom 22 %; hilum a disc at the medial edge of the
middle of the lung. Sides are the patient's, so *left* is the right side of the picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

SIDES = ("right", "left")
ZONES = {
    "upper": (0.0, 1 / 3),
    "mid": (1 / 3, 2 / 3),
    "lower": (2 / 3, 1.0),
    "apical": (0.0, 0.18),
    "basal": (0.75, 1.0),
}


def extent(mask: Mask) -> tuple[int, int, int, int] | None:
    """First and one-past-last column and row of a mask (x0, y0, x1, y1), or None if empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def regions(primary: dict[str, Mask]) -> dict[str, Mask]:
    """All named regions that follow from ``right lung`` and ``left lung`` (and the rest kept).

    Keys are ``"{side} {zone}"`` for the zones above, ``"{side} perihilar"``,
    ``"{side} costophrenic angle"``, ``"{side} hemidiaphragm"``, ``"retrocardiac"``, ``"lungs"``.
    """
    right, left = primary["right lung"], primary["left lung"]
    found = {name: _named_part(name, mask, right | left) for name, mask in primary.items()}
    found["lungs"] = right | left
    for side, lung in zip(SIDES, (right, left), strict=True):
        found |= {f"{side} {name}": mask for name, mask in _parts(lung, side).items()}
    heart = found.get("heart and mediastinum", np.zeros_like(right))
    box = extent(left)
    if box is not None:
        rows = np.arange(right.shape[0])[:, None]
        columns = np.arange(right.shape[1])[None, :]
        low = (rows >= box[1] + 0.55 * (box[3] - box[1])) & (rows < box[3])
        middle = _inner_edge(right, left)
        found["retrocardiac"] = heart & low & (columns >= middle)
    return found


# Readers outline these from about here to there: shares of the lungs' height below their top.
_SPANS = {"heart and mediastinum": (0.2, 1.0), "airways": (-0.12, 0.56)}


def _named_part(name: str, mask: Mask, lungs: Mask) -> Mask:
    """The part of a midline structure that its name means; other masks as they are."""
    box = extent(lungs)
    if box is None or name not in _SPANS:
        return mask
    rows = (np.arange(mask.shape[0])[:, None] + 0.5 - box[1]) / (box[3] - box[1])
    top, bottom = _SPANS[name]
    return mask & (rows >= top) & (rows < bottom)


def _inner_edge(right: Mask, left: Mask) -> float:
    """Column half-way between the two lungs."""
    a, b = extent(right), extent(left)
    if a is None or b is None:
        return float(right.shape[1]) / 2
    return float(a[0] + b[2]) / 2


def _parts(lung: Mask, side: str) -> dict[str, Mask]:
    box = extent(lung)
    if box is None:
        return {}
    x0, y0, x1, y1 = box
    rows = np.arange(lung.shape[0])[:, None]
    columns = np.arange(lung.shape[1])[None, :]
    height, width = y1 - y0, x1 - x0
    down = (rows + 0.5 - y0) / height
    # 0 at the medial border of the lung, 1 at the chest wall
    out = (columns + 0.5 - x0) / width if side == "left" else (x1 - columns - 0.5) / width
    parts = {name: lung & (down >= a) & (down < b) for name, (a, b) in ZONES.items()}
    medial = x0 if side == "left" else x1
    radius2 = (columns - medial) ** 2 + (rows - (y0 + 0.48 * height)) ** 2
    parts["perihilar"] = lung & (radius2 < (0.42 * width + 0.05 * height) ** 2)
    parts["hilum"] = radius2 < (0.13 * height) ** 2
    parts["costophrenic angle"] = lung & (down >= 0.78) & (out >= 0.66)
    reach = max(round(0.05 * height), 1)
    lowest = lung.shape[0] - 1 - np.argmax(lung[::-1], axis=0)
    near = np.abs(rows - lowest[None, :]) <= reach
    parts["hemidiaphragm"] = near & lung.any(axis=0, keepdims=True) & (down > 0.6)
    return parts
