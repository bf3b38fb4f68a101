"""The 20 places and 8 findings that vectors are learnt for; their words are data (TOML).

A phrase that names one finding at one of the places is also read as a *template*, "{location}
{finding}", in the vocabulary's own names (inspired by arXiv 2506.10633, whose details are not
public).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from cxrg.chest.findings import Finding, entries
from cxrg.chest.matcher import Matcher
from cxrg.chest.names import SIDES
from cxrg.chest.places import ZONE_PARTS, location_words

_ZONES = {"perihilar": "hilum"} | ZONE_PARTS


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A finding at a place; ``text`` is ``left lung base pleural effusion``."""

    location: str
    finding: str

    @property
    def text(self) -> str:
        return f"{self.location} {self.finding}"


@cache
def _findings() -> dict[str, Finding]:
    """The findings with a template, by what it calls them, in alphabetical order."""
    named = {each.template[0]: each for each in entries().values() if each.template}
    return dict(sorted(named.items()))


@cache
def terms() -> dict[str, dict[str, tuple[str, ...]]]:
    """Tables ``locations`` and ``findings``: what each name is called, sides filled in."""
    findings = {name: each.template for name, each in _findings().items()}
    return {"locations": location_words(), "findings": findings}


FINDINGS = tuple(_findings())


@cache
def matcher(table: str) -> Matcher:
    """Finds the ``locations`` or the ``findings`` of a text."""
    return Matcher(terms()[table])


def finding_named(words: str) -> str | None:
    """The finding that a name of another vocabulary means; None where it is none of the eight."""
    found = matcher("findings")(words)
    whole = len(found) == 1 and found[0].start == 0 and found[0].stop == len(words)
    return found[0].name if whole else None


def locations_of(finding: str, side: str | None, zone: str | None) -> tuple[str, ...]:
    """The places of a finding: one, two where it is bilateral, none where they are unknown."""
    entry = _findings()[finding]
    if entry.at:
        return entry.at
    part = entry.usual if zone is None else _ZONES.get(zone)
    sides = SIDES if side == "bilateral" else (side,)
    return tuple(f"{each} {part}" for each in sides if each in SIDES and part is not None)


def template_of(phrase: str) -> Template | None:
    """The one finding at the one place that a phrase names; None where it names less or more.

    A side alone is that lung: a finding's usual place on a side would be read as there, though the
    phrase does not name it. Without any place, a finding that lies in the middle has its own.
    Less: no finding or no place of the vocabulary. More: two of either (a bilateral finding has no
    one place), a place that the vocabulary does not know or knows only with other words ("left
    upper and lower lobe"), or a denial, which a template cannot express.
    """
    findings, places = matcher("findings")(phrase), matcher("locations")(phrase)
    finding_names, named = ({mention.name for mention in some} for some in (findings, places))
    rest = list(phrase)
    for mention in (*findings, *places):
        rest[mention.start : mention.stop] = " " * (mention.stop - mention.start)
    if len(finding_names) != 1 or _beyond()("".join(rest)):
        return None
    (finding,) = finding_names
    where = tuple(named) or locations_of(finding, None, None)
    return Template(location=where[0], finding=finding) if len(where) == 1 else None


@cache
def _beyond() -> Matcher:
    """Finds what a template cannot express in the rest of a phrase."""
    text = resources.files("cxrg.chest").joinpath("vocabulary.toml").read_text(encoding="utf-8")
    return Matcher(tomllib.loads(text)["beyond"])


def opposite(location: str) -> str | None:
    """The same place on the other side; None for what lies in the middle."""
    for one, other in (SIDES, SIDES[::-1]):
        if location.startswith(f"{one} "):
            return f"{other} {location.removeprefix(one + ' ')}"
    return None
