"""All names of findings, devices and places that cxrg knows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from cxrg.chest import findings, places
from cxrg.chest.names import SIDES

_PHRASES = ("one", "both", "plain")


@cache
def known_names() -> frozenset[str]:
    """Every name in ``findings.toml`` and ``places.toml``, in lower case; a side alone is none."""
    named = frozenset(name.lower() for name in (*_findings(), *_places()) if name)
    return named.difference(SIDES)


@cache
def plural_names() -> frozenset[str]:
    """The names of more than one finding, such as "nodules", in lower case."""
    pairs = (name for each in findings.entries().values() for name in each.names)
    several = (name[1] for name in pairs if len(name) > 1)
    named = (e.plural for e in findings.entries().values() if e.plural != e.concept)
    return frozenset(name.lower() for name in (*several, *named) if name)


def _findings() -> Iterator[str]:
    for concept, each in findings.entries().items():
        yield concept
        yield from (form for name in each.names for form in name)
        yield from (*each.also, *each.labels, *each.template, *each.absent, each.plural)
        yield from _sided(name for key in _PHRASES for name in each.phrases.get(key, ()))


def _places() -> Iterator[str]:
    for concept, each in places.entries().items():
        yield concept
        yield from (*each.labels, *each.organ, *(each.zone or ()))
        yield from _sided((*each.masks, *each.words))
        yield from _sided(name for key in _PHRASES for name in each.phrases.get(key, ()))


def _sided(names: Iterator[str] | tuple[str, ...]) -> Iterator[str]:
    for name in names:
        yield from dict.fromkeys(name.format(side=side) for side in SIDES)
