"""Report English: a query (concept, side, zone, size) becomes a phrase, a sentence or a denial.

A phrase names exactly what its query names: a side or zone is named if and only if the query
names it, with the patient's laterality. Sizes are named in about half of the phrases that could.
Four phrases in ten are terse ("left lower lung opacity", "bilateral lung opacities", "pneumonia").

The words are data (``vocabulary.toml``), their order is in :mod:`cxrg.phantom.grammar`. A phrase
takes some microseconds, so every training sample can have its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from random import Random

from cxrg.chest import names
from cxrg.errors import UsageError
from cxrg.phantom.grammar import Grammar, grammar, side_key, vocabulary, walk
from cxrg.phantom.grammar import Query as Query

SIDES: tuple[str, ...] = (*names.SIDES, "bilateral")
ZONES: tuple[str, ...] = (
    "upper",
    "mid",
    "lower",
    "apical",
    "basal",
    "perihilar",
    "retrocardiac",
    "costophrenic angle",
)
SIZES: tuple[str, ...] = ("small", "moderate", "large")

# "a" before a vowel, before a letter that is spoken with one (an NG tube) and before 8, 11, 18.
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIO]|[FHLMNRSX][A-Z]|8|11\b|18)")


def concepts(kind: str | None = None) -> tuple[str, ...]:
    """All concepts, or those of one kind: ``finding``, ``device`` or ``anatomy``."""
    words = vocabulary()
    kinds = dict.fromkeys(words["findings"], "finding")
    kinds |= {name: entry["kind"] for name, entry in words["fixed"].items()}
    return tuple(name for name, its in kinds.items() if kind in (None, its))


def queries(*, sizes: bool = True) -> tuple[Query, ...]:
    """Every query that has a phrase, all present; without sizes where ``sizes`` is False."""
    last = (None, *SIZES) if sizes else (None,)
    every = product(concepts(), (None, *SIDES), (None, *ZONES), last)
    return tuple(query for query in (Query(*parts) for parts in every) if sayable(query))


def sayable(query: Query) -> bool:
    """Whether the query's concept is known and can have that side, zone and size."""
    return _objection(query) is None


def say(query: Query, rng: Random) -> str:
    """One phrase in report language, terse or not; a negation where the query is not present.

    Raises:
        UsageError: the concept is not known, or it cannot have that side, zone or size.
    """
    if not query.present:
        return negate(query, rng)
    return _finish(walk(_grammar(query).phrase, rng), rng)


def sentence(query: Query, rng: Random) -> str:
    """A sentence as in the findings section of a report; a negation where not present.

    Raises:
        UsageError: the concept is not known, or it cannot have that side, zone or size.
    """
    if not query.present:
        return _full_stop(negate(query, rng))
    return _full_stop(walk(_grammar(query).sentence, rng))


def negate(query: Query, rng: Random) -> str:
    """A phrase or sentence that denies the query ("no left pleural effusion"); the size is left
    out.

    Raises:
        UsageError: as in :func:`say`, or the concept is anatomy, which is always there.
    """
    _grammar(replace(query, present=True))  # a size that cannot be is refused here too
    negation = _grammar(replace(query, size=None, present=True)).negation
    if negation is None:
        raise UsageError(f"{query.concept} is anatomy and cannot be denied; use a finding")
    return _finish(walk(negation, rng), rng)


def normal(rng: Random) -> str:
    """A phrase or sentence of a normal report."""
    return _finish(walk(tuple(vocabulary()["normal"]["phrases"]), rng), rng)


def corpus(rng: Random, count: int) -> Iterator[str]:
    """``count`` texts of all kinds: half phrases, then sentences, negations and normal ones."""
    every = queries()
    deniable = tuple(query for query in every if _grammar(query).negation is not None)
    for _ in range(count):
        draw = rng.random()
        if draw < 0.5:
            yield say(rng.choice(every), rng)
        elif draw < 0.75:
            yield sentence(rng.choice(every), rng)
        elif draw < 0.9:
            yield negate(rng.choice(deniable), rng)
        else:
            yield normal(rng)


def _objection(query: Query) -> str | None:
    """Why a query has no phrase, or None."""
    finding = vocabulary()["findings"].get(query.concept)
    fixed = vocabulary()["fixed"].get(query.concept)
    if finding is None and fixed is None:
        return f"concept {query.concept!r} is not known; use one of: {', '.join(concepts())}"
    sides, zones, sizes = SIDES, ZONES, SIZES
    if finding is not None:
        zones = finding["zones"]
        if query.zone == "retrocardiac":
            sides = ("left",)
    else:
        sides = tuple(side for side in SIDES if side_key(side) in fixed)
        zones, sizes = (), tuple(size for size in SIZES if size in fixed)
    for name, value, allowed in (
        ("side", query.side, sides),
        ("zone", query.zone, zones),
        ("size", query.size, sizes),
    ):
        if value is not None and value not in allowed:
            choices = ", ".join(allowed) or "none"
            return f"{query.concept} has no {name} {value!r} here; use one of: {choices}"
    return None


@cache
def _grammar(query: Query) -> Grammar:
    objection = _objection(query)
    if objection is not None:
        raise UsageError(objection)
    return grammar(query)


def _tidy(text: str) -> str:
    return _ARTICLE.sub(r"\1n ", text.replace(" ,", ","))


def _finish(text: str, rng: Random) -> str:
    """Casing and full stop as people type them: mostly lower case without one."""
    text = _tidy(text)
    draw = rng.random()
    if draw < 0.15:
        text = text[0].upper() + text[1:]
    elif draw < 0.17:
        text = text.title()
    elif draw < 0.18:
        text = text.upper()
    return text + "." if rng.random() < 0.1 else text


def _full_stop(text: str) -> str:
    text = _tidy(text)
    return text[0].upper() + text[1:].rstrip(".") + "."
