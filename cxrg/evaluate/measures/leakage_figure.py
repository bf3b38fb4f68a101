"""The figure of leakage: an X-ray with the named anatomy, and each wording's attention.

One row per sample, drawn by lot, the least leak first: the picture with the location's outline,
then attention for the sentence, for the template, and for a tuned model, each with the share that
leaks. Attention is drawn from 0 to its own highest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.about import NOTICE
from cxrg.output.text import text_width, write_text

SIDE, GAP, HEAD, LINE, SIZE = 260, 10, 62, 18, 14
_GROUND, _TEXT, _DIM, _OUTLINE = (255, 255, 255), (25, 25, 25), (95, 95, 95), (90, 200, 250)
_OPACITY = 0.65

Heat = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """A sample: grey (H, W), the location's mask (H, W), and panels of name, text, map and leak."""

    grey: Heat
    mask: Heat
    location: str
    panels: Sequence[tuple[str, str, Heat, float]]

    @property
    def leak(self) -> float:
        """Of the first panel."""
        return self.panels[0][3]


def figure(rows: Sequence[Row]) -> bytes:
    """The figure as PNG."""
    bands = [_band(row) for row in rows]
    width = max(band.shape[1] for band in bands)
    foot = np.full((LINE + GAP, width, 3), _GROUND, np.uint8)
    _write(foot, f"outlined: the named anatomy. {NOTICE}.", GAP, LINE, _DIM)
    _, data = cv2.imencode(".png", np.vstack([*bands, foot])[..., ::-1])
    return data.tobytes()


def _band(row: Row) -> Pixels:
    grey = np.repeat((_square(row.grey) * 255)[..., None], 3, axis=2)
    tiles = [_tile(_outlined(grey, row), "", row.location, "named anatomy")]
    for name, text, heat, leak in row.panels:
        top = float(np.nanmax(heat))
        strength = np.clip(_square(np.nan_to_num(heat)) / (top if top > 0 else 1), 0, 1)
        colours = cv2.applyColorMap((strength * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
        alpha = _OPACITY * strength[..., None]
        mixed = grey * (1 - alpha) + colours[..., ::-1] * alpha
        tiles.append(_tile(_outlined(mixed, row), f"leak {leak:.2f}", text, name))
    return np.hstack(tiles)


def _outlined(picture: NDArray[np.floating], row: Row) -> Pixels:
    canvas = np.ascontiguousarray(np.clip(picture, 0, 255).astype(np.uint8))
    inside = (_square(row.mask) > 0.5).astype(np.uint8)
    lines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, lines, -1, _OUTLINE, 1, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)


def _square(array: Heat) -> Heat:
    """An array (H, W) in the middle of a square of :data:`SIDE`, its proportions kept."""
    height, width = array.shape
    factor = SIDE / max(height, width)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    small = cv2.resize(array.astype(np.float32), size, interpolation=how)
    canvas = np.zeros((SIDE, SIDE), np.float32)
    top, left = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = small
    return canvas


def _tile(picture: Pixels, leak: str, text: str, name: str) -> Pixels:
    tile = np.full((HEAD + SIDE + GAP, SIDE + 2 * GAP, 3), _GROUND, np.uint8)
    tile[HEAD : HEAD + SIDE, GAP : GAP + SIDE] = picture
    _write(tile, name, GAP, LINE, _DIM)
    _write(tile, leak, GAP + SIDE - _measure(leak), LINE, _TEXT)
    for number, line in enumerate(_lines(text)):
        _write(tile, line, GAP, LINE * (number + 2), _TEXT)
    return tile


def _lines(text: str) -> list[str]:
    """A text in two lines at most, what does not fit cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _measure(longer) <= SIDE:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > 2:
        lines = [lines[0], lines[1].rstrip(".,") + " …"]
    return lines


def _write(canvas: Pixels, text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    write_text(canvas, text, (x, y), SIZE, colour)


def _measure(text: str) -> int:
    return text_width(text, SIZE)
