"""The words of reports: ``vocabulary.toml``, read once."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any


@cache
def vocabulary() -> dict[str, Any]:
    """Organs, places, cues and section headings; the file says what each means."""
    text = resources.files("cxrg.reports").joinpath("vocabulary.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def words(table: str, key: str = "words") -> frozenset[str]:
    """A list of single words as a set, in lower case."""
    return frozenset(word.lower() for word in vocabulary()[table][key])
