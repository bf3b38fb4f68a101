"""From the text of a report to its statements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from cxrg.reports.markup import Sentence, Word
from cxrg.reports.mentions import mentions
from cxrg.reports.organs import normals
from cxrg.reports.places import Place
from cxrg.reports.sections import Passage, passages
from cxrg.reports.statement import Certainty, Side, Statement, phrase


def statements(text: str) -> tuple[Statement, ...]:
    """What a report, or a sentence of one, states.

    Sections that state nothing (indication, history, comparison, technique) are skipped, and so is
    what is only asked or supposed ("evaluate for", "if there is"). A sentence with several
    findings, or a finding in several places, gives several statements, in the order of the text.

    Args:
        text: free text in English, of any length; an empty one states nothing.
    """
    from cxrg.reports.pipeline import mark_up  # spaCy takes seconds to load

    parts = list(passages(text))
    marked = mark_up(part.text for part in parts)
    return tuple(
        statement
        for part, sentences in zip(parts, marked, strict=True)
        for sentence in sentences
        for statement in _statements(part, sentence)
    )


def _statements(part: Passage, sentence: Sentence) -> Iterator[Statement]:
    said: list[tuple[Word, str | None, Certainty, Place]] = [
        (mention.word, mention.finding, mention.certainty, place)
        for mention in mentions(sentence)
        for place in mention.places
    ]
    said.extend((word, organ, "normal", (side, None)) for word, organ, side in normals(sentence))
    seen = set()
    for word, finding, certainty, place in sorted(said, key=lambda entry: entry[0].start):
        if (finding, certainty, place) in seen:
            continue
        seen.add((finding, certainty, place))
        side, zone = cast("tuple[Side | None, str | None]", place)
        grounds = finding is not None and certainty in ("present", "uncertain")
        yield Statement(
            sentence=sentence.text,
            finding=finding,
            side=side,
            zone=zone,
            certainty=certainty,
            phrase=phrase(finding, side, zone) if grounds and finding is not None else None,
            span=part.source(*word.chars),
        )
