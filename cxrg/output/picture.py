"""The picture: the X-ray untouched and, beside it, where the phrase drew attention.

Letters are so large, by the width of the picture, that they are read at 400 pixels, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxrg.about import NOTICE
from cxrg.output.overlay import draw_overlay, draw_xray, drawn_size, looked_for, top_of
from cxrg.output.page import (
    beside,
    centred,
    colour_bar,
    empty,
    framed,
    sides,
    status_colour,
    write_png,
)
from cxrg.output.text import BOLD, DIM, Line, Pixels, band, fold, text_width, write_text

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.result import Grounding

LONGEST, SHORTEST = 1130, 512
"""The longest side of a drawn X-ray, at most and at least."""
_TYPE, _LEAST_TYPE = 0.052, 12  # size of the type, by the width of an X-ray, and at least
_COLUMN = 12  # least width of a column, by the size of the type
_LISTED = 6  # boxes in the legend


def write_picture(grounding: Grounding, image: CxrImage, path: Path) -> None:
    """Draw a grounding over its image and write it as PNG.

    Raises:
        CxrgError: the file cannot be written.
    """
    write_png(render(grounding, image), path)


def render(grounding: Grounding, image: CxrImage) -> Pixels:
    """The picture as RGB, uint8 (H, W, 3).

    On the left the X-ray untouched; on the right the same under the map, with a contour and
    numbered boxes. Both are drawn in physical aspect, at source resolution but at most 1130 and at
    least 512 pixels on their longest side. The patient's sides are marked above them.
    """
    size = drawn_size(image.frame, least=SHORTEST, most=LONGEST)
    unit = max(_LEAST_TYPE, round(size[1] * _TYPE))
    small = round(unit * 0.85)
    column = max(size[1], _COLUMN * unit)
    width = 2 * column + unit
    panels = draw_xray(image, size), draw_overlay(grounding, image, size, unit)
    captions = "X-ray", "attention to the phrase" if looked_for(grounding) else "no map"
    columns = [
        np.vstack([sides(caption, size[1], column, unit), centred(panel, column)])
        for caption, panel in zip(captions, panels, strict=True)
    ]
    title = " ".join(grounding.phrase.split())
    colour = status_colour(grounding)
    head = [
        *fold(title, round(unit * 1.2), width, weight=BOLD, most=4),
        *fold(status_text(grounding), unit, width, colour=colour, weight=BOLD),
    ]
    key = band(fold(_key(grounding), small, column, colour=DIM), column)
    return framed(
        [
            band(head, width),
            beside(columns, unit),
            empty(unit // 3, width),
            beside([key, _scale(grounding, column, size[1], unit)], unit),
            band(_legend(grounding, unit, width), width),
            _foot(grounding, small, width),
        ],
        unit,
    )


def limit_of(grounding: Grounding) -> float | None:
    """The presence from which on it counts as found; None where that was not judged by presence."""
    judged = grounding.status in ("found", "not found") and grounding.intent.kind != "place"
    return grounding.options.absent_below if judged else None


def status_text(grounding: Grounding) -> str:
    """The status, the presence score and what is unusual about the phrase."""
    limit = limit_of(grounding)
    name = "presence score" if grounding.presence is None else "presence probability"
    score = f"{name} {grounding.strength:.2f}"
    if limit is not None:
        score += f" (found from {limit:.2f} on)"
    meaning = f" · phrase: {grounding.intent.summary}" if grounding.intent.summary else ""
    match grounding.status:
        case "found":
            count = len(grounding.boxes)
            return f"found · {count} box{'' if count == 1 else 'es'} · {score}{meaning}"
        case "not found":
            return f"NOT FOUND · nothing is marked · {score}{meaning}"
        case "uncalibrated":
            return f"UNCALIBRATED · whether it is there is not judged · {score}{meaning}"
        case "nothing to mark":
            return f"NOTHING TO MARK{meaning}"
        case "unknown phrase":
            return f"UNKNOWN PHRASE{meaning}"


def _key(grounding: Grounding) -> str:
    """What colours and lines of the map mean."""
    dark = " Darkened: not seen by the model." * bool(
        looked_for(grounding) and np.isnan(grounding.heatmap).any()
    )
    match grounding.status:
        case "found" | "uncalibrated":
            edge = grounding.edge
            line = "" if edge is None else f" Outline: threshold of the boxes, {edge:.2f}."
            return f"Colour: attention to the phrase.{line}{dark}"
        case "not found":
            return "Faint colour: where attention was highest, too weak to count as found." + dark
        case "nothing to mark" if looked_for(grounding):
            return (
                f"Faint colour: where to look for {grounding.asked}; "
                f"whether it is there is not said.{dark}"
            )
        case _:
            near = ", ".join(grounding.intent.nearest)
            return "Nothing was looked for." + (f" Nearest known words: {near}." if near else "")


def _scale(grounding: Grounding, column: int, panel: int, unit: int) -> Pixels:
    """The colour bar under the map; nothing where there is no map."""
    if not looked_for(grounding):
        return empty(1, column)
    bar = colour_bar(panel, top_of(grounding.heatmap), grounding.edge, unit)
    return centred(bar, column)


def _legend(grounding: Grounding, unit: int, width: int) -> list[Line]:
    """What each number stands for, and the findings of a phrase that names several."""
    laterality = grounding.laterality
    lines = [line for text in box_texts(grounding) for line in fold(text, unit, width)]
    if laterality.phrase == "bilateral" and laterality.agrees is False:
        lines += fold("The phrase names BOTH SIDES; boxes are not on both.", unit, width)
    return [*lines, *(line for text in part_texts(grounding) for line in fold(text, unit, width))]


def box_texts(grounding: Grounding, *, score: str = "box score ") -> list[str]:
    """A text per box: its number, where it is, its score, and whether it is on the wrong side."""
    texts = []
    wrong = grounding.laterality.wrong
    boxes = zip(grounding.boxes[:_LISTED], grounding.places, strict=False)
    for number, (box, place) in enumerate(boxes, 1):
        height = "" if box.score is None else f" · {score}{box.score:.2f}"
        side = f" · NOT ON THE {grounding.laterality.phrase} SIDE".upper() * (number in wrong)
        texts.append(f"{number}: {place}{height}{side}")
    rest = len(grounding.boxes) - _LISTED
    return [*texts, f"and {rest} more"] if rest > 0 else texts


def part_texts(grounding: Grounding, *, score: str = "presence ") -> list[str]:
    """A text for each finding of a phrase that names several."""
    texts = []
    for part in grounding.parts[:_LISTED]:
        places = ", ".join(part.places)
        if part.laterality.agrees is False:
            places += f" (NOT {part.laterality.phrase})".upper()
        where = f", {places}" if places else ""
        texts.append(f"{part.phrase}: {part.status}{where} · {score}{part.strength:.2f}")
    return texts


def _foot(grounding: Grounding, small: int, width: int) -> Pixels:
    """What the scores are, the notice, and what made the picture."""
    lines = []
    if grounding.boxes:
        text = "Box score: the map's height in the box (mean of its highest tenth)."
        lines += fold(text, small, width, colour=DIM)
    lines += fold(NOTICE.capitalize() + ".", small, width)
    foot = band(lines, width)
    made = f"{grounding.model.name}, preset {grounding.options.preset}"
    wide = text_width(made, small)
    if text_width(lines[-1].text, small) + 2 * small + wide <= width:
        at = width - wide, len(foot) - round(small * 0.4)
        write_text(foot, made, at, small, DIM)
    return foot
