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
from cxrg.files import atomic_write
from cxrg.output.formats import stem_of
from cxrg.output.html import write_page
from cxrg.output.picture import render, text_width, write_text

if TYPE_CHECKING:
    from cxrg.explanation import Explanation, Share
    from cxrg.geometry import Frame
    from cxrg.result import Grounding

Pixels = NDArray[np.uint8]
Map = NDArray[np.float32]

_TILE = 208  # pixels of a small picture's side
_MOST_STEPS = 8  # small pictures of timesteps
_OPACITY = 0.6
_WIDTH = 1130
_COLUMNS = 5
_MARGIN, _GAP = 24, 14
_LINE = 20
_GROUND, _TEXT, _DIM, _MARK = (255, 255, 255), (17, 17, 17), (90, 90, 90), (176, 0, 32)
_BOX, _DOT = (205, 214, 226), (86, 110, 150)


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


def write_explanation(explanation: Explanation, folder: Path) -> dict[str, Path]:
    """Write ``STEM-explained.html`` and ``.png``; the stem is that of the result's other files.

    Neither holds the image's name nor anything of a DICOM header.

    Returns:
        The file of each format.

    Raises:
        WriteError: a file cannot be written.
    """
    name = f"{stem_of(explanation.grounding)}-explained"
    files = {kind: folder / f"{name}.{kind}" for kind in ("html", "png")}
    result = render(explanation.grounding, explanation.grounding.image)
    why, rows = list(sentences(explanation)), list(_rows(explanation))
    write_page(
        "explanation.html",
        files["html"],
        phrase=explanation.grounding.phrase,
        why=why,
        result=_png(result),
        ruler=_png(_ruler(explanation)) if explanation.tokens else None,
        rows=[
            {
                "title": row.title,
                "text": row.text,
                "tiles": [(_png(tile.picture), tile.caption, tile.note) for tile in row.tiles],
            }
            for row in rows
        ],
        facts=list(_facts(explanation)),
    )
    with atomic_write(files["png"]) as file:
        file.write(_png(_sheet(explanation, result, why, rows)))
    return files


def sentences(explanation: Explanation) -> Iterator[str]:
    """Why the answer is what it is, a sentence each, the most important first."""
    found = explanation.grounding
    yield _verdict(found)
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


def _verdict(found: Grounding) -> str:
    limit = found.options.absent_below
    match found.status:
        case "found":
            where = ", ".join(found.places)
            enough = f", and found is from {limit:.2f} on" if limit is not None else ""
            return f"FOUND ({where}): the score is {found.score:.2f}{enough}."
        case "not found" if limit is not None and found.score < limit:
            return f"NOT FOUND: the score is {found.score:.2f}, and found is from {limit:.2f} on."
        case "not found":
            return "NOT FOUND: no region of the map rises above the threshold."
        case "nothing to mark":
            return f"NOTHING TO MARK: the phrase {found.intent.summary}."
        case "unknown phrase":
            return "UNKNOWN PHRASE: it names nothing that is known, so nothing was looked for."


def _of_healthy(explanation: Explanation) -> Iterator[str]:
    reference, score = explanation.reference, explanation.grounding.score
    if not explanation.tokens:
        return
    if reference is None:
        yield "There is no reference distribution of healthy chests for this model and finding."
        return
    share = reference.share_below(score)
    yield (
        f"Of {reference.images} healthy chests ({reference.of}) that were asked for "
        f"{reference.finding}, {share:.0%} score lower."
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
            else ("the place owes something to this image")
        )
        yield f"Their mean map and this map correlate by {chests.alike:.2f}: {shape}."
        if chests.unused:
            yield f"{chests.unused} given images could not be used as controls."
    higher = [each for each in explanation.others if each.phrase and each.score >= score]
    if higher:
        names = ", ".join(f"{each.phrase!r} ({each.score:.2f})" for each in higher)
        yield f"Beware: in this image other phrases score no less: {names}."
    elif explanation.others:
        top = max(each.score for each in explanation.others if each.phrase)
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
    strength = strength.clip(0, 1).astype(np.float32)
    colours = cv2.applyColorMap(np.rint(strength * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    alpha = _OPACITY * strength[..., None]
    mixed = np.rint(_grey(square) * (1 - alpha) + colours[..., ::-1] * alpha).astype(np.uint8)
    if where is not None:
        inside = cv2.resize(where.astype(np.uint8), (_TILE, _TILE), interpolation=cv2.INTER_NEAREST)
        lines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mixed, lines, -1, (255, 255, 255), 1, cv2.LINE_AA)
    return mixed


# --- the score among others -----------------------------------------------------------------------


def _ruler(explanation: Explanation) -> Pixels:
    """Scores from 0 to 1: this one, those of healthy chests, of controls, and the limit."""
    found, reference, chests = explanation.grounding, explanation.reference, explanation.chests
    rows = ["this phrase, this image"]
    rows += [f"{reference.images} healthy chests, {reference.finding}"] if reference else []
    rows += ["this phrase, other chests"] if chests else []
    rows += ["other phrases, this image"]
    left, right, tall, head = 300, _WIDTH - 2 * _MARGIN - 20, 30, 20
    size = head + tall * (len(rows) + 1) + 10, _WIDTH - 2 * _MARGIN, 3
    canvas = np.full(size, _GROUND, np.uint8)

    def x(score: float) -> int:
        return round(left + (right - left) * min(max(score, 0.0), 1.0))

    bottom = head + tall * len(rows)
    for tick in np.linspace(0, 1, 6):
        cv2.line(canvas, (x(tick), head), (x(tick), bottom), (225, 225, 225), 1)
        write_text(canvas, f"{tick:.1f}", (x(tick) - 10, bottom + 20), 14, _DIM)
    limit = found.options.absent_below
    if limit is not None:
        cv2.line(canvas, (x(limit), head), (x(limit), bottom), _MARK, 2)
        write_text(canvas, f"found from {limit:.2f}", (x(limit) - 45, head - 5), 14, _MARK)
    for number, name in enumerate(rows):
        y = head + tall * number + tall // 2
        write_text(canvas, name, (0, y + 5), 15, _TEXT)
        if name.startswith("this phrase, this"):
            cv2.circle(canvas, (x(found.score), y), 8, _TEXT, cv2.FILLED, cv2.LINE_AA)
            write_text(canvas, f"{found.score:.2f}", (x(found.score) + 14, y + 5), 15, _TEXT, 600)
        elif reference and "healthy chests, " in name:
            _draw_quantiles(canvas, [x(each) for each in reference.scores], reference.quantiles, y)
        else:
            scores = (
                chests.scores
                if chests and name.endswith("chests")
                else [each.score for each in explanation.others if each.phrase]
            )
            for score in scores:
                cv2.circle(canvas, (x(score), y), 5, _DOT, cv2.FILLED, cv2.LINE_AA)
    return canvas


def _draw_quantiles(
    canvas: Pixels, places: Sequence[int], quantiles: Sequence[float], y: int
) -> None:
    """A box from the lower to the upper quarter, the median, and lines to the ends."""
    low, lower, middle, upper, high = (
        round(float(np.interp(q, quantiles, places))) for q in (0.05, 0.25, 0.5, 0.75, 0.95)
    )
    cv2.line(canvas, (low, y), (high, y), _DOT, 2)
    cv2.rectangle(canvas, (lower, y - 8), (max(upper, lower + 1), y + 8), _BOX, cv2.FILLED)
    cv2.rectangle(canvas, (lower, y - 8), (max(upper, lower + 1), y + 8), _DOT, 1)
    cv2.line(canvas, (middle, y - 8), (middle, y + 8), _DOT, 3)


# --- the sheet ------------------------------------------------------------------------------------


def _sheet(
    explanation: Explanation, result: Pixels, why: Sequence[str], rows: Sequence[Row]
) -> Pixels:
    """All of the page in one picture, RGB."""
    inner = _WIDTH - 2 * _MARGIN
    parts = [_text([f"Why? {explanation.grounding.phrase}"], 24, bold=True)]
    parts += [_text([NOTICE.capitalize()], 14, colour=_DIM)]
    parts += [_text([f"- {sentence}" for sentence in why], 16)]
    tall = round(len(result) * inner / result.shape[1])
    shrunk = cv2.resize(result, (inner, tall), interpolation=cv2.INTER_AREA)
    parts += [np.asarray(shrunk, np.uint8)]
    if explanation.tokens:
        parts += [_text(["How high is the score?"], 18, bold=True), _ruler(explanation)]
    for row in rows:
        parts += [_text([row.title], 18, bold=True), _text([row.text], 14, colour=_DIM)]
        for start in range(0, len(row.tiles), _COLUMNS):
            parts += [_strip(row.tiles[start : start + _COLUMNS])]
    total = sum(len(part) + _GAP for part in parts) + 2 * _MARGIN
    canvas = np.full((total, _WIDTH, 3), _GROUND, np.uint8)
    y = _MARGIN
    for part in parts:
        canvas[y : y + len(part), _MARGIN : _MARGIN + part.shape[1]] = part
        y += len(part) + _GAP
    return canvas


def _strip(tiles: Sequence[Tile]) -> Pixels:
    captions = [
        [
            *_lines(tile.caption, 14, _TILE)[:2],
            *(_lines(tile.note, 13, _TILE)[:2] if tile.note else []),
        ]
        for tile in tiles
    ]
    tall = _TILE + _LINE * max(map(len, captions)) + 6
    canvas = np.full((tall, _WIDTH - 2 * _MARGIN, 3), _GROUND, np.uint8)
    for number, (tile, lines) in enumerate(zip(tiles, captions, strict=True)):
        left = number * (_TILE + 10)
        canvas[:_TILE, left : left + _TILE] = tile.picture
        for row, line in enumerate(lines, 1):
            write_text(canvas, line, (left, _TILE + _LINE * row), 14, _TEXT)
    return canvas


def _text(
    paragraphs: Sequence[str],
    size: int,
    *,
    bold: bool = False,
    colour: tuple[int, int, int] = _TEXT,
) -> Pixels:
    width, leading = _WIDTH - 2 * _MARGIN, round(size * 1.4)
    lines = [line for text in paragraphs for line in _lines(text, size, width)]
    canvas = np.full((leading * len(lines) + size // 3, width, 3), _GROUND, np.uint8)
    for row, line in enumerate(lines):
        write_text(canvas, line, (0, leading * row + size), size, colour, 600 if bold else 400)
    return canvas


def _lines(text: str, size: int, width: int) -> list[str]:
    """A text in lines that fit; a word that is too long is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _png(picture: Pixels) -> bytes:
    _, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return encoded.tobytes()


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
