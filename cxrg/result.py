"""The result for one phrase in one image, made of its attention maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy.whereabouts import Whereabouts
from cxrg.attention.free_run import FreeRun
from cxrg.attention.watch import AttentionMaps
from cxrg.chest.whereabouts import side_of
from cxrg.geometry import Box
from cxrg.heatmap.boxes import boxes_above
from cxrg.heatmap.draws import Draws, compare_draws
from cxrg.heatmap.from_attention import attention_by, heatmap_of
from cxrg.heatmap.threshold import mask_background
from cxrg.image.read import CxrImage
from cxrg.latents.route import route_of
from cxrg.model.calibration import Calibration, calibration_of, strength
from cxrg.model.model import Model
from cxrg.options import Options
from cxrg.output.coco import coco
from cxrg.output.formats import (
    DEFAULT_FORMATS,
    check_formats,
    check_image,
    paths,
    stem_of,
    write,
)
from cxrg.output.html import fragment
from cxrg.output.overlay import draw_overlay
from cxrg.output.page import png_bytes, shrunk
from cxrg.output.picture import render, status_text
from cxrg.output.record import record
from cxrg.output.sheet import render_sheet
from cxrg.output.show import show_picture
from cxrg.phrase.encode import Prompt
from cxrg.phrase.intent import Intent
from cxrg.phrase.plan import PhrasePlan

_NOTEBOOK = 1000  # width of the picture in a notebook, at most
Status = Literal["found", "not found", "uncalibrated", "nothing to mark", "unknown phrase"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """Which model read it, in which precision; the identity is of the model and its adapter."""

    name: str
    identity: str
    precision: str = "float32"
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Laterality:
    """Whether boxes are on the side that the phrase names; sides are the patient's.

    Attributes:
        phrase: ``left``, ``right``, ``bilateral``, or None where the phrase names no side.
        boxes: for each box its side: ``left``, ``right``, ``both``, or None in the middle.
    """

    phrase: Literal["left", "right", "bilateral"] | None
    boxes: tuple[Literal["left", "right", "both"] | None, ...]

    @property
    def wrong(self) -> tuple[int, ...]:
        """Numbers, from 1, of the boxes that are not on the phrase's one side."""
        if self.phrase in (None, "bilateral"):
            return ()
        return tuple(
            number
            for number, side in enumerate(self.boxes, 1)
            if side is not None and side != self.phrase
        )

    @property
    def agrees(self) -> bool | None:
        """Whether sides agree; None where the phrase names no side or there are no boxes."""
        if self.phrase is None or not self.boxes:
            return None
        if self.phrase == "bilateral":
            return "both" in self.boxes or {"left", "right"} <= set(self.boxes)
        return not self.wrong


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Grounding:
    """Where a phrase is in an image.

    Attributes:
        image: the image as it was read.
        phrase: the phrase as given.
        asked: the text that was encoded: the phrase, normalised, with typing errors mended, or what
            it denies or calls normal.
        intent: what the phrase means.
        status: ``not found`` where presence is below ``options.absent_below`` (or the score, where
            the model is not calibrated), or where nothing rises above the threshold;
            ``uncalibrated`` where there is no such limit: boxes show where attention is highest,
            and whether a finding is there is not judged; ``nothing to mark`` where the phrase
            denies a finding, calls something normal or only compares; ``unknown phrase`` where it
            names nothing that is known. There are boxes only for ``found`` and ``uncalibrated``.
        score: how strongly the phrase is present, the highest attention probability in the image;
            0 to 1, comparable between phrases of one model and one set of options only.
        presence: the probability that the finding is there, if before that was as likely as a
            healthy chest; None where the model has no calibration for the options, and for places,
            which are always there.
        heatmap: float32 ``(H, W)`` in [0, 1], the source image's pixels; NaN where never seen.
        canonical: float32 ``(S, S)`` in [0, 1], the same on the model's square.
        canonical_attention: float32 ``(S, S)`` in [0, 1], what the heatmap was made of: the mean
            attention probability over layers and steps, smoothed.
        maps: the attention of the phrase's tokens by layer and timestep, of which that is the mean:
            ``maps.layers[name]`` is float32 ``(T, h, w)``, read at ``maps.timesteps``.
        boxes: in pixels of the source image, the highest score first.
        places: where each box lies, in words: a zone of a lung, or a place beside the lungs.
        edge: the value of ``heatmap`` at the border of the regions that the boxes enclose; None
            where there are none.
        tokens: the tokens whose attention was read.
        layers: the layers that were read.
        options: every knob as it was used.
        model: which model.
        evaluations: the denoiser's evaluations for this phrase, the image's inversion included (it
            is shared by the phrases of one call).
        warnings: what a reader should know, of the image and of the phrase.
        timings: seconds of the call's stages, shared by its phrases.
        draws: what single noise draws give; None where a timestep has fewer than three, as it has
            on all routes but that of preset ``fast``, and there unless ``draws`` says so.
        parts: the result for each finding of a phrase that names several, or one at several places;
            else none.
    """

    image: CxrImage
    phrase: str
    asked: str
    intent: Intent
    status: Status
    score: float
    presence: float | None
    heatmap: NDArray[np.float32]
    canonical: NDArray[np.float32]
    canonical_attention: NDArray[np.float32]
    maps: AttentionMaps
    boxes: tuple[Box, ...]
    places: tuple[str, ...]
    edge: float | None
    tokens: tuple[str, ...]
    layers: tuple[str, ...]
    options: Options
    model: ModelRef
    evaluations: int
    warnings: tuple[str, ...]
    timings: Mapping[str, float]
    draws: Draws | None = None
    parts: tuple[Grounding, ...] = ()

    @property
    def strength(self) -> float:
        """What status is decided by: presence, or the score where there is none."""
        return strength(self.score, self.presence)

    @property
    def laterality(self) -> Laterality:
        """Whether boxes are on the side that the phrase names."""
        return laterality_of(self.intent, self.places)

    @property
    def attention(self) -> NDArray[np.float32]:
        """``canonical_attention`` in the source image's pixels ``(H, W)``, NaN where never seen."""
        return self.image.frame.restore(self.canonical_attention)

    def attention_by(
        self, what: Literal["layer", "timestep"]
    ) -> dict[str | int, NDArray[np.float32]]:
        """Split `attention` by layer or by timestep, for a figure; empty where nothing was read.

        Args:
            what: ``layer`` or ``timestep``; several noise draws of a timestep are averaged.

        Returns:
            For each float32 ``(H, W)`` in the source image's pixels, NaN where never seen.

        Raises:
            UsageError: ``what`` is neither of the two.
        """
        frame = self.image.frame
        parts = attention_by(self.maps, frame, self.options, what)
        return {name: frame.restore(part) for name, part in parts.items()}

    def overlay(self) -> NDArray[np.uint8]:
        """The X-ray under the translucent heatmap, with contour and numbered boxes.

        Returns:
            RGB, uint8 ``(H, W, 3)``, the source image's pixels; the X-ray alone where nothing was
            looked for.
        """
        size = self.image.frame.source
        return draw_overlay(self, self.image, size, max(min(size) // 20, 10))

    def to_coco(self) -> dict[str, Any]:
        """Return the boxes as COCO's JSON has them, see `cxrg.output.coco`."""
        return coco(record(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON record: all but the arrays, without the image's name; see RECORD.md."""
        return record(self)

    def save(self, folder: Path | str, formats: Sequence[str] = DEFAULT_FORMATS) -> dict[str, Path]:
        """Write the files that ``cxrg ground`` writes, under the names that it gives them.

        Args:
            folder: is made where it is missing.
            formats: some of those that ``cxrg ground --format`` takes.

        Returns:
            The file of each format.

        Raises:
            ImageError: the image is none that a format can be written for.
            UsageError: a format is unknown, or a package that it needs is missing.
            WriteError: a file cannot be written.
        """
        check_formats(formats)
        check_image(self.image, formats)
        files = paths(Path(folder), stem_of(self), formats)
        write(self, self.image, files)
        return files

    def show(self) -> None:
        """Show the picture that `save` writes, in a notebook or with the desktop's viewer."""
        show_picture(render(self, self.image))

    def _repr_png_(self) -> bytes:
        """The picture that `save` writes, for a notebook."""
        return png_bytes(render(self, self.image))

    def _repr_html_(self) -> str:
        """The same, smaller, with a table of the boxes."""
        boxes = record(self)["boxes"]
        picture = png_bytes(shrunk(render(self, self.image), _NOTEBOOK))
        alt = f"{self.phrase}: {status_text(self)}"
        return fragment(
            "result.html", picture=picture, alt=alt, boxes=boxes, warnings=self.warnings
        )

    def __repr__(self) -> str:
        """One line without arrays, and without the image's name, which may be a patient's."""
        boxes = f"{len(self.boxes)} box{'' if len(self.boxes) == 1 else 'es'}"
        phrase = self.phrase if len(self.phrase) <= 60 else f"{self.phrase[:57]}..."
        return (
            f"<Grounding: {phrase!r} {self.status}, score {self.score:.2f}, {boxes}, "
            f"model {self.model.name}, image sha256 {self.image.sha256[:8]}>"
        )


def show(results: Grounding | Sequence[Grounding]) -> None:
    """Show results on one sheet, of one image or several, in a notebook or the desktop's viewer.

    Raises:
        UsageError: there are none.
    """
    if isinstance(results, Grounding):
        results.show()
    else:
        show_picture(render_sheet(results))


def laterality_of(intent: Intent, places: Sequence[str]) -> Laterality:
    """Whether places are on the side that a phrase names."""
    return Laterality(phrase=intent.side, boxes=tuple(map(side_of, places)))


def make_grounding(
    image: CxrImage,
    whereabouts: Whereabouts,
    plan: PhrasePlan,
    prompt: Prompt,
    maps: AttentionMaps,
    model: Model,
    options: Options,
    free: FreeRun | None = None,
) -> Grounding:
    """Make the result for a phrase of its attention maps; ``timings`` is left empty."""
    heat, attention, score = heatmap_of(maps, image.frame, options, free)
    calibration = _calibration(model, plan.intent, options)
    least = least_score(model, plan.intent, options)
    boxes, inside = boxes_above(heat, score, image.frame, options, least=least)
    boxes = boxes if plan.marks else ()
    canonical = mask_background(heat, options.mask)
    places = tuple(map(whereabouts, boxes))
    route = route_of(options, model.schedule)
    draws = compare_draws(
        maps, image.frame, options, boxes, count=route.draws, marks=plan.marks, least=least
    )
    return Grounding(
        image=image,
        phrase=prompt.text,
        asked=prompt.asked,
        intent=plan.intent,
        status=_status(plan, boxes, least),
        score=score,
        presence=calibration.probability(score, plan.intent.terms) if calibration else None,
        heatmap=image.frame.restore(canonical),
        canonical=canonical,
        canonical_attention=attention,
        maps=maps,
        boxes=boxes,
        places=places,
        edge=float(canonical[inside].min()) if boxes else None,
        draws=draws,
        tokens=prompt.selected_tokens,
        layers=tuple(maps.layers),
        options=options,
        model=_model_ref(model),
        evaluations=route.evaluations + len(maps.timesteps) + (free.evaluations if free else 0),
        warnings=(
            *image.warnings,
            *plan.warnings,
            *prompt.warnings,
            *_warnings(heat),
            *_side_warnings(laterality_of(plan.intent, places), places),
        ),
        timings={},
    )


def _status(plan: PhrasePlan, boxes: Sequence[Box], least: float | None) -> Status:
    """What is said of a phrase that was looked for."""
    if not plan.marks:
        return _refusal(plan)
    if not boxes:
        return "not found"
    judged = least is not None or plan.intent.kind == "place"  # places are always there
    return "found" if judged else "uncalibrated"


def least_score(model: Model, intent: Intent, options: Options) -> float | None:
    """The score below which a phrase counts as not found; None where any score will do.

    A calibrated model's limit is a probability: with options for which there is none, no score is
    compared with it. Places are always there.
    """
    calibration, limit = _calibration(model, intent, options), options.absent_below
    if limit is None or intent.kind == "place":
        return None
    if not model.card.presence:
        return limit
    return calibration.score(limit, intent.terms) if calibration else None


def _calibration(model: Model, intent: Intent, options: Options) -> Calibration | None:
    """From the score to a probability; None for places, which are always there."""
    if model.adapter or intent.kind == "place":
        return None
    return calibration_of(model.card.presence, options)


def make_refusal(image: CxrImage, plan: PhrasePlan, model: Model, options: Options) -> Grounding:
    """Make the result for a phrase that nothing is looked for: no network runs, no map."""
    side = image.frame.side
    nothing = np.zeros((side, side), np.float32)
    return Grounding(
        image=image,
        phrase=plan.phrase,
        asked=plan.intent.text,
        intent=plan.intent,
        status=_refusal(plan),
        score=0.0,
        presence=None,
        heatmap=np.full(image.frame.source, np.nan, np.float32),
        canonical=nothing,
        canonical_attention=nothing,
        maps=AttentionMaps(layers={}, timesteps=()),
        boxes=(),
        places=(),
        edge=None,
        tokens=(),
        layers=(),
        options=options,
        model=_model_ref(model),
        evaluations=0,
        warnings=(*image.warnings, *plan.warnings),
        timings={},
    )


def _refusal(plan: PhrasePlan) -> Status:
    return "unknown phrase" if plan.intent.kind == "unknown" else "nothing to mark"


def _model_ref(model: Model) -> ModelRef:
    return ModelRef(
        name=model.card.name,
        identity=model.identity,
        precision=model.precision,
        adapter=model.adapter.name if model.adapter else None,
    )


def _warnings(heat: NDArray[np.float32]) -> Iterator[str]:
    """What a reader should know of the map."""
    if heat.min() == heat.max():
        yield "attention is the same everywhere"


def _side_warnings(sides: Laterality, places: Sequence[str]) -> Iterator[str]:
    """What a reader should know of the boxes' sides; left and right are the patient's."""
    for number in sides.wrong:
        where = places[number - 1]
        yield f"phrase names the {sides.phrase} side, but box {number} is elsewhere: {where}"
    if sides.phrase == "bilateral" and sides.agrees is False:
        found = next((f"the {side} only" for side in sides.boxes if side), "neither")
        yield f"phrase names both sides, but boxes are on {found}"
