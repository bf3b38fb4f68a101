"""What a phrase means: whether it states, doubts or denies something, of what, where and how many.

A heatmap always has a maximum, so a phrase that has nothing to show is recognised by its words: a
denial ("no pneumothorax"), a normal statement ("the lungs are clear"), a comparison alone ("no
change"), or words that name no finding and no place ("purple elephant", another language). The
rules are those of reports (`cxrg.reports`), the names those of `cxrg.chest`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Literal, cast

from cxrg.chest.known import known_names, plural_names
from cxrg.phrase.normalise import normalise
from cxrg.reports.language import is_foreign
from cxrg.reports.markup import Sentence
from cxrg.reports.matching import Phrases
from cxrg.reports.pipeline import mark_up
from cxrg.reports.read import statements
from cxrg.reports.spelling import correct
from cxrg.reports.statement import Certainty, Side, Statement
from cxrg.reports.statement import phrase as phrase_of
from cxrg.reports.tokens import tokenize
from cxrg.reports.vocabulary import vocabulary

Kind = Literal["present", "uncertain", "place", "absent", "normal", "comparison", "unknown"]
"""What a phrase does: it states or doubts a finding, names a place, denies a finding, says that
something is normal, only compares, or names nothing that is known."""

NEAREST = 3
"""Known words that are named beside an unknown phrase, at most."""

_FIRST: tuple[Certainty, ...] = ("present", "uncertain", "absent", "normal")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stated:
    """A finding, device or organ of a phrase; ``name`` is None for the whole chest."""

    name: str | None
    certainty: Certainty
    side: Side | None
    zone: str | None

    @property
    def phrase(self) -> str:
        """English for it alone, without a denial: ``left pleural effusion``."""
        if self.name is None:
            return "chest"
        if self.certainty == "normal":
            return " ".join(filter(None, (self.side, self.name)))
        return phrase_of(self.name, self.side, self.zone)


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """What a phrase means.

    Attributes:
        kind: what the phrase does; where it states several things, the first of
            ``present``, ``uncertain``, ``absent`` and ``normal`` that one of them is.
        text: the phrase, normalised and with typing errors mended.
        stated: the findings, devices and organs that it makes a statement about.
        side: the patient's side of what it states, or ``bilateral``.
        zone: the part of the lung that it names.
        count: how many it names: a number, ``several``, or None.
        compares: whether it compares with an earlier image ("unchanged").
        mended: typing errors, each with the word that it was read as.
        foreign: whether it is in another language than English.
        nearest: known words like those of an unknown phrase.
    """

    kind: Kind
    text: str
    stated: tuple[Stated, ...] = ()
    side: Side | None = None
    zone: str | None = None
    count: int | Literal["several"] | None = None
    compares: bool = False
    mended: tuple[tuple[str, str], ...] = ()
    foreign: bool = False
    nearest: tuple[str, ...] = ()

    @property
    def shows(self) -> bool:
        """Whether it is about something that can be marked in an image."""
        return self.kind in ("present", "uncertain", "place")

    @property
    def concept(self) -> str | None:
        """The one finding, device or place that it is about; None for several, or none known."""
        names = {each.name for each in self.stated}
        return names.pop() if len(names) == 1 else None

    @property
    def terms(self) -> tuple[str, ...]:
        """What its calibration depends on: ``pneumothorax``, and ``apical pneumothorax``."""
        if self.concept is None:
            return ()
        placed = f"{self.zone} {self.concept}"
        return (self.concept, placed) if self.zone else (self.concept,)

    @property
    def subject(self) -> str | None:
        """What to look for: the text, or what it denies or calls normal; None for neither."""
        if self.shows:
            return self.text
        named = [each.phrase for each in self.stated if each.name is not None]
        return " and ".join(dict.fromkeys(named)) or None

    @property
    def parts(self) -> tuple[Intent, ...]:
        """Each finding of a phrase that names several, or one at several places; else none."""
        found = [each for each in self.stated if each.certainty != "normal"]
        if len(found) < 2:
            return ()
        return tuple(
            Intent(
                kind=each.certainty,
                text=each.phrase,
                stated=(each,),
                side=each.side,
                zone=each.zone,
            )
            for each in found
        )

    @property
    def summary(self) -> str:
        """What is unusual about the phrase, in a few words; empty if it just states one thing."""
        named = self.subject or "the chest"
        kind = {
            "absent": f"denies {named}",
            "normal": f"calls {named} normal",
            "comparison": "only compares",
            "unknown": "not in English" if self.foreign else "names nothing known",
            "uncertain": "uncertain",
        }.get(self.kind, "")
        several = "several findings" if self.shows and self.parts else ""
        compares = "compares" if self.compares and self.kind != "comparison" else ""
        count = "" if self.count in (None, 1) else f"count: {self.count}"
        mended = [f"{typed!r} read as {known!r}" for typed, known in self.mended]
        return ", ".join(filter(None, (kind, several, compares, count, *mended)))


@lru_cache(maxsize=4096)
def read_intent(phrase: str) -> Intent:
    """Read what a phrase means.

    Args:
        phrase: as a user gives it.
    """
    text = normalise(phrase)
    if is_foreign(text):
        return Intent(kind="unknown", text=text, foreign=True)
    changes = list(correct(text))
    mended = tuple((text[start:stop], better) for better, start, stop in changes)
    text = _changed(text, changes)
    tokens = tokenize(text)
    sentences = mark_up(text)
    compares = any(True for _ in _phrases("compared").all(tokens))
    found = tuple(_stated(each) for each in statements(text))
    kind = _kind(found, sentences, known=any(True for _ in _known().all(tokens)))
    if kind == "unknown" and compares:
        kind = "comparison"
    sides, zones = _where(found, sentences)
    return Intent(
        kind=kind,
        text=text,
        stated=found,
        side=_one_side(sides),
        zone=zones[0] if len(zones) == 1 else None,
        count=_count(text, sentences),
        compares=compares,
        mended=mended,
        nearest=tuple(_nearest(text)) if kind == "unknown" else (),
    )


def _changed(text: str, changes: Sequence[tuple[str, int, int]]) -> str:
    """A text with words replaced."""
    for better, start, stop in reversed(changes):
        text = text[:start] + better + text[stop:]
    return text


def _stated(statement: Statement) -> Stated:
    return Stated(
        name=statement.finding,
        certainty=statement.certainty,
        side=statement.side,
        zone=statement.zone,
    )


def _kind(found: Sequence[Stated], sentences: Sequence[Sentence], *, known: bool) -> Kind:
    certainties = {each.certainty for each in found}
    for certainty in _FIRST:
        if certainty in certainties:
            return certainty
    if any(word.label == "finding" for sentence in sentences for word in sentence.stated):
        return "uncertain"  # only a question or a condition, as in "evaluate for pneumonia"
    return "place" if known else "unknown"


def _where(found: Sequence[Stated], sentences: Sequence[Sentence]) -> tuple[list[str], list[str]]:
    """The sides and zones of what a phrase states; else those that it names."""
    shown = [each for each in found if each.certainty in ("present", "uncertain")]
    others = [each for each in found if each.certainty == "absent"]
    stated = [(each.side, each.zone) for each in shown or others]
    clauses = [clause for sentence in sentences for clause in sentence.clauses]
    named = [word.place for clause in clauses for word in clause.places]
    sides: list[str] = [side for side, _ in stated if side]
    zones: list[str] = [zone for _, zone in stated if zone]
    sides = sides or [side for side, _ in named if side]
    zones = zones or [zone for _, zone in named if zone]
    return list(dict.fromkeys(sides)), list(dict.fromkeys(zones))


def _one_side(sides: Sequence[str]) -> Side | None:
    if {"bilateral", "plural"} & set(sides) or {"left", "right"} <= set(sides):
        return "bilateral"
    return cast("Side", sides[0]) if sides else None


def _count(text: str, sentences: Sequence[Sentence]) -> int | Literal["several"] | None:
    """How many findings a phrase names, by a number word or the plural of a finding."""
    for match in _phrases("counted").all(tokenize(text)):
        return int(match.name) if match.name.isdigit() else "several"
    named = (word.text for sentence in sentences for word in sentence.stated)
    return "several" if plural_names().intersection(named) else None


def _nearest(text: str) -> Iterator[str]:
    """Known words like the words of a text, the likest first."""
    named: dict[str, None] = {}
    for word in _WORD.findall(text.lower()):
        for near in get_close_matches(word, _words(), n=NEAREST, cutoff=_LIKE):
            named[near] = None
    yield from list(named)[:NEAREST]


_WORD = re.compile(r"[^\W\d_]{4,}")
_LIKE = 0.7


@cache
def _words() -> tuple[str, ...]:
    """Single words of four letters and more of all known names."""
    return tuple(sorted({word for name in known_names() for word in _WORD.findall(name)}))


@cache
def _known() -> Phrases:
    return Phrases((name, "known", "") for name in known_names())


@cache
def _phrases(table: str) -> Phrases:
    """The phrases of a table of the vocabulary, by what each means."""
    rows = vocabulary()[table]
    return Phrases((text, table, name) for name, texts in rows.items() for text in texts)
