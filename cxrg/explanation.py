"""Why a phrase was found in an image, or not: the score taken apart, beside what controls give.

The peak is the mean of the map of attention over its strongest pixels. The map is a sum over the
phrase's tokens and a mean over layers and timesteps, and smoothing is linear, so the peak is the
sum of what each token puts there, and the mean of what each layer and each timestep has there.

Words alone light something in every chest. So the same phrase is read in other chests, given ones
or synthetic healthy ones, and other phrases, and none at all, are read in this image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy.view import View, judge_view, view_square
from cxrg.attention.layers import block_of
from cxrg.chest.names import SIDES
from cxrg.errors import ImageError
from cxrg.grounding import ground_each, ground_with_start_token
from cxrg.heatmap.from_attention import attention_by, attention_of, counted
from cxrg.heatmap.maps import Heat
from cxrg.heatmap.presence import PRESENCE_TOP
from cxrg.heatmap.reference import Reference, reference_of
from cxrg.image.read import CxrImage, ImageSource, read_image
from cxrg.model.model import Model
from cxrg.options import Options, RunSettings
from cxrg.phantom.sample import render
from cxrg.phrase.encode import Prompt, encode_phrase
from cxrg.phrase.intent import Intent, read_intent
from cxrg.result import Grounding, least_score

PHANTOMS = 4
"""Synthetic healthy chests that the phrase is read in where no others are given."""

MOST_CONTROLS = 20
"""Given chests that the phrase is read in, at most."""

_FIRST_PHANTOM = 2**41  # beyond the seeds of training and evaluation
_OTHERS = ("pleural effusion", "pneumothorax", "lung opacity", "lung nodule", "cardiomegaly")
_MOST_OTHERS = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Share:
    """What one token, layer or timestep gives.

    Attributes:
        name: what it is called.
        map: float32 ``(S, S)`` in [0, 1], its attention, smoothed as the whole map's.
        at_peak: the mean of ``map`` over the pixels of the phrase's peak.
        counts: False for a token that the option ``tokens`` leaves out.
    """

    name: str
    map: Heat
    at_peak: float
    counts: bool = True


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OtherPhrase:
    """What another phrase gives in the same image.

    Attributes:
        phrase: the phrase; None for the token that stands before every phrase.
        map: float32 ``(S, S)`` in [0, 1], its attention.
        score: its presence score.
    """

    phrase: str | None
    map: Heat
    score: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OtherChests:
    """What the same phrase gives in other chests.

    Attributes:
        map: float32 ``(S, S)`` in [0, 1], the mean of their attention, square upon square.
        scores: the presence score in each.
        synthetic: whether they are synthetic healthy chests, not given ones.
        unused: how many given ones could not be read, or are no upright frontal chest X-ray.
        alike: correlation of ``map`` with the map of this image, -1 to 1.
    """

    map: Heat
    scores: tuple[float, ...]
    synthetic: bool
    unused: int
    alike: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explanation:
    """Why a phrase was found in an image, or not.

    Where the phrase says nothing that can be looked for, there are only the first three of these.

    Attributes:
        grounding: the result.
        view: what kind of picture the image is taken for.
        view_square: float32 ``(64, 64)``, the picture that this was judged by.
        least: the score from which on the phrase counts as found; None where any score does.
        peak: the mean of the map of attention over its strongest pixels.
        where: bool ``(S, S)``, those pixels.
        tokens: what each token of the phrase gives; those that count add up to ``peak``.
        layers: what each layer gives; their mean is ``peak``.
        timesteps: what each timestep gives; their mean is ``peak``.
        others: other phrases in this image; the last is none at all.
        chests: the same phrase in other chests; None where none could be used.
        reference: scores of the finding in healthy chests; None where the model has none for it.
    """

    grounding: Grounding
    view: View
    view_square: Heat
    least: float | None = None
    peak: float = 0.0
    where: NDArray[np.bool_] | None = None
    tokens: tuple[Share, ...] = ()
    layers: tuple[Share, ...] = ()
    timesteps: tuple[Share, ...] = ()
    others: tuple[OtherPhrase, ...] = ()
    chests: OtherChests | None = None
    reference: Reference | None = None


def explain(
    image: CxrImage | ImageSource,
    phrase: str,
    *,
    model: Model,
    options: Options,
    settings: RunSettings | None = None,
    controls: Iterable[ImageSource] = (),
) -> Explanation:
    """Ground one phrase and take the result apart.

    Args:
        image: as for `cxrg.grounding.ground`.
        phrase: what to look for.
        model: a loaded model.
        options: all knobs.
        settings: where it runs and how fast.
        controls: other chests to read the phrase in, `MOST_CONTROLS` at most; none: synthetic ones.

    Raises:
        CxrgError: see `cxrg.grounding.ground`.
    """
    settings = settings or RunSettings()
    if not isinstance(image, CxrImage):
        image = read_image(image, side=model.side, fit=options.fit)
    intent = read_intent(phrase)
    others = other_phrases(intent)
    (found, *compared), start = ground_with_start_token(
        image, [phrase, *others], model=model, options=options, settings=settings, tokens=True
    )
    image = found.image  # mended, where the settings say so
    facts = Explanation(grounding=found, view=judge_view(image), view_square=view_square(image))
    if not found.maps.layers:
        return facts
    whole = attention_of(counted(found.maps, options).layers, image.frame, options)
    where = peak_pixels(whole)
    prompt = encode_phrase(model, found.asked, options.tokens)
    return replace(
        facts,
        least=least_score(model, found.intent, options),
        peak=float(whole[where].mean()),
        where=where,
        tokens=tuple(_tokens(found, prompt, where, model.tokenizer)),
        layers=tuple(_parts(found, "layer", where)),
        timesteps=tuple(_parts(found, "timestep", where)),
        others=tuple(
            OtherPhrase(phrase=text, map=each.canonical_attention, score=each.score)
            for text, each in zip([*others, None], [*compared, start], strict=True)
            if each is not None
        ),
        chests=_other_chests(
            found, list(islice(controls, MOST_CONTROLS)), model, options, settings
        ),
        reference=reference_of(model, options, found.intent.concept),
    )


def other_phrases(intent: Intent) -> list[str]:
    """Phrases to compare with: the same of the other side, and findings that it does not name."""
    named = {each.name for each in intent.stated}
    rest = [text for text in _OTHERS if named.isdisjoint(_named(text))]
    swapped = [_swapped(intent.text)] if intent.side in SIDES else []
    return [*swapped, *rest[:_MOST_OTHERS]]


def _named(phrase: str) -> set[str | None]:
    return {each.name for each in read_intent(phrase).stated}


def _swapped(text: str) -> str:
    """A phrase with left and right exchanged."""
    other = dict(zip(SIDES, reversed(SIDES), strict=True))
    pattern = re.compile(rf"\b({'|'.join(SIDES)})\b", re.IGNORECASE)
    return pattern.sub(lambda found: other[found[0].lower()], text)


def peak_pixels(heat: Heat) -> NDArray[np.bool_]:
    """The strongest pixels of a map, as many as the presence score is taken from."""
    most = max(round(heat.size * PRESENCE_TOP), 1)
    where = np.zeros(heat.size, bool)
    where[np.argpartition(heat.ravel(), heat.size - most)[-most:]] = True
    return where.reshape(heat.shape)


def _tokens(
    found: Grounding, prompt: Prompt, where: NDArray[np.bool_], tokenizer: Any
) -> Iterator[Share]:
    maps = counted(found.maps, found.options).tokens
    for number, token in enumerate(prompt.tokens):
        layers = {name: each[number] for name, each in maps.items()}
        counts = prompt.span.start + number in prompt.selected
        name = tokenizer.convert_tokens_to_string([token]).strip() or token
        heat = attention_of(layers, found.image.frame, found.options)
        peak = float(heat[where].mean())
        yield Share(name=name, map=heat.clip(0, 1), at_peak=peak, counts=counts)


def _parts(
    found: Grounding, what: Literal["layer", "timestep"], where: NDArray[np.bool_]
) -> Iterator[Share]:
    """Each layer, or each timestep with its noise draws averaged."""
    maps = attention_by(found.maps, found.image.frame, found.options, what)
    for part, heat in maps.items():
        name = f"t = {part}"
        if isinstance(part, str):
            height, width = found.maps.layers[part].shape[1:]
            name = f"{block_of(part)} ({width} x {height})"
        yield Share(name=name, map=heat, at_peak=float(heat[where].mean()))


def _other_chests(
    found: Grounding,
    given: Sequence[ImageSource],
    model: Model,
    options: Options,
    settings: RunSettings,
) -> OtherChests | None:
    """Read the phrase of a result in other chests."""
    # A phantom need not look real enough to be taken for an X-ray.
    sure = settings if given else replace(settings, any_image=True)
    maps, scores, unused = [], [], 0
    for source in given or islice(_healthy_phantoms(model.side), PHANTOMS):
        try:
            image = read_image(source, side=model.side, fit=options.fit)
            if image.sha256 == found.image.sha256:
                continue
            (other,) = ground_each(
                image, [found.phrase], model=model, options=options, settings=sure
            )
        except ImageError:
            unused += 1
            continue
        maps.append(other.canonical_attention)
        scores.append(other.score)
    if not maps:
        return None
    mean = np.asarray(np.mean(maps, axis=0), np.float32)
    return OtherChests(
        map=mean,
        scores=tuple(scores),
        synthetic=not given,
        unused=unused,
        alike=_correlation(mean, found.canonical_attention),
    )


def _healthy_phantoms(side: int) -> Iterator[Heat]:
    """Synthetic chests without findings and devices, always the same ones."""
    for seed in count(_FIRST_PHANTOM):
        phantom = render(seed, side=min(side, 256))
        if not phantom.findings:
            yield np.asarray(phantom.image, np.float32)


def _correlation(one: Heat, other: Heat) -> float:
    """Pearson's correlation of two maps; 0 where one is constant."""
    centred = [each - each.mean(dtype=np.float64) for each in (one, other)]
    size = float(np.sqrt(np.prod([np.sum(each**2) for each in centred])))
    return float(np.sum(centred[0] * centred[1]) / size) if size > 0 else 0.0
