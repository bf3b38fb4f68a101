"""What the page of an evaluation calls maps and metrics, and what they mean: ``glossary.toml``."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Term(NamedTuple):
    """A title for a column or row, and one line that explains it."""

    title: str
    meaning: str


@cache
def glossary(chapter: str) -> dict[str, Term]:
    """The terms of one chapter: ``maps``, ``metrics``, ``sets`` or ``presence``."""
    text = files("cxrg.evaluate.report").joinpath("glossary.toml").read_text(encoding="utf-8")
    return {name: Term(*entry) for name, entry in tomllib.loads(text)[chapter].items()}
