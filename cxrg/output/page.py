"""Parts that a picture of one phrase and a sheet of several are put together from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cxrg.files import atomic_write
from cxrg.output.overlay import palette
from cxrg.output.text import (
    BOLD,
    DARK,
    DIM,
    GROUND,
    TEXT,
    Colour,
    Pixels,
    text_width,
    write_text,
)

if TYPE_CHECKING:
    from cxrg.result import Grounding

# One filter for all rows takes half the time of trying several, for 3 % more bytes.
_COMPRESSION = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 3),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
)

_FOUND: Colour = (122, 209, 155)
_NOT_FOUND: Colour = (255, 176, 84)


def write_png(picture: Pixels, path: Path) -> None:
    """Write RGB, uint8 (H, W, 3), as PNG.

    Raises:
        CxrgError: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(png_bytes(picture))


def png_bytes(picture: Pixels) -> bytes:
    """RGB, uint8 (H, W, 3), as the bytes of a PNG file."""
    _, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), _COMPRESSION)
    return encoded.tobytes()


def shrunk(picture: Pixels, width: int) -> Pixels:
    """A picture at a width, if it is wider."""
    if picture.shape[1] <= width:
        return picture
    height = round(picture.shape[0] * width / picture.shape[1])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def empty(height: int, width: int) -> Pixels:
    """A canvas in the colour of the ground."""
    return np.full((height, width, 3), GROUND, np.uint8)


def framed(bands: Sequence[Pixels], unit: int) -> Pixels:
    """Bands of one width under each other, with a margin around them."""
    return _pad(np.vstack(bands), unit // 2, unit // 2, unit, unit)


def beside(columns: Sequence[Pixels], gap: int) -> Pixels:
    """Columns side by side, with their tops in line."""
    tall = max(len(column) for column in columns)
    last = len(columns) - 1
    return np.hstack(
        [
            _pad(column, 0, tall - len(column), 0, 0 if at == last else gap)
            for at, column in enumerate(columns)
        ]
    )


def centred(panel: Pixels, width: int) -> Pixels:
    """A panel in the middle of a column."""
    left = (width - panel.shape[1]) // 2
    return _pad(panel, 0, 0, left, width - panel.shape[1] - left)


def _pad(canvas: Pixels, top: int, bottom: int, left: int, right: int) -> Pixels:
    edges = (top, bottom, left, right)
    if not any(edges):
        return canvas
    padded = cv2.copyMakeBorder(canvas, *edges, cv2.BORDER_CONSTANT, value=GROUND)
    return np.asarray(padded, np.uint8)


def sides(caption: str, panel: int, width: int, unit: int) -> Pixels:
    """The patient's right and left, and a caption, above a panel in the middle of a column.

    Args:
        caption: left out where it does not fit.
        panel: width of the panel.
        width: of the column.
        unit: size of the type.
    """
    strip = empty(round(unit * 1.4), width)
    left = (width - panel) // 2
    y = round(unit * 1.05)
    write_text(strip, "R", (left, y), unit, TEXT, BOLD)
    end = text_width("L", unit, BOLD)
    write_text(strip, "L", (left + panel - end, y), unit, TEXT, BOLD)
    small = round(unit * 0.85)
    wide = text_width(caption, small)
    if wide <= panel - 4 * unit:
        write_text(strip, caption, ((width - wide) // 2, y), small, DIM)
    return strip


def colour_bar(width: int, top: float, edge: float | None, unit: int) -> Pixels:
    """The colours of a map from 0 to ``top``, with a mark at the border of what boxes enclose."""
    tall, small = round(unit * 0.7), round(unit * 0.85)
    start = round(unit * 0.4)
    bar = empty(start + tall + round(unit * 1.3), width)
    ramp = palette()[np.linspace(0, 255, width).round().astype(np.uint8)]
    bar[start : start + tall] = ramp[None]
    ticks = 5 if width > 14 * unit else 3
    for tick in np.linspace(0, 1, ticks):
        x = round(tick * (width - 1))
        cv2.line(bar, (x, start + tall), (x, start + tall + unit // 5), TEXT, max(1, unit // 20))
        text = f"{tick * top:.2f}" if top >= 0.1 else f"{tick * top:.1e}"
        wide = text_width(text, small)
        left = min(max(x - wide // 2, 0), width - wide)
        write_text(bar, text, (left, start + tall + round(unit * 1.1)), small, TEXT)
    if edge is not None:
        x = round(min(edge / top, 1) * (width - 1))
        line = max(2, unit // 12)
        ends = (x, start - unit // 5), (x, start + tall + unit // 5)
        cv2.line(bar, *ends, DARK, 3 * line)
        cv2.line(bar, *ends, TEXT, line)
    return bar


def status_colour(grounding: Grounding) -> Colour:
    """Of the words for a status; the words say it, too."""
    return _FOUND if grounding.status == "found" else _NOT_FOUND
