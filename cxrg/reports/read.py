"""From the text of a report to its statements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from spacy.tokens import Doc, Span

from cxrg.reports.organs import normals, state
from cxrg.reports.pipeline import pipeline
from cxrg.reports.places import Mark, Place, assign
from cxrg.reports.sections import Passage, passages
from cxrg.reports.statement import Certainty, Side, Statement, phrase
from cxrg.reports.vocabulary import vocabulary, words


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mention:
    """A finding in a clause, with what is known of it so far."""

    span: Span
    finding: str
    certainty: Certainty
    places: tuple[Place, ...]


def statements(text: str) -> tuple[Statement, ...]:
    """What a report, or a sentence of one, states.

    Sections that state nothing (indication, history, comparison, technique) are skipped, and so is
    what is only asked or supposed ("evaluate for", "if there is"). A sentence with several findings,
    or a finding in several places, gives several statements, in the order of the text.

    Args:
        text: free text in English, of any length; an empty one states nothing.
    """
    parts = list(passages(text))
    docs = pipeline().pipe(part.text for part in parts)
    return tuple(
        statement
        for part, doc in zip(parts, docs, strict=True)
        for sentence in doc.spans["sentences"]
        for statement in _sentence(part, doc, sentence)
    )


def _sentence(part: Passage, doc: Doc, sentence: Span) -> Iterator[Statement]:
    mentions: list[_Mention] = []
    for clause in doc.sents:
        if sentence.start <= clause.start and clause.end <= sentence.end:
            mentions.extend(_clause(doc, clause, mentions))
    mentions = list(_inherited(doc, mentions))
    found = [(m.span, m.finding, m.certainty, place) for m in mentions for place in m.places]
    seen: set[tuple[str | None, Place, Certainty]] = set()
    every = [*found, *normals(doc, sentence)]
    for span, finding, certainty, place in sorted(every, key=lambda entry: entry[0].start):
        if (finding, place, certainty) in seen:
            continue
        seen.add((finding, place, certainty))
        side, zone = cast("tuple[Side | None, str | None]", place)
        grounds = finding is not None and certainty in ("present", "uncertain")
        yield Statement(
            sentence=sentence.text,
            finding=finding,
            side=side,
            zone=zone,
            certainty=certainty,
            phrase=phrase(cast("str", finding), side, zone) if grounds else None,
            span=part.source(span.start_char, span.end_char),
        )


def _clause(doc: Doc, clause: Span, earlier: Sequence[_Mention]) -> list[_Mention]:
    """The findings of a clause, or those of the one before where this only denies another side."""
    named = [
        (span, finding, zone)
        for span in doc.spans["said"]
        if clause.start <= span.start < clause.end
        for finding, zone in [_finding(doc, clause, span)]
        if finding is not None
    ]
    ranges = [(span.start, span.end) for span, _, _ in named]
    marks = _marks(doc, clause, ranges)
    tokens = [token.lower_ for token in doc]
    if not named:
        return _elsewhere(tokens, clause, marks, earlier)
    places = assign(tokens, ranges, marks, (clause.start, clause.end))
    mentions = []
    for (span, finding, zone), own in zip(named, places, strict=True):
        certainty = _certainty(doc, span, ranges)
        if certainty is not None and not _is_other(doc, span, finding):
            implied = tuple((side, zone) for side, _ in own or ((None, None),)) if zone else own
            mentions.append(
                _Mention(
                    span=span,
                    finding=finding,
                    certainty=certainty,
                    places=_allowed(finding, implied),
                )
            )
    return mentions


def _finding(doc: Doc, clause: Span, span: Span) -> tuple[str | None, str | None]:
    """The finding that a span names, and a zone if the name implies one."""
    if span.label_ in ("finding", "gone"):
        return span.id_, None
    if span.label_ == "state":
        return state(doc, clause, span)
    return None, None


def _marks(doc: Doc, clause: Span, ranges: Sequence[tuple[int, int]]) -> list[Mark]:
    marks = []
    for span in doc.spans["places"]:
        inside = clause.start <= span.start < clause.end
        taken = any(start < span.end and span.start < stop for start, stop in ranges)
        if not inside or taken or span.label_ == "nowhere":
            continue
        side, zone = {
            "side": (span.id_, None),
            "zone": (None, span.id_),
            "both": tuple(span.id_.split("|")) if span.label_ == "both" else (None, None),
        }[span.label_]
        marks.append(Mark(start=span.start, stop=span.end, side=side, zone=zone))
    return sorted(marks, key=lambda mark: mark.start)


def _certainty(
    doc: Doc, span: Span, ranges: Sequence[tuple[int, int]]
) -> Certainty | None:
    """Present, absent or uncertain; None for what is only asked or supposed."""
    if span._.cxrg_unstated:
        return None
    if span._.cxrg_denied or span.label_ == "gone":
        return "absent"
    if span._.cxrg_doubted or _is_alternative(doc, span, ranges):
        return "uncertain"
    return "present"


def _is_alternative(doc: Doc, span: Span, ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether "or" or "versus" joins the finding to a neighbour."""
    index = ranges.index((span.start, span.end))
    for one in range(max(index - 1, 0), min(index + 1, len(ranges) - 1)):
        between = [token.lower_ for token in doc[ranges[one][1] : ranges[one + 1][0]]]
        if len(between) <= 5 and words("clauses", "alternatives") & set(between):
            return True
    return False


def _is_other(doc: Doc, span: Span, finding: str) -> bool:
    """Whether another word of the sentence gives the term another meaning (a pacer's leads)."""
    unless = {word.lower() for word in vocabulary()["findings"][finding].get("unless", ())}
    if not unless:
        return False
    around = next(s for s in doc.spans["sentences"] if s.start <= span.start < s.end)
    return any(token.lower_ in unless for token in around)


def _elsewhere(
    tokens: Sequence[str], clause: Span, marks: Sequence[Mark], earlier: Sequence[_Mention]
) -> list[_Mention]:
    """ "... but not on the right": the last finding once more, denied there."""
    denials = {"not", "none", "no", "nor"} & set(tokens[clause.start : clause.end])
    sides = [mark.side for mark in marks if mark.side is not None]
    if not earlier or not denials or not sides:
        return []
    again = earlier[-1]
    places = _allowed(again.finding, ((sides[0], None),))
    return [replace(again, certainty="absent", places=places)]


def _inherited(doc: Doc, mentions: Sequence[_Mention]) -> Iterator[_Mention]:
    """Give an interpretation ("... opacity, likely pneumonia") the place of what it explains."""
    last: _Mention | None = None
    for mention in mentions:
        entry = vocabulary()["findings"][mention.finding]
        bare = mention.places == ((None, None),)
        if last is not None and bare and entry["place"] in ("lung", "pleura"):
            between = {token.lower_ for token in doc[last.span.end : mention.span.start]}
            if between & words("clauses", "beside"):
                sides = tuple(dict.fromkeys((side, None) for side, _ in last.places))
                mention = replace(mention, places=_allowed(mention.finding, sides))
            elif mention.certainty != "absent" and between & words("clauses", "interpret"):
                mention = replace(mention, places=_allowed(mention.finding, last.places))
        again = last is not None and bare and mention.finding == last.finding
        if not (again and last is not None and mention.certainty == last.certainty):
            yield mention
        if mention.places != ((None, None),):
            last = mention


def _allowed(finding: str, places: Sequence[Place]) -> tuple[Place, ...]:
    """Places without what such a finding cannot have; at least one, that says nothing."""
    kind = vocabulary()["findings"][finding]["place"]
    if kind == "none" or not places:
        return ((None, None),)
    if kind == "side":
        sides = list(dict.fromkeys(side for side, _ in places))
        return tuple((side, None) for side in sides)
    return tuple(dict.fromkeys(places))
