"""What a report says of organs: that they are normal, or in a state that is a finding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spacy.tokens import Doc, Span

from cxrg.reports.places import Place
from cxrg.reports.statement import Certainty
from cxrg.reports.vocabulary import vocabulary, words

Normal = tuple[Span, str | None, Certainty, Place]


def state(doc: Doc, clause: Span, span: Span) -> tuple[str | None, str | None]:
    """The finding that a word such as "enlarged" means, by the nearest organ of its clause.

    Returns:
        The finding and the zone that it implies; (None, None) if it says nothing of an organ.
    """
    rows = [row for row in vocabulary()["states"]["words"] if span.text.lower() in row[0]]
    near = sorted(_organs(doc, clause), key=lambda organ: _distance(organ, span))
    for organ in near:
        for _, name, finding, zone in rows:
            if name == organ.id_:
                return finding, zone or None
    return None, None


def normals(doc: Doc, sentence: Span) -> Iterator[Normal]:
    """The normal statements of a sentence: an organ's, or the whole chest's (no finding)."""
    for clause in doc.sents:
        if not (sentence.start <= clause.start and clause.end <= sentence.end):
            continue
        said = [s for s in doc.spans["said"] if clause.start <= s.start < clause.end]
        organs = _organs(doc, clause)
        for span in said:
            if span._.cxrg_unstated:
                continue
            if span.label_ == "normal" and not span._.cxrg_denied:
                yield from _called_normal(doc, clause, span, organs, said)
            elif span.label_ == "generic" and span._.cxrg_denied:
                bones = [organ for organ in organs if organ.id_ in ("bones", "spine")]
                yield span, bones[0].id_ if bones else None, "normal", (None, None)


def _called_normal(
    doc: Doc, clause: Span, span: Span, organs: Sequence[Span], said: Sequence[Span]
) -> Iterator[Normal]:
    """The organs that "normal" or "clear" is said of: all before it, or the nearest behind it."""
    stops = [s.end for s in said if s.label_ != "generic" and s.end <= span.start]
    first = max(stops, default=clause.start)
    before = [organ for organ in organs if first <= organ.start and organ.end <= span.start]
    behind = [organ for organ in organs if organ.start >= span.end]
    joined = list(_joined(doc, span, behind))
    for organ in before if before and not joined else joined:
        name = None if organ.id_ == "chest" else organ.id_
        yield organ, name, "normal", (_side(doc, clause, organ), None)
    alone = not organs and all(s.label_ == "normal" for s in said)
    if alone and span == said[0]:
        yield span, None, "normal", (None, None)


def _joined(doc: Doc, span: Span, behind: Sequence[Span]) -> Iterator[Span]:
    """Organs behind "normal" with nothing but "the", "and" and the like between."""
    end = span.end
    for organ in behind:
        between = {token.lower_ for token in doc[end : organ.start]}
        if not between <= words("normal", "between"):
            return
        yield organ
        end = organ.end


def _organs(doc: Doc, clause: Span) -> list[Span]:
    """The organs of a clause that are no part of a finding's name."""
    taken = [s for s in doc.spans["said"] if s.label_ in ("finding", "gone")]
    return [
        organ
        for organ in doc.spans["organs"]
        if clause.start <= organ.start < clause.end
        and not any(s.start < organ.end and organ.start < s.end for s in taken)
    ]


def _side(doc: Doc, clause: Span, organ: Span) -> str | None:
    """The side word directly before an organ, or "bilaterally" anywhere in its clause."""
    for span in doc.spans["places"]:
        if span.label_ != "side" or not clause.start <= span.start < clause.end:
            continue
        if span.end == organ.start or span.text.lower() == "bilaterally":
            return str(span.id_)
    return None


def _distance(one: Span, other: Span) -> int:
    return max(one.start - other.end, other.start - one.end)
