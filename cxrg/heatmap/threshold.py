"""Which part of a heatmap is background: Otsu's threshold, and what is done below it.

As published (arXiv 2404.12920, released code), what is not above Otsu's threshold (Otsu 1979) is
set to 0.
"""

from __future__ import annotations

import numpy as np

from cxrg.heatmap.maps import Heat
from cxrg.heatmap.mixture import mixture_mask
from cxrg.options import Mask

OTSU_BINS = 256

FADE_ORDER = 8


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
    """A heatmap whose background is treated by option ``mask``."""
    if mask == "none":
        return heat
    if mask == "mixture":
        return np.where(mixture_mask(heat), heat, np.float32(0))
    return suppress(heat) if mask == "otsu" else fade(heat)
