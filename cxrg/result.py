"""The result for one phrase in one image, made of its attention maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cxrg.attention.free_run import FreeRun
from cxrg.attention.watch import AttentionMaps
from cxrg.geometry import Box, Frame
from cxrg.heatmap.bias_merging import merge
from cxrg.heatmap.boxes import boxes_from_heatmap
from cxrg.heatmap.maps import aggregate, compete, confine, enlarge, geometric_mean, scale, smooth
from cxrg.heatmap.presence import presence
from cxrg.heatmap.threshold import mask_background
from cxrg.image.read import CxrImage
from cxrg.latents.invert import window_indices
from cxrg.latents.route import route_of
from cxrg.model.model import Model
from cxrg.options import Options
from cxrg.phrase.encode import PARTS, Prompt


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
        phrase: the phrase.
        asked: what the network was asked: the phrase, or its template.
        status: ``not found`` where the score is below ``options.absent_below``, or where nothing
            rises above the threshold; then there are no boxes.
        score: how strongly the phrase is present, the highest attention probability in the image;
            0 to 1, comparable between phrases of one model and one set of options only.
        heatmap: float32 ``(H, W)`` in [0, 1], the source image's pixels; NaN where never seen.
        canonical: float32 ``(S, S)`` in [0, 1], the same on the model's square.
        canonical_attention: float32 ``(S, S)`` in [0, 1], what the heatmap was made of: the mean
            attention probability over layers and steps, smoothed.
        boxes: in pixels of the source image, the highest score first.
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


def heatmaps(
    maps: AttentionMaps, frame: Frame, options: Options, free: FreeRun | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """A phrase's map on the square, background included, its attention, and its presence score.

    The score is of the chosen tokens' absolute map, whatever the heatmap is made of. So it is with
    a template, of all its tokens: finding and location are parts of one softmax, whose geometric
    mean is at most a half, far below the scale that ``absent_below`` was set on.

    Args:
        maps: the phrase's attention.
        frame: how the image lies on the square.
        options: all knobs.
        free: a free run, where biases are merged.

    Returns:
        The map and the attention of which it was made, see `Grounding`, both float32 ``(S, S)`` in
        [0, 1], and the score in [0, 1].
    """
    height, width = frame.source
    seen = frame.to_canonical(Box(0, 0, width, height))
    assert seen is not None  # a frame is laid over its image
    finish: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda heat: confine(  # noqa: E731
        smooth(heat, options.sigma * frame.side), seen
    )
    # Where biases are merged, more was read than the window.
    read = maps.first(int(window_indices(options.window, len(maps.timesteps))[1])) if free else maps
    absolute = finish(aggregate(read.layers, frame.side, how=options.enlarge))
    score = min(max(presence(absolute), 0.0), 1.0)
    attention = absolute.clip(0, 1)
    if free:
        merged = merge(scale(_plain(read, free.side, options)), maps, free, options.bbm)
        return scale(finish(enlarge(merged, frame.side, options.enlarge))), attention, score
    same = options.normalise in ("none", "final") and "finding" not in read.extra
    heat = absolute if same else finish(_plain(read, frame.side, options))
    return (heat.clip(0, 1) if options.normalise == "none" else scale(heat)), attention, score


def _plain(maps: AttentionMaps, side: int, options: Options) -> NDArray[np.float32]:
    """One map ``(side, side)`` of all layers and steps, as option ``normalise`` says.

    Finding and location are joined when each is one map: in a product of single layers and steps,
    the noisiest of them would have a veto.
    """
    each = options.normalise == "minmax"
    if "finding" in maps.extra:
        finding, location = (
            aggregate(maps.extra[part], side, how=options.enlarge, normalise=each) for part in PARTS
        )
        return geometric_mean(finding, location, options.alpha)
    heat = aggregate(maps.layers, side, how=options.enlarge, normalise=each)
    if options.normalise != "competition":
        return heat
    return compete(heat, aggregate(maps.extra["span"], side, how=options.enlarge))


def make_grounding(
    image: CxrImage,
    prompt: Prompt,
    maps: AttentionMaps,
    model: Model,
    options: Options,
    free: FreeRun | None = None,
) -> Grounding:
    """What a phrase's maps, and a free run's, say; ``timings`` is left empty."""
    heat, attention, score = heatmaps(maps, image.frame, options, free)
    absent = options.absent_below is not None and score < options.absent_below
    found = (
        ()
        if absent
        else boxes_from_heatmap(heat, threshold=options.threshold, min_area=options.min_area)
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
        warnings=(*image.warnings, *prompt.warnings, *_warnings(heat, prompt, options)),
        timings={},
    )


def _warnings(heat: NDArray[np.float32], prompt: Prompt, options: Options) -> Iterator[str]:
    """What a reader should know of the map."""
    if options.normalise == "competition" and len(prompt.selected) == len(prompt.tokens):
        yield "all the phrase's tokens are read, so none compete; choose tokens, such as content"
    if heat.min() == heat.max():
        yield "attention is the same everywhere"
