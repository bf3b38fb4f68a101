"""From the text of a report to its statements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from cxrg.chest.characters import plain_characters
from cxrg.reports.language import is_foreign
from cxrg.reports.markup import Sentence, Word
from cxrg.reports.mentions import mentions
from cxrg.reports.organs import normals
from cxrg.reports.pipeline import mark_up
from cxrg.reports.places import Place
from cxrg.reports.sections import Passage, passages
from cxrg.reports.statement import Certainty, Side, Statement, phrase


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What is read from a report: statements, and characters that are not in English, unread."""

    statements: tuple[Statement, ...]
    foreign: tuple[tuple[int, int], ...]


def statements(text: str) -> tuple[Statement, ...]:
    """What a report, or a sentence of one, states.

    Sections that state nothing (indication, history, comparison, technique) are skipped, and so is
    what is only a question or a condition ("evaluate for", "if there is"). A sentence with several
    findings, or a finding in several places, gives several statements, in the order of the text.

    Args:
        text: free text in English, of any length; an empty one states nothing, and so does text in
            another language (see `read`).
    """
    return read(text).statements


def read(text: str) -> Reading:
    """What a report states, and which of its passages are in another language.

    Args:
        text: as `statements` takes it.
    """
    plain, where = plain_characters(text)
    parts = [
        replace(part, offsets=tuple(where[offset] for offset in part.offsets))
        for part in passages(plain)
    ]
    # Before words are corrected: "normale" is no misspelt "normal".
    foreign = [part for part in parts if is_foreign(text[slice(*part.source(0, len(part.text)))])]
    parts = [part for part in parts if part not in foreign]
    return Reading(
        statements=tuple(
            statement
            for part in parts
            for sentence in mark_up(part.text)
            for statement in _statements(text, part, sentence)
        ),
        foreign=tuple(part.source(0, len(part.text.rstrip())) for part in foreign),
    )


def _statements(text: str, part: Passage, sentence: Sentence) -> Iterator[Statement]:
    start, stop = part.source(*sentence.chars)
    written = " ".join(text[start:stop].split())
    stated: list[tuple[Word, str | None, Certainty, Place]] = [
        (mention.word, mention.finding, mention.certainty, place)
        for mention in mentions(sentence)
        for place in mention.places
    ]
    stated.extend((word, organ, "normal", (side, None)) for word, organ, side in normals(sentence))
    seen = set()
    for word, finding, certainty, place in sorted(stated, key=lambda entry: entry[0].start):
        if (finding, certainty, place) in seen:
            continue
        seen.add((finding, certainty, place))
        side, zone = cast("tuple[Side | None, str | None]", place)
        grounds = finding is not None and certainty in ("present", "uncertain")
        yield Statement(
            sentence=written,
            finding=finding,
            side=side,
            zone=zone,
            certainty=certainty,
            phrase=phrase(finding, side, zone) if grounds and finding is not None else None,
            span=part.source(*word.chars),
        )
