"""Which words of a phrase are in a vocabulary, and where: whole words, the longest term first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cxrg.chest.names import plain


@dataclass(frozen=True, kw_only=True, slots=True)
class Mention:
    """One word of a vocabulary in a text: its name there, and characters ``[start, stop)``."""

    name: str
    start: int
    stop: int


class Matcher:
    """Finds the terms of a vocabulary in texts.

    Args:
        terms: what each name is called, in lower case; blanks also match hyphens.

    Attributes:
        names: the vocabulary's names, in order.
    """

    def __init__(self, terms: Mapping[str, Sequence[str]]) -> None:
        self.names = tuple(terms)
        self._owner = {plain(term): name for name, several in terms.items() for term in several}
        # Of alternatives the first that fits is taken, so the longest comes first.
        ordered = sorted(self._owner, key=len, reverse=True)
        either = "|".join(re.escape(term).replace(r"\ ", r"[\s-]+") for term in ordered)
        self._pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE) if either else None

    def __call__(self, text: str) -> tuple[Mention, ...]:
        """The mentions in a text, in order; no two overlap."""
        if self._pattern is None:
            return ()
        return tuple(
            Mention(name=self._owner[plain(m.group())], start=m.start(), stop=m.end())
            for m in self._pattern.finditer(text)
        )


def places(offsets: Sequence[tuple[int, int]], mentions: Sequence[Mention]) -> list[int | None]:
    """For each token, given by its characters, the mention that it belongs to by number."""
    return [
        next((i for i, m in enumerate(mentions) if start < m.stop and m.start < end), None)
        for start, end in offsets
    ]
