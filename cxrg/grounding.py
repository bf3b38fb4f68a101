"""Ground phrases in a chest X-ray: every stage from the image to the boxes, in order.

image -> latent -> noisy latents (once per image) -> attention of all phrases -> heatmaps ->
boxes -> pixels of the original file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from time import perf_counter
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from cxrg.attention.free_run import free_run
from cxrg.attention.layers import choose_layers
from cxrg.attention.read import ReadSettings, read_each
from cxrg.errors import PhraseError, UsageError
from cxrg.heatmap.bias_merging import check_merging
from cxrg.image.read import CxrImage, read_image
from cxrg.latents.route import route_of
from cxrg.model.load import load
from cxrg.model.microbatch import Microbatch
from cxrg.model.model import Model
from cxrg.options import DEFAULT_PRESET, SETTINGS, Options, RunSettings, read_settings, resolve
from cxrg.phrase.encode import Prompt, check_phrase, encode_phrase, encode_template
from cxrg.result import Grounding, make_grounding


class Start(Enum):
    """Stands among phrases for the token that the tokenizer sets before each of them."""

    TOKEN = "start"


START = Start.TOKEN


@overload
def ground(
    image: CxrImage | str | Path,
    phrase: str,
    *,
    model: Model | str | Path = ...,
    preset: str | None = ...,
    options: Options | None = ...,
    settings: RunSettings | None = ...,
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
    settings: RunSettings | None = ...,
    **knobs: Any,
) -> list[Grounding]: ...


def ground(
    image: CxrImage | str | Path,
    phrase: str | Sequence[str],
    *,
    model: Model | str | Path = "compact",
    preset: str | None = None,
    options: Options | None = None,
    settings: RunSettings | None = None,
    **knobs: Any,
) -> Grounding | list[Grounding]:
    """Ground one phrase, or several at little more than the cost of one.

    Args:
        image: a file, or an image already read at the model's side.
        phrase: what to look for; with a list, one result for each comes back.
        model: a loaded model, or what `load` takes.
        preset: a named set of options (``fast`` if neither this nor ``options`` is given).
        options: all knobs at once, instead of a preset.
        settings: where it runs and how fast, which changes no result but by rounding.
        **knobs: single knobs of `Options`, on top of the preset, or of `RunSettings`.

    Raises:
        CxrgError: of a kind that says whether the image, the phrase, an option or the model is at
            fault.
    """
    clock = _Clock()
    settings, knobs = _split(settings, knobs)
    options, model = _settle(model, preset, options, knobs, settings)
    phrases = [phrase] if isinstance(phrase, str) else list(phrase)
    _check_phrases(phrases, model, options)
    clock.lap("prepare")
    if not isinstance(image, CxrImage):
        image = read_image(image, side=model.side, fit=options.fit)
    clock.lap("read")
    results = _ground(image, phrases, model, options, settings, clock)
    return results[0] if isinstance(phrase, str) else results


def ground_with_start_token(
    image: CxrImage,
    phrases: Sequence[str],
    *,
    model: Model,
    options: Options,
    settings: RunSettings | None = None,
) -> tuple[list[Grounding], Grounding | None]:
    """Ground phrases, and the token before every phrase, in one pass over one inversion.

    Args:
        image: an image read at the model's side.
        phrases: what to look for.
        model: a loaded model.
        options: all knobs.
        settings: where it runs and how fast.

    Returns:
        One result per phrase, and that of the start token; None in its place where the tokenizer
        sets no token before a phrase.

    Raises:
        CxrgError: see `ground`.
    """
    settings = settings or RunSettings()
    options, model = _settle(model, None, options, {}, settings)
    _check_phrases(phrases, model, options)
    start = [START] if _start_prompt(model).span.start else []
    results = _ground(image, [*phrases, *start], model, options, settings, _Clock())
    return results[: len(phrases)], results[-1] if start else None


@torch.inference_mode()
def _ground(
    image: CxrImage,
    texts: Sequence[str | Start],
    model: Model,
    options: Options,
    settings: RunSettings,
    clock: _Clock,
) -> list[Grounding]:
    layers = choose_layers(model, options.layers)
    microbatch = Microbatch.of(model, settings.batch)
    clock.lap("prepare")
    mean, std = model.posterior(_fitting(image, model, options))
    clock.lap("encode")
    latents = list(route_of(options, model.schedule).latents(model, mean, std, microbatch))
    clock.lap("invert")
    requests = ((latents, _prompt(model, text, options)) for text in texts)
    how = ReadSettings.of(model, options)
    results = []
    # Lazy: a phrase's attention is dropped as soon as its result is made.
    for prompt, maps in read_each(model, requests, layers, how=how, microbatch=microbatch):
        clock.lap("attend")
        free = None
        if options.bbm != "off":
            free = free_run(model, prompt, layers, options, microbatch)
            clock.lap("free run")
        results.append(make_grounding(image, prompt, maps, model, options, free))
        clock.lap("post-process")
    return [replace(result, timings=dict(clock.laps)) for result in results]


def _start_prompt(model: Model) -> Prompt:
    """Prompt of a phrase that names no finding, of which only the start token is read."""
    return replace(encode_phrase(model, "finding"), selected=(0,))


def _prompt(model: Model, text: str | Start, options: Options) -> Prompt:
    """Encode a phrase as the options say, or the start token."""
    if isinstance(text, Start):
        return _start_prompt(model)
    if options.evidence == "template":
        return encode_template(model, text)
    return encode_phrase(model, text, options.tokens)


def _settle(
    model: Model | str | Path,
    preset: str | None,
    options: Options | None,
    knobs: Mapping[str, Any],
    settings: RunSettings,
) -> tuple[Options, Model]:
    """The model, loaded, and the options, checked against it."""
    if options is not None and (preset is not None or knobs):
        raise UsageError("options and single knobs exclude each other; use dataclasses.replace")
    if not isinstance(model, Model):
        if options is None:
            resolve(preset or DEFAULT_PRESET, **knobs)  # checked before the model is loaded
        model = load(model, device=settings.device, dtype=settings.dtype)
    options = options or resolve(preset or DEFAULT_PRESET, model.card.presets, **knobs)
    for name, wanted, runs in (
        ("device", settings.device, str(model.device)),
        ("dtype", settings.dtype, model.precision),
    ):
        if wanted not in ("auto", runs):
            raise UsageError(f"{name} {wanted} is not the loaded model's; load it with {name}=")
    _check(model, options)
    return options, model


def _split(
    settings: RunSettings | None, given: Mapping[str, Any]
) -> tuple[RunSettings, dict[str, Any]]:
    """The settings of the run, and the knobs, of keywords that name either."""
    named = {name: value for name, value in given.items() if name in SETTINGS}
    if named and settings is not None:
        raise UsageError("settings and single settings exclude each other; use one of them")
    knobs = {name: value for name, value in given.items() if name not in named}
    return settings or read_settings(named), knobs


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


def _check(model: Model, options: Options) -> None:
    """Raise UsageError if the model does not support the options, before the network runs."""
    route_of(options, model.schedule)
    if options.bbm != "off":
        check_merging(model.side // model.factor)


def _check_phrases(phrases: Sequence[str], model: Model, options: Options) -> None:
    """Raise PhraseError for the first invalid phrase, before any network runs."""
    for error in phrase_errors(phrases, model, options).values():
        raise error


def phrase_errors(phrases: Sequence[str], model: Model, options: Options) -> dict[str, PhraseError]:
    """The invalid phrases, each with its error; no network runs.

    Raises:
        UsageError: the option ``tokens`` needs a tagger that is not installed.
    """
    errors = {}
    for text in dict.fromkeys(phrases):
        try:
            check_phrase(model, text, options.tokens)
        except PhraseError as error:
            errors[text] = error
    return errors


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to this stage."""
        now = perf_counter()
        self.laps[stage] = self.laps.get(stage, 0.0) + now - self._last
        self._last = now
