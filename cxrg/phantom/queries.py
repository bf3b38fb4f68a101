"""Queries about a picture, and the masks that answer them.

A query names a concept, perhaps a side and a zone. Its answer is the union of every finding that
it describes, so that a word more or less in the phrase moves the answer: a hard text pair needs
no second image. Queries that describe nothing here have an empty answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from cxrg.chest.findings import entries
from cxrg.chest.names import SIDES
from cxrg.geometry import Mask
from cxrg.phantom.findings import ONE_SIDED, Finding
from cxrg.phantom.language import Query, sayable
from cxrg.phantom.sample import Phantom

_PARTS = ("apical", "basal", "perihilar", "retrocardiac")
_ANATOMY: dict[str, str] = {
    "lung": "{side} lung",
    "hilum": "{side} hilum",
    "costophrenic angle": "{side} costophrenic angle",
    "apex": "{side} apical",
    "base": "{side} basal",
    "hemidiaphragm": "{side} hemidiaphragm",
    "upper zone": "{side} upper",
    "mid zone": "{side} mid",
    "lower zone": "{side} lower",
    "clavicle": "{side} clavicle",
}
_MIDLINE = ("lungs", "heart", "heart and mediastinum", "airways", "spine")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answer:
    """A query and the boolean mask ``(side, side)`` of what it describes (empty if absent)."""

    query: Query
    mask: Mask


def covers(concept: str, kind: str) -> bool:
    """Whether a phrase about ``concept`` speaks of a finding of this kind."""
    return concept == kind or kind in _wide().get(concept, ())


@cache
def _wide() -> dict[str, tuple[str, ...]]:
    """Concepts that describe more kinds of findings than their own, the widest first."""
    found = {concept: each.covers for concept, each in entries().items() if each.covers}
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def answer(phantom: Phantom, query: Query) -> Answer:
    """The mask of this query's findings; an empty one where there is none of them."""
    matching = [f for f in phantom.findings if _describes(phantom, query, f)]
    if query.side == "bilateral" and {f.side for f in matching} < {"right", "left"}:
        matching = []
    mask = np.zeros(phantom.image.shape, bool)
    for finding in matching:
        mask |= finding.mask
    return Answer(query=query, mask=mask)


def _describes(phantom: Phantom, query: Query, finding: Finding) -> bool:
    if not covers(query.concept, finding.kind):
        return False
    if query.side in ("right", "left") and finding.side != query.side:
        return False
    if query.zone is None or query.zone == finding.zone:
        return True
    name = "retrocardiac" if query.zone == "retrocardiac" else f"{finding.side} {query.zone}"
    region = phantom.regions.get(name)
    if region is None or not region.any():
        return False
    return bool((finding.mask & region).sum() >= 0.6 * finding.mask.sum())


def present(phantom: Phantom) -> list[Answer]:
    """Every kind of query about the findings that has a phrase and an answer here."""
    queried: dict[Query, None] = {}
    for finding in phantom.findings:
        wider = [concept for concept in _wide() if covers(concept, finding.kind)]
        for concept in dict.fromkeys((finding.kind, *wider)):
            for side in dict.fromkeys((None, finding.side, "bilateral")):
                for zone in dict.fromkeys((None, finding.zone, *_PARTS)):
                    queried[Query(concept, side, zone)] = None
    answers = [answer(phantom, query) for query in queried if sayable(query)]
    return [a for a in answers if a.mask.any()]


def absent(phantom: Phantom, rng: np.random.Generator, count: int) -> list[Answer]:
    """Queries about findings that are not here, half of them near misses (other side or zone)."""
    here = [f for f in phantom.findings if f.side is not None and f.kind in ONE_SIDED]
    concepts = ["opacity", *ONE_SIDED]
    found: list[Answer] = []
    for _ in range(count * 4):
        concept = str(rng.choice(concepts))
        if here and rng.random() < 0.5:
            concept = here[int(rng.integers(len(here)))].kind
        side = (None, "bilateral", "right", "left")[
            int(rng.choice(4, p=[0.12, 0.13, 0.375, 0.375]))
        ]
        zone = str(rng.choice(["upper", "mid", "lower"])) if rng.random() < 0.4 else None
        query = Query(concept, side, zone)
        if not sayable(query):
            continue
        queried = answer(phantom, query)
        if not queried.mask.any() and not _nearly(phantom, query):
            found.append(queried)
        if len(found) == count:
            break
    return found


def _nearly(phantom: Phantom, query: Query) -> bool:
    """Whether a finding is partly in the query's place, so that neither yes nor no is right."""
    sides = (query.side,) if query.side in SIDES else SIDES
    places = [f"{side} {query.zone}" if query.zone else f"{side} lung" for side in sides]
    queried = [phantom.regions[place] for place in places if place in phantom.regions]
    return any(
        covers(query.concept, f.kind) and (f.mask & region).sum() > 0.15 * f.mask.sum()
        for f in phantom.findings
        for region in queried
    )


def anatomy(phantom: Phantom) -> list[Answer]:
    """Queries for the parts of the body that have a mask here."""
    queried: list[tuple[str, str | None, str]] = [
        (c, s, name.format(side=s)) for c, name in _ANATOMY.items() for s in ("right", "left")
    ]
    queried += [(c, None, c) for c in _MIDLINE]
    return [
        Answer(query=Query(c, s), mask=phantom.regions[name])
        for c, s, name in queried
        if name in phantom.regions and phantom.regions[name].any()
    ]
