"""What a tuning run is: ``default.toml``, then a TOML file, then single settings on top."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from cxrg.errors import InputError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """The weight of each term of the loss; 0 switches it off. `cxrg.tune.losses` defines them."""

    inside: float
    outside: float
    dice: float
    nce: float
    diffusion: float
    residual: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What is learnt from; see ``default.toml``."""

    phantoms: int
    table: str
    masks: str
    template: float
    held_out: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneConfig:
    """One run; ``default.toml`` says what each setting means.

    Raises:
        UsageError: a value cannot be meant.
    """

    prefix: int
    prefix_text: str
    residuals: bool
    steps: int
    batch: int
    learning_rate: float
    warmup: int
    clip: float
    ema: float
    seed: int
    check_every: int
    timesteps: tuple[int, ...]
    layers: tuple[str, ...]
    loss: LossConfig
    data: DataConfig

    def __post_init__(self) -> None:
        least = {"prefix": 0, "steps": 1, "batch": 1, "warmup": 0, "seed": 0, "check_every": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise UsageError(f"{name} {value!r} cannot be meant; use a whole number from {low}")
        for name in ("learning_rate", "clip"):
            if not _number(getattr(self, name)) or getattr(self, name) <= 0:
                raise UsageError(f"{name} must be a number above 0")
        shares = {"ema": self.ema, "data.template": self.data.template}
        for name, value in {**shares, "data.held_out": self.data.held_out}.items():
            if not _number(value) or not 0 <= value <= 1:
                raise UsageError(f"{name} {value!r} cannot be meant; use a number from 0 to 1")
        for item in fields(LossConfig):
            value = getattr(self.loss, item.name)
            if not _number(value) or value < 0:
                raise UsageError(f"loss.{item.name} {value!r} cannot be meant; use 0 or more")
        if not (self.prefix or self.residuals):
            raise UsageError("nothing is learnt; set prefix above 0 or residuals to true")
        if len(self.timesteps) not in (0, 2) or list(self.timesteps) != sorted(self.timesteps):
            raise UsageError("timesteps must be [] or [first, last]")
        if not (self.data.phantoms or self.data.table):
            raise UsageError("no data; set data.phantoms or data.table")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_config(path: Path | None = None, changes: Mapping[str, str] | None = None) -> TuneConfig:
    """Read a configuration.

    Args:
        path: a TOML file with any of the settings of ``default.toml``; its own paths start from its
            folder.
        changes: settings on top, by name such as ``loss.nce``, as TOML writes them; a value that is
            no TOML is text.

    Raises:
        InputError: the file cannot be read.
        UsageError: a setting is not known, or its value cannot be meant.
    """
    told = tomllib.loads(
        resources.files("cxrg.tune").joinpath("default.toml").read_text(encoding="utf-8")
    )
    if path is not None:
        given = _read(path)
        data = given.get("data", {})
        for name in ("table", "masks"):
            if isinstance(data, dict) and isinstance(data.get(name), str) and data[name]:
                data[name] = str(path.parent / data[name])
        _lay_over(told, given, str(path))
    for name, text in (changes or {}).items():
        table, _, key = name.rpartition(".")
        _lay_over(told, {table: {key: _value(text)}} if table else {key: _value(text)}, "--set")
    told |= {"loss": LossConfig(**told["loss"]), "data": DataConfig(**told["data"])}
    frozen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
    return TuneConfig(**frozen)


def _lay_over(told: dict[str, Any], given: Mapping[str, Any], origin: str) -> None:
    """Replace settings by those given; every name must be known."""
    for name, value in given.items():
        if name not in told or isinstance(told[name], dict) != isinstance(value, dict):
            raise UsageError(f"{origin}: setting {name!r} is not known; see cxrg/tune/default.toml")
        if isinstance(value, dict):
            _lay_over(told[name], value, origin)
            continue
        wanted = type(told[name])
        fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
        if not fits and not (wanted is float and _number(value)):
            kind = {"str": "text", "bool": "true or false", "list": "a list"}
            use = kind.get(wanted.__name__, "a number")
            raise UsageError(f"{origin}: {name} {value!r} cannot be meant; use {use}")
        told[name] = value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read; give a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML ({error}); correct it") from error
