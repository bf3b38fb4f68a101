"""What a category is and how phrases name its place: groups, sides and zones.

Report findings, anatomy and devices are reported apart, because anatomy is found by its place
alone. Which label means what is data, in ``findings.toml`` and ``places.toml``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cxrg.chest.findings import labelled
from cxrg.chest.lung import LUNG_BOTTOM, LUNG_TOP, NAMED_SHARE, THIRDS
from cxrg.chest.names import SIDES, plain
from cxrg.chest.places import labelled_places
from cxrg.geometry import Box

GROUPS = ("finding", "anatomy", "device")


def _look_up(category: str) -> tuple[str, str]:
    """Group and place; a name that is no label is a finding of the lung."""
    name = plain(category)
    if name in labelled_places():
        return "anatomy", "none"
    found = labelled().get(name)
    return ("finding", "lung") if found is None else (found.group, found.phrase_place)


def group_of(category: str) -> str:
    """``finding``, ``anatomy`` or ``device``."""
    return _look_up(category)[0]


def place_of(category: str) -> str:
    """The place that a phrase made for a category names: ``lung``, ``side`` or ``none``."""
    return _look_up(category)[1]


def named_side(phrase: str) -> str | None:
    """The one side that a phrase names: left, right, or None for both, neither or bilateral."""
    words: set[str] = set(re.findall(r"[a-z]+", phrase.lower()))
    sides = words.intersection(SIDES)
    if words & {"bilateral", "bilaterally", "both"} or len(sides) != 1:
        return None
    return sides.pop()


def place(boxes: Sequence[Box], size: tuple[float, float]) -> tuple[str | None, str | None]:
    """Side and zone of boxes in an image of ``size`` (H, W), or None where it isn't clear.

    A box belongs to a side when at least three quarters of its width lie in that half and its
    centre is more than 4 % of the width from the middle. A zone is named when at least 70 % of the
    height of every box lies in the same third of a typical lung. Sides are the patient's: *left* is
    the right half of the picture.
    """
    height, width = size
    sides = {_side(box, width) for box in boxes}
    zones = {_zone(box, height) for box in boxes}
    side = None
    if len(sides) == 1:
        side = sides.pop()
    elif sides == {"left", "right"}:
        side = "bilateral"
    return side, next(iter(zones)) if len(zones) == 1 else None


def _side(box: Box, width: float) -> str | None:
    middle = width / 2
    if box.width <= 0 or abs((box.x0 + box.x1) / 2 - middle) <= 0.04 * width:
        return None
    on_right_half = (max(box.x1, middle) - max(box.x0, middle)) / box.width
    if on_right_half >= 0.75:
        return "left"
    return "right" if on_right_half <= 0.25 else None


def _zone(box: Box, height: float) -> str | None:
    third = (LUNG_BOTTOM - LUNG_TOP) / 3
    cuts = (0.0, (LUNG_TOP + third) * height, (LUNG_TOP + 2 * third) * height, height)
    for zone, low, high in zip(THIRDS, cuts, cuts[1:], strict=False):
        shared = min(box.y1, high) - max(box.y0, low)
        if box.height > 0 and shared >= NAMED_SHARE * box.height:
            return zone
    return None


def location(category: str, side: str | None, zone: str | None) -> str:
    """The place as it stands before a finding: "left lower lung", "left", or nothing."""
    how = place_of(category)
    if how == "none" or side is None:
        return ""
    if how == "side":
        return side
    # "left lung" and "lung opacity" share their lung.
    lung = None if category.lower().startswith("lung") else "lung"
    return " ".join(word for word in (side, zone, lung) if word)


def make_phrase(template: str, category: str, side: str | None, zone: str | None) -> str:
    """A template with {location}, {finding}, {side} and {zone} filled in, blanks tidied."""
    filled = template.format(
        location=location(category, side, zone),
        finding=category.replace("_", " ").lower(),
        side=side or "",
        zone=zone or "",
    )
    return " ".join(filled.split())
