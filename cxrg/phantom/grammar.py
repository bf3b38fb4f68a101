"""The grammar of report English for one query, put together from ``vocabulary.toml``.

A grammar is a nest of strings, choices (tuples) and sequences (lists); a phrase is one random walk
through it (:func:`walk`). Weights are repetitions: a member that stands there twice is twice as
likely. Building takes about a millisecond and is done once per query, a walk some microseconds.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from random import Random
from typing import Any, Literal, TypeAlias

from cxrg.chest.findings import entries
from cxrg.chest.places import labelled_places

Number = Literal["one", "mass", "many"]

# A tuple is a choice among its members, a list a sequence to be joined with blanks.
Expression: TypeAlias = "str | tuple[Expression, ...] | list[Expression]"

_DANGLING = ("of ", "involving ")


@dataclass(frozen=True, slots=True)
class Query:
    """The content of a phrase.

    Args:
        concept: a finding, device or part of the anatomy.
        side: the patient's ``left`` or ``right``, ``bilateral``, or None to leave it out.
        zone: ``upper``, ``basal`` ..., or None to leave it out.
        size: ``small``, ``moderate``, ``large``, or None to leave it out.
        present: False for a negation.
    """

    concept: str
    side: str | None = None
    zone: str | None = None
    size: str | None = None
    present: bool = True


@dataclass(frozen=True, slots=True)
class Grammar:
    """All phrases, sentences and negations of one query; anatomy has no negation."""

    phrase: Expression
    sentence: Expression
    negation: Expression | None


@cache
def vocabulary() -> dict[str, Any]:
    """The words: findings, whole phrases (``fixed``), places, frames."""
    text = resources.files("cxrg.phantom").joinpath("vocabulary.toml").read_text(encoding="utf-8")
    words = tomllib.loads(text)
    for concept, entry in words["findings"].items():
        known = entries()[concept]
        entry |= {"terms": known.names, "place": known.place}
    for concept in words["whole"]["device"]:
        words["fixed"][concept] = {"kind": "device", **entries()[concept].phrases}
    for concept in words["whole"]["anatomy"]:
        words["fixed"][concept] = {"kind": "anatomy", **labelled_places()[concept].phrases}
    return words


def grammar(query: Query) -> Grammar:
    """The grammar of a query that the vocabulary has words for."""
    if query.concept in vocabulary()["fixed"]:
        return _fixed(query, vocabulary()["fixed"][query.concept])
    return _finding(query, vocabulary()["findings"][query.concept])


def walk(expression: Expression, rng: Random) -> str:
    """One random text of an expression."""
    while isinstance(expression, tuple):
        expression = expression[int(rng.random() * len(expression))]
    if isinstance(expression, str):
        return expression
    return " ".join(filter(None, [walk(part, rng) for part in expression]))


def side_key(side: str | None) -> str:
    """Which list of whole phrases a side uses."""
    return {None: "plain", "bilateral": "both"}.get(side, "one")


def _fixed(query: Query, entry: dict[str, Any]) -> Grammar:
    """Devices, anatomy and the heart: whole phrases."""
    names = _sided(entry[side_key(query.side)], query.side)
    if query.size is not None:
        sized = tuple(entry[query.size])
        names = (*names, *sized * (2 * len(names) // len(sized)))
    frames = vocabulary()["frames"]
    phrase: Expression = (names[0], names[0], names, names, names)
    if entry["kind"] == "anatomy":
        bare = tuple(name.removeprefix("the ") for name in names)
        # "both lungs" and "lungs bilaterally" take no article
        article = "" if query.side == "bilateral" else "the"
        return Grammar(phrase, _framed(frames["anatomy"], [article, (bare[0], bare)]), None)
    if entry["kind"] == "device":
        number = entry["number"]
        denial = _framed(frames[f"deny_device_{number}"], names)
        return Grammar(phrase, _framed(frames[f"device_{number}"], names), denial)
    sentences = entry["sentences" if query.size is None else f"sentences_{query.size}"]
    return Grammar(phrase, tuple(sentences), tuple(entry["negations"]))


@dataclass(frozen=True, slots=True)
class _Place:
    """Words for where a finding is: in front of its name, and behind it."""

    terse: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    first: tuple[str, ...]  # those of ``after`` that may open a sentence


def _place(query: Query, entry: dict[str, Any]) -> _Place:
    words = vocabulary()[entry["place"]][query.zone or "none"]
    if query.side == "bilateral":
        terse, before, after = words["terse_both"], words["before_both"], words["after_both"]
    elif query.side is None and query.zone is None:
        terse, before, after = [""], words["before_plain"], words["after_plain"]
    else:
        terse = words["terse"]
        before = words["before"] + words.get(query.side, [])
        after = words["after"] + words.get(f"after_{query.side or 'plain'}", [])
    places = _sided(after, query.side)
    first = tuple(place for place in places if place and not place.startswith(_DANGLING))
    return _Place(_sided(terse, query.side), _sided(before, query.side), places, first)


def _finding(query: Query, entry: dict[str, Any]) -> Grammar:
    """Findings of lung and pleura: a term, a place and what readers add, in their word orders."""
    place = _place(query, entry)
    frames = vocabulary()["frames"]
    short: list[Expression] = []
    long: list[Expression] = []
    sentences: list[Expression] = []
    denied: list[Expression] = []
    for number, terms, times in _terms(query, entry):
        lead = _lead(query, entry, number)
        noun = _noun(place, lead, terms, entry)
        plain = _noun(place, lead, terms, {})
        short += [_terse(query, entry, place, number, terms)] * times
        long += [(*(noun,) * 9, _framed(frames["hedged"], plain))] * times
        steady = _lead(query, entry, number, change=False)
        opened = _framed(frames[f"place_{number}"], [steady, terms], place.first or ("",))
        framed = _framed(frames[number], _noun(place, steady, terms, entry))
        sentences += [(*(framed,) * 4, opened) if place.first else framed] * times
        denied += [_denied(place, number, terms)] * times
    if query.side is None and query.zone is None:
        alone = tuple(entry["alone"])
        short = [tuple(short), tuple(short), (alone[0], alone)]
    extra = entry.get("extra", {}).get(query.zone)
    if extra is not None:
        whole = _sided(extra["both" if query.side == "bilateral" else "one"], query.side)
        long = [tuple(long), tuple(long), whole]
    phrase: Expression = (*(tuple(short),) * 2, *(tuple(long),) * 3)
    return Grammar(phrase, tuple(sentences), tuple(denied))


def _terms(query: Query, entry: dict[str, Any]) -> Iterator[tuple[Number, tuple[str, ...], int]]:
    """The names of a finding by grammatical number, and how often: mostly the usual number."""
    several = entry["several"] or query.side == "bilateral"
    counted = [term for term in entry["terms"] if len(term) == 2]
    names: dict[Number, tuple[str, ...]] = {
        "one": tuple(one for one, _ in counted if one and query.side != "bilateral"),
        "mass": tuple(term[0] for term in entry["terms"] if len(term) == 1),
        "many": tuple(many for one, many in counted if many and (several or not one)),
    }
    usual: Number = "many" if query.side == "bilateral" else "one"
    if len(entry["terms"][0]) == 1:
        usual = "mass"
    for number, terms in names.items():
        if terms:
            yield number, terms, 10 if number == usual else min(len(terms), 3)


def _terse(
    query: Query, entry: dict[str, Any], place: _Place, number: Number, terms: tuple[str, ...]
) -> Expression:
    """The short form, mostly with the plain name: "left lower lung opacity"."""
    form = _before(place.terse, (*(terms[0],) * 3, terms), terms)
    if query.size is None:
        return form
    return (form, [_size(query.size, entry, number), form])


def _denied(place: _Place, number: Number, terms: tuple[str, ...]) -> Expression:
    frames, lead = vocabulary()["frames"], tuple(vocabulary()["leads"]["denied"])
    verb = "many" if number == "many" else "one"
    noun = _noun(place, ("", "", lead), terms, {})
    bare = _noun(place, "", terms, {})
    return (*(_framed(frames[f"deny_{verb}"], noun),) * 3, _framed(frames[f"gone_{verb}"], bare))


def _size(size: str, entry: dict[str, Any], number: Number) -> tuple[str, ...]:
    return tuple(vocabulary()["sizes"]["mass" if number == "mass" else entry["sizes"]][size])


def _lead(
    query: Query, entry: dict[str, Any], number: Number, *, change: bool = True
) -> Expression:
    """Size, description, certainty or change (frames have their own): what stands first, if any."""
    leads = vocabulary()["leads"]
    describe: Expression = tuple(entry["describe"])
    if number == "many":
        describe = (describe, describe, tuple(leads["several"]))
    other: Expression = (describe, describe, tuple(leads["certainty"]))
    if change:
        other = (*other, tuple(leads["change"]))
    if query.size is None:
        return ("", "", other)
    size = _size(query.size, entry, number)
    return ("", other, size, size, size)


def _noun(
    place: _Place, lead: Expression, terms: tuple[str, ...], entry: dict[str, Any]
) -> Expression:
    """Term and place in the word orders that readers use."""
    before: Expression = [lead, _before(place.before, terms, terms)]
    after: Expression = [lead, terms, place.after]
    orders: list[Expression] = [before] * 5 + [after] * 5
    if "describe" in entry and any(place.before):
        describe = tuple(entry["describe"])
        spoken = tuple(f"{word} {term}" for word in describe for term in terms if word not in term)
        orders.append(_before(place.before, spoken, spoken))
    if entry.get("tails"):
        orders.append([(before, after), tuple(entry["tails"])])
    return tuple(orders)


def _before(places: tuple[str, ...], names: Expression, terms: tuple[str, ...]) -> Expression:
    """A place in front of a name, without "lung pulmonary nodule"."""
    doubled = tuple(term for term in terms if "pulmonary" in term.split())
    free = tuple(place for place in places if "lung" not in place and "pulmonary" not in place)
    if not doubled or len(free) == len(places):
        return [places, names]
    others = tuple(term for term in terms if term not in doubled)
    return ([places, others], [free or places, names]) if others else [free or places, names]


def _sided(phrases: Iterable[str], side: str | None) -> tuple[str, ...]:
    """Fill in the side, or leave it out."""
    return tuple(" ".join(text.replace("{side}", side or "").split()) for text in phrases)


def _framed(frames: Iterable[str], content: Expression, place: Expression = "") -> Expression:
    """Put content (and place) into every frame."""
    slots = {"{}": content, "{place}": place}
    split = ([part for part in re.split(r"(\{\}|\{place\})", frame) if part] for frame in frames)
    return tuple([slots.get(part, part.strip()) for part in parts] for parts in split)
