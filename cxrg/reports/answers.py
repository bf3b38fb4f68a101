"""Fields and their answers: "Pneumothorax: none", "Effusion? No.", "Pneumothorax (-)".

NegEx knows cues that stand before or behind a finding anywhere in a clause; "no" behind one is a
cue only as an answer: between a separator and the end of the clause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from cxrg.reports.vocabulary import vocabulary, words


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer "no": tokens ``[start, stop)``, the separator first."""

    start: int
    stop: int


def answers(tokens: Sequence[str], start: int, stop: int) -> Iterator[Answer]:
    """The answers "no" in the tokens ``[start, stop)`` of a sentence, in lower case."""
    for index in range(start, stop):
        if tokens[index] in words("answers", "separators"):
            length = _length(tokens, index + 1, stop)
            if length:
                yield Answer(start=index, stop=index + 1 + length)
        elif tuple(tokens[index : index + 3]) == ("(", "-", ")"):
            yield Answer(start=index, stop=index + 3)


def _length(tokens: Sequence[str], first: int, stop: int) -> int:
    """The length of the answer that begins at ``first`` and ends its clause; 0 without one."""
    for denial in _denials():
        end = first + len(denial)
        ends = end >= stop or tokens[end] in words("answers", "ends")
        if ends and tuple(tokens[first:end]) == denial:
            return len(denial)
    return 0


@cache
def _denials() -> list[tuple[str, ...]]:
    """The answers as tokens, the longest first."""
    several = (tuple(text.lower().split()) for text in vocabulary()["answers"]["denied"])
    return sorted(several, key=len, reverse=True)
