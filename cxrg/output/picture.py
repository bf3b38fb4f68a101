"""The picture: the X-ray in its own grey, what the phrase drew attention to, boxes, and a legend.

The heatmap is drawn in viridis (S. van der Walt and N. Smith, matplotlib 2.0), which is
perceptually uniform and made for colour-blind readers too. The weaker it is, the more transparent,
so that the X-ray stays visible where the model saw nothing. Text uses the TrueType fonts built into
OpenCV 5, which hold Latin, Greek, Cyrillic and CJK letters.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.about import NOTICE
from cxrg.files import atomic_write

if TYPE_CHECKING:
    from cxrg.geometry import Box
    from cxrg.image.read import CxrImage
    from cxrg.result import Grounding

_LONGEST, _SHORTEST = 1600, 640  # the longest side of the drawn X-ray, at most and at least
_OPACITY = 0.62  # of the heatmap at full strength
_TITLE_LINES = 4

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

_GROUND: Colour = (20, 21, 24)
_TEXT: Colour = (238, 238, 238)
_DIM: Colour = (165, 167, 172)
_FOUND: Colour = (122, 209, 155)
_NOT_FOUND: Colour = (255, 176, 84)
_DARK: Colour = (12, 12, 14)

_PLAIN, _BOLD = 400, 600  # weights of the type


def write_picture(grounding: Grounding, image: CxrImage, path: Path) -> None:
    """Draw a grounding over its image and write it as PNG.

    Raises:
        CxrgError: the file cannot be written.
    """
    _, encoded = cv2.imencode(".png", cv2.cvtColor(render(grounding, image), cv2.COLOR_RGB2BGR))
    with atomic_write(path) as file:
        file.write(encoded.tobytes())


def render(grounding: Grounding, image: CxrImage) -> Pixels:
    """The picture as RGB, uint8 (H, W, 3).

    The X-ray is drawn in its physical aspect, at source resolution but at most 1600 and at least
    640 pixels on its longest side. Where the phrase was not found neither heatmap nor boxes are
    drawn: a normalised map always has a peak, and showing it would look like a finding.
    """
    frame = image.frame
    height, width = _drawn_size(frame.source, frame.crop.width / frame.crop.height)
    unit = max(14, round(width * 0.024))
    heatmap = grounding.heatmap
    if grounding.status != "found":
        panel = _xray(image.grey, np.where(np.isnan(heatmap), heatmap, 0), 1.0, (height, width))
        return _lay_out(panel, grounding, unit, top=None)
    top = _top(heatmap)
    panel = _xray(image.grey, heatmap, top, (height, width))
    scale = width / frame.source[1], height / frame.source[0]
    for number, box in enumerate(grounding.boxes, 1):
        _draw_box(panel, box, scale, number, unit)
    return _lay_out(panel, grounding, unit, top=top)


def _drawn_size(source: tuple[int, int], aspect: float) -> tuple[int, int]:
    """Height and width of the X-ray in the picture; ``aspect`` is a pixel's height over width."""
    height, width = source[0] * aspect, float(source[1])
    longest = max(height, width)
    factor = min(max(longest, _SHORTEST), _LONGEST) / longest
    return max(round(height * factor), 1), max(round(width * factor), 1)


def _top(heatmap: NDArray[np.float32]) -> float:
    """The value at the upper end of the colour bar: 1, or less for a map of small probabilities."""
    highest = float(np.nanmax(heatmap))
    return 1.0 if highest > 0.5 or highest <= 0 else highest


def _xray(
    grey: NDArray[np.float32], heatmap: NDArray[np.float32], top: float, size: tuple[int, int]
) -> Pixels:
    """The X-ray under its heatmap, uint8 (H, W, 3); darkened where the model never looked."""
    seen = _resize((~np.isnan(heatmap)).astype(np.float32), size) > 0.5
    strength = _bytes(_resize(np.nan_to_num(heatmap), size) / np.float32(top))
    base = _resize(grey, size)
    base[~seen] *= 0.45
    # Blended in bytes and by tables: three times faster than in floats.
    ramp = np.linspace(0, _OPACITY, 256, dtype=np.float32)
    alpha: NDArray[np.float32] = ramp[:, None]
    shade = cv2.multiply(_bytes(base), cv2.LUT(strength, _bytes(1 - alpha)), scale=1 / 255)
    colours = np.rint(_palette() * alpha).astype(np.uint8)[None]
    grey_rgb, strength_rgb = (cv2.cvtColor(x, cv2.COLOR_GRAY2RGB) for x in (shade, strength))
    return np.asarray(cv2.add(grey_rgb, cv2.LUT(strength_rgb, colours)), dtype=np.uint8)


def _bytes(array: NDArray[np.float32]) -> Pixels:
    """Scale 0..1 to 0..255 and clip what is outside."""
    return np.asarray(cv2.convertScaleAbs(np.clip(array, 0, 1), alpha=255), dtype=np.uint8)


def _resize(array: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    shrinks = size[0] < array.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(array, (size[1], size[0]), interpolation=how)
    return np.asarray(resized, dtype=np.float32)


def _palette() -> Pixels:
    """Viridis as RGB, uint8 (256, 3)."""
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    table = cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return np.ascontiguousarray(table, dtype=np.uint8)


def _draw_box(panel: Pixels, box: Box, scale: tuple[float, float], number: int, unit: int) -> None:
    x0, x1 = round(box.x0 * scale[0]), round(box.x1 * scale[0]) - 1
    y0, y1 = round(box.y0 * scale[1]), round(box.y1 * scale[1]) - 1
    line = max(2, round(unit / 9))
    # A dark rim keeps the white line visible on bright bone.
    cv2.rectangle(panel, (x0, y0), (x1, y1), _DARK, line + 2 * max(1, line // 2), cv2.LINE_AA)
    cv2.rectangle(panel, (x0, y0), (x1, y1), _TEXT, line, cv2.LINE_AA)
    label = f"{number}" if box.score is None else f"{number}  {box.score:.2f}"
    small = round(unit * 0.8)
    wide, tall = text_width(label, small, _BOLD) + small, round(small * 1.5)
    left = min(max(x0 - line // 2, 0), max(panel.shape[1] - wide, 0))
    bottom = y0 if y0 >= tall else y0 + tall
    cv2.rectangle(panel, (left, bottom - tall), (left + wide, bottom), _TEXT, cv2.FILLED)
    write_text(panel, label, (left + small // 2, bottom - round(small * 0.42)), small, _DARK, _BOLD)


def _lay_out(panel: Pixels, grounding: Grounding, unit: int, *, top: float | None) -> Pixels:
    """Put the X-ray under title and status, beside the colour bar and above the notice."""
    height, width = panel.shape[:2]
    bar = 5 * unit if top is not None else unit
    inner = width + bar - unit
    big, leading = round(unit * 1.25), round(unit * 1.75)
    title = _wrap(" ".join(grounding.phrase.split()), big, inner)
    head = unit + leading * len(title) + round(unit * 2.3)
    canvas = np.full((head + height + round(2.6 * unit), unit + width + bar, 3), _GROUND, np.uint8)
    canvas[head : head + height, unit : unit + width] = panel
    for row, line in enumerate(title):
        write_text(canvas, line, (unit, unit + leading * row + big), big, _TEXT, _BOLD)
    baseline = unit + leading * len(title) + round(unit * 1.35)
    colour = _FOUND if grounding.status == "found" else _NOT_FOUND
    write_text(canvas, _status(grounding), (unit, baseline), unit, colour, _BOLD)
    if top is not None:
        _draw_bar(canvas, (2 * unit + width, head, height), top, unit)
    foot = head + height + round(1.5 * unit)
    small = round(unit * 0.85)
    write_text(canvas, NOTICE, (unit, foot), small, _DIM)
    made = f"{grounding.model.name}, preset {grounding.options.preset}"
    if np.isnan(grounding.heatmap).any():
        made += ", darkened where not seen"
    room = inner - text_width(NOTICE, small) - 2 * unit
    if text_width(made, small) <= room:
        write_text(canvas, made, (unit + width - text_width(made, small), foot), small, _DIM)
    return canvas


def _status(grounding: Grounding) -> str:
    if grounding.status != "found":
        return f"NOT FOUND · nothing is marked · score {grounding.score:.2f}"
    count = len(grounding.boxes)
    return f"found · {count} box{'' if count == 1 else 'es'} · score {grounding.score:.2f}"


def _draw_bar(canvas: Pixels, place: tuple[int, int, int], top: float, unit: int) -> None:
    """The colour bar with five ticks; ``place`` is its left edge, the panel's top and height."""
    left, head, height = place
    low, high = head + height - unit // 2, head + 2 * unit
    ramp = _palette()[np.linspace(255, 0, low - high).round().astype(np.uint8)]
    canvas[high:low, left : left + unit] = ramp[:, None, :]
    small = round(unit * 0.75)
    write_text(canvas, "attention", (left, head + unit), small, _DIM)
    for tick in np.linspace(0, 1, 5):
        y = round(low - 1 - tick * (low - 1 - high))
        cv2.line(canvas, (left + unit, y), (left + unit + unit // 3, y), _TEXT, 1)
        text = f"{tick * top:.2f}" if top >= 0.1 else f"{tick * top:.1e}"
        write_text(canvas, text, (left + round(unit * 1.5), y + small // 3), small, _TEXT)


def write_text(
    canvas: Pixels, text: str, at: tuple[int, int], size: int, colour: Colour, weight: int = _PLAIN
) -> None:
    """Write text of a size in pixels; ``at`` is the left end of its base line, x before y."""
    cv2.putText(canvas, text, at, colour, _font(), size, weight)


@cache
def _font() -> cv2.FontFace:
    return cv2.FontFace("sans")


def text_width(text: str, size: int, weight: int = _PLAIN) -> int:
    """Width in pixels."""
    return int(cv2.getTextSize((0, 0), text, (0, 0), _font(), size, weight)[2])


def _wrap(text: str, size: int, width: int) -> list[str]:
    """Break a title into lines that fit; what is beyond the last line becomes an ellipsis."""
    lines = [""]
    for word in _pieces(text, size, width):
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size, _BOLD) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
        if len(lines) > _TITLE_LINES:
            break
    if len(lines) > _TITLE_LINES:
        last = lines[_TITLE_LINES - 1]
        while text_width(last + " …", size, _BOLD) > width:
            last = last[:-1]
        lines = [*lines[: _TITLE_LINES - 1], last + " …"]
    return lines


def _pieces(text: str, size: int, width: int) -> Iterator[str]:
    """The words of a title; one that is wider than the picture is cut into parts that fit."""
    for word in text.split():
        start = 0
        for end in range(1, len(word) + 1):
            if text_width(word[start:end], size, _BOLD) > width:
                yield word[start : end - 1]
                start = end - 1
        yield word[start:]
