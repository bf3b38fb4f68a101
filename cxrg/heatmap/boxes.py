"""From a heatmap to boxes: connected regions above a threshold, with scores."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.geometry import Box, Frame, Mask
from cxrg.heatmap.maps import Heat
from cxrg.heatmap.mixture import mixture_mask
from cxrg.heatmap.presence import peak
from cxrg.heatmap.threshold import otsu
from cxrg.options import Options, quantile_of

REGION_TOP = 0.1  # a region's score is the mean of its highest tenth, not one pixel's value


def level(heat: Heat, threshold: str | float) -> float:
    """The number that a threshold stands for on a map: ``otsu``, ``quantile:q`` or a number."""
    if isinstance(threshold, str):
        q = quantile_of(threshold)
        return otsu(heat) if q is None else float(np.quantile(heat, q))
    return float(threshold)


def boxes_from_heatmap(
    heat: Heat, *, threshold: str | float = "otsu", min_area: float = 0.0
) -> tuple[Box, ...]:
    """Boxes around the connected regions above a threshold, the highest score first.

    Args:
        heat: ``(S, S)`` in [0, 1], background not suppressed.
        threshold: ``otsu``, ``quantile:q`` or a number; a region is strictly above it. With
            ``mixture`` all of the mixture's mask is one region, as in arXiv 2507.12236.
        min_area: the smallest region kept, a fraction of ``S * S``.

    Returns:
        Half-open boxes in pixels of the square. A score is the mean of the highest tenth of the
        region's values.
    """
    inside = region_mask(heat, threshold)
    return boxes_of_regions(heat, inside, whole=threshold == "mixture", min_area=min_area)


def boxes_of_regions(
    heat: Heat, inside: Mask, *, whole: bool, min_area: float = 0.0
) -> tuple[Box, ...]:
    """Boxes of `boxes_from_heatmap` where its regions are known.

    Args:
        heat: ``(S, S)`` in [0, 1], background not suppressed.
        inside: the regions, as `region_mask` gives them.
        whole: whether they are one region, not as many as are connected.
        min_area: the smallest region kept, a fraction of ``S * S``.
    """
    labels, regions = _regions(inside, whole=whole)
    boxes = []
    for label, region in enumerate(regions, start=1):
        x, y, width, height, area = (int(value) for value in region)
        if area >= min_area * heat.size:
            score = peak(heat[labels == label], REGION_TOP)
            boxes.append(Box(x, y, x + width, y + height, min(max(score, 0.0), 1.0)))
    return tuple(sorted(boxes, key=lambda box: (-(box.score or 0.0), box.y0, box.x0)))


def boxes_above(
    heat: Heat, score: float, frame: Frame, options: Options, *, least: float | None
) -> tuple[tuple[Box, ...], Mask]:
    """The boxes that the options draw, in source pixels, and the regions above the threshold.

    Args:
        heat: ``(S, S)`` in [0, 1], background not suppressed.
        score: how strongly the phrase is present.
        least: the score below which there are no boxes.
        frame: where the image is on the square.
        options: all knobs.
    """
    inside = region_mask(heat, options.threshold)
    if least is not None and score < least:
        return (), inside
    whole = options.threshold == "mixture"
    found = boxes_of_regions(heat, inside, whole=whole, min_area=options.min_area)
    return tuple(box for each in found if (box := frame.to_source(each))), inside


def region_mask(heat: Heat, threshold: str | float) -> Mask:
    """The pixels of a map that boxes enclose; ``threshold`` as for `boxes_from_heatmap`."""
    if threshold == "mixture":
        return mixture_mask(heat)
    return np.asarray(heat > level(heat, threshold))


def _regions(inside: Mask, *, whole: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Every pixel's label, from 1, and of each region x, y, w, h and area."""
    mask = inside.astype(np.uint8)
    if whole:
        box = [[*cv2.boundingRect(mask), mask.sum()]] if mask.any() else []
        return mask.astype(np.int32), np.array(box, np.int32)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return np.asarray(labels, np.int32), np.asarray(stats[1:], np.int32)
