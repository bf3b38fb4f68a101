"""One statement of a report, and the phrase that grounds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cxrg.chest.findings import entries
from cxrg.reports.vocabulary import vocabulary

Side = Literal["left", "right", "bilateral"]
Certainty = Literal["present", "absent", "uncertain", "normal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """One mention of a finding or organ in a report.

    Attributes:
        sentence: the text of its sentence, with single blanks.
        finding: the finding or device by its canonical name (those of ``cxrg.phantom`` where it has
            one); for ``normal`` the organ, or None where the whole chest is called normal.
        side: the patient's side, or None where it is not stated.
        zone: one of ``cxrg.phantom.language.ZONES``, or None where it is not stated.
        certainty: ``present``; ``absent`` (denied or gone); ``uncertain`` (possible, likely,
            "cannot be excluded"); ``normal`` (an organ or the whole chest is called normal).
        phrase: report English to ground what is present or uncertain ("left basal consolidation");
            None for the rest.
        span: characters ``[start, stop)`` of the mention in the text that was read.
    """

    sentence: str
    finding: str | None
    side: Side | None
    zone: str | None
    certainty: Certainty
    phrase: str | None
    span: tuple[int, int]


def phrase(finding: str, side: Side | None, zone: str | None) -> str:
    """Report English for a finding at a place: ``left basal consolidation``."""
    entry = entries()[finding]
    where = zone
    if zone is not None and entry.place == "lung":
        where = vocabulary()["phrase"].get(zone, zone)
    name = entry.plural if side == "bilateral" else finding
    return " ".join(filter(None, (side, where, name)))
