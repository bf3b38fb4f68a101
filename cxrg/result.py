"""The result for one phrase in one image, made of its attention maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy.whereabouts import Whereabouts
from cxrg.attention.free_run import FreeRun
from cxrg.attention.watch import AttentionMaps
from cxrg.geometry import Box, Frame
from cxrg.heatmap.boxes import boxes_of_regions, region_mask
from cxrg.heatmap.from_attention import heatmap_of
from cxrg.heatmap.threshold import mask_background
from cxrg.image.read import CxrImage
from cxrg.latents.route import route_of
from cxrg.model.model import Model
from cxrg.options import Options
from cxrg.phrase.encode import Prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRef:
    """Which image was read: the file's name without its folder, and the hash of its bytes."""

    name: str
    sha256: str
    uid: str | None
    window: str
    frame: Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """Which model read it, in which precision; the identity is of the model and its adapter."""

    name: str
    identity: str
    precision: str = "float32"
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Grounding:
    """Where a phrase is in an image.

    Attributes:
        image: which image.
        phrase: the phrase as given.
        asked: the text that was encoded: the phrase, normalised.
        status: ``not found`` where the score is below ``options.absent_below``, or where nothing
            rises above the threshold; then there are no boxes.
        score: how strongly the phrase is present, the highest attention probability in the image;
            0 to 1, comparable between phrases of one model and one set of options only.
        heatmap: float32 ``(H, W)`` in [0, 1], the source image's pixels; NaN where never seen.
        canonical: float32 ``(S, S)`` in [0, 1], the same on the model's square.
        canonical_attention: float32 ``(S, S)`` in [0, 1], what the heatmap was made of: the mean
            attention probability over layers and steps, smoothed.
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
    """

    image: ImageRef
    phrase: str
    asked: str
    status: Literal["found", "not found"]
    score: float
    heatmap: NDArray[np.float32]
    canonical: NDArray[np.float32]
    canonical_attention: NDArray[np.float32]
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

    @property
    def attention(self) -> NDArray[np.float32]:
        """``canonical_attention`` in the source image's pixels ``(H, W)``, NaN where never seen."""
        return self.image.frame.restore(self.canonical_attention)


def make_grounding(
    image: CxrImage,
    whereabouts: Whereabouts,
    prompt: Prompt,
    maps: AttentionMaps,
    model: Model,
    options: Options,
    free: FreeRun | None = None,
) -> Grounding:
    """Make the result for a phrase of its attention maps; ``timings`` is left empty."""
    heat, attention, score = heatmap_of(maps, image.frame, options, free)
    absent = options.absent_below is not None and score < options.absent_below
    inside = region_mask(heat, options.threshold)
    found = (
        ()
        if absent
        else boxes_of_regions(
            heat, inside, whole=options.threshold == "mixture", min_area=options.min_area
        )
    )
    boxes = tuple(box for each in found if (box := image.frame.to_source(each)))
    canonical = mask_background(heat, options.mask)
    return Grounding(
        image=ImageRef(
            name=image.path.name,
            sha256=image.sha256,
            uid=image.uid,
            window=image.window,
            frame=image.frame,
        ),
        phrase=prompt.text,
        asked=prompt.asked,
        status="found" if boxes else "not found",
        score=score,
        heatmap=image.frame.restore(canonical),
        canonical=canonical,
        canonical_attention=attention,
        boxes=boxes,
        places=tuple(map(whereabouts, boxes)),
        edge=float(canonical[inside].min()) if boxes else None,
        tokens=prompt.selected_tokens,
        layers=tuple(maps.layers),
        options=options,
        model=ModelRef(
            name=model.card.name,
            identity=model.identity,
            precision=model.precision,
            adapter=model.adapter.name if model.adapter else None,
        ),
        evaluations=route_of(options, model.schedule).evaluations
        + len(maps.timesteps)
        + (free.evaluations if free else 0),
        warnings=(*image.warnings, *prompt.warnings, *_warnings(heat)),
        timings={},
    )


def _warnings(heat: NDArray[np.float32]) -> Iterator[str]:
    """What a reader should know of the map."""
    if heat.min() == heat.max():
        yield "attention is the same everywhere"
