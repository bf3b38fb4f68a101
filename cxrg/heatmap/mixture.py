"""A heatmap cut by a two-component Gaussian mixture.

Nützel, Dombrowski, Kainz, *Generate to Ground* (arXiv 2507.12236), as released: the map at 64 x 64
values, threshold midway between the two component means, single pixels removed, enlarged
bilinearly. It is a mask of option ``mask`` and of the metrics' family B.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

GRID = 64


def mixture_mask(heat: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The mask (S, S) of a heatmap (S, S) without blanks."""
    small = shrink(heat, GRID)
    return enlarge(cut(small, np.ones_like(small, dtype=bool)), len(heat))


def mask_of_seen(
    heatmap: NDArray[np.floating], *, outside: Literal["exclude", "zero"] = "exclude"
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The mask at 512 of a heatmap (H, W) with blanks, and which of its pixels count.

    Blanks are left out of the mixture and do not count (``exclude``), or have the value 0.
    """
    blank = np.isnan(heatmap)
    filled = np.where(blank, 0, heatmap).astype(np.float32)
    weight = shrink((~blank).astype(np.float32), GRID)
    small = np.divide(shrink(filled, GRID), weight, out=np.zeros_like(weight), where=weight > 0)
    if outside == "zero":
        small, weight = shrink(filled, GRID), np.ones_like(weight)
    seen = weight > 0.5
    seen_512 = cv2.resize(seen.astype(np.uint8), (512, 512), interpolation=cv2.INTER_NEAREST)
    return enlarge(cut(small, seen), 512), seen_512.astype(bool)


def cut(small: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask of pixels above the threshold, less single pixels; both arrays and the result (64, 64).

    A mixture of two Gaussians is fitted to the seen pixels; the threshold is midway between the two
    means; interior pixels stay where at least half of their 3 x 3 neighbourhood is set.
    """
    above = (small > mixture_threshold(small[seen])) & seen if seen.any() else seen
    smooth = cv2.blur(above.astype(np.float32), (3, 3)) >= 0.5
    smooth[[0, -1], :], smooth[:, [0, -1]] = above[[0, -1], :], above[:, [0, -1]]
    return smooth


def enlarge(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """A mask at ``(side, side)``, bilinearly and rounded."""
    large = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large > 0.5)


def mixture_threshold(values: NDArray[np.floating]) -> float:
    """Midpoint of the means of a two-component Gaussian mixture fitted to values by EM.

    Starts from two-means clustering begun at the extremes, so it needs no seed; tolerance, ridge
    and limit on iterations are scikit-learn's. A constant set has its own value as threshold.
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    # Resizing a constant map leaves rounding dust.
    if np.ptp(x) < 1e-6:
        return float(x.max())
    share = _two_means(x)
    bound = -np.inf
    for _ in range(100):
        count = share.sum(axis=1) + 10 * np.finfo(float).eps
        mean = share @ x / count
        variance = np.sum(share * (x - mean[:, None]) ** 2, axis=1) / count + 1e-6
        log_p = np.log(count / x.size)[:, None] - 0.5 * (
            np.log(2 * np.pi * variance)[:, None] + (x - mean[:, None]) ** 2 / variance[:, None]
        )
        total = np.logaddexp(log_p[0], log_p[1])
        share = np.exp(log_p - total)
        before, bound = bound, float(total.mean())
        if abs(bound - before) < 1e-3:
            break
    return float(mean.mean())


def _two_means(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hard assignment (2, n) of values to two means, begun at the extremes (Lloyd)."""
    middle = (x.min() + x.max()) / 2
    for _ in range(100):
        upper = x > middle
        moved = (x[upper].mean() + x[~upper].mean()) / 2
        if moved == middle:
            break
        middle = moved
    return np.stack([~upper, upper]).astype(np.float64)


def shrink(array: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Bring an array without blanks to ``(side, side)``: area means, bilinear where it grows."""
    height, width = array.shape
    how = cv2.INTER_AREA if min(height, width) >= side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(array, (side, side), interpolation=how), dtype=np.float32)
