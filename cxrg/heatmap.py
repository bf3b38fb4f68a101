"""From attention maps to a heatmap, and from a heatmap to boxes. Pure functions on arrays.

As published (arXiv 2404.12920, released code): each layer's map at each step is scaled to [0, 1],
brought to image size bilinearly, all are averaged, smoothed by a Gaussian, scaled to [0, 1], and
what is not above Otsu's threshold (Otsu 1979) is set to 0. Bilinear resizing is linear, so the
maps of one layer are averaged first and resized once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.geometry import Box
from cxrg.options import Mask, quantile_of

if TYPE_CHECKING:  # only a type: arrays need no torch
    from cxrg.attention import AttentionMaps

Heat = NDArray[np.float32]

OTSU_BINS = 256
FADE_ORDER = 8
# A region's score and the presence score are means over the highest values, not one pixel's.
REGION_TOP = 0.1
PRESENCE_TOP = 1 / 256  # one cell of a 16 x 16 attention map


def scale(heat: Heat) -> Heat:
    """Scale the last two axes to [0, 1]; constant maps become 0."""
    low = heat.min(axis=(-2, -1), keepdims=True)
    span = heat.max(axis=(-2, -1), keepdims=True) - low
    scaled: Heat = np.divide(heat - low, span, out=np.zeros_like(heat), where=span > 0)
    return scaled


def aggregate(maps: AttentionMaps, side: int, *, normalise: Literal["minmax", "none"]) -> Heat:
    """One map ``(side, side)``: the mean over layers and steps, at image size.

    Args:
        maps: a phrase's attention.
        side: pixels of the model's square.
        normalise: ``minmax`` scales every layer and step to [0, 1] first; ``none`` keeps
            probabilities.
    """
    means = [
        (scale(layer) if normalise == "minmax" else layer).mean(axis=0)
        for layer in maps.layers.values()
    ]
    resized = [
        cv2.resize(mean, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        for mean in means
    ]
    return np.asarray(np.mean(resized, axis=0), dtype=np.float32)


def smooth(heat: Heat, sigma: float) -> Heat:
    """Gaussian smoothing, ``sigma`` in pixels, reflected at the border, cut at 4 sigma."""
    if sigma == 0:
        return heat
    size = 2 * int(4 * sigma + 0.5) + 1
    blurred = cv2.GaussianBlur(heat, (size, size), sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, dtype=np.float32)


def confine(heat: Heat, seen: Box) -> Heat:
    """Set what lies outside the image, in the square's margins, to the smallest value inside."""
    rows = slice(round(seen.y0), max(round(seen.y1), round(seen.y0) + 1))
    columns = slice(round(seen.x0), max(round(seen.x1), round(seen.x0) + 1))
    confined = np.full_like(heat, heat[rows, columns].min())
    confined[rows, columns] = heat[rows, columns]
    return confined


def otsu(heat: Heat) -> float:
    """The threshold that separates two classes best (Otsu 1979): a bin's centre of 256 bins.

    The bins span the map's range; of equally good thresholds the lowest is taken. A constant map
    gives its own value, above which there is nothing.
    """
    low, high = float(heat.min()), float(heat.max())
    if low == high:
        return low
    counts, edges = np.histogram(heat, bins=OTSU_BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    mean_below, mean_above = sums[:-1] / below, (sums[-1] - sums[:-1]) / above
    between = below * above * (mean_below - mean_above) ** 2
    return float(centres[int(np.argmax(between))])


def suppress(heat: Heat) -> Heat:
    """Set the background to 0: what is not above Otsu's threshold. The rest stays graded."""
    return np.where(heat > otsu(heat), heat, np.float32(0))


def fade(heat: Heat) -> Heat:
    """Fade the background instead: ``h^8 / (h^8 + t^8)`` about Otsu's threshold ``t``, top at 1.

    A steep curve of our own choice (Hill's, 1910), in which order is kept: what ranks positions,
    such as the pointing game or the AUC, is as before.
    """
    threshold = otsu(heat)
    top = float(heat.max())
    if top <= 0 or threshold <= 0:
        return heat
    powers = (heat / np.float32(threshold)) ** FADE_ORDER
    highest = (top / threshold) ** FADE_ORDER
    return np.asarray(powers / (1 + powers) * (1 + highest) / highest, np.float32)


def mask_background(heat: Heat, mask: Mask) -> Heat:
    """A heatmap with its background as option ``mask`` says."""
    if mask == "none":
        return heat
    return suppress(heat) if mask == "otsu" else fade(heat)


def peak(values: Heat, top: float) -> float:
    """The mean of the highest values, ``top`` of them as a fraction and at least one."""
    flat = values.ravel()
    count = max(round(flat.size * top), 1)
    return float(np.partition(flat, flat.size - count)[-count:].mean())


def presence(heat: Heat) -> float:
    """How strongly a phrase is present: the robust peak of a map of probabilities."""
    return peak(heat, PRESENCE_TOP)


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
        threshold: ``otsu``, ``quantile:q`` or a number; a region lies strictly above it.
        min_area: the smallest region kept, a fraction of ``S * S``.

    Returns:
        Half-open boxes in pixels of the square. A score is the mean of the highest tenth of the
        region's values.
    """
    mask = (heat > level(heat, threshold)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    boxes = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        if area >= min_area * heat.size:
            score = peak(heat[labels == label], REGION_TOP)
            boxes.append(Box(x, y, x + width, y + height, min(max(score, 0.0), 1.0)))
    return tuple(sorted(boxes, key=lambda box: (-(box.score or 0.0), box.y0, box.x0)))
