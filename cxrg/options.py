"""The knobs of the method, the named presets, and the settings of a run.

Preset ``paper`` is the published procedure (Vilouras et al., arXiv 2404.12920; its released code):
300 requested DDIM steps, the latents at indices 120..179 of the real list, every phrase token,
min-max per layer and step, a Gaussian of 2.5 pixels at 512, Otsu's mask. Preset ``gen2ground`` is
that of Nützel, Dombrowski, Kainz (arXiv 2507.12236; its released code): latent and noise sampled
anew at each of 50 DDIM steps, the 40 least noisy read in all layers, content words, Bimodal Bias
Merging, a Gaussian mixture's mask. Preset ``fast`` goes to the timestep by adding noise instead of
inverting. A model's card may replace knobs of a preset.

``sparse`` reads attention as PLADIS computes it (Kim et al., arXiv 2503.07677), in any preset. What
else was tried is in the shipped model's card.

A knob is declared once, as a field of `Options`: parsing, checks, ``cxrg options`` and the command
reference are loops over the fields. What changes only speed is a field of `RunSettings`.

This module imports neither torch nor diffusers: the command line builds its help from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, get_args

from cxrg.errors import UsageError

Fit = Literal["pad", "crop"]
Route = Literal["ddim", "noise", "resample"]
Sparse = Literal["off", "entmax15", "sparsemax"]
Normalise = Literal["minmax", "final", "none"]
Enlarge = Literal["bilinear", "nearest"]
Merging = Literal["off", "paper"]
Mask = Literal["otsu", "soft", "mixture", "none"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_NAMED_THRESHOLDS = ("otsu", "mixture")
_NAMED_TOKENS = ("all", "tagged")
_TOKEN_KINDS = ("word:", "tagged:")
_NAMED_LAYERS = ("card", "paper", "all")


# --- values from text -----------------------------------------------------------------------------


def _choice(value: Any, *, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ValueError(value)
    return str(value)


def _flag(value: Any) -> bool:
    flags = {"true": True, "false": False}
    if isinstance(value, bool):
        return value
    if value not in flags:
        raise ValueError(value)
    return flags[value]


def _integer(value: Any, *, low: float = 0, high: float = math.inf) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    number = int(value)
    if not low <= number <= high:
        raise ValueError(value)
    return number


def _number(value: Any, *, low: float, high: float) -> float:
    number = float(value)
    if not low <= number <= high:  # false for NaN, too
        raise ValueError(value)
    return number


def _list(value: Any) -> list[Any]:
    parts = value.split(",") if isinstance(value, str) else value
    return list(parts) if isinstance(parts, (list, tuple)) else [parts]


def _window(value: Any) -> tuple[int, int] | tuple[float, float]:
    edges = _list(value.replace(":", ",") if isinstance(value, str) else value)
    start, stop = edges
    if any("." in edge if isinstance(edge, str) else isinstance(edge, float) for edge in edges):
        window = float(start), float(stop)
        valid = 0 <= window[0] < window[1] <= 1
    else:
        window = _integer(start), _integer(stop)
        valid = window[0] < window[1]
    if not valid:
        raise ValueError(value)
    return window


def _timesteps(value: Any) -> tuple[int, ...]:
    times = tuple(_integer(time) for time in _list(value))
    if not times:
        raise ValueError(value)
    return times


def _layers(value: Any) -> str | int | tuple[str, ...]:
    if isinstance(value, str) and value in _NAMED_LAYERS:
        return value
    if isinstance(value, int) or (isinstance(value, str) and value.strip().isdigit()):
        return _integer(value, low=1)
    names = tuple(str(name).strip() for name in _list(value))
    if not all(names) or not names:
        raise ValueError(value)
    return names


def _tokens(value: Any) -> str | tuple[int, ...]:
    if isinstance(value, str):
        kind, mark, name = value.partition(":")
        if value in _NAMED_TOKENS or (f"{kind}{mark}" in _TOKEN_KINDS and name.strip()):
            return value
    indices = tuple(_integer(index) for index in _list(value))
    if not indices:
        raise ValueError(value)
    return indices


def _threshold(value: Any) -> str | float:
    if isinstance(value, str) and (value in _NAMED_THRESHOLDS or quantile_of(value) is not None):
        return value
    return _number(value, low=0, high=1)


def _absent_below(value: Any) -> float | None:
    return None if value is None or value == "none" else _number(value, low=0, high=1)


def _batch(value: Any) -> int | str:
    return "auto" if value == "auto" else _integer(value, low=1, high=4096)


def _threads(value: Any) -> int | str:
    return "auto" if value == "auto" else _integer(value, low=1, high=1024)


def quantile_of(threshold: str) -> float | None:
    """The q of ``quantile:q``; None where the text is anything else."""
    if not threshold.startswith("quantile:"):
        return None
    try:
        q = float(threshold.removeprefix("quantile:"))
    except ValueError:
        return None
    return q if 0 <= q <= 1 else None


# --- declarations ---------------------------------------------------------------------------------


def knob(
    default: Any,
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    values: str = "",
    read: Callable[[Any], Any] | None = None,
    separator: str = ",",
    only: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Declare a knob: its default, what it means, and which values it takes.

    Args:
        default: the default; the type of a range's decides whether its numbers are whole.
        meaning: one line for a person.
        low: the lowest value of a range.
        high: the highest value of a range.
        choices: the words that it takes.
        values: the values in words, where neither a range nor choices give them.
        read: the value from text or from a value of another type; ValueError or TypeError if
            there is none.
        separator: what stands between several parts of a value in text.
        only: values, to a colon in them, that are part of one preset's procedure, and which.
    """
    if choices:
        values, read = ", ".join(choices), partial(_choice, choices=choices)
    elif low is not None and high is not None:
        whole = isinstance(default, int)
        read = partial(_integer if whole else _number, low=low, high=high)
        end = "2^63 - 1" if high == 2**63 - 1 else f"{high:g}"
        values = f"{'whole numbers' if whole else 'numbers'} from {low:g} to {end}"
    if only:
        values += f" ({', '.join(only)}: preset {' or '.join(dict.fromkeys(only.values()))} only)"
    facts = {
        "meaning": meaning,
        "values": values,
        "read": read,
        "separator": separator,
        "only": only,
    }
    return field(default=default, metadata=facts)


def _parse(item: Field[Any], value: Any) -> Any:
    """The value of a knob from text or from a value.

    Raises:
        UsageError: there is none; the message names the values that the knob takes.
    """
    try:
        return item.metadata["read"](value)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{item.name} {value!r} is not valid; use {item.metadata['values']}"
        ) from error


def _check(settings: Options | RunSettings) -> None:
    for item in fields(settings):
        if "read" in item.metadata:
            _parse(item, getattr(settings, item.name))


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Every knob of the method: with the model and its precision they decide the result.

    ``preset`` names the preset that the other knobs started from; some values are part of one
    preset's procedure and of no other's.

    Raises:
        UsageError: a value is not valid; the message names the values that are.
    """

    preset: str = "paper"
    path: Route = knob(
        "ddim",
        "how the latent reaches a timestep: by DDIM inversion, by adding seeded noise, or by "
        "sampling latent and noise anew at every step",
        choices=get_args(Route),
        only={"resample": "gen2ground"},
    )
    steps: int = knob(
        300, "requested DDIM steps of the training schedule (ddim, resample)", low=1, high=1000
    )
    window: tuple[int, int] | tuple[float, float] = knob(
        (120, 180),
        "steps that are read, of the DDIM list from clean to noisy (ddim, resample)",
        values="START:STOP with 0 <= START < STOP: indices such as 120:180, or fractions of the "
        "list such as 0.4:0.6",
        read=_window,
        separator=":",
    )
    timesteps: tuple[int, ...] = knob(
        (360, 450, 540),
        "training timesteps that are read (noise)",
        values="whole numbers from 0, such as 300,450",
        read=_timesteps,
    )
    draws: int = knob(2, "noise draws per timestep, averaged (noise)", low=1, high=1000)
    seed: int = knob(0, "seed of the noise (noise, resample)", low=0, high=2**63 - 1)
    layers: str | int | tuple[str, ...] = knob(
        "card",
        "cross-attention layers that are read: the model card's (else the published rule), the "
        "published rule, all, those of one map side, or by name",
        values="card, paper, all, a map side such as 16, or module names",
        read=_layers,
    )
    tokens: str | tuple[int, ...] = knob(
        "all",
        "tokens of the phrase that are read; tagged: the first token of every adjective, noun and "
        "verb, by a list or by the spaCy pipeline NAME",
        values="all, tagged, tagged:NAME, word:WORD, or indices such as 0,2",
        read=_tokens,
        only={"tagged": "gen2ground"},
    )
    sparse: Sparse = knob(
        "off",
        "attention scores to probabilities, when read: as in the network (off), or sparse",
        choices=get_args(Sparse),
    )
    normalise: Normalise = knob(
        "minmax",
        "scale every layer, step and the final map to [0, 1], the final map only, or nothing",
        choices=get_args(Normalise),
    )
    bbm: Merging = knob(
        "off",
        "Bimodal Bias Merging with a free run of the model, as released",
        choices=get_args(Merging),
        only={"paper": "gen2ground"},
    )
    sigma: float = knob(
        2.5 / 512, "Gaussian smoothing, a fraction of the square's side", low=0, high=0.5
    )
    mask: Mask = knob(
        "otsu",
        "background of the heatmap: 0 below Otsu's threshold, faded, 0 by a mixture of two "
        "Gaussians, or kept",
        choices=get_args(Mask),
        only={"mixture": "gen2ground"},
    )
    threshold: str | float = knob(
        "otsu",
        "what a box encloses: above Otsu's threshold, the mixture's mask in one box, above a "
        "quantile of the heatmap, or above a number",
        values="otsu, mixture, quantile:Q with Q from 0 to 1, or a number from 0 to 1",
        read=_threshold,
        only={"mixture": "gen2ground"},
    )
    min_area: float = knob(
        0.0, "smallest region that makes a box, a fraction of the square's area", low=0, high=1
    )
    absent_below: float | None = knob(
        None,
        "presence under which a finding counts as not found: the probability for a calibrated "
        "model, with the options that it was calibrated for, else the score",
        values="a number from 0 to 1, or none",
        read=_absent_below,
    )
    fit: Fit = knob("pad", "show the whole image, or its middle", choices=get_args(Fit))

    def __post_init__(self) -> None:
        _check(self)
        _check_preset(self)
        if self.bbm != "off" and self.path != "resample":
            raise UsageError(f"bbm {self.bbm!r} needs path=resample; use it, or bbm=off")

    @property
    def enlarge(self) -> Enlarge:
        """Interpolation of maps to image size; the release of gen2ground repeats positions."""
        return "nearest" if self.preset == "gen2ground" else "bilinear"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """Where a run computes, how fast and for which images; no part of a result's identity.

    The precision that ran is part of it: it changes numbers. See `cxrg.result.ModelRef`.

    Raises:
        UsageError: a value is not valid; the message names the values that are.
    """

    device: str = "auto"
    dtype: Dtype = knob("auto", "precision of the network", choices=get_args(Dtype))
    batch: int | Literal["auto"] = knob(
        "auto",
        "most latents in one network evaluation; auto takes what fits free memory",
        values="a whole number from 1 to 4096, or auto",
        read=_batch,
    )
    threads: int | Literal["auto"] = knob(
        "auto",
        "CPU threads of one operation, for the whole process; auto leaves it to torch",
        values="a whole number from 1 to 1024, or auto",
        read=_threads,
    )
    any_image: bool = knob(
        False,
        "ground images that do not look like an upright frontal chest X-ray, with a warning, "
        "instead of refusing them",
        values="true or false",
        read=_flag,
    )
    mend: bool = knob(
        False,
        "bring pictures upright that look turned, and turn negatives into positives, instead of "
        "refusing them",
        values="true or false",
        read=_flag,
    )
    force_ground: bool = knob(
        False,
        "ground phrases as they are written, whatever they mean: unknown words, denials and typing "
        "errors too",
        values="true or false",
        read=_flag,
    )

    def __post_init__(self) -> None:
        _check(self)


def _check_preset(options: Options) -> None:
    """Raise UsageError for a value that is part of another preset's procedure."""
    for name, item in KNOBS.items():
        value = getattr(options, name)
        kind = value.partition(":")[0] if isinstance(value, str) else value
        preset = item.metadata["only"].get(kind, options.preset)
        if preset != options.preset:
            raise UsageError(f"{name} {value!r} is part of preset {preset}; use --preset {preset}")


KNOBS: Mapping[str, Field[Any]] = {i.name: i for i in fields(Options) if i.name != "preset"}
PRESETS: Mapping[str, Options] = {
    "fast": Options(preset="fast", path="noise"),
    "paper": Options(preset="paper", fit="crop"),
    "gen2ground": Options(
        preset="gen2ground",
        path="resample",
        steps=50,
        window=(0, 40),
        layers="all",
        tokens="tagged",
        normalise="final",
        bbm="paper",
        sigma=0.0,
        mask="mixture",
        threshold="mixture",
        fit="crop",
    ),
}
DEFAULT_PRESET = "fast"
SETTINGS: Mapping[str, Field[Any]] = {item.name: item for item in fields(RunSettings)}


def resolve(
    preset: str = DEFAULT_PRESET,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    **overrides: Any,
) -> Options:
    """The options of a run: the preset, then a model's changes to it, then ``overrides``.

    Values may be text, as a command line has them: ``window="120:180"``, ``timesteps="300,450"``,
    ``layers="16"``, ``tokens="0,2"``, ``threshold="0.5"``, ``absent_below="none"``.

    Args:
        preset: the name of a preset.
        presets: knobs that replace those of the preset of that name, see `Card.presets`.
        **overrides: single knobs.

    Raises:
        UsageError: the preset or a knob is unknown, or a value is not valid.
    """
    if preset not in PRESETS:
        raise UsageError(f"preset {preset!r} is unknown; use {' or '.join(PRESETS)}")
    options = PRESETS[preset]
    of_card = modernise(preset, (presets or {}).get(preset, {}))
    if of_card is None:
        raise UsageError(
            f"preset {preset!r} of the model's card has knobs that are no more; use another"
        )
    for knobs in (of_card, overrides):
        values = {name: _parse(_knob(name), value) for name, value in knobs.items()}
        options = replace(options, **values)
    return options


def modernise(preset: str, knobs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Knobs of an older version as this one has them.

    Args:
        preset: the preset that they started from.
        knobs: values by name; those that this version has not known before stay as they are.

    Returns:
        None if this version cannot do the same.
    """
    gone = {"evidence": "phrase", "completion": "off"}
    gone["enlarge"] = "nearest" if preset == "gen2ground" else "bilinear"
    lost = {"normalise": ["competition"], "bbm": ["elementwise"], "tokens": ["disease", "content"]}
    if any(knobs.get(name, value) != value for name, value in gone.items()):
        return None
    if any(knobs.get(name) in values for name, values in lost.items()):
        return None
    # The score was then the tokens' mean, and its limit was for means.
    if knobs.get("reduce") == "mean" and knobs.get("absent_below") is not None:
        return None
    leave = (*gone, "alpha", "reduce")
    kept = {name: value for name, value in knobs.items() if name not in leave}
    if kept.get("path") == "redraw":
        kept["path"] = "resample"
    if "readout" in kept:
        readout = kept.pop("readout")
        kept["sparse"] = "off" if readout == "softmax" else readout
    return kept


def _knob(name: str) -> Field[Any]:
    if name in KNOBS:
        return KNOBS[name]
    if name in SETTINGS:
        raise UsageError(f"{name} is a setting of the run and no knob; use --{name}")
    near = get_close_matches(name, KNOBS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(KNOBS)}"
    raise UsageError(f"knob {name!r} is unknown; {hint}")


def read_settings(values: Mapping[str, Any]) -> RunSettings:
    """The settings of a run from text or values by name.

    Raises:
        UsageError: a value is not valid.
    """
    return RunSettings(
        **{
            name: _parse(SETTINGS[name], value) if SETTINGS[name].metadata else value
            for name, value in values.items()
        }
    )


def knob_rows() -> list[dict[str, Any]]:
    """Every knob: name, meaning, values and its default in each preset, for tables and JSON."""
    return [
        {
            "knob": name,
            "meaning": item.metadata["meaning"],
            "values": item.metadata["values"],
            "defaults": {preset: getattr(options, name) for preset, options in PRESETS.items()},
        }
        for name, item in KNOBS.items()
    ]


def as_text(name: str, value: Any) -> str:
    """A knob's value as ``--set`` takes it."""
    if isinstance(value, tuple):
        separator: str = KNOBS[name].metadata["separator"]
        return separator.join(map(str, value))
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def knobs_markdown() -> str:
    """The table of all knobs in Markdown."""
    head = ["knob", "meaning", "values", *PRESETS]
    rows = [
        [f"`{row['knob']}`", row["meaning"], row["values"]]
        + [f"`{as_text(row['knob'], value)}`" for value in row["defaults"].values()]
        for row in knob_rows()
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
