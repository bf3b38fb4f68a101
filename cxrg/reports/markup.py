"""A text marked up: sentences, their clauses, and the words in these that state something."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """A word or phrase of the vocabulary where it stands in a text.

    Attributes:
        label: what it is: ``finding``, ``gone``, ``state``, ``generic``, ``normal``; ``side``,
            ``zone``, ``both``, ``nowhere``; or ``organ``.
        name: what it names: a finding, side, zone, ``side|zone`` or organ; empty for the rest.
        text: as written, in lower case.
        start: its first token.
        stop: the token behind it.
        chars: characters ``[start, stop)`` of the text.
        denied, doubted, unstated: which cues reach it.
    """

    label: str
    name: str
    text: str
    start: int
    stop: int
    chars: tuple[int, int]
    denied: bool = False
    doubted: bool = False
    unstated: bool = False

    @property
    def place(self) -> tuple[str | None, str | None]:
        """Side and zone that a word of place names; a plural of a zone has the side ``plural``."""
        if self.label == "side":
            return self.name, None
        if self.label == "zone":
            return None, self.name
        if self.label == "both":
            side, zone = self.name.split("|")
            return side, zone
        return None, None


@dataclass(frozen=True, kw_only=True, slots=True)
class Clause:
    """Tokens ``[start, stop)``: what is stated, words of place, organs outside findings' names."""

    start: int
    stop: int
    stated: tuple[Word, ...]
    places: tuple[Word, ...]
    organs: tuple[Word, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """A sentence and its clauses.

    ``chars`` are its characters ``[start, stop)`` of the passage, ``tokens`` all words of the
    passage, in lower case.
    """

    chars: tuple[int, int]
    tokens: list[str]
    clauses: tuple[Clause, ...]

    @property
    def stated(self) -> tuple[Word, ...]:
        return tuple(word for clause in self.clauses for word in clause.stated)
