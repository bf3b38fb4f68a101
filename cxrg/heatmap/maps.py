"""From attention maps to a heatmap. Pure functions on arrays.

As published (arXiv 2404.12920, released code): each layer's map at each step is scaled to [0, 1],
brought to image size bilinearly, all are averaged, smoothed by a Gaussian and scaled to [0, 1].
Resizing is linear, so the maps of one layer are averaged first and resized once.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.geometry import Box
from cxrg.options import Enlarge

Heat = NDArray[np.float32]


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


def smooth(heat: Heat, sigma: float) -> Heat:
    """Gaussian smoothing, ``sigma`` in pixels, reflected at the border, cut at 4 sigma."""
    if sigma == 0:
        return heat
    size = 2 * int(4 * sigma + 0.5) + 1
    blurred = cv2.GaussianBlur(heat, (size, size), sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, dtype=np.float32)


def confine(heat: Heat, seen: Box) -> Heat:
    """Set the square's margins, outside the image, to the smallest value inside."""
    rows = slice(round(seen.y0), max(round(seen.y1), round(seen.y0) + 1))
    columns = slice(round(seen.x0), max(round(seen.x1), round(seen.x0) + 1))
    confined = np.full_like(heat, heat[rows, columns].min())
    confined[rows, columns] = heat[rows, columns]
    return confined
