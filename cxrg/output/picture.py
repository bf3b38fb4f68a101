"""The picture: the X-ray as it is and, beside it, where the phrase drew attention.

The heatmap is drawn in viridis (S. van der Walt and N. Smith, matplotlib 2.0), which is
perceptually uniform and made for colour-blind readers too; its lightness rises all the way, so that
it survives a grey print. It is translucent, the weaker the more, so that the finding stays visible
under it. A contour runs around what the boxes enclose. Text uses the TrueType fonts built into
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

_LONGEST, _SHORTEST = 1130, 512  # the longest side of a drawn X-ray, at most and at least
_OPACITY = 0.45  # of the heatmap at full strength
_FAINT = 0.5  # of that, where the phrase was not found
_TITLE_LINES = 4
# A third of the size that OpenCV's default, run lengths, gives; as fast.
_COMPRESSION = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 3),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT),
)
_LISTED = 6  # boxes in the legend

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
    picture = cv2.cvtColor(render(grounding, image), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".png", picture, _COMPRESSION)
    with atomic_write(path) as file:
        file.write(encoded.tobytes())


def render(grounding: Grounding, image: CxrImage) -> Pixels:
    """The picture as RGB, uint8 (H, W, 3).

    On the left the X-ray as it is; on the right the same under the heatmap, with a contour and
    numbered boxes. Both are drawn in physical aspect, at source resolution but at most 1130 and at
    least 512 pixels on their longest side. Where the phrase was not found the heatmap is fainter,
    without contour and boxes: a normalised map always has a peak, which must not look like a
    finding.
    """
    frame = image.frame
    height, width = _drawn_size(frame.source, frame.crop.width / frame.crop.height)
    unit = max(12, round(width * 0.038))
    found = grounding.status == "found"
    refused = bool(np.isnan(grounding.heatmap).all())
    heatmap = np.zeros_like(grounding.heatmap) if refused else grounding.heatmap
    top = _top(heatmap)
    seen = _resize((~np.isnan(heatmap)).astype(np.float32), (height, width)) > 0.5
    strength = _resize(np.nan_to_num(heatmap), (height, width)) / np.float32(top)
    base = _resize(image.grey, (height, width))
    base[~seen] *= 0.45
    plain = np.asarray(cv2.cvtColor(_bytes(base), cv2.COLOR_GRAY2RGB), np.uint8)
    marked = _blend(base, strength, _OPACITY if found else _OPACITY * _FAINT)
    if found:
        scale = width / frame.source[1], height / frame.source[0]
        if grounding.edge is not None:
            _draw_contour(marked, strength * top >= grounding.edge, unit)
        for number, box in enumerate(grounding.boxes, 1):
            _draw_box(marked, box, scale, number, unit)
    for panel in (plain, marked):
        _draw_sides(panel, unit)
    return _lay_out(plain, marked, grounding, unit, top)


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


def _blend(grey: NDArray[np.float32], strength: NDArray[np.float32], opacity: float) -> Pixels:
    """The X-ray under a map of 0..1, uint8 (H, W, 3); ``opacity`` is that of the value 1."""
    # Blended in bytes and by tables: three times faster than in floats.
    levels = _bytes(strength)
    alpha: NDArray[np.float32] = np.linspace(0, opacity, 256, dtype=np.float32)[:, None]
    shade = cv2.multiply(_bytes(grey), cv2.LUT(levels, _bytes(1 - alpha)), scale=1 / 255)
    colours = np.rint(_palette() * alpha).astype(np.uint8)[None]
    grey_rgb, strength_rgb = (cv2.cvtColor(x, cv2.COLOR_GRAY2RGB) for x in (shade, levels))
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


def _draw_contour(panel: Pixels, inside: NDArray[np.bool_], unit: int) -> None:
    """Draw the border of regions as a thin light line with a dark rim."""
    found, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    line = max(1, round(unit / 20))
    cv2.drawContours(panel, found, -1, _DARK, 3 * line, cv2.LINE_AA)
    cv2.drawContours(panel, found, -1, _TEXT, line, cv2.LINE_AA)


def _draw_box(panel: Pixels, box: Box, scale: tuple[float, float], number: int, unit: int) -> None:
    x0, x1 = round(box.x0 * scale[0]), round(box.x1 * scale[0]) - 1
    y0, y1 = round(box.y0 * scale[1]), round(box.y1 * scale[1]) - 1
    line = max(2, round(unit / 10))
    # A dark rim keeps the white line visible on bright bone.
    cv2.rectangle(panel, (x0, y0), (x1, y1), _DARK, line + 2 * max(1, line // 2), cv2.LINE_AA)
    cv2.rectangle(panel, (x0, y0), (x1, y1), _TEXT, line, cv2.LINE_AA)
    label = f"{number}"
    wide, tall = text_width(label, unit, _BOLD) + unit, round(unit * 1.4)
    left = min(max(x0 - line // 2, 0), max(panel.shape[1] - wide, 0))
    bottom = y0 if y0 >= tall else y0 + tall
    cv2.rectangle(panel, (left, bottom - tall), (left + wide, bottom), _TEXT, cv2.FILLED)
    write_text(panel, label, (left + unit // 2, bottom - round(unit * 0.35)), unit, _DARK, _BOLD)


def _draw_sides(panel: Pixels, unit: int) -> None:
    """Mark the patient's right and left."""
    y = panel.shape[0] - round(unit * 0.6)
    for letter, x in (("R", unit // 2), ("L", panel.shape[1] - unit // 2)):
        left = x if letter == "R" else x - text_width(letter, unit, _BOLD)
        for shift in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            write_text(panel, letter, (left + shift[0], y + shift[1]), unit, _DARK, _BOLD)
        write_text(panel, letter, (left, y), unit, _TEXT, _BOLD)


def _lay_out(plain: Pixels, marked: Pixels, grounding: Grounding, unit: int, top: float) -> Pixels:
    """Put both X-rays under title and status, beside the colour bar and above legend and notice."""
    height, width = plain.shape[:2]
    bar = 5 * unit
    inner = 2 * width + unit
    big, leading, small = round(unit * 1.25), round(unit * 1.75), round(unit * 0.8)
    title = _wrap(" ".join(grounding.phrase.split()), big, inner + bar - unit)
    head = unit + leading * len(title) + round(unit * 2.3)
    legend = _legend(grounding)
    foot = round(unit * 1.4) * (len(legend) + 1) + unit
    canvas = np.full((head + height + foot, unit + inner + bar, 3), _GROUND, np.uint8)
    canvas[head : head + height, unit : unit + width] = plain
    canvas[head : head + height, 2 * unit + width : 2 * unit + 2 * width] = marked
    for row, line in enumerate(title):
        write_text(canvas, line, (unit, unit + leading * row + big), big, _TEXT, _BOLD)
    baseline = unit + leading * len(title) + round(unit * 1.35)
    colour = _FOUND if grounding.status == "found" else _NOT_FOUND
    write_text(canvas, _status(grounding), (unit, baseline), unit, colour, _BOLD)
    _draw_bar(canvas, (2 * unit + inner, head, height), top, grounding.edge, unit)
    y = head + height
    for line in legend:
        y += round(unit * 1.4)
        write_text(canvas, line, (unit, y), round(unit * 0.9), _TEXT)
    y += round(unit * 1.4)
    write_text(canvas, NOTICE, (unit, y), small, _DIM)
    made = f"{grounding.model.name}, preset {grounding.options.preset}"
    unseen = np.isnan(grounding.heatmap)
    if unseen.any() and not unseen.all():
        made += ", darkened where not seen"
    room = inner + bar - unit - text_width(NOTICE, small) - 2 * unit
    if text_width(made, small) <= room:
        write_text(canvas, made, (inner + bar - text_width(made, small), y), small, _DIM)
    return canvas


def _status(grounding: Grounding) -> str:
    limit = grounding.options.absent_below
    score = f"presence score {grounding.score:.2f}"
    if limit is not None:
        score += f" (found from {limit:.2f} on)"
    meaning = f" · phrase: {grounding.intent.summary}" if grounding.intent.summary else ""
    match grounding.status:
        case "found":
            count = len(grounding.boxes)
            return f"found · {count} box{'' if count == 1 else 'es'} · {score}{meaning}"
        case "not found":
            return f"NOT FOUND · nothing is marked · {score}{meaning}"
        case "nothing to mark":
            return f"NOTHING TO MARK{meaning}"
        case "unknown phrase":
            return f"UNKNOWN PHRASE{meaning}"


def _legend(grounding: Grounding) -> list[str]:
    """A line per box: its number, where it is, and its score; or what is shown without boxes."""
    lines = []
    wrong = grounding.laterality.wrong
    boxes = zip(grounding.boxes[:_LISTED], grounding.places, strict=False)
    for number, (box, place) in enumerate(boxes, 1):
        score = "" if box.score is None else f" · box score {box.score:.2f}"
        side = f" · NOT ON THE {grounding.laterality.phrase} SIDE".upper() * (number in wrong)
        lines.append(f"{number}  {place}{score}{side}")
    rest = len(grounding.boxes) - _LISTED
    lines += [f"and {rest} more"] if rest > 0 else []
    lines += [_unmarked(grounding)] if grounding.status != "found" else []
    if grounding.laterality.phrase == "bilateral" and grounding.laterality.agrees is False:
        lines.append("The phrase names BOTH SIDES; boxes are not on both.")
    return [*lines, *(_part(part) for part in grounding.parts[:_LISTED])]


def _unmarked(grounding: Grounding) -> str:
    """What is shown where there are no boxes."""
    if grounding.status == "not found":
        return "Faint colour: where attention was highest, too weak to count as found."
    if np.isnan(grounding.heatmap).all():
        near = ", ".join(grounding.intent.nearest)
        return "Nothing was looked for." + (f" Nearest known words: {near}." if near else "")
    return f"Faint colour: where to look for {grounding.asked}; whether it is there is not said."


def _part(part: Grounding) -> str:
    """A line for one finding of a phrase that names several."""
    places = ", ".join(part.places)
    if part.laterality.agrees is False:
        places += f" (NOT {part.laterality.phrase})".upper()
    return f"{part.phrase}: {part.status}{f', {places}' if places else ''} · {part.score:.2f}"


def _draw_bar(
    canvas: Pixels, place: tuple[int, int, int], top: float, edge: float | None, unit: int
) -> None:
    """The colour bar with five ticks, and a mark at the border of what boxes enclose.

    ``place`` is its left edge, the panel's top and height.
    """
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
    if edge is not None:
        y = round(low - 1 - min(edge / top, 1) * (low - 1 - high))
        line = max(2, round(unit / 10))
        cv2.line(canvas, (left, y), (left + unit, y), _DARK, 3 * line)
        cv2.line(canvas, (left, y), (left + unit, y), _TEXT, line)


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
