"""What is known of findings: their names in label files, and where they can be (data, TOML)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cxrg.chest.names import SIDES, plain
from cxrg.chest.places import LOCATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A finding by its concept; ``plausible`` and ``at`` are names of :data:`LOCATIONS`."""

    concept: str
    plausible: tuple[str, ...]
    at: tuple[str, ...]


@cache
def findings() -> dict[str, Finding]:
    """All findings by concept."""
    return {
        concept: Finding(
            concept=concept,
            plausible=_both_sides(entry["plausible"]),
            at=_both_sides(entry.get("at", ())),
        )
        for concept, entry in _table().items()
    }


def finding_of(category: str) -> Finding | None:
    """The finding that a label file's category means; None where it is none that is known."""
    name = plain(category)
    for concept, entry in _table().items():
        if name == plain(concept) or name in entry["names"]:
            return findings()[concept]
    return None


@cache
def _table() -> dict[str, dict[str, list[str]]]:
    text = files("cxrg.chest").joinpath("findings.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _both_sides(parts: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    sided = [[part] if part in LOCATIONS else [f"{s} {part}" for s in SIDES] for part in parts]
    return tuple(name for names in sided for name in names)
