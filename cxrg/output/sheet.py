"""A sheet: phrases of one image, or of several, as small multiples with one legend."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from cxrg.about import NOTICE
from cxrg.errors import UsageError
from cxrg.output.overlay import draw_overlay, draw_xray, drawn_size, looked_for, top_of
from cxrg.output.page import beside, centred, colour_bar, empty, framed, sides, status_colour
from cxrg.output.picture import box_texts, limit_of, part_texts
from cxrg.output.text import BOLD, DIM, PLAIN, TEXT, Colour, Pixels, band, fold

if TYPE_CHECKING:
    from cxrg.result import Grounding

SIDE = 480
"""The longest side of a drawn X-ray."""
MOST = 47
"""Most phrases on a sheet; with the X-ray itself that is 12 rows of 4."""
_UNIT, _GAP = 34, 20  # size of the type, read at 400 pixels where three columns share them
_SMALL = 29


class Sheet:
    """Small multiples that are drawn as results come; no result is kept.

    The X-ray itself stands before the first phrase of each image.
    """

    def __init__(self) -> None:
        self._cells: list[tuple[Pixels, Pixels]] = []
        self._phrases = 0
        self._image = ""
        self._limits: set[float | None] = set()
        self._tops: set[float] = set()

    def add(self, grounding: Grounding) -> None:
        """Draw a result."""
        self._phrases += 1
        if self._phrases > MOST:
            return
        image = grounding.image
        size = drawn_size(image.frame, least=SIDE, most=SIDE)
        if image.sha256 != self._image:
            self._image = image.sha256
            self._cells.append((_text("X-ray", bold=True), _panel(draw_xray(image, size))))
        if looked_for(grounding):
            self._tops.add(top_of(grounding.heatmap))
        self._limits.add(limit_of(grounding))
        panel = _panel(draw_overlay(grounding, image, size, _UNIT))
        texts = [*box_texts(grounding, score=""), *part_texts(grounding, score="")]
        self._cells.append((_head(grounding), np.vstack([panel, *map(_text, texts)])))

    def render(self) -> Pixels:
        """Put the sheet together, RGB, uint8 (H, W, 3).

        Raises:
            UsageError: nothing was added.
        """
        if not self._cells:
            raise UsageError("results are missing; give one or more")
        across = _columns(len(self._cells))
        width = across * (SIDE + _GAP) - _GAP
        bands = []
        for at in range(0, len(self._cells), across):
            row = self._cells[at : at + across]
            tall = max(len(head) for head, _ in row)
            cells = [np.vstack([head, empty(tall - len(head), SIDE), rest]) for head, rest in row]
            cells += [empty(1, SIDE)] * (across - len(cells))
            bands += [beside(cells, _GAP), empty(_GAP, width)]
        return framed([*bands, *self._legend(width)], _UNIT)

    def _legend(self, width: int) -> list[Pixels]:
        """The colours of all maps, and what the numbers are."""
        same = len(self._tops) == 1
        top = next(iter(self._tops)) if same else 1.0
        bar = [colour_bar(width, top, None, _UNIT)] if self._tops else []
        limits = self._limits - {None}
        found = f" (found from {next(iter(limits)):.2f} on)" if len(limits) == 1 else ""
        text = (
            f"Colour: attention to the phrase{'' if same else ', from 0 to its highest'}. "
            "Faint: too weak to count as found, or only where to look. "
            "Outline: threshold of the boxes. "
            f"Number beside a status: presence{found}; beside a place: box score."
        )
        rest = self._phrases - MOST
        lines = [
            *fold(text, _SMALL, width, colour=DIM, most=6),
            *(fold(f"{rest} more phrases are not shown.", _SMALL, width) if rest > 0 else ()),
            *fold(f"{NOTICE.capitalize()}.", _SMALL, width),
        ]
        return [*bar, band(lines, width)]


def render_sheet(groundings: Iterable[Grounding]) -> Pixels:
    """Draw results on one sheet, RGB, uint8 (H, W, 3).

    Raises:
        UsageError: there are none.
    """
    sheet = Sheet()
    for grounding in groundings:
        sheet.add(grounding)
    return sheet.render()


def _columns(cells: int) -> int:
    """How many cells stand side by side."""
    return cells if cells <= 3 else 4 if cells > 12 else max(math.isqrt(cells - 1) + 1, 2)


def _head(grounding: Grounding) -> Pixels:
    """The phrase, its status and its presence score."""
    title = " ".join(grounding.phrase.split())
    looked = grounding.status in ("found", "not found", "uncalibrated")
    text = f"{grounding.status} · {grounding.strength:.2f}" if looked else grounding.status
    colour = status_colour(grounding)
    return np.vstack([_text(title, bold=True), _text(text, bold=True, colour=colour)])


def _panel(panel: Pixels) -> Pixels:
    """A panel in its column, with the patient's sides above it."""
    return np.vstack([sides("", panel.shape[1], SIDE, _UNIT), centred(panel, SIDE)])


def _text(text: str, *, bold: bool = False, colour: Colour = TEXT) -> Pixels:
    """A text in a column."""
    weight = BOLD if bold else PLAIN
    return band(fold(text, _UNIT, SIDE, colour=colour, weight=weight), SIDE)
