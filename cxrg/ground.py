"""Where in a chest X-ray is what a phrase says? The whole way, in order.

image -> latent -> inverted latents (once per image) -> attention of all phrases -> heatmaps ->
boxes -> pixels of the original file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrg.attention import AttentionMaps, read_attention
from cxrg.errors import UsageError
from cxrg.geometry import Box, Frame
from cxrg.heatmap import (
    aggregate,
    boxes_from_heatmap,
    confine,
    presence,
    scale,
    smooth,
    suppress,
)
from cxrg.image import CxrImage, read_image
from cxrg.invert import ddim_latents, noise_latents, timestep_list, window_indices
from cxrg.layers import choose_layers
from cxrg.model import Model, load
from cxrg.options import DEFAULT_PRESET, Dtype, Options, resolve
from cxrg.phrase import Prompt, encode_phrase


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
    """Which model read it."""

    name: str
    identity: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Grounding:
    """Where a phrase is in an image.

    Attributes:
        image: which image.
        phrase: the phrase.
        status: ``not found`` where the score is below ``options.absent_below``, or where nothing
            rises above the threshold; then there are no boxes.
        score: how strongly the phrase is present, the highest attention probability in the image;
            0 to 1, comparable between phrases of one model and one set of options only.
        heatmap: float32 ``(H, W)`` in [0, 1], the source image's pixels; NaN where never seen.
        canonical: float32 ``(S, S)`` in [0, 1], the same on the model's square.
        boxes: in pixels of the source image, the highest score first.
        tokens: the tokens whose attention was read.
        layers: the layers that were read.
        options: every knob as it was used, device and precision included.
        model: which model.
        evaluations: the UNet's evaluations for this phrase, the image's inversion included (it is
            shared by the phrases of one call).
        warnings: what a reader should know, of the image and of the phrase.
        timings: seconds of the call's stages, shared by its phrases.
    """

    image: ImageRef
    phrase: str
    status: Literal["found", "not found"]
    score: float
    heatmap: NDArray[np.float32]
    canonical: NDArray[np.float32]
    boxes: tuple[Box, ...]
    tokens: tuple[str, ...]
    layers: tuple[str, ...]
    options: Options
    model: ModelRef
    evaluations: int
    warnings: tuple[str, ...]
    timings: Mapping[str, float]


@overload
def ground(
    image: CxrImage | str | Path,
    phrase: str,
    *,
    model: Model | str | Path = ...,
    preset: str | None = ...,
    options: Options | None = ...,
    **knobs: Any,
) -> Grounding: ...


@overload
def ground(
    image: CxrImage | str | Path,
    phrase: Sequence[str],
    *,
    model: Model | str | Path = ...,
    preset: str | None = ...,
    options: Options | None = ...,
    **knobs: Any,
) -> list[Grounding]: ...


def ground(
    image: CxrImage | str | Path,
    phrase: str | Sequence[str],
    *,
    model: Model | str | Path = "compact",
    preset: str | None = None,
    options: Options | None = None,
    **knobs: Any,
) -> Grounding | list[Grounding]:
    """Ground one phrase, or several at little more than the cost of one.

    Args:
        image: a file, or an image already read at the model's side.
        phrase: what to look for; with a list, one result for each comes back.
        model: a loaded model, or what `load` takes.
        preset: a named set of options (``fast`` if neither this nor ``options`` is given).
        options: all knobs at once, instead of a preset.
        **knobs: single knobs of `Options`, on top of the preset.

    Raises:
        CxrgError: of a kind that says whether the image, the phrase, an option or the model is at
            fault.
    """
    clock = _Clock()
    options, model = _settle(model, preset, options, knobs)
    layers = choose_layers(model, options.layers)
    phrases = [phrase] if isinstance(phrase, str) else list(phrase)
    with torch.inference_mode():
        prompts = [encode_phrase(model, text, options.tokens) for text in phrases]
        clock.lap("prepare")
        if not isinstance(image, CxrImage):
            image = read_image(image, side=model.side, fit=options.fit)
        clock.lap("read")
        z0 = model.encode(_fitting(image, model, options))
        clock.lap("encode")
        latents = list(_latents(model, z0, options))
        clock.lap("invert")
        attention = read_attention(
            model, latents, prompts, layers, reduce=options.reduce, batch=options.batch
        )
        clock.lap("attend")
    results = [
        _result(image, prompt, maps, model, options)
        for prompt, maps in zip(prompts, attention, strict=True)
    ]
    clock.lap("post-process")
    results = [replace(result, timings=dict(clock.laps)) for result in results]
    return results[0] if isinstance(phrase, str) else results


def _settle(
    model: Model | str | Path,
    preset: str | None,
    options: Options | None,
    knobs: Mapping[str, Any],
) -> tuple[Options, Model]:
    """The model, loaded, and the options with the device and precision that run."""
    if options is not None and (preset is not None or knobs):
        raise UsageError("options and single knobs exclude each other; use dataclasses.replace")
    if not isinstance(model, Model):
        asked = options or resolve(preset or DEFAULT_PRESET, **knobs)
        model = load(model, device=asked.device, dtype=asked.dtype)
    options = options or resolve(preset or DEFAULT_PRESET, model.card, **knobs)
    dtype = cast(Dtype, str(model.dtype).removeprefix("torch."))
    for knob, asked_for, runs in (
        ("device", options.device, str(model.device)),
        ("dtype", options.dtype, dtype),
    ):
        if asked_for not in ("auto", runs):
            raise UsageError(f"{knob} {asked_for} is not the loaded model's; load it with {knob}=")
    return replace(options, device=str(model.device), dtype=dtype), model


def _fitting(image: CxrImage, model: Model, options: Options) -> NDArray[np.float32]:
    """The image's pixels, if it was read the way that the options say."""
    side, fit = image.frame.side, options.fit
    if side != model.side:
        raise UsageError(f"image of {side} pixels; read it with side={model.side} for this model")
    # What a square shows of the image tells how it was laid: all of it, or nothing beside it.
    height, width = image.frame.source
    crop = image.frame.crop
    if min(crop.x0, crop.y0) < 0 if fit == "crop" else crop.width < width or crop.height < height:
        raise UsageError(
            f"the image was not read with fit={fit}; read it so, or set the option fit"
        )
    return image.pixels


def _latents(model: Model, z0: Tensor, options: Options) -> Iterator[tuple[int, Tensor]]:
    if options.path == "ddim":
        return ddim_latents(model, z0, steps=options.steps, window=options.window)
    return noise_latents(
        model, z0, timesteps=options.timesteps, draws=options.draws, seed=options.seed
    )


def _evaluations(model: Model, options: Options, reads: int) -> int:
    """Network evaluations of one phrase: the inversion up to the window's last step, and reads."""
    if options.path == "noise":
        return reads
    count = len(timestep_list(options.steps, len(model.alphas_cumprod)))
    return window_indices(options.window, count)[1] - 1 + reads


def heatmaps(
    maps: AttentionMaps, frame: Frame, options: Options
) -> tuple[NDArray[np.float32], float]:
    """A phrase's map on the square, background included, and its presence score.

    Returns:
        float32 ``(S, S)`` in [0, 1], and the score in [0, 1].
    """
    height, width = frame.source
    seen = frame.to_canonical(Box(0, 0, width, height))
    assert seen is not None  # a frame is laid over its image
    finish: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda heat: confine(  # noqa: E731
        smooth(heat, options.sigma * frame.side), seen
    )
    absolute = finish(aggregate(maps, frame.side, normalise="none"))
    score = min(max(presence(absolute), 0.0), 1.0)
    if options.normalise == "none":
        return absolute.clip(0, 1), score
    if options.normalise == "final":
        return scale(absolute), score
    return scale(finish(aggregate(maps, frame.side, normalise="minmax"))), score


def _result(
    image: CxrImage, prompt: Prompt, maps: AttentionMaps, model: Model, options: Options
) -> Grounding:
    heat, score = heatmaps(maps, image.frame, options)
    absent = options.absent_below is not None and score < options.absent_below
    found = (
        ()
        if absent
        else boxes_from_heatmap(heat, threshold=options.threshold, min_area=options.min_area)
    )
    boxes = tuple(box for each in found if (box := image.frame.to_source(each)))
    canonical = suppress(heat) if options.mask == "otsu" else heat
    flat = ("attention is the same everywhere",) if heat.min() == heat.max() else ()
    return Grounding(
        image=ImageRef(
            name=image.path.name,
            sha256=image.sha256,
            uid=image.uid,
            window=image.window,
            frame=image.frame,
        ),
        phrase=prompt.text,
        status="found" if boxes else "not found",
        score=score,
        heatmap=image.frame.restore(canonical),
        canonical=canonical,
        boxes=boxes,
        tokens=prompt.selected_tokens,
        layers=tuple(maps.layers),
        options=options,
        model=ModelRef(name=model.card.name, identity=model.identity),
        evaluations=_evaluations(model, options, len(maps.timesteps)),
        warnings=(*image.warnings, *prompt.warnings, *flat),
        timings={},
    )


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self.laps[stage] = now - self._last
        self._last = now
