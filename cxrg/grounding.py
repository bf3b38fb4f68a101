"""Ground phrases in a chest X-ray: every stage from the image to the boxes, in order.

image -> latent -> noisy latents (once per image) -> attention of all phrases -> heatmaps ->
boxes -> pixels of the original file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from cxrg.anatomy.check import check_view
from cxrg.anatomy.whereabouts import Whereabouts
from cxrg.attention.free_run import free_run
from cxrg.attention.layers import choose_layers
from cxrg.attention.read import ReadSettings, read_each
from cxrg.errors import PhraseError, UsageError
from cxrg.heatmap.bias_merging import check_merging
from cxrg.image.read import CxrImage, ImageSource, read_image
from cxrg.latents.route import route_of
from cxrg.model.load import load
from cxrg.model.microbatch import Microbatch
from cxrg.model.model import Model
from cxrg.options import DEFAULT_PRESET, SETTINGS, Options, RunSettings, read_settings, resolve
from cxrg.phrase.encode import Prompt, check_phrase, encode_phrase
from cxrg.phrase.normalise import normalise
from cxrg.phrase.plan import PhrasePlan, plan_phrase
from cxrg.result import Grounding, make_grounding, make_refusal

START = plan_phrase("finding", own_language=False, forced=True)
"""Stands among plans for the token that the tokenizer sets before each phrase."""


@overload
def ground(
    image: CxrImage | ImageSource,
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
    image: CxrImage | ImageSource,
    phrase: Sequence[str],
    *,
    model: Model | str | Path = ...,
    preset: str | None = ...,
    options: Options | None = ...,
    settings: RunSettings | None = ...,
    **knobs: Any,
) -> list[Grounding]: ...


def ground(
    image: CxrImage | ImageSource,
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
        image: a file, an array, a Pillow image or a pydicom data set, as `read_image` takes them;
            or an image already read at the model's side.
        phrase: what to look for; with a list, one result for each comes back.
        model: a loaded model, or what `load` takes.
        preset: a named set of options (``fast`` if neither this nor ``options`` is given).
        options: all knobs at once, instead of a preset.
        settings: where it runs and how fast, which changes no result but by rounding.
        **knobs: single knobs of `Options`, on top of the preset, or of `RunSettings`.

    Raises:
        ImageError: the image cannot be used.
        PhraseError: a phrase cannot be used.
        UsageError: an option is invalid, or the model does not support it.
        ModelError: the model is not available or not supported.
    """
    clock = _Clock()
    settings, knobs = _split(settings, knobs)
    options, model = _settle(model, preset, options, knobs, settings)
    phrases = [phrase] if isinstance(phrase, str) else list(phrase)
    _check_phrases(phrases, model, options, settings)
    plans = _plans(phrases, model, options, settings)
    clock.lap("prepare")
    image = _read(image, model, options)
    clock.lap("read")
    results = list(_ground_each(image, plans, model, options, settings, clock))
    results = [replace(result, timings=dict(clock.laps)) for result in results]
    return results[0] if isinstance(phrase, str) else results


def ground_each(
    image: CxrImage | ImageSource,
    phrases: Sequence[str],
    *,
    model: Model,
    options: Options,
    settings: RunSettings | None = None,
) -> Iterator[Grounding]:
    """Ground phrases and yield each result as soon as it is made; see `ground`.

    Memory does not grow with the phrases while the caller drops the results. A result's timings
    are the seconds until it was made.

    Args:
        image: as for `ground`.
        phrases: valid phrases, see `phrase_errors`.
        model: a loaded model.
        options: all knobs.
        settings: where it runs and how fast.

    Raises:
        CxrgError: see `ground`.
    """
    settings = settings or RunSettings()
    options, model = _settle(model, None, options, {}, settings)
    plans = _plans(phrases, model, options, settings)
    image = _read(image, model, options)
    yield from _ground_each(image, plans, model, options, settings, _Clock())


def ground_with_start_token(
    image: CxrImage | ImageSource,
    phrases: Sequence[str],
    *,
    model: Model,
    options: Options,
    settings: RunSettings | None = None,
    tokens: bool = False,
) -> tuple[list[Grounding], Grounding | None]:
    """Ground phrases, and the token before every phrase, in one pass over one inversion.

    Args:
        image: as for `ground`.
        phrases: what to look for.
        model: a loaded model.
        options: all knobs.
        settings: where it runs and how fast.
        tokens: keep each token's attention in the results' ``maps.tokens``, too.

    Returns:
        One result per phrase, and that of the start token; None in its place where the tokenizer
        sets no token before a phrase.

    Raises:
        CxrgError: see `ground`.
    """
    settings = settings or RunSettings()
    options, model = _settle(model, None, options, {}, settings)
    _check_phrases(phrases, model, options, settings)
    image = _read(image, model, options)
    start = [START] if _start_prompt(model).span.start else []
    plans = [*_plans(phrases, model, options, settings), *start]
    how = ReadSettings.of(options, tokens=tokens)
    results = list(_ground_each(image, plans, model, options, settings, _Clock(), how))
    return results[: len(phrases)], results[-1] if start else None


@torch.inference_mode()
def _ground_each(
    image: CxrImage,
    plans: Sequence[PhrasePlan],
    model: Model,
    options: Options,
    settings: RunSettings,
    clock: _Clock,
    how: ReadSettings | None = None,
) -> Iterator[Grounding]:
    """Yield the result of each phrase, with the seconds of all stages until then."""
    if settings.threads != "auto":
        torch.set_num_threads(settings.threads)
    image = check_view(image, any_image=settings.any_image, mend=settings.mend)
    clock.lap("check")
    layers = choose_layers(model, options.layers)
    microbatch = Microbatch.of(model, settings.batch)
    clock.lap("prepare")
    searches = [each for plan in plans for each in (plan, *plan.parts) if each.subject is not None]
    how = how or ReadSettings.of(options)
    found = _search(image, searches, model, options, layers, microbatch, clock, how)
    for plan in plans:
        refused = plan.subject is None
        whole = make_refusal(image, plan, model, options) if refused else next(found)
        parts = tuple(next(found) for _ in plan.parts)
        yield replace(whole, parts=parts, timings=dict(clock.laps))
        clock.skip()


@torch.inference_mode()
def _search(
    image: CxrImage,
    plans: Sequence[PhrasePlan],
    model: Model,
    options: Options,
    layers: Sequence[str],
    microbatch: Microbatch,
    clock: _Clock,
    how: ReadSettings,
) -> Iterator[Grounding]:
    """Yield the result of each plan that has a subject; no network runs before the first."""
    mean, std = model.posterior(_fitting(image, model, options))
    clock.lap("encode")
    latents = list(route_of(options, model.schedule).latents(model, mean, std, microbatch))
    clock.lap("invert")
    requests = ((latents, _prompt(model, plan, options)) for plan in plans)
    whereabouts = Whereabouts(image)
    # Lazy: a phrase's attention is dropped as soon as its result is made.
    read = read_each(model, requests, layers, how=how, microbatch=microbatch)
    for plan, (prompt, maps) in zip(plans, read, strict=True):
        clock.lap("attend")
        free = None
        if options.bbm != "off":
            free = free_run(model, prompt, layers, options, microbatch)
            clock.lap("free run")
        result = make_grounding(image, whereabouts, plan, prompt, maps, model, options, free)
        clock.lap("post-process")
        yield result


def _read(image: CxrImage | ImageSource, model: Model, options: Options) -> CxrImage:
    """Read the image for the model, where that was not done already."""
    if isinstance(image, CxrImage):
        return image
    return read_image(image, side=model.side, fit=options.fit)


def _start_prompt(model: Model) -> Prompt:
    """Prompt of a phrase that names no finding, of which only the start token is read."""
    return replace(encode_phrase(model, "finding"), selected=(0,))


def _prompt(model: Model, plan: PhrasePlan, options: Options) -> Prompt:
    """Encode what a plan looks for, or the start token, according to the options."""
    if plan is START:
        return _start_prompt(model)
    return encode_phrase(model, plan.phrase, options.tokens, subject=plan.subject)


def _plans(
    phrases: Sequence[str], model: Model, options: Options, settings: RunSettings
) -> list[PhrasePlan]:
    """Plan what to look for; where single tokens are chosen, a phrase is not split."""
    own, forced = model.card.has_own_language, settings.force_ground
    plans = [plan_phrase(each, own_language=own, forced=forced) for each in phrases]
    whole = not (isinstance(options.tokens, str) and options.tokens.startswith(("all", "tagged")))
    return [replace(plan, parts=()) for plan in plans] if whole else plans


def _settle(
    model: Model | str | Path,
    preset: str | None,
    options: Options | None,
    knobs: Mapping[str, Any],
    settings: RunSettings,
) -> tuple[Options, Model]:
    """Load the model and check the options against it."""
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
    """Split keywords into the settings of the run and the knobs of the method."""
    named = {name: value for name, value in given.items() if name in SETTINGS}
    if named and settings is not None:
        raise UsageError("settings and single settings exclude each other; use one of them")
    knobs = {name: value for name, value in given.items() if name not in named}
    return settings or read_settings(named), knobs


def _fitting(image: CxrImage, model: Model, options: Options) -> NDArray[np.float32]:
    """Return the image's pixels; raise UsageError if it was read for another model or fit."""
    side, fit = image.frame.side, options.fit
    if side != model.side:
        raise UsageError(f"image of {side} pixels; read it with side={model.side} for this model")
    # A padded square shows all of the image; a cropped one shows nothing beside the image.
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


def _check_phrases(
    phrases: Sequence[str], model: Model, options: Options, settings: RunSettings
) -> None:
    """Raise PhraseError for the first invalid phrase, before any network runs."""
    for error in phrase_errors(phrases, model, options, settings).values():
        raise error


def phrase_errors(
    phrases: Sequence[str], model: Model, options: Options, settings: RunSettings | None = None
) -> dict[str, PhraseError]:
    """Return the invalid phrases, each with its error; no network runs.

    Raises:
        UsageError: the option ``tokens`` needs a tagger that is not installed.
    """
    errors = {}
    distinct = list(dict.fromkeys(phrases))
    plans = _plans(distinct, model, options, settings or RunSettings())
    for text, plan in zip(distinct, plans, strict=True):
        if plan.subject is None and normalise(text):
            continue  # it is answered without being encoded
        try:
            check_phrase(model, plan.subject or text, options.tokens)
        except PhraseError as error:
            errors[text] = error
    return errors


class _Clock:
    """Measures the seconds of each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = perf_counter()

    def skip(self) -> None:
        """Count the time since the last lap for no stage."""
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap for this stage."""
        now = perf_counter()
        self.laps[stage] = self.laps.get(stage, 0.0) + now - self._last
        self._last = now
