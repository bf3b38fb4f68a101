"""Settings of a long run: TOML, and single settings laid over it by name."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxrg.errors import InputError, UsageError


def find_recipe(given: str, *folders: Path) -> Path:
    """The file of a recipe: a packaged one by its name, such as ``compact``, or a path.

    Args:
        given: name or path.
        *folders: where the packaged recipes are.

    Raises:
        InputError: there is neither such a recipe nor such a file.
    """
    packaged = {path.stem: path for each in folders for path in sorted(each.glob("*.toml"))}
    path = packaged.get(given, Path(given))
    if not path.is_file():
        names = ", ".join(packaged)
        raise InputError(f"{given}: no such recipe; give a TOML file or one of: {names}")
    return path


def read_toml(path: Path) -> dict[str, Any]:
    """A file's settings.

    Raises:
        InputError: the file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read; give a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML ({error}); correct it") from error


def lay_over(
    settings: dict[str, Any], given: Mapping[str, Any], *, origin: str, known: str
) -> None:
    """Replace settings by those given; every name must be there, every value of the same kind.

    Args:
        settings: changed in place.
        given: settings on top.
        origin: who gives them, for the message.
        known: the file that holds all settings, for the message.

    Raises:
        UsageError: a setting is unknown, or its value is not valid.
    """
    for name, value in given.items():
        if name not in settings or isinstance(settings[name], dict) != isinstance(value, dict):
            raise UsageError(f"{origin}: setting {name!r} is unknown; see {known}")
        if isinstance(value, dict):
            lay_over(settings[name], value, origin=origin, known=known)
            continue
        wanted = type(settings[name])
        fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
        if not fits and not (wanted is float and is_number(value)):
            kind = {"str": "text", "bool": "true or false", "list": "a list"}
            use = kind.get(wanted.__name__, "a number")
            raise UsageError(f"{origin}: {name} {value!r} is not valid; use {use}")
        settings[name] = value


def lay_over_each(settings: dict[str, Any], changes: Mapping[str, str], *, known: str) -> None:
    """Replace single settings, by name such as ``loss.nce``, as TOML writes them.

    A value that is no TOML is text.

    Raises:
        UsageError: a setting is unknown, or its value is not valid.
    """
    for name, text in changes.items():
        table, _, key = name.rpartition(".")
        given = {table: {key: _value(text)}} if table else {key: _value(text)}
        lay_over(settings, given, origin="--set", known=known)


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
