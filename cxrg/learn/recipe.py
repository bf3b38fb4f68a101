"""A training recipe by name or file: what it trains, its settings, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from cxrg.errors import InputError
from cxrg.learn.log import Progress
from cxrg.learn.settings import find_recipe, read_toml

_ROOM = Path(__file__).parent
FOLDERS = (_ROOM / "train", _ROOM / "view")
"""Folders of the packaged recipes."""


class Recipe(Protocol):
    """Run the training in folder ``out`` and return where its result is."""

    def __call__(self, *, out: Path, resume: bool, progress: Progress) -> Path: ...


def read_recipe(given: str, changes: Mapping[str, str]) -> Recipe:
    """Read a recipe, packaged or a file.

    Args:
        given: name or path.
        changes: settings on top, by name such as ``diffusion.steps``, as TOML writes them.

    Raises:
        InputError: the file cannot be read, trains something unknown, or its settings are wrong.
        UsageError: a setting on top is unknown, or its value is not valid.
    """
    path = find_recipe(given, *FOLDERS)
    what = read_toml(path).get("trains", "model")
    if what not in _TRAINERS:
        raise InputError(f"{path}: trains {what!r} is unknown; use {' or '.join(_TRAINERS)}")
    return _TRAINERS[what](path, changes)


def _model(path: Path, changes: Mapping[str, str]) -> Recipe:
    from cxrg.learn.train.config import read_config
    from cxrg.learn.train.run import run

    return partial(run, read_config(path, changes))


def _view(path: Path, changes: Mapping[str, str]) -> Recipe:
    from cxrg.learn.view.run import read_config, run

    return partial(run, read_config(path, changes))


_TRAINERS: Mapping[str, Callable[[Path, Mapping[str, str]], Recipe]] = {
    "model": _model,
    "view": _view,
}
