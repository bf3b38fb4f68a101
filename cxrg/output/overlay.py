"""An X-ray under its map: translucent colour, a contour at the threshold, numbered boxes.

The colours are viridis (S. van der Walt and N. Smith, matplotlib 2.0): perceptually uniform, made
for colour-blind readers too, and lighter all the way up, so that they survive a grey print. The
weaker the map, the more transparent it is, so that the finding stays visible under it. A contour
runs around what the boxes enclose. White lines have dark rims, to be seen on bone and on air.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.geometry import Box, Frame
from cxrg.output.text import BOLD, DARK, TEXT, Pixels, text_width, write_text

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.result import Grounding

OPACITY = 0.45
"""Of the map where it is highest."""
FAINT = 0.5
"""What is left of that where the phrase was not found."""
_UNSEEN = 0.45  # brightness of what the model did not see


def drawn_size(frame: Frame, *, least: int, most: int) -> tuple[int, int]:
    """Height and width of an X-ray in its physical aspect, its longest side within two limits."""
    height = frame.source[0] * frame.crop.width / frame.crop.height
    width = float(frame.source[1])
    longest = max(height, width)
    factor = min(max(longest, least), most) / longest
    return max(round(height * factor), 1), max(round(width * factor), 1)


def draw_xray(image: CxrImage, size: tuple[int, int]) -> Pixels:
    """The X-ray alone as RGB, uint8 (H, W, 3), at a height and width."""
    grey = _bytes(_resize(image.grey, size))
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)


def draw_overlay(grounding: Grounding, image: CxrImage, size: tuple[int, int], mark: int) -> Pixels:
    """The X-ray under the map of a phrase as RGB, uint8 (H, W, 3).

    Where the phrase was not found the map is fainter, without contour and boxes: a normalised map
    always has a peak, which must not look like a finding.

    Args:
        grounding: the result.
        image: the image that it was found in.
        size: height and width.
        mark: size of the boxes' numbers in pixels; lines are made to fit.
    """
    found = grounding.status in ("found", "uncalibrated")
    heatmap = grounding.heatmap
    if not looked_for(grounding):
        return draw_xray(image, size)
    top = top_of(heatmap)
    unseen = np.isnan(heatmap)
    base = _resize(image.grey, size)
    if unseen.any():
        heatmap = np.where(unseen, np.float32(0), heatmap)
        dark = _resize(unseen.astype(np.float32), size) >= 0.5
        base = np.where(dark, base * np.float32(_UNSEEN), base)
    strength = _resize(heatmap, size) / np.float32(top)
    panel = _blend(base, strength, OPACITY if found else OPACITY * FAINT)
    if found:
        if grounding.edge is not None:
            _draw_contour(panel, strength * top >= grounding.edge, mark)
        scale = size[1] / image.frame.source[1], size[0] / image.frame.source[0]
        for number, box in enumerate(grounding.boxes, 1):
            _draw_box(panel, box, scale, number, mark)
    return panel


def looked_for(grounding: Grounding) -> bool:
    """Whether there is a map: nothing is looked for where a phrase is unknown."""
    return not np.isnan(grounding.heatmap).all()


def top_of(heatmap: NDArray[np.float32]) -> float:
    """The value at the upper end of the colour bar: 1, or less for a map of small probabilities."""
    highest = float(np.nanmax(heatmap))
    return 1.0 if highest > 0.5 or highest <= 0 else highest


def _blend(grey: NDArray[np.float32], strength: NDArray[np.float32], opacity: float) -> Pixels:
    """The X-ray under a map of 0..1, uint8 (H, W, 3); ``opacity`` is that of the value 1."""
    # Blended in bytes and by tables: three times faster than in floats.
    levels = _bytes(strength)
    alpha: NDArray[np.float32] = np.linspace(0, opacity, 256, dtype=np.float32)[:, None]
    shade = cv2.multiply(_bytes(grey), cv2.LUT(levels, _bytes(1 - alpha)), scale=1 / 255)
    colours = np.rint(palette() * alpha).astype(np.uint8)[None]
    grey_rgb, strength_rgb = (cv2.cvtColor(x, cv2.COLOR_GRAY2RGB) for x in (shade, levels))
    return np.asarray(cv2.add(grey_rgb, cv2.LUT(strength_rgb, colours)), dtype=np.uint8)


def _bytes(array: NDArray[np.float32]) -> Pixels:
    """Scale 0..1 to 0..255 and clip what is outside."""
    return np.asarray(cv2.convertScaleAbs(np.clip(array, 0, 1), alpha=255), dtype=np.uint8)


def _resize(array: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    if array.shape == size:
        return array
    how = cv2.INTER_AREA if size[0] < array.shape[0] else cv2.INTER_LINEAR
    resized = cv2.resize(array, (size[1], size[0]), interpolation=how)
    return np.asarray(resized, dtype=np.float32)


@cache
def palette() -> Pixels:
    """Viridis as RGB, uint8 (256, 3)."""
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    table = cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return np.ascontiguousarray(table, dtype=np.uint8)


def _draw_contour(panel: Pixels, inside: NDArray[np.bool_], mark: int) -> None:
    """Draw the border of regions as a light line with a dark rim."""
    found, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    line = max(1, round(mark / 16))
    cv2.drawContours(panel, found, -1, DARK, 3 * line, cv2.LINE_AA)
    cv2.drawContours(panel, found, -1, TEXT, line, cv2.LINE_AA)


def _draw_box(panel: Pixels, box: Box, scale: tuple[float, float], number: int, mark: int) -> None:
    x0, x1 = round(box.x0 * scale[0]), round(box.x1 * scale[0]) - 1
    y0, y1 = round(box.y0 * scale[1]), round(box.y1 * scale[1]) - 1
    line = max(2, round(mark / 10))
    cv2.rectangle(panel, (x0, y0), (x1, y1), DARK, line + 2 * max(1, line // 2), cv2.LINE_AA)
    cv2.rectangle(panel, (x0, y0), (x1, y1), TEXT, line, cv2.LINE_AA)
    label = f"{number}"
    wide, tall = text_width(label, mark, BOLD) + mark, round(mark * 1.3)
    left = min(max(x0 - line // 2, 0), max(panel.shape[1] - wide, 0))
    bottom = y0 if y0 >= tall else y0 + tall
    cv2.rectangle(panel, (left, bottom - tall), (left + wide, bottom), TEXT, cv2.FILLED)
    write_text(panel, label, (left + mark // 2, bottom - round(mark * 0.3)), mark, DARK, BOLD)
