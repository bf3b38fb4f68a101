"""Text on pictures: fonts, folding to a width, and bands of lines.

Text uses the TrueType fonts built into OpenCV 5, which hold Latin, Greek, Cyrillic and CJK letters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

PLAIN, BOLD = 400, 600
"""Weights of the type."""

GROUND: Colour = (20, 21, 24)
TEXT: Colour = (238, 238, 238)
DIM: Colour = (178, 180, 186)
DARK: Colour = (12, 12, 14)

_LEADING = 1.4  # from one base line to the next, by the size of the type
_MOST_LETTERS = 2000  # of a text that is folded: more never fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of text; ``size`` is that of the type, in pixels."""

    text: str
    size: int
    colour: Colour = TEXT
    weight: int = PLAIN

    @property
    def height(self) -> int:
        return round(self.size * _LEADING)


def write_text(
    canvas: Pixels, text: str, at: tuple[int, int], size: int, colour: Colour, weight: int = PLAIN
) -> None:
    """Write text of a size in pixels; ``at`` is the left end of its base line, x before y."""
    cv2.putText(canvas, text, at, colour, _font(), size, weight)


@cache
def _font() -> cv2.FontFace:
    return cv2.FontFace("sans")


def text_width(text: str, size: int, weight: int = PLAIN) -> int:
    """Width in pixels."""
    return int(cv2.getTextSize((0, 0), text, (0, 0), _font(), size, weight)[2])


def band(lines: Sequence[Line], width: int) -> Pixels:
    """Lines of text under each other, RGB, uint8 (H, width, 3)."""
    canvas = np.full((sum(line.height for line in lines), width, 3), GROUND, np.uint8)
    y = 0
    for line in lines:
        y += line.height
        at = 0, y - round(line.size * (_LEADING - 1))
        write_text(canvas, line.text, at, line.size, line.colour, line.weight)
    return canvas


def fold(
    text: str,
    size: int,
    width: int,
    *,
    colour: Colour = TEXT,
    weight: int = PLAIN,
    most: int = 3,
) -> list[Line]:
    """Break a text into lines that fit a width; what is beyond ``most`` becomes an ellipsis."""
    rows = [""]
    for word in _pieces(text[:_MOST_LETTERS], size, width, weight):
        longer = f"{rows[-1]} {word}".strip()
        if text_width(longer, size, weight) <= width:
            rows[-1] = longer
        else:
            rows.append(word)
        if len(rows) > most:
            break
    if len(rows) > most:
        last = rows[most - 1]
        while last and text_width(last + " …", size, weight) > width:
            last = last[:-1]
        rows = [*rows[: most - 1], f"{last} …".strip()]
    return [Line(text=row, size=size, colour=colour, weight=weight) for row in rows]


def _pieces(text: str, size: int, width: int, weight: int) -> Iterator[str]:
    """The words of a text; one that is wider than the line is cut into parts that fit."""
    for word in text.split():
        if text_width(word, size, weight) <= width:
            yield word
            continue
        start = 0
        for end in range(1, len(word) + 1):
            if text_width(word[start:end], size, weight) > width:
                yield word[start : end - 1]
                start = end - 1
        yield word[start:]
