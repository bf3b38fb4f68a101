"""From attention maps to a heatmap, and from a heatmap to boxes. Pure functions on arrays.

As published (arXiv 2404.12920, released code): each layer's map at each step is scaled to [0, 1],
brought to image size bilinearly, all are averaged, smoothed by a Gaussian, scaled to [0, 1], and
what is not above Otsu's threshold (Otsu 1979) is set to 0. Resizing is linear, so the maps of one
layer are averaged first and resized once.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.geometry import Box
from cxrg.mixture import mixture_mask
from cxrg.options import Enlarge, Mask, quantile_of

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


def aggregate(
    layers: Mapping[str, Heat], side: int, *, how: Enlarge = "bilinear", normalise: bool = False
) -> Heat:
    """One map ``(side, side)``: the mean over layers and steps, at image size.

    Args:
        layers: a phrase's attention, ``(T, h, w)`` per layer.
        side: of the result, such as the pixels of the model's square.
        how: see `enlarge`.
        normalise: scale every layer and step to [0, 1] first; else probabilities are kept.
    """
    means = [(scale(layer) if normalise else layer).mean(axis=0) for layer in layers.values()]
    return np.asarray(np.mean([enlarge(mean, side, how) for mean in means], axis=0), np.float32)


def enlarge(heat: Heat, side: int, how: Enlarge) -> Heat:
    """A map at ``(side, side)``: ``bilinear`` between positions, ``nearest`` repeats them."""
    between = cv2.INTER_LINEAR if how == "bilinear" else cv2.INTER_NEAREST
    return cv2.resize(heat, (side, side), interpolation=between).astype(np.float32)


def compete(chosen: Heat, span: Heat) -> Heat:
    """The chosen tokens' share of all that the phrase's tokens get (DAAM, Tang et al., ACL 2023).

    ``M_k / (sum of M over real tokens + 1e-6)``, with start and padding left out: what all tokens
    have in common goes. Where all tokens are chosen, the share is the same everywhere.

    Args:
        chosen: mean or sum of the chosen tokens' maps.
        span: sum of the maps of the phrase's own tokens.
    """
    return chosen / (span + np.float32(1e-6))


def geometric_mean(finding: Heat, location: Heat, alpha: float) -> Heat:
    """Where finding and location are both looked for: ``finding^alpha location^(1 - alpha)``.

    Own choice, after arXiv 2506.10633. Of two maps in [0, 1] it is one in [0, 1], 0 where either
    is; with ``alpha`` 1 or 0 it is the finding's or the location's map itself.
    """
    return np.asarray(finding**alpha * location ** (1 - alpha), np.float32)


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
    with np.errstate(divide="ignore", over="ignore"):  # 0 becomes infinite, and 0 again
        faint = (np.float32(threshold) / heat) ** FADE_ORDER
    # Every step rounds without changing the order.
    return np.asarray(np.float32(1 + (threshold / top) ** FADE_ORDER) / (1 + faint), np.float32)


def mask_background(heat: Heat, mask: Mask) -> Heat:
    """A heatmap with its background as option ``mask`` says."""
    if mask == "none":
        return heat
    if mask == "mixture":
        return np.where(mixture_mask(heat), heat, np.float32(0))
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
        threshold: ``otsu``, ``quantile:q`` or a number; a region lies strictly above it. With
            ``mixture`` all of the mixture's mask is one region, as in arXiv 2507.12236.
        min_area: the smallest region kept, a fraction of ``S * S``.

    Returns:
        Half-open boxes in pixels of the square. A score is the mean of the highest tenth of the
        region's values.
    """
    labels, regions = _regions(heat, threshold)
    boxes = []
    for label, region in enumerate(regions, start=1):
        x, y, width, height, area = (int(value) for value in region)
        if area >= min_area * heat.size:
            score = peak(heat[labels == label], REGION_TOP)
            boxes.append(Box(x, y, x + width, y + height, min(max(score, 0.0), 1.0)))
    return tuple(sorted(boxes, key=lambda box: (-(box.score or 0.0), box.y0, box.x0)))


def _regions(heat: Heat, threshold: str | float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """What boxes enclose: every pixel's label, from 1, and of each region x, y, w, h and area."""
    if threshold == "mixture":
        mask = mixture_mask(heat).astype(np.uint8)
        whole = [[*cv2.boundingRect(mask), mask.sum()]] if mask.any() else []
        return mask.astype(np.int32), np.array(whole, np.int32)
    above = (heat > level(heat, threshold)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    return np.asarray(labels, np.int32), np.asarray(stats[1:], np.int32)
