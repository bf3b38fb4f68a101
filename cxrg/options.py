"""Every knob of one run, and the named presets.

Preset ``paper`` is the published procedure (Vilouras et al., arXiv 2404.12920; its released code):
300 requested DDIM steps, the latents at indices 120..179 of the real list, every phrase token,
min-max per layer and step, a Gaussian of 2.5 pixels at 512, Otsu's mask. Preset ``gen2ground`` is
that of Nützel, Dombrowski, Kainz (arXiv 2507.12236; its released code): latent and noise drawn
afresh at each of 50 DDIM steps, the 40 least noisy read in all layers, content words, Bimodal Bias
Merging, a Gaussian mixture's mask. Preset ``fast`` goes to the timestep by adding noise instead of
inverting. A model's card may replace knobs of a preset.

``readout``, ``completion`` and ``normalise=competition`` are published refinements without
parameters that any preset can switch on. ``evidence=template`` is an own design after
anatomy-grounded prompt tuning (arXiv 2506.10633, whose details are not public).

This module imports neither torch nor diffusers: the command line builds its help from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args

from cxrg.errors import UsageError
from cxrg.model.card import Card

Fit = Literal["pad", "crop"]
Route = Literal["ddim", "noise", "redraw"]
Evidence = Literal["phrase", "template"]
Reduce = Literal["mean", "sum"]
Readout = Literal["softmax", "entmax15", "sparsemax"]
Completion = Literal["off", "self-attention", "iterated"]
Normalise = Literal["minmax", "final", "competition", "none"]
Enlarge = Literal["bilinear", "nearest"]
Merging = Literal["off", "paper", "elementwise"]
Mask = Literal["otsu", "soft", "mixture", "none"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Every knob of one run.

    Attributes:
        preset: the preset that the other knobs started from.
        path: how the latent reaches a timestep: ``ddim`` inverts, ``noise`` adds seeded noise,
            ``redraw`` draws latent and noise afresh at every step.
        steps: requested DDIM steps of the training schedule (``ddim``, ``redraw``).
        window: the indices ``[start, stop)`` of the DDIM list, from clean to noisy, that are read
            (``ddim``, ``redraw``); two numbers with a decimal point are fractions of the list's
            length.
        timesteps: training timesteps that are read (``noise``).
        draws: noise draws per timestep, averaged (``noise``).
        seed: seed of the noise (``noise``, ``redraw``).
        layers: ``card`` (the model card's, else the published rule), ``paper`` (the published
            rule), ``all``, a map side such as 16, or names of modules.
        tokens: ``all``, ``content``, ``tagged`` (the first token of every adjective, noun and
            verb; ``tagged:NAME`` asks an installed spaCy pipeline), ``disease`` (words that name
            a disease), ``word:WORD``, or indices among the phrase's own tokens.
        evidence: what the network is asked and the heatmap made of: the ``phrase``, its chosen
            tokens joined; or its ``template``, "{location} {finding}" in the vocabulary's names,
            of which the finding's tokens and the location's make a map each and the heatmap is
            their weighted geometric mean. The presence score is that of all the template's tokens
            joined, so ``absent_below`` keeps its meaning. A phrase that does not name one finding
            at one place (two sides are two places) is asked and read as with ``phrase``, and a
            warning says so.
        alpha: the finding's weight in that mean, the location has the rest: 1 reads the finding's
            tokens only, 0 the location's (``template``).
        reduce: how the chosen tokens' probabilities join: ``mean`` or ``sum``.
        readout: scores to probabilities: ``softmax``, as in the network, or sparse
            (``entmax15``, ``sparsemax``); the network itself runs as ever.
        completion: ``self-attention`` spreads every map over the positions that look alike;
            ``iterated`` does so again and again, far likeness suppressed.
        normalise: ``minmax`` scales every layer and step and the final map to [0, 1]; ``final``
            scales the final map only, so that confident layers and steps weigh more;
            ``competition`` scales the chosen tokens' share of all the phrase's tokens; ``none``
            keeps probabilities as they are.
        enlarge: maps to image size: ``bilinear``, or ``nearest``, which repeats values.
        bbm: Bimodal Bias Merging with a free run of the model (``redraw``): ``paper`` multiplies
            matrices as released, ``elementwise`` positions.
        sigma: Gaussian smoothing, a fraction of the square's side.
        mask: ``otsu`` sets the background of the heatmap to 0, ``soft`` fades it, ``mixture``
            sets to 0 what a mixture of two Gaussians takes for background; ``none`` leaves it.
        threshold: what a box encloses: above Otsu's threshold (``otsu``), above a number, above
            a quantile of the heatmap (``quantile:0.95``), or all of the mixture's mask in one
            box (``mixture``).
        min_area: the smallest region that makes a box, a fraction of the square's area.
        absent_below: presence score under which the phrase counts as not found; None: never.
        fit: ``pad`` shows the whole image, ``crop`` the middle of it.
        batch: most latents in one network evaluation; ``auto`` takes what fits free memory.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: the network's precision.

    Raises:
        UsageError: a value cannot be meant; the message holds what can.
    """

    preset: str = "paper"
    path: Route = "ddim"
    steps: int = 300
    window: tuple[int, int] | tuple[float, float] = (120, 180)
    timesteps: tuple[int, ...] = (360, 450, 540)
    draws: int = 2
    seed: int = 0
    layers: str | int | tuple[str, ...] = "card"
    tokens: str | tuple[int, ...] = "all"
    evidence: Evidence = "phrase"
    alpha: float = 0.5
    reduce: Reduce = "mean"
    readout: Readout = "softmax"
    completion: Completion = "off"
    normalise: Normalise = "minmax"
    enlarge: Enlarge = "bilinear"
    bbm: Merging = "off"
    sigma: float = 2.5 / 512
    mask: Mask = "otsu"
    threshold: str | float = "otsu"
    min_area: float = 0.0
    absent_below: float | None = None
    fit: Fit = "pad"
    batch: int | Literal["auto"] = "auto"
    device: str = "auto"
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        for knob, choices in _CHOICES.items():
            _require(getattr(self, knob) in choices, knob, self, f"use {' or '.join(choices)}")
        for knob, low, high in _RANGES:
            value = getattr(self, knob)
            inside = math.isfinite(value) and low <= value <= high
            _require(inside, knob, self, f"use a number from {low:g} to {high:g}")
        start, stop = self.window
        _require(0 <= start < stop, "window", self, "use START:STOP with 0 <= START < STOP")
        times = self.timesteps
        _require(bool(times) and min(times) >= 0, "timesteps", self, "use whole numbers from 0")
        _require(_threshold_fits(self.threshold), "threshold", self, _THRESHOLDS)
        _require(_tokens_fit(self.tokens), "tokens", self, _TOKENS)
        _require(bool(self.layers), "layers", self, "use card, paper, all, a map side, or names")
        merges = self.bbm == "off" or self.path == "redraw"
        _require(merges, "bbm", self, "it goes with path redraw; use off, or preset gen2ground")
        _check_evidence(self)
        size = self.batch
        fits = 1 <= size <= 4096 if isinstance(size, int) else size == "auto"
        _require(fits, "batch", self, "use 1 to 4096, or auto")
        least = self.absent_below
        _require(least is None or 0 <= least <= 1, "absent_below", self, "use 0 to 1, or none")


_CHOICES: dict[str, tuple[str, ...]] = {
    "path": get_args(Route),
    "evidence": get_args(Evidence),
    "reduce": get_args(Reduce),
    "readout": get_args(Readout),
    "completion": get_args(Completion),
    "normalise": get_args(Normalise),
    "enlarge": get_args(Enlarge),
    "bbm": get_args(Merging),
    "mask": get_args(Mask),
    "fit": get_args(Fit),
    "dtype": get_args(Dtype),
}
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("steps", 1, 1000),
    ("draws", 1, 1000),
    ("seed", 0, 2**63 - 1),
    ("alpha", 0, 1),
    ("sigma", 0, 0.5),
    ("min_area", 0, 1),
)
_THRESHOLDS = "use otsu, mixture, quantile:Q with Q from 0 to 1, or a number from 0 to 1"
_TOKENS = "use all, content, tagged, tagged:NAME, disease, word:WORD, or indices such as 0,2"
_NAMED_THRESHOLDS = ("otsu", "mixture")
_NAMED_TOKENS = ("all", "content", "tagged", "disease")
_TOKEN_KINDS = ("word:", "tagged:")
_NAMED_LAYERS = ("card", "paper", "all")


def _require(fits: bool, knob: str, options: Options, remedy: str) -> None:
    if not fits:
        raise UsageError(f"{knob} {getattr(options, knob)!r} cannot be meant; {remedy}")


def _check_evidence(options: Options) -> None:
    """Complain of knobs that have no meaning for two maps, of the finding and of the location."""
    if options.evidence == "phrase":
        return
    for fits, why in (
        (options.tokens == "all", "it chooses the tokens itself; use tokens=all"),
        (options.bbm == "off", "Bimodal Bias Merging is defined for one map; use bbm=off"),
        (
            options.normalise != "competition",
            "finding and location would compete with each other; use normalise=final",
        ),
    ):
        _require(fits, "evidence", options, why)


def _threshold_fits(threshold: str | float) -> bool:
    if isinstance(threshold, str):
        return threshold in _NAMED_THRESHOLDS or quantile_of(threshold) is not None
    return 0 <= threshold <= 1


def _tokens_fit(tokens: str | tuple[int, ...]) -> bool:
    if isinstance(tokens, str):
        kind, mark, name = tokens.partition(":")
        return tokens in _NAMED_TOKENS or (f"{kind}{mark}" in _TOKEN_KINDS and bool(name.strip()))
    return bool(tokens)


def quantile_of(threshold: str) -> float | None:
    """The q of ``quantile:q``; None where the text is anything else."""
    if not threshold.startswith("quantile:"):
        return None
    try:
        q = float(threshold.removeprefix("quantile:"))
    except ValueError:
        return None
    return q if 0 <= q <= 1 else None


PRESETS: Mapping[str, Options] = {
    "fast": Options(preset="fast", path="noise"),
    "paper": Options(preset="paper", fit="crop"),
    "gen2ground": Options(
        preset="gen2ground",
        path="redraw",
        steps=50,
        window=(0, 40),
        layers="all",
        tokens="tagged",
        normalise="final",
        enlarge="nearest",
        bbm="paper",
        sigma=0.0,
        mask="mixture",
        threshold="mixture",
        fit="crop",
    ),
}
DEFAULT_PRESET = "fast"
KNOBS = tuple(item.name for item in fields(Options) if item.name != "preset")


def resolve(preset: str = DEFAULT_PRESET, card: Card | None = None, **overrides: Any) -> Options:
    """The options of a run: the preset, then the card's changes to it, then ``overrides``.

    Values may be text, as a command line has them: ``window="120:180"``, ``timesteps="300,450"``,
    ``layers="16"``, ``tokens="0,2"``, ``threshold="0.5"``, ``absent_below="none"``.

    Raises:
        UsageError: the preset or a knob is not known, or a value cannot be meant.
    """
    if preset not in PRESETS:
        raise UsageError(f"preset {preset!r} is not known; use {' or '.join(PRESETS)}")
    options = PRESETS[preset]
    for knobs in ((card.presets.get(preset, {}) if card else {}), overrides):
        options = replace(options, **{knob: _read(knob, value) for knob, value in knobs.items()})
    return options


def _read(knob: str, value: Any) -> Any:
    """One knob's value from what a command line, a card or a caller wrote."""
    if knob not in KNOBS:
        near = get_close_matches(knob, KNOBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(KNOBS)}"
        raise UsageError(f"option {knob!r} is not known; {hint}")
    try:
        return _READERS[knob](value) if knob in _READERS else value
    except (TypeError, ValueError) as error:
        raise UsageError(f"{knob} {value!r} cannot be meant; use {_FORMS[knob]}") from error


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _list(value: Any, *, split: str = ",") -> list[Any]:
    parts = value.split(split) if isinstance(value, str) else value
    return list(parts) if isinstance(parts, (list, tuple)) else [parts]


def _window(value: Any) -> tuple[int, int] | tuple[float, float]:
    start, stop = _list(value.replace(":", ",") if isinstance(value, str) else value)
    if any(
        "." in edge if isinstance(edge, str) else isinstance(edge, float) for edge in (start, stop)
    ):
        fractions = float(start), float(stop)
        if fractions[1] > 1:
            raise ValueError(value)
        return fractions
    return _whole(start), _whole(stop)


def _layers(value: Any) -> str | int | tuple[str, ...]:
    if isinstance(value, int) or value in _NAMED_LAYERS:
        return _whole(value) if isinstance(value, int) else str(value)
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    return tuple(str(name).strip() for name in _list(value))


def _tokens(value: Any) -> str | tuple[int, ...]:
    if isinstance(value, str) and (value in _NAMED_TOKENS or value.startswith(_TOKEN_KINDS)):
        return value
    return tuple(_whole(index) for index in _list(value))


def _threshold(value: Any) -> str | float:
    if isinstance(value, str) and (value in _NAMED_THRESHOLDS or value.startswith("quantile:")):
        return value
    return float(value)


def _absent(value: Any) -> float | None:
    return None if value is None or value == "none" else float(value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "steps": _whole,
    "window": _window,
    "timesteps": lambda value: tuple(_whole(t) for t in _list(value)),
    "draws": _whole,
    "seed": _whole,
    "layers": _layers,
    "tokens": _tokens,
    "alpha": float,
    "sigma": float,
    "threshold": _threshold,
    "min_area": float,
    "absent_below": _absent,
    "batch": lambda value: value if value == "auto" else _whole(value),
}
_FORMS = {
    "steps": "a whole number",
    "window": "START:STOP, indices such as 120:180 or fractions such as 0.4:0.6",
    "timesteps": "whole numbers such as 300,450",
    "draws": "a whole number",
    "seed": "a whole number",
    "layers": "card, paper, all, a map side such as 16, or module names",
    "tokens": _TOKENS.removeprefix("use "),
    "alpha": "a number from 0 to 1",
    "sigma": "a fraction of the side",
    "threshold": _THRESHOLDS.removeprefix("use "),
    "min_area": "a fraction of the area",
    "absent_below": "a number from 0 to 1, or none",
    "batch": "a whole number, or auto",
}
