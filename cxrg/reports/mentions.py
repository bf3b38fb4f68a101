"""The findings of a sentence: which, where and how certain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cxrg.chest.findings import entries
from cxrg.reports.markup import Clause, Sentence, Word
from cxrg.reports.organs import state
from cxrg.reports.places import Mark, Place, Range, assign
from cxrg.reports.statement import Certainty
from cxrg.reports.vocabulary import words

_NOWHERE: tuple[Place, ...] = ((None, None),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mention:
    """A finding of a sentence: its word, name, certainty, and one or more places."""

    word: Word
    finding: str
    certainty: Certainty
    places: tuple[Place, ...]


def mentions(sentence: Sentence) -> list[Mention]:
    """The findings that a sentence mentions, in its order."""
    found: list[Mention] = []
    for clause in sentence.clauses:
        found.extend(_mentions(sentence, clause) or _elsewhere(sentence, clause, found))
    return list(_related(sentence, found))


def _mentions(sentence: Sentence, clause: Clause) -> list[Mention]:
    named = [(word, *_finding(clause, word)) for word in clause.stated]
    known = [(word, finding, zone) for word, finding, zone in named if finding is not None]
    ranges = [(word.start, word.stop) for word, _, _ in known]
    places = assign(sentence.tokens, ranges, _marks(clause, ranges))
    found = []
    for (word, finding, zone), own in zip(known, places, strict=True):
        certainty = _certainty(sentence, word, ranges)
        if certainty is None or _is_other(sentence, finding):
            continue
        if zone is not None:
            own = tuple((side, zone) for side, _ in own or _NOWHERE)
        found.append(
            Mention(word=word, finding=finding, certainty=certainty, places=_allowed(finding, own))
        )
    return found


def _finding(clause: Clause, word: Word) -> tuple[str | None, str | None]:
    """The finding that a word names, and a zone if the name implies one."""
    if word.label in ("finding", "gone"):
        return word.name, None
    return state(clause, word) if word.label == "state" else (None, None)


def _marks(clause: Clause, ranges: Sequence[Range]) -> list[Mark]:
    marks = []
    for word in clause.places:
        taken = any(start < word.stop and word.start < stop for start, stop in ranges)
        if taken or word.label == "nowhere":
            continue
        side, zone = word.place
        marks.append(Mark(start=word.start, stop=word.stop, side=side, zone=zone))
    return marks


def _certainty(sentence: Sentence, word: Word, ranges: Sequence[Range]) -> Certainty | None:
    """Present, absent or uncertain; None for what is only a question or a condition."""
    if word.unstated:
        return None
    if word.denied or word.label == "gone":
        return "absent"
    return "uncertain" if word.doubted or _is_alternative(sentence, word, ranges) else "present"


def _is_alternative(sentence: Sentence, word: Word, ranges: Sequence[Range]) -> bool:
    """Whether "or" or "versus" joins the finding to a neighbour."""
    index = ranges.index((word.start, word.stop))
    for one in range(max(index - 1, 0), min(index + 1, len(ranges) - 1)):
        between = sentence.tokens[ranges[one][1] : ranges[one + 1][0]]
        if len(between) <= 5 and words("clauses", "alternatives") & set(between):
            return True
    return False


def _is_other(sentence: Sentence, finding: str) -> bool:
    """Whether another word of the sentence gives the name another meaning (a pacer's leads)."""
    unless = {word.lower() for word in entries()[finding].unless}
    if not unless:
        return False
    start, stop = sentence.clauses[0].start, sentence.clauses[-1].stop
    return not unless.isdisjoint(sentence.tokens[start:stop])


def _elsewhere(sentence: Sentence, clause: Clause, earlier: Sequence[Mention]) -> list[Mention]:
    """ "... but not on the right": the last finding once more, denied there."""
    opening = sentence.tokens[clause.start : clause.start + 3]
    sides = [mark.side for mark in _marks(clause, ()) if mark.side is not None]
    if not earlier or not sides or words("clauses", "ellipses").isdisjoint(opening):
        return []
    again = earlier[-1]
    places = _allowed(again.finding, ((sides[0], None),))
    return [replace(again, certainty="absent", places=places)]


def _related(sentence: Sentence, found: Sequence[Mention]) -> Iterator[Mention]:
    """Give what explains or goes with an earlier finding its place; drop what only repeats it."""
    last: Mention | None = None
    inherited = False
    for mention in found:
        if last is not None and mention.places == _NOWHERE:
            between = set(sentence.tokens[last.word.stop : mention.word.start])
            interprets = _interprets(mention, between)
            if between & words("clauses", "beside"):
                sides = tuple(dict.fromkeys((side, None) for side, _ in last.places))
                mention = replace(mention, places=_allowed(mention.finding, sides))
            elif mention.certainty != "absent" and (
                interprets or (inherited and between == {"and"})
            ):
                mention = replace(mention, places=_shared(mention.finding, last.places))
                inherited = True
            elif (mention.finding, mention.certainty) == (last.finding, last.certainty):
                continue
        yield mention
        if mention.places != _NOWHERE:
            last = mention


def _interprets(mention: Mention, between: set[str]) -> bool:
    """Whether a finding explains the one before it, by the words between them."""
    if between & {"but", "on"}:
        return False
    listed = "," in between and mention.certainty == "uncertain"  # "opacity, possible pneumonia"
    return listed or bool(words("clauses", "interpret") & between)


def _shared(finding: str, places: tuple[Place, ...]) -> tuple[Place, ...]:
    """The place of an opacity for its diagnosis, which must be one of lung or pleura."""
    kind = entries()[finding].place
    return _allowed(finding, places) if kind in ("lung", "pleura") else _NOWHERE


def _allowed(finding: str, places: Sequence[Place]) -> tuple[Place, ...]:
    """Places without what such a finding cannot have; at least one, which may be empty."""
    kind = entries()[finding].place
    if kind == "none" or not places:
        return _NOWHERE
    if kind == "side":
        return tuple(dict.fromkeys((side, None) for side, _ in places))
    return tuple(dict.fromkeys(places))
