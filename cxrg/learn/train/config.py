"""The settings of a training run: one TOML file, read into frozen tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from cxrg.errors import InputError, UsageError
from cxrg.learn.settings import find_recipe, is_number, lay_over, lay_over_each, read_toml


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """The pool of pictures: how many, of what, how large.

    With ``lifelike``, findings are drawn into real X-rays by `cxrg.phantom.scene`: a part ``blank``
    of the pictures stays without any; a part ``normals_share`` of them is drawn over ``normals`` (a
    folder like ``backgrounds``, of healthy chests), but never over its last ``held_out``; nodules
    are projected from the CT crops in the file ``nodules``.
    """

    side: int
    grid: int
    seed: int
    phantoms: int
    drawn_on_real: int
    backgrounds: str
    answers: int
    lifelike: bool = False
    blank: float = 0.0
    normals: str = ""
    normals_share: float = 0.0
    held_out: int = 0
    nodules: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmenterConfig:
    """The network that finds lungs and heart in real backgrounds, trained on phantoms only."""

    side: int
    phantoms: int
    steps: int
    batch: int
    channels: tuple[int, ...]
    learning_rate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderConfig:
    """The image autoencoder: its blocks, the side that pictures are shrunk to while it is trained
    (it has no notion of place, so it then codes larger ones too), and the training's length."""

    side: int
    channels: tuple[int, ...]
    layers: tuple[int, ...]
    latent_channels: int
    steps: int
    batch: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """Tokenizer and text encoder, both made for report language from scratch."""

    vocabulary: int
    sentences: int
    length: int
    width: int
    layers: int
    heads: int


DEFAULT_SHARES = (0.54, 0.22, 0.20, 0.04)
"""Shares of findings present and absent, anatomy and devices in a batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionConfig:
    """The denoiser, its objective, and the weight of the attention terms.

    A level with ``attention`` but without ``self_attention`` attends to the text alone, which costs
    little however fine it is.
    From step ``share_from`` on the share term counts ``share_weight``; the learning rate falls up
    to there, and rises and falls once more. With the term from the first step on, short runs do not
    learn where to look.
    ``presence_weight`` is that of the term that tells what is there from what is not; it reads the
    layers that the preset names.
    At the steps in ``snapshots`` the averaged weights are also written as a model of their own, so
    that quality can be measured against the images seen.
    ``shares`` are those of findings present and absent, anatomy and devices in a batch, and
    ``normal_share`` of absent ones in a picture without findings become "The lungs are clear".
    ``balance`` above 0 draws rare findings more often, and asks devices of pictures without them
    (see `cxrg.learn.train.batches.make_sampler`).
    ``start`` is the folder of a model whose denoiser and text encoder are trained further; its
    autoencoder and tokenizer are kept.
    """

    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    self_attention: tuple[bool, ...]
    layers: int
    head_width: int
    batch: int
    steps: int
    learning_rate: float
    warmup: int
    ema: float
    caption_drop: float
    attention_weight: float
    attention_below: int
    share_weight: float
    share_from: int
    presence_weight: float
    box_share: float
    checkpoint_every: int
    snapshots: tuple[int, ...]
    shares: tuple[float, ...] = DEFAULT_SHARES
    normal_share: float = 0.0
    balance: float = 0.0
    start: str = ""

    def __post_init__(self) -> None:
        """Check what no other code checks.

        Raises:
            UsageError: the shares are not valid.
        """
        valid = [s for s in self.shares if is_number(s) and s >= 0]
        if not len(self.shares) == len(valid) == len(DEFAULT_SHARES) or not sum(valid):
            raise UsageError(
                f"diffusion.shares {list(self.shares)} is not valid; use {len(DEFAULT_SHARES)} "
                "numbers from 0, not all 0: findings present, absent, anatomy, devices"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One run, as in its TOML file; ``reading`` goes into the card as preset ``fast``."""

    name: str
    title: str
    licence: str
    attribution: tuple[str, ...]
    reading: dict[str, Any]
    data: DataConfig
    segmenter: SegmenterConfig
    autoencoder: AutoencoderConfig
    text: TextConfig
    diffusion: DiffusionConfig


_TABLES = {
    "data": DataConfig,
    "segmenter": SegmenterConfig,
    "autoencoder": AutoencoderConfig,
    "text": TextConfig,
    "diffusion": DiffusionConfig,
}
_T = TypeVar("_T")


def _table(kind: type[_T], values: dict[str, Any], where: str) -> _T:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]  # a dataclass, always
    needed = {name for name, f in known.items() if f.default is MISSING}
    unknown, missing = sorted(values.keys() - known.keys()), sorted(needed - values.keys())
    if unknown or missing:
        raise InputError(
            f"{where}: unknown keys {unknown or 'none'}, missing keys {missing or 'none'}; "
            f"compare with {RECIPES / 'compact.toml'}"
        )
    frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return kind(**frozen)


RECIPES = Path(__file__).parent
"""Folder of the packaged recipes."""


def read_config(recipe: str | Path, changes: Mapping[str, str] | None = None) -> TrainConfig:
    """Read a training configuration; its paths start from its folder.

    Args:
        recipe: ``compact`` or a TOML file, with all settings of ``compact.toml`` or with ``base``
            (a recipe's name or file) and those that differ from it.
        changes: settings on top, by name such as ``diffusion.steps``, as TOML writes them.

    Raises:
        InputError: the file cannot be read, or has unknown or missing keys.
        UsageError: a setting on top is unknown, or its value is not valid.
    """
    path = find_recipe(str(recipe), RECIPES)
    raw = _with_base(path)
    lay_over_each(raw, changes or {}, known=str(path))
    _resolve(raw, path.parent)
    tables: dict[str, Any] = {
        name: _table(kind, raw.pop(name, {}), f"{path}: [{name}]") for name, kind in _TABLES.items()
    }
    return _table(TrainConfig, {**raw, **tables}, f"{path}: top level")


_PATHS = (
    ("data", "backgrounds"),
    ("data", "normals"),
    ("data", "nodules"),
    ("diffusion", "start"),
)


def _resolve(settings: dict[str, Any], folder: Path) -> None:
    """Let the paths that are given start from a folder, in place."""
    for table, key in _PATHS:
        given = settings.get(table, {}).get(key)
        if given:
            settings[table][key] = str((folder / given).resolve())


def _with_base(path: Path) -> dict[str, Any]:
    """A file's settings over those of its ``base``; the base's paths start from the base's folder.

    Raises:
        InputError: a file cannot be read, or the base has a base itself.
        UsageError: the base has no such setting.
    """
    given = read_toml(path)
    base = given.pop("base", None)
    if base is None:
        return given
    is_name = (RECIPES / f"{base}.toml").is_file()
    below = find_recipe(base if is_name else str(path.parent / base), RECIPES)
    settings = read_toml(below)
    if "base" in settings:
        raise InputError(f"{path}: base {base} has a base itself; give a complete recipe")
    _resolve(settings, below.parent)
    lay_over(settings, given, origin=str(path), known=str(below))
    return settings
