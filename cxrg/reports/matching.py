"""Phrases of a vocabulary among the words of a text, and NegEx, which says what cues reach.

NegEx (Chapman et al., J Biomed Inform 2001, 34:301): a cue before a word reaches all that follows
it, a cue behind it all that stands before, within a clause; a pseudo cue ("no change") switches off
the cues that begin in it. It is written out here because the packages that have it come with a
language framework, which takes seconds to load for every phrase that is grounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cxrg.reports.tokens import Token, tokenize

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """A phrase of a vocabulary: its label and name, and tokens ``[start, stop)``."""

    label: str
    name: str
    start: int
    stop: int


class Phrases:
    """Finds phrases of a vocabulary in any case, as whole words.

    Args:
        phrases: text, label and name of each; of equal texts the first counts.
        exact: single words that count only as written.
    """

    def __init__(
        self,
        phrases: Iterable[tuple[str, str, str]],
        exact: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        self._by_first: dict[str, dict[tuple[str, ...], tuple[str, str]]] = {}
        self._exact = dict(exact or {})
        for text, label, name in phrases:
            words = tuple(token.lower for token in tokenize(text))
            self._by_first.setdefault(words[0], {}).setdefault(words, (label, name))

    def all(self, tokens: Sequence[Token]) -> Iterator[Match]:
        """All phrases in a text, which may overlap."""
        words = [token.lower for token in tokens]
        for start, token in enumerate(tokens):
            for phrase, (label, name) in self._by_first.get(token.lower, {}).items():
                stop = start + len(phrase)
                if tuple(words[start:stop]) == phrase:
                    yield Match(label=label, name=name, start=start, stop=stop)
            if token.written in self._exact:
                label, name = self._exact[token.written]
                yield Match(label=label, name=name, start=start, stop=start + 1)

    def longest(self, tokens: Sequence[Token]) -> list[Match]:
        """The phrases in a text in order; of overlapping ones the longest, then the first."""
        kept: list[Match] = []
        for match in sorted(self.all(tokens), key=lambda m: (m.start - m.stop, m.start)):
            if not any(match.start < other.stop and other.start < match.stop for other in kept):
                kept.append(match)
        return sorted(kept, key=lambda match: match.start)


class Cues:
    """Says which words cues reach.

    Args:
        before: cues that reach what follows.
        after: cues that reach what stands before.
        pseudo: phrases that switch off the cues that begin in them.
    """

    def __init__(self, before: Iterable[str], after: Iterable[str], pseudo: Iterable[str]) -> None:
        self._before, self._after, self._pseudo = (
            Phrases((cue, "", "") for cue in cues) for cues in (before, after, pseudo)
        )

    def reached(
        self, tokens: Sequence[Token], clauses: Sequence[Range], words: Sequence[Range]
    ) -> set[Range]:
        """Those of ``words``, tokens ``[start, stop)``, that a cue of their clause reaches."""
        off = [(match.start, match.stop) for match in self._pseudo.all(tokens)]
        before = [m.start for m in self._before.all(tokens) if not _in(m.start, off)]
        after = [(m.start, m.stop) for m in self._after.all(tokens) if not _in(m.start, off)]
        return {
            (start, stop)
            for start, stop in words
            for first, end in clauses
            if first <= start < stop <= end
            and (
                any(first <= cue < start for cue in before)
                or any(first <= cue < end and until > stop for cue, until in after)
            )
        }


def _in(start: int, ranges: Sequence[Range]) -> bool:
    return any(first <= start <= last for first, last in ranges)
