"""Statements about organs: that they are normal, or in a state that is a finding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cxrg.reports.markup import Clause, Sentence, Word
from cxrg.reports.vocabulary import vocabulary, words

# The word, the organ (None for the whole chest) and its side.
Normal = tuple[Word, str | None, str | None]


def state(clause: Clause, word: Word) -> tuple[str | None, str | None]:
    """The finding that a word such as "enlarged" means, by the nearest organ of its clause.

    Returns:
        The finding and the zone that it implies; (None, None) if it is about no organ.
    """
    rows = [row for row in vocabulary()["states"]["words"] if word.text in row[0]]
    for organ in sorted(clause.organs, key=lambda organ: _distance(organ, word)):
        for _, name, finding, zone in rows:
            if name == organ.name:
                return finding, zone or None
    return None, None


def normals(sentence: Sentence) -> Iterator[Normal]:
    """The normal statements of a sentence."""
    for clause in sentence.clauses:
        for word in clause.stated:
            if word.unstated:
                continue
            if word.label == "generic" and word.denied:
                bones = [o.name for o in clause.organs if o.name in ("bones", "spine")]
                yield word, bones[0] if bones else None, None
            elif word.label == "normal" and not (word.denied or word.doubted):
                organs = list(_called_normal(sentence, clause, word))
                yield from ((organ, _name(organ), _side(clause, organ)) for organ in organs)
                if not organs and _is_alone(sentence, word):
                    yield word, None, None


def _called_normal(sentence: Sentence, clause: Clause, word: Word) -> list[Word]:
    """The organs that "normal" or "clear" describes: those behind it, else those before it."""
    behind = list(_joined(sentence.tokens, word, clause.organs))
    others = [o.stop for o in clause.stated if o.label != "generic" and o.stop <= word.start]
    first = max(others, default=clause.start)
    before = [o for o in clause.organs if first <= o.start and o.stop <= word.start]
    return behind or before


def _joined(tokens: Sequence[str], word: Word, organs: Sequence[Word]) -> Iterator[Word]:
    """Organs behind "normal" with nothing but "the", "and" and the like between."""
    stop = word.stop
    for organ in organs:
        if organ.start < stop:
            continue
        if not words("normal", "between").issuperset(tokens[stop : organ.start]):
            return
        yield organ
        stop = organ.stop


def _is_alone(sentence: Sentence, word: Word) -> bool:
    """A sentence that names no organ, place or finding ("normal") is about the whole chest."""
    named = any(clause.organs or clause.places for clause in sentence.clauses)
    stated = sentence.stated
    return not named and word == stated[0] and all(other.label == "normal" for other in stated)


def _name(organ: Word) -> str | None:
    return None if organ.name == "chest" else organ.name


def _side(clause: Clause, organ: Word) -> str | None:
    """The side word directly before an organ, or "bilaterally" anywhere in its clause."""
    for word in clause.places:
        if word.label == "side" and (word.stop == organ.start or word.text == "bilaterally"):
            return word.name
    return None


def _distance(one: Word, other: Word) -> int:
    return max(one.start - other.stop, other.start - one.stop)
