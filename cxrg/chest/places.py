"""The places that a report names, as masks, from the outlines of a few structures.

Where only the lungs are known the rest follows by geometry (methods of arXiv 2506.10633 are not
public; these rules are our own choice). With a lung's height from its highest to its lowest pixel:

* upper, mid, lower zone: thirds of the height; apex: the highest 15 %; base: the lowest 20 %;
* costophrenic angle: the lateral quarter of the lung's width within the base;
* hilum: a disc of radius 12 % of the height, half-way down, at the lung's medial edge there;
* hemidiaphragm: the band of 5 % of the height on either side of the lung's lower border;
* mediastinum: what lies between the lungs, down to half-way from their domes to their lower ends;
* heart: the mediastinum in the lower half of the lungs' height.

A structure that is known by itself wins over its rule. Sides are the patient's: *left* is the right
side of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cxrg.errors import ImageError
from cxrg.geometry import Mask

Structures = Mapping[str, Mask]
"""Boolean masks (H, W) by name; at least ``left lung`` and ``right lung``."""

SIDES = ("left", "right")
_PAIRED = (
    "lung",
    "upper zone",
    "mid zone",
    "lower zone",
    "apex",
    "lung base",
    "hilum",
    "costophrenic angle",
)
LOCATIONS: tuple[str, ...] = (
    *(f"{side} {part}" for part in _PAIRED for side in SIDES),
    "heart",
    "mediastinum",
    "left hemidiaphragm",
    "right hemidiaphragm",
)
"""The twenty locations in the order of :func:`locate`'s first axis."""

ZONE_PARTS = {
    "upper": "upper zone",
    "mid": "mid zone",
    "lower": "lower zone",
    "apical": "apex",
    "basal": "lung base",
    "costophrenic angle": "costophrenic angle",
}
"""A zone as phrases say it, and the location that it names on a side."""

_BANDS = {
    "upper zone": (0.0, 1 / 3),
    "mid zone": (1 / 3, 2 / 3),
    "lower zone": (2 / 3, 1.0),
    "apex": (0.0, 0.15),
    "lung base": (0.8, 1.0),
}
_LATERAL = 0.25
_HILUM = 0.12
_BORDER = 0.05


def locate(known: Structures) -> NDArray[np.float32]:
    """Masks ``(20, H, W)`` in [0, 1] of :data:`LOCATIONS`, in pixels of the structures' masks.

    Raises:
        ImageError: a lung is missing or empty.
    """
    for side in SIDES:
        if f"{side} lung" not in known or not known[f"{side} lung"].any():
            raise ImageError(f"no {side} lung is outlined; give a frontal X-ray, or own --masks")
    found = _by_rules(known) | dict(known)
    return np.stack([found[name] for name in LOCATIONS]).astype(np.float32)


def _by_rules(known: Structures) -> dict[str, Mask]:
    found: dict[str, Mask] = {}
    for side in SIDES:
        lung = known[f"{side} lung"]
        found |= {f"{side} {part}": mask for part, mask in _parts(lung, side).items()}
    left, right = known["left lung"], known["right lung"]
    middle = known.get("mediastinum", between(left, right))
    rows = np.flatnonzero((left | right).any(1))
    lower = np.arange(len(left))[:, None] >= (rows[0] + rows[-1] + 1) / 2
    return found | {"mediastinum": middle, "heart": middle & lower}


def _parts(lung: Mask, side: str) -> dict[str, Mask]:
    """The parts of one lung; ``out`` is 0 at its medial border and 1 at the chest wall."""
    ys, xs = np.flatnonzero(lung.any(1)), np.flatnonzero(lung.any(0))
    height, width = len(range(ys[0], ys[-1] + 1)), len(range(xs[0], xs[-1] + 1))
    row = np.arange(lung.shape[0])[:, None]
    column = np.arange(lung.shape[1])[None, :]
    down = (row + 0.5 - ys[0]) / height
    across = (column + 0.5 - xs[0]) / width
    out = across if side == "left" else 1 - across
    parts = {name: lung & (down >= a) & (down < b) for name, (a, b) in _BANDS.items()}
    parts["lung"] = lung
    parts["costophrenic angle"] = parts["lung base"] & (out >= 1 - _LATERAL)
    y, x = ys[0] + height / 2, _medial_edge(parts["mid zone"], side)
    parts["hilum"] = (row + 0.5 - y) ** 2 + (column + 0.5 - x) ** 2 < (_HILUM * height) ** 2
    lowest = len(lung) - np.argmax(lung[::-1], axis=0)
    near = np.abs(row + 0.5 - lowest[None, :]) <= max(_BORDER * height, 1)
    parts["hemidiaphragm"] = near & lung.any(0, keepdims=True) & (down > 0.6)
    return parts


def _medial_edge(zone: Mask, side: str) -> float:
    """Where the medial border runs, as a column: the median over a zone's rows."""
    rows = zone[zone.any(1)]
    if not len(rows):
        return float(zone.shape[1]) / 2
    edges = rows.argmax(1) if side == "left" else zone.shape[1] - rows[:, ::-1].argmax(1)
    return float(np.median(edges))


def between(left: Mask, right: Mask) -> Mask:
    """The pixels between two lungs, from the higher apex to half-way from domes to sulci.

    Below its dome a lung shows only the costophrenic sulcus, far from the heart, so its medial
    border goes straight on from there; so it does in rows without that lung.
    """
    columns = np.arange(left.shape[1])[None, :]
    domes = _dome(left), _dome(right)
    to_left = _carried(left.argmax(1), np.asarray(left.any(1)), domes[0])
    from_right = _carried(
        left.shape[1] - right[:, ::-1].argmax(1), np.asarray(right.any(1)), domes[1]
    )
    gap = (columns >= from_right[:, None]) & (columns < to_left[:, None])
    rows = np.flatnonzero((left | right).any(1))
    row = np.arange(len(left))[:, None]
    return np.asarray(gap & (row >= rows[0]) & (row < (max(domes) + rows[-1] + 1) / 2))


def _dome(lung: Mask) -> int:
    """One past the row of the dome: where the middle half of a lung's columns ends, in median."""
    xs = np.flatnonzero(lung.any(0))
    quarter = len(xs) // 4
    middle = lung[:, xs[quarter : len(xs) - quarter]]
    return int(np.median(len(lung) - middle[::-1].argmax(0)))


def _carried(edge: NDArray[np.intp], seen: Mask, dome: int) -> NDArray[np.intp]:
    """An edge per row; rows without one, and those below the dome, take that of the row above."""
    first = int(np.argmax(seen))
    seen = seen & (np.arange(len(seen)) < max(dome, first + 1))
    source = np.maximum.accumulate(np.where(seen, np.arange(len(seen)), first))
    return np.asarray(edge[source])
