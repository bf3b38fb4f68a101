"""The page and the picture that say why a phrase was found in an image, or not.

Both show the same: sentences first, then rows of small pictures. In a row pictures have one scale
of colours unless they say otherwise, so that what is bright in one can be compared with the next; a
white line runs around the pixels whose mean is the peak.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.about import NOTICE
from cxrg.output.formats import stem_of
from cxrg.output.html import write_page
from cxrg.output.overlay import palette
from cxrg.output.page import beside, empty, framed, png_bytes, status_colour, write_png
from cxrg.output.picture import render
from cxrg.output.text import BOLD, DIM, TEXT, Colour, Line, Pixels, band, fold, write_text

if TYPE_CHECKING:
    from cxrg.explanation import Explanation, Share
    from cxrg.geometry import Frame

Map = NDArray[np.float32]

_TILE = 208  # pixels of a small picture's side
_MOST_STEPS = 8  # small pictures of timesteps
_OPACITY = 0.6
_COLUMNS, _GAP, _UNIT = 5, 12, 22
_WIDTH = _COLUMNS * _TILE + (_COLUMNS - 1) * _GAP
_SMALL, _PLAIN, _LARGE = 14, 16, 20  # sizes of the type
_LIMIT: Colour = (255, 120, 110)
_QUARTERS: Colour = (70, 90, 125)
_DOT: Colour = (140, 170, 220)
_LEGEND = (
    "The first row is the score; dots are scores of controls. Of healthy chests the line reaches "
    "from 5 to 95 %, the box from 25 to 75 %, and the bright mark is the median."
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tile:
    """A small picture, RGB, and what is written under it."""

    picture: Pixels
    caption: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Row:
    """A row of small pictures with a title, and what they show."""

    title: str
    text: str
    tiles: tuple[Tile, ...]


def write_explanation(
    explanation: Explanation, folder: Path, *, force_ground: bool = False
) -> dict[str, Path]:
    """Write ``STEM-explained.html`` and ``.png``; the stem is that of the result's other files.

    Neither holds the image's name nor anything of a DICOM header.

    Args:
        explanation: what to write.
        folder: is made where it is missing.
        force_ground: whether the phrase was grounded whatever it means.

    Returns:
        The file of each format.

    Raises:
        WriteError: a file cannot be written.
    """
    name = f"{stem_of(explanation.grounding, force_ground=force_ground)}-explained"
    files = {kind: folder / f"{name}.{kind}" for kind in ("html", "png")}
    result = render(explanation.grounding, explanation.grounding.image)
    why, rows = list(sentences(explanation)), list(_rows(explanation))
    write_page(
        "explanation.html",
        files["html"],
        phrase=explanation.grounding.phrase,
        why=why,
        result=png_bytes(result),
        ruler=png_bytes(_ruler(explanation)) if explanation.tokens else None,
        legend=_LEGEND,
        rows=[
            {
                "title": row.title,
                "text": row.text,
                "tiles": [(png_bytes(tile.picture), tile.caption, tile.note) for tile in row.tiles],
            }
            for row in rows
        ],
        facts=list(_facts(explanation)),
    )
    write_png(_sheet(explanation, result, why, rows), files["png"])
    return files


def sentences(explanation: Explanation) -> Iterator[str]:
    """Why the answer is what it is, a sentence each, the most important first."""
    found = explanation.grounding
    yield _verdict(explanation)
    yield from _of_healthy(explanation)
    yield from _of_controls(explanation)
    yield from _of_shares(explanation)
    if found.draws:
        draws = found.draws
        yield (
            f"Over {len(draws.scores)} noise draws the score is {draws.minimum:.2f} to "
            f"{draws.maximum:.2f}; {draws.found} of them alone have a box."
        )
    yield _of_view(explanation)
    yield from (f"Note: {warning}." for warning in found.warnings)


def _verdict(explanation: Explanation) -> str:
    found, least = explanation.grounding, explanation.least
    score = f"the score is {found.score:.2f}"
    if found.presence is not None:
        score += f" (probability that it is there: {found.presence:.2f})"
    match found.status:
        case "found":
            enough = f", and found is from {least:.2f} on" if least is not None else ""
            return f"FOUND ({', '.join(found.places)}): {score}{enough}."
        case "not found" if least is not None and found.score < least:
            return f"NOT FOUND: {score}, and found is from {least:.2f} on."
        case "not found":
            return f"NOT FOUND: {score}, but no region of the map rises above the threshold."
        case "uncalibrated":
            return f"UNCALIBRATED: {score}; whether it is there is not judged with these options."
        case "nothing to mark":
            return f"NOTHING TO MARK: the phrase {found.intent.summary}."
        case "unknown phrase":
            return "UNKNOWN PHRASE: it names nothing that is known, so nothing was looked for."


def _of_healthy(explanation: Explanation) -> Iterator[str]:
    reference, score = explanation.reference, explanation.grounding.score
    if not explanation.tokens:
        return
    if reference is None:
        yield "No reference distribution of healthy chests for this model, finding and options."
        return
    share = reference.share_below(score)
    many = "all" if share == 1 else "none" if share == 0 else f"{share:.0%}"
    yield (
        f"Of {reference.images} healthy chests ({reference.of}) searched for "
        f"{reference.finding}, {many} score lower."
    )


def _of_controls(explanation: Explanation) -> Iterator[str]:
    score, chests = explanation.grounding.score, explanation.chests
    if chests:
        low, high = min(chests.scores), max(chests.scores)
        kind = "synthetic healthy" if chests.synthetic else "other"
        meaning = (
            "the words alone do not reach this score"
            if score > high
            else "the words alone can reach this score: it says little of this image"
        )
        yield (
            f"In {len(chests.scores)} {kind} chests the same phrase scores {low:.2f} to "
            f"{high:.2f}: {meaning}."
        )
        shape = (
            "the place is that which the words have anyway"
            if chests.alike > 0.8
            else "the place owes something to this image"
        )
        yield f"Their mean map and this map correlate by {chests.alike:.2f}: {shape}."
        if chests.unused:
            yield f"{chests.unused} given images could not be used as controls."
    others = [each for each in explanation.others if each.phrase]
    higher = [each for each in others if each.score >= score]
    if higher:
        names = ", ".join(f"{each.phrase!r} ({each.score:.2f})" for each in higher)
        yield f"Beware: in this image other phrases score no less: {names}."
    elif others:
        top = max(each.score for each in others)
        yield f"In this image the other phrases tried score {top:.2f} at most."


def _of_shares(explanation: Explanation) -> Iterator[str]:
    counted = [each for each in explanation.tokens if each.counts]
    if not counted:
        return
    parts = ", ".join(
        f"{each.name!r} {each.at_peak:.2f}"
        for each in sorted(counted, key=lambda share: -share.at_peak)
    )
    yield f"The peak of attention, {explanation.peak:.2f}, is the sum of its tokens: {parts}."
    left = ", ".join(repr(each.name) for each in explanation.tokens if not each.counts)
    if left:
        yield f"Tokens that do not count by the option tokens: {left}."


def _of_view(explanation: Explanation) -> str:
    view, image = explanation.view, explanation.grounding.image
    stated = f"By its header the image is {image.stated}. " if image.stated else ""
    fits = "an upright frontal chest X-ray"
    what = f"is taken for {fits}" if view.fits else view.description
    return f"{stated}The picture {what} (probability {view.chance:.2f}, not calibrated)."


# --- rows of small pictures -----------------------------------------------------------------------


def _rows(explanation: Explanation) -> Iterator[Row]:
    square = explanation.grounding.image.pixels
    if explanation.tokens:
        yield _words(explanation, square)
        yield Row(
            title="Which token",
            text="Attention of each token of the phrase; at the peak they add up to "
            f"{explanation.peak:.2f}.",
            tiles=_shares(explanation, explanation.tokens, square),
        )
        yield Row(
            title="Which layer",
            text=f"Attention of the phrase in each layer; at the peak their mean is "
            f"{explanation.peak:.2f}.",
            tiles=_shares(explanation, explanation.layers, square),
        )
        steps = explanation.timesteps
        shown = [
            steps[i]
            for i in np.unique(np.linspace(0, len(steps) - 1, _MOST_STEPS).round().astype(int))
        ]
        yield Row(
            title="Which timestep",
            text=f"From less noise to more, {len(shown)} of {len(steps)}; at the peak the mean of "
            f"all is {explanation.peak:.2f}.",
            tiles=_shares(explanation, shown, square),
        )
    yield _geometry(explanation)


def _words(explanation: Explanation, square: Map) -> Row:
    """The map of the phrase beside those of controls."""
    found, chests = explanation.grounding, explanation.chests
    shown = [(found.canonical_attention, "this phrase, this image", f"score {found.score:.2f}")]
    alone: list[tuple[Map, str, str]] = []
    if chests:
        kind = "synthetic healthy" if chests.synthetic else "other"
        note = f"score {min(chests.scores):.2f} to {max(chests.scores):.2f}"
        alone += [(chests.map, f"this phrase, mean of {len(chests.scores)} {kind} chests", note)]
    for each in explanation.others:
        note = f"score {each.score:.2f}"
        if each.phrase:
            shown += [(each.map, f"{each.phrase!r}, this image", note)]
        else:
            alone += [(each.map, "no phrase, this image", note)]
    top = max(float(heat.max()) for heat, _, _ in shown)
    tiles = [
        *(Tile(picture=_overlay(square, heat, top), caption=c, note=n) for heat, c, n in shown),
        *(
            Tile(picture=_overlay(square, heat), caption=c, note=f"{n}; colours of its own scale")
            for heat, c, n in alone
        ),
    ]
    return Row(
        title="What other words light here, and the same words in other chests",
        text="If this phrase lights the same place in other chests, the map says where such "
        "findings usually are, not what this image shows.",
        tiles=tuple(tiles),
    )


def _shares(explanation: Explanation, shares: Sequence[Share], square: Map) -> tuple[Tile, ...]:
    top = max(float(each.map.max()) for each in shares)
    return tuple(
        Tile(
            picture=_overlay(square, each.map, top, explanation.where),
            caption=each.name,
            note=f"at the peak {each.at_peak:.3f}" + ("" if each.counts else ", not counted"),
        )
        for each in shares
    )


def _geometry(explanation: Explanation) -> Row:
    image = explanation.grounding.image
    frame, crop = image.frame, image.frame.crop
    height, width = frame.source
    sx, sy = frame.scale
    return Row(
        title="What was looked at",
        text=f"Of {width} x {height} pixels the model sees x {crop.x0:.0f} to {crop.x1:.0f}, "
        f"y {crop.y0:.0f} to {crop.y1:.0f} on a square of {frame.side}: {sx:.2f} x {sy:.2f} "
        "pixels become one. Boxes and map are in the image's own pixels.",
        tiles=(
            Tile(
                picture=_source_view(image.grey, frame),
                caption="the image",
                note="white: the square",
            ),
            Tile(picture=_grey(image.pixels), caption="what the model sees"),
            Tile(
                picture=_grey(explanation.view_square),
                caption="what the check of pictures sees",
                note=explanation.view.description or "upright frontal chest X-ray",
            ),
        ),
    )


def _source_view(grey: Map, frame: Frame) -> Pixels:
    """The image with the border of the model's square, everything within a tile."""
    height, width = frame.source
    crop = frame.crop
    x0, x1 = min(crop.x0, 0.0), max(crop.x1, float(width))
    y0, y1 = min(crop.y0, 0.0), max(crop.y1, float(height))
    aspect = crop.width / crop.height  # of a pixel, its height over its width
    scale = (_TILE - 4) / max(x1 - x0, (y1 - y0) * aspect)
    across, down = scale, scale * aspect
    tile = np.full((_TILE, _TILE, 3), 60, np.uint8)
    small = cv2.resize(
        np.nan_to_num(grey),
        (max(round(width * across), 1), max(round(height * down), 1)),
        interpolation=cv2.INTER_AREA,
    )
    left, top = 2 + round(-x0 * across), 2 + round(-y0 * down)
    part = tile[top : top + len(small), left : left + small.shape[1]]
    part[:] = np.rint(small[: len(part), : part.shape[1], None].clip(0, 1) * 255)
    low, high = (
        (2 + round((x - x0) * across), 2 + round((y - y0) * down))
        for x, y in ((crop.x0, crop.y0), (crop.x1, crop.y1))
    )
    cv2.rectangle(tile, low, high, (255, 255, 255), 1)
    return tile


def _grey(square: Map) -> Pixels:
    nearest = len(square) < _TILE
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA
    small = cv2.resize(square, (_TILE, _TILE), interpolation=how)
    return np.repeat(np.rint(small.clip(0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


def _overlay(
    square: Map, heat: Map, top: float | None = None, where: NDArray[np.bool_] | None = None
) -> Pixels:
    """A square under a map, of which ``top``, else its maximum, has the strongest colour."""
    top = float(heat.max()) if top is None else top
    strength = cv2.resize(heat, (_TILE, _TILE), interpolation=cv2.INTER_AREA) / max(top, 1e-9)
    strength = np.asarray(strength.clip(0, 1), np.float32)
    colours = palette()[np.rint(strength * 255).astype(np.uint8)]
    alpha = _OPACITY * strength[..., None]
    mixed = np.rint(_grey(square) * (1 - alpha) + colours * alpha).astype(np.uint8)
    if where is not None:
        inside = cv2.resize(where.astype(np.uint8), (_TILE, _TILE), interpolation=cv2.INTER_NEAREST)
        lines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mixed, lines, -1, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(mixed, np.uint8)


# --- the score among others -----------------------------------------------------------------------


def _ruler(explanation: Explanation) -> Pixels:
    """Scores from 0 to 1: this one, those of healthy chests, of controls, and the limit."""
    found, reference, chests = explanation.grounding, explanation.reference, explanation.chests
    rows = [("this phrase, this image", [found.score])]
    if reference:
        rows += [(f"{reference.images} healthy chests: {reference.finding}", [])]
    if chests:
        rows += [("this phrase, other chests", list(chests.scores))]
    rows += [("other phrases, this image", [e.score for e in explanation.others if e.phrase])]
    left, right, tall, head = 300, _WIDTH - 20, 30, 24
    bottom = head + tall * len(rows)
    canvas = empty(bottom + tall, _WIDTH)

    def x(score: float) -> int:
        return round(left + (right - left) * min(max(score, 0.0), 1.0))

    for tick in np.linspace(0, 1, 6):
        cv2.line(canvas, (x(tick), head), (x(tick), bottom), (60, 62, 68), 1)
        write_text(canvas, f"{tick:.1f}", (x(tick) - 10, bottom + 20), _SMALL, DIM)
    limit = explanation.least
    if limit is not None:
        cv2.line(canvas, (x(limit), head), (x(limit), bottom), _LIMIT, 2)
        write_text(canvas, f"found from {limit:.2f}", (x(limit) - 45, head - 7), _SMALL, _LIMIT)
    for number, (name, scores) in enumerate(rows):
        y = head + tall * number + tall // 2
        write_text(canvas, name, (0, y + 5), _PLAIN, TEXT)
        if not scores and reference:
            _draw_quantiles(canvas, [x(each) for each in reference.scores], reference.quantiles, y)
        for score in scores:
            size, colour = (5, _DOT) if number else (8, status_colour(found))
            cv2.circle(canvas, (x(score), y), size, colour, cv2.FILLED, cv2.LINE_AA)
    return canvas


def _draw_quantiles(
    canvas: Pixels, places: Sequence[int], quantiles: Sequence[float], y: int
) -> None:
    """A box from the lower to the upper quarter, the median, and a line from 5 to 95 %."""
    low, lower, middle, upper, high = (
        round(float(np.interp(q, quantiles, places))) for q in (0.05, 0.25, 0.5, 0.75, 0.95)
    )
    cv2.line(canvas, (low, y), (high, y), _DOT, 2)
    cv2.rectangle(canvas, (lower, y - 8), (max(upper, lower + 1), y + 8), _QUARTERS, cv2.FILLED)
    cv2.rectangle(canvas, (lower, y - 8), (max(upper, lower + 1), y + 8), _DOT, 1)
    cv2.line(canvas, (middle, y - 8), (middle, y + 8), TEXT, 3)


# --- the sheet ------------------------------------------------------------------------------------


def _sheet(
    explanation: Explanation, result: Pixels, why: Sequence[str], rows: Sequence[Row]
) -> Pixels:
    """All of the page in one picture, RGB."""
    title = f"Why? {explanation.grounding.phrase}"
    head = [
        *fold(title, _LARGE + 4, _WIDTH, weight=BOLD),
        *fold(f"{NOTICE.capitalize()}.", _SMALL, _WIDTH, colour=DIM),
        Line(text="", size=_SMALL // 2),
    ]
    for number, sentence in enumerate(why):
        colour = TEXT if number else status_colour(explanation.grounding)
        head += fold(f"• {sentence}", _PLAIN, _WIDTH, colour=colour)
    tall = round(len(result) * _WIDTH / result.shape[1])
    shrunk = cv2.resize(result, (_WIDTH, tall), interpolation=cv2.INTER_AREA)
    bands = [band(head, _WIDTH), empty(_GAP, _WIDTH), np.asarray(shrunk, np.uint8)]
    if explanation.tokens:
        bands += [_heading("How high is the score?", _LEGEND), _ruler(explanation)]
    for row in rows:
        bands += [_heading(row.title, row.text)]
        for start in range(0, len(row.tiles), _COLUMNS):
            bands += [_strip(row.tiles[start : start + _COLUMNS])]
    return framed(bands, _UNIT)


def _heading(title: str, text: str) -> Pixels:
    lines = [
        Line(text="", size=_SMALL),
        *fold(title, _LARGE, _WIDTH, weight=BOLD),
        *fold(text, _SMALL, _WIDTH, colour=DIM),
        Line(text="", size=_SMALL // 2),
    ]
    return band(lines, _WIDTH)


def _strip(tiles: Sequence[Tile]) -> Pixels:
    """Small pictures side by side, each with its caption."""
    columns = [
        np.vstack(
            [
                tile.picture,
                band(
                    [
                        *fold(tile.caption, _SMALL, _TILE),
                        *(fold(tile.note, _SMALL, _TILE, colour=DIM) if tile.note else ()),
                    ],
                    _TILE,
                ),
            ]
        )
        for tile in tiles
    ]
    blanks = [empty(1, _TILE)] * (_COLUMNS - len(tiles))
    return beside([*columns, *blanks], _GAP)


def _facts(explanation: Explanation) -> Iterator[tuple[str, str]]:
    found = explanation.grounding
    yield "model", f"{found.model.name}, {found.model.identity}, {found.model.precision}"
    yield "adapter", found.model.adapter or "none"
    yield "preset", found.options.preset
    yield "encoded text", found.asked
    yield "what it means", found.intent.summary or "states one thing"
    counted = [each.name for each in explanation.tokens if each.counts]
    yield "tokens that count", ", ".join(counted) or "none"
    yield "network evaluations for the phrase", str(found.evaluations)
    yield "image", f"sha256 {found.image.sha256}, grey: {found.image.window}"
