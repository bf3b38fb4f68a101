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

from cxrg.chest.lung import parts_of
from cxrg.chest.names import SIDES
from cxrg.errors import ImageError
from cxrg.geometry import Mask

Structures = Mapping[str, Mask]
"""Boolean masks (H, W) by name; at least ``left lung`` and ``right lung``."""

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

_ZONE_OF = {part: zone for zone, part in ZONE_PARTS.items()}

REGIONS = {
    f"{side} {part}": f"{side} {zone}" for zone, part in ZONE_PARTS.items() for side in SIDES
} | {"mediastinum": "heart and mediastinum"}
"""Locations that :func:`cxrg.chest.regions.regions` calls otherwise, by location."""


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
        parts = parts_of(lung, side)
        found |= {
            f"{side} {part}": parts[_ZONE_OF.get(part, part)]
            for part in (*_PAIRED, "hemidiaphragm")
            if part != "lung"
        }
    left, right = known["left lung"], known["right lung"]
    middle = known.get("mediastinum", between(left, right))
    rows = np.flatnonzero((left | right).any(1))
    lower = np.arange(len(left))[:, None] >= (rows[0] + rows[-1] + 1) / 2
    return found | {"mediastinum": middle, "heart": middle & lower}


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
