"""The parts of a lung by geometry: the one set of rules for phantoms and real images.

Heights are shares of the lung's own height, from its top; widths are shares of its own width, from
its medial border. The zones are thirds, the apex is the top 18 %, the base the bottom 25 %, the
costophrenic angle the lateral third of the bottom 22 %. The hilum is a disc around the medial
border as it runs at the hilum's height, beside the great vessels; the hemidiaphragm is a band along
the lower border.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxrg.geometry import Mask

ZONES = {
    "upper": (0.0, 1 / 3),
    "mid": (1 / 3, 2 / 3),
    "lower": (2 / 3, 1.0),
    "apical": (0.0, 0.18),
    "basal": (0.75, 1.0),
}
THIRDS = ("upper", "mid", "lower")
NAMED_SHARE = 0.7
"""A finding is named after the third that holds at least this share of it."""
LUNG_TOP, LUNG_BOTTOM = 0.12, 0.86
"""Typical extent of the lungs on a frontal film, in shares of its height."""

_ANGLE_TOP, _ANGLE_OUT = 0.78, 0.66
_HILUM_DOWN, _HILUM_REACH, _HILUM_RADIUS = 0.46, 0.06, 0.13
_PERIHILAR_DOWN = 0.48
_BORDER, _BORDER_TOP = 0.05, 0.6


def extent(mask: Mask) -> tuple[int, int, int, int] | None:
    """First and one-past-last column and row of a mask (x0, y0, x1, y1), or None if empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def outward(
    box: tuple[int, int, int, int], x: NDArray[np.floating | np.integer], side: str
) -> NDArray[np.floating]:
    """How far columns are from the medial border of a lung: 0 there, 1 at the chest wall."""
    x0, _, x1, _ = box
    return np.asarray((x - x0 if side == "left" else x1 - x) / (x1 - x0))


def parts_of(lung: Mask, side: str) -> dict[str, Mask]:
    """The parts of one lung by name, empty for an empty mask.

    Names are those of :data:`ZONES`, ``perihilar``, ``hilum``, ``costophrenic angle`` and
    ``hemidiaphragm``.
    """
    box = extent(lung)
    if box is None:
        return {}
    x0, y0, x1, y1 = box
    rows = np.arange(lung.shape[0])[:, None]
    columns = np.arange(lung.shape[1])[None, :]
    height, width = y1 - y0, x1 - x0
    down = (rows + 0.5 - y0) / height
    out = outward(box, columns + 0.5, side)
    parts = {name: lung & (down >= a) & (down < b) for name, (a, b) in ZONES.items()}
    medial = x0 if side == "left" else x1
    radius2 = (columns - medial) ** 2 + (rows - (y0 + _PERIHILAR_DOWN * height)) ** 2
    parts["perihilar"] = lung & (radius2 < (0.42 * width + 0.05 * height) ** 2)
    beside = lung & (np.abs(down - _HILUM_DOWN) <= _HILUM_REACH)
    border = _medial_border(beside, side) if beside.any() else medial
    across, below = columns + 0.5 - border, (down - _HILUM_DOWN) * height
    parts["hilum"] = across**2 + below**2 < (_HILUM_RADIUS * height) ** 2
    parts["costophrenic angle"] = lung & (down >= _ANGLE_TOP) & (out >= _ANGLE_OUT)
    parts["hemidiaphragm"] = _lower_border(lung, height) & (down > _BORDER_TOP)
    return parts


def _medial_border(band: Mask, side: str) -> float:
    """The column of the medial border of a band of a lung: the median over its rows."""
    rows = band[band.any(1)]
    inner = rows.argmax(1) if side == "left" else rows.shape[1] - rows[:, ::-1].argmax(1)
    return float(np.median(inner))


def _lower_border(lung: Mask, height: int) -> NDArray[np.bool_]:
    """A band along the lowest pixel of each of a lung's columns."""
    rows = np.arange(lung.shape[0])[:, None]
    reach = max(round(_BORDER * height), 1)
    lowest = lung.shape[0] - 1 - np.argmax(lung[::-1], axis=0)
    near = np.abs(rows - lowest[None, :]) <= reach
    return np.asarray(near & lung.any(axis=0, keepdims=True))
