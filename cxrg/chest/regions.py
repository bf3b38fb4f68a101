"""Named anatomical regions, by geometry, from a few primary masks.

The parts of each lung are those of :mod:`cxrg.chest.lung`; here are the structures between them.
Sides are the patient's, so *left* is the right side of the picture.
"""

from __future__ import annotations

import numpy as np

from cxrg.chest.lung import extent, parts_of
from cxrg.geometry import Mask


def regions(primary: dict[str, Mask]) -> dict[str, Mask]:
    """All named regions that follow from ``right lung`` and ``left lung`` (and the rest kept).

    Keys are ``"{side} {zone}"`` for the zones above, ``"{side} perihilar"``,
    ``"{side} costophrenic angle"``, ``"{side} hemidiaphragm"``, ``"retrocardiac"``, ``"lungs"``.
    """
    right, left = primary["right lung"], primary["left lung"]
    found = {name: _named_part(name, mask, right | left) for name, mask in primary.items()}
    found["lungs"] = right | left
    for side, lung in (("right", right), ("left", left)):
        found |= {f"{side} {name}": mask for name, mask in parts_of(lung, side).items()}
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
