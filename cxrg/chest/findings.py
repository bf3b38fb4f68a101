"""What is known of findings and devices: names, labels and possible places (data, TOML)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from cxrg.chest.codes import Code, code_of
from cxrg.chest.matcher import Matcher
from cxrg.chest.names import SIDES, plain
from cxrg.chest.places import LOCATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A finding or device by its concept; see ``findings.toml`` for what each attribute means.

    ``plausible`` and ``at`` are names of :data:`LOCATIONS`; ``reported`` is whether reports know
    it.
    """

    concept: str
    group: str
    place: str
    phrase_place: str
    reported: bool
    names: tuple[tuple[str, ...], ...]
    unread: tuple[str, ...]
    also: tuple[str, ...]
    plural: str
    absent: tuple[str, ...]
    unless: tuple[str, ...]
    labels: tuple[str, ...]
    plausible: tuple[str, ...]
    at: tuple[str, ...]
    usual: str
    template: tuple[str, ...]
    covers: tuple[str, ...]
    phrases: Mapping[str, Any]
    code: Code | None
    uncoded: tuple[str, ...]

    @property
    def read(self) -> tuple[str, ...]:
        """The names that reports are read by."""
        forms = [tuple(filter(None, name)) for name in self.names]
        names = [n for some in forms if some[0] not in self.unread for n in some]
        return (*names, *self.phrases.get("plain", ()), *self.also)

    def code_in(self, phrase: str) -> Code | None:
        """Return the code of the finding where the phrase does not name something else by it."""
        return None if Matcher({self.concept: self.uncoded})(phrase) else self.code


@cache
def entries() -> dict[str, Finding]:
    """All findings and devices by concept."""
    text = files("cxrg.chest").joinpath("findings.toml").read_text(encoding="utf-8")
    return {concept: _finding(concept, entry) for concept, entry in tomllib.loads(text).items()}


@cache
def findings() -> dict[str, Finding]:
    """The findings with plausible places by concept: those that are classified."""
    return {concept: each for concept, each in entries().items() if each.plausible}


@cache
def labelled() -> dict[str, Finding]:
    """The finding or device that each label means."""
    return {label: each for each in entries().values() for label in each.labels}


@cache
def read_as() -> dict[str, tuple[str, ...]]:
    """The names that reports are read by, for each concept that reports know."""
    owner = {name.lower(): each.concept for each in entries().values() for name in each.read}
    return {
        concept: tuple(dict.fromkeys(n for n in each.read if owner[n.lower()] == concept))
        for concept, each in entries().items()
        if each.reported
    }


def finding_of(category: str) -> Finding | None:
    """The finding that a label file's category means; None where it is none of :func:`findings`."""
    found = labelled().get(plain(category))
    return found if found is not None and found.plausible else None


def _finding(concept: str, entry: dict[str, Any]) -> Finding:
    group, place = entry.get("group", "finding"), entry.get("place", "none")
    usual = {"pleura": "side"}.get(place, place) if group == "finding" else "none"
    return Finding(
        concept=concept,
        group=group,
        place=place,
        phrase_place=entry.get("phrase_place", usual),
        reported="names" in entry or "also" in entry,
        names=tuple(tuple(name) for name in entry.get("names", ())),
        unread=tuple(entry.get("unread", ())),
        also=tuple(entry.get("also", ())),
        plural=entry.get("plural", concept),
        absent=tuple(entry.get("absent", ())),
        unless=tuple(entry.get("unless", ())),
        labels=tuple(entry.get("labels", ())),
        plausible=_both_sides(entry.get("plausible", ())),
        at=_both_sides(entry.get("at", ())),
        usual=entry.get("usual", "lung"),
        template=tuple(entry.get("template", ())),
        covers=tuple(entry.get("covers", ())),
        phrases=entry.get("phrases", {}),
        code=code_of(entry),
        uncoded=tuple(entry.get("uncoded", ())),
    )


def _both_sides(parts: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    sided = [[part] if part in LOCATIONS else [f"{s} {part}" for s in SIDES] for part in parts]
    return tuple(name for names in sided for name in names)
