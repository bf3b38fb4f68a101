"""Where a box lies, in words: a lung and its zones, or a place beside the lungs."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cxrg.chest.codes import Code
from cxrg.chest.lung import THIRDS, ZONES, extent
from cxrg.chest.names import SIDES
from cxrg.chest.places import Structures, entries
from cxrg.geometry import Box

_IN_LUNGS = 0.2
"""Least share of a box that lung fills where it is named after a lung."""
_BETWEEN = 0.4
"""Share of a box between the lungs from which on it is in the mediastinum."""
_BOTH = 0.25
"""Least share of the smaller side where a box is in both lungs."""
_ZONE = 0.25
"""Least share of a box's part of the lung that a zone must have to be named."""
_MIDDLE = 0.05
"""Half-width of the strip in the middle of the picture that is neither side."""


def in_lungs(box: Box, structures: Structures) -> str:
    """Where a box lies by the lungs, such as ``left lower zone`` or ``mediastinum``.

    Zones are thirds of the lung's own height. A box beside the lungs is named after the nearer
    side: ``above the left lung``, ``below`` or ``beside`` it.

    Args:
        box: in pixels of the masks.
        structures: outlines of both lungs.
    """
    lungs = {side: structures[f"{side} lung"] for side in SIDES}
    inside = _window(box, lungs["left"].shape)
    held = {side: float(lungs[side][inside].sum()) for side in SIDES}
    area = float(lungs["left"][inside].size)
    if _between(lungs)[inside].sum() >= _BETWEEN * area:
        return "mediastinum"
    total = sum(held.values())
    if total < _IN_LUNGS * area:
        return _beside(box, lungs)
    if min(held.values()) >= _BOTH * total:
        return "both lungs"
    side = max(held, key=held.__getitem__)
    return f"{side} {_zones(lungs[side], inside)}"


def in_picture(box: Box, size: tuple[int, int]) -> str:
    """Side and third of the picture of a box's centre, such as ``left side, lower third``.

    For images whose lungs are not known. Left and right are the patient's: in a frontal radiograph
    as hung, the patient's left is the right side of the picture.

    Args:
        box: a box in source pixels.
        size: height and width of the source.
    """
    height, width = size
    x = (box.x0 + box.x1) / 2 / width
    y = (box.y0 + box.y1) / 2 / height
    # A box across the midline that reaches well into both halves is on neither side.
    across = box.x0 < 0.35 * width and box.x1 > 0.65 * width
    if across:
        side = "both sides"
    elif abs(x - 0.5) <= _MIDDLE:
        side = "midline"
    else:
        side = "right side" if x < 0.5 else "left side"
    third = "upper" if y < 1 / 3 else "middle" if y < 2 / 3 else "lower"
    return f"{side}, {third} third"


def side_of(place: str) -> Literal["left", "right", "both"] | None:
    """The patient's side that the words for a place name; None in the middle."""
    words = set(place.replace(",", "").split())
    if "both" in words or words.issuperset(SIDES):
        return "both"
    return "left" if "left" in words else "right" if "right" in words else None


def codes_of(place: str) -> tuple[Code, ...]:
    """Return the codes of a place that `in_lungs` names; none for a place beside the lungs."""
    words = place.replace("lungs", "lung").split()
    if words == ["mediastinum"]:
        concepts = ["mediastinum"]
    elif words[-1] in ("zone", "zones"):
        concepts = [f"{zone} zone" for zone in THIRDS if zone in words]
    else:
        concepts = ["lung"] if len(words) == 2 and words[-1] == "lung" else []
    return tuple(code for each in concepts if (code := entries()[each].code))


def _window(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a box, at least one of each, inside the masks."""
    height, width = shape
    y0, x0 = min(max(int(box.y0), 0), height - 1), min(max(int(box.x0), 0), width - 1)
    y1, x1 = min(int(np.ceil(box.y1)), height), min(int(np.ceil(box.x1)), width)
    return slice(y0, max(y1, y0 + 1)), slice(x0, max(x1, x0 + 1))


def _between(lungs: dict[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """The pixels between both lungs, row by row."""
    right, left = lungs["right"], lungs["left"]
    beyond_right = np.cumsum(right[:, ::-1], axis=1)[:, ::-1] == 0  # no right lung further on
    before_left = np.cumsum(left, axis=1) == 0
    both = (right.any(axis=1) & left.any(axis=1)).reshape(-1, 1)
    return np.asarray(beyond_right & before_left & both)


def _zones(lung: NDArray[np.bool_], inside: tuple[slice, slice]) -> str:
    """The zones of a lung in which a box's part of it lies."""
    bounds = extent(lung)
    assert bounds is not None  # part of the lung is in the box
    _, top, _, bottom = bounds
    rows = np.flatnonzero(lung[inside].any(1)) + inside[0].start
    weights = lung[inside][rows - inside[0].start].sum(1)
    down = (rows + 0.5 - top) / (bottom - top)
    shares = {
        zone: weights[(down >= ZONES[zone][0]) & (down < ZONES[zone][1])].sum() / weights.sum()
        for zone in THIRDS
    }
    named = [zone for zone in THIRDS if shares[zone] >= _ZONE]
    if len(named) == len(THIRDS):
        return "lung"
    return " and ".join(named) + (" zones" if len(named) > 1 else " zone")


def _beside(box: Box, lungs: dict[str, NDArray[np.bool_]]) -> str:
    """A place outside the lungs, by the nearer of them."""
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    middle = np.mean([np.nonzero(lungs[side])[1].mean() for side in SIDES])
    side = "right" if x < middle else "left"
    bounds = extent(lungs[side])
    assert bounds is not None  # lungs are found or there are none
    _, top, _, bottom = bounds
    if y < top:
        return f"above the {side} lung"
    columns = np.flatnonzero(lungs[side].any(0))
    column = int(np.clip(x, columns[0], columns[-1]))
    lowest = np.flatnonzero(lungs[side][:, column])
    if y >= (lowest[-1] if lowest.size else bottom):
        return f"below the {side} lung"
    return f"beside the {side} lung"
