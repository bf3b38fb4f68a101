"""Words and sentences of English text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Abbreviations keep their full stop, so that no sentence ends there; "cannot" and "can't" are two
# words, so that cues find their "not".
_TOKEN = re.compile(
    r"(?i:\bw/o\b|\b(?:vs|dr|e\.g|i\.e|a\.m|p\.m)\.|\bcan(?=not\b))"
    r"|\b[A-Z]\.(?!\w)"
    r"|[^\W\d_]+?(?=n't\b)|n't\b|'s\b"
    r"|[^\W\d_][^\W_]*"
    r"|\d+(?:[.,:]\d+)*"
    r"|--+|\.\.+|\S"
)
_ENDS = frozenset(".!")


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A word, number or sign: its text in lower case, as written, and its characters."""

    lower: str
    written: str
    start: int
    stop: int


def tokenize(text: str) -> list[Token]:
    """The words, numbers and signs of a text."""
    return [
        Token(lower=m.group().lower(), written=m.group(), start=m.start(), stop=m.end())
        for m in _TOKEN.finditer(text)
    ]


def sentences(tokens: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """Tokens ``[start, stop)`` of each sentence; "." and "!" end one, with signs that follow."""
    start, ended = 0, False
    for index, token in enumerate(tokens):
        if token.lower in _ENDS:
            ended = True
        elif ended and not all(unicodedata.category(c).startswith("P") for c in token.lower):
            yield start, index
            start, ended = index, False
    if tokens:
        yield start, len(tokens)
