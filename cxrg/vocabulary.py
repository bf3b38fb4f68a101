"""The 20 places and 8 findings that vectors are learnt for; their words are ``vocabulary.toml``."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

from cxrg.adapters.words import Matcher
from cxrg.anatomy.locations import SIDES, ZONE_PARTS

# Where a finding lies if the report does not say it (methods of anatomy-grounded prompt tuning).
_DEFAULTS = {
    "cardiomegaly": "heart",
    "pleural effusion": "{side} costophrenic angle",
    "pneumothorax": "{side} apex",
}
_ZONES = {
    zone: f"{{side}} {part}"
    for zone, part in ({None: "lung", "perihilar": "hilum"} | ZONE_PARTS).items()
}


@cache
def terms() -> dict[str, dict[str, tuple[str, ...]]]:
    """Tables ``locations`` and ``findings``: what each name is called, sides filled in."""
    text = resources.files("cxrg").joinpath("vocabulary.toml").read_text(encoding="utf-8")
    return {
        table: {
            name.format(side=side): tuple(term.format(side=side) for term in entry["terms"])
            for name, entry in entries.items()
            for side in (SIDES if "{side}" in name else ("",))
        }
        for table, entries in tomllib.loads(text).items()
    }


FINDINGS = tuple(terms()["findings"])


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
    """The places of a finding: one, two where it is bilateral, none where nothing tells it."""
    if finding == "cardiomegaly":
        return (_DEFAULTS[finding],)
    if zone not in _ZONES:
        return ()
    pattern = _DEFAULTS.get(finding, _ZONES[None]) if zone is None else _ZONES[zone]
    sides = SIDES if side == "bilateral" else (side,)
    return tuple(pattern.format(side=each) for each in sides if each in SIDES)


def opposite(location: str) -> str | None:
    """The same place on the other side; None for what lies in the middle."""
    for one, other in (SIDES, SIDES[::-1]):
        if location.startswith(f"{one} "):
            return f"{other} {location.removeprefix(one + ' ')}"
    return None
