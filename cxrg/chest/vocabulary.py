"""The 20 places and 8 findings that vectors are learnt for; their words are data (TOML)."""

from __future__ import annotations

from functools import cache

from cxrg.chest.findings import Finding, entries
from cxrg.chest.matcher import Matcher
from cxrg.chest.names import SIDES
from cxrg.chest.places import ZONE_PARTS, location_words

_ZONES = {"perihilar": "hilum"} | ZONE_PARTS


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


def opposite(location: str) -> str | None:
    """The same place on the other side; None for what lies in the middle."""
    for one, other in (SIDES, SIDES[::-1]):
        if location.startswith(f"{one} "):
            return f"{other} {location.removeprefix(one + ' ')}"
    return None
