"""What a tuning run is: ``default.toml``, then a TOML file, then single settings on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from cxrg.errors import UsageError
from cxrg.learn.settings import find_recipe, is_number, lay_over, lay_over_each, read_toml

DEFAULTS = Path(__file__).with_name("default.toml")

Anatomy = Literal["exact", "geometric"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """The weight of each term of the loss; 0 switches it off. `cxrg.learn.tune.losses` defines
    them.
    """

    inside: float
    outside: float
    dice: float
    nce: float
    diffusion: float
    residual: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """Which studies vectors are learnt from; see ``default.toml``."""

    phantoms: int
    anatomy: Anatomy
    table: str
    masks: str
    template: float
    held_out: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneConfig:
    """One run; ``default.toml`` says what each setting means.

    Raises:
        UsageError: a value is not valid.
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
    data: StudyConfig

    def __post_init__(self) -> None:
        least = {"prefix": 0, "steps": 1, "batch": 1, "warmup": 0, "seed": 0, "check_every": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise UsageError(f"{name} {value!r} is not valid; use a whole number from {low}")
        for name in ("learning_rate", "clip"):
            if not is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise UsageError(f"{name} must be a number above 0")
        shares = {"ema": self.ema, "data.template": self.data.template}
        for name, value in {**shares, "data.held_out": self.data.held_out}.items():
            if not is_number(value) or not 0 <= value <= 1:
                raise UsageError(f"{name} {value!r} is not valid; use a number from 0 to 1")
        for item in fields(LossConfig):
            value = getattr(self.loss, item.name)
            if not is_number(value) or value < 0:
                raise UsageError(f"loss.{item.name} {value!r} is not valid; use 0 or more")
        if self.data.anatomy not in get_args(Anatomy):
            raise UsageError("data.anatomy must be exact or geometric")
        if not (self.prefix or self.residuals):
            raise UsageError("nothing is trained; set prefix above 0 or residuals to true")
        if len(self.timesteps) not in (0, 2) or list(self.timesteps) != sorted(self.timesteps):
            raise UsageError("timesteps must be [] or [first, last]")
        if not (self.data.phantoms or self.data.table):
            raise UsageError("no data; set data.phantoms or data.table")


def read_config(
    recipe: str | Path | None = None, changes: Mapping[str, str] | None = None
) -> TuneConfig:
    """Read a configuration.

    Args:
        recipe: ``default``, or a TOML file with any of the settings of ``default.toml``; its own
            paths start from its folder.
        changes: settings on top, by name such as ``loss.nce``, as TOML writes them; a value that is
            no TOML is text.

    Raises:
        InputError: the file cannot be read.
        UsageError: a setting is unknown, or its value is not valid.
    """
    settings = read_toml(DEFAULTS)
    if recipe is not None:
        path = find_recipe(str(recipe), DEFAULTS.parent)
        given = read_toml(path)
        data = given.get("data", {})
        for name in ("table", "masks"):
            if isinstance(data, dict) and isinstance(data.get(name), str) and data[name]:
                data[name] = str(path.parent / data[name])
        lay_over(settings, given, origin=str(path), known=str(DEFAULTS))
    lay_over_each(settings, changes or {}, known=str(DEFAULTS))
    settings |= {
        "loss": LossConfig(**settings["loss"]),
        "data": StudyConfig(**settings["data"]),
    }
    frozen: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()
    }
    return TuneConfig(**frozen)
