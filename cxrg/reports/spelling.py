"""Misspelt words of a report, corrected where one edit makes a known word of them.

An edit leaves out, adds or changes a letter, or swaps two neighbours (Damerau, Commun ACM 1964,
7:171). English words that are one edit from a known word ("module", "nodule") stay as they are;
``vocabulary.toml`` lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from string import ascii_lowercase

from cxrg.chest.findings import entries, read_as
from cxrg.chest.known import known_names
from cxrg.chest.places import organ_names, zone_names
from cxrg.reports.vocabulary import vocabulary, words

SHORTEST = 6
"""Letters of the shortest known word that one edit leads to; words with one less need a swap."""
_WORD = re.compile(r"[A-Za-z]+")


def correct(text: str) -> Iterator[tuple[str, int, int]]:
    """The words to be replaced: their correction, start and stop."""
    for match in _WORD.finditer(text):
        better = _correction(match.group().lower())
        if better is not None:
            yield better, match.start(), match.end()


@cache
def targets() -> frozenset[str]:
    """The known words that others are corrected to: names, places, organs and cues."""
    table = vocabulary()
    terms = [name for several in read_as().values() for name in several]
    terms += [name for each in entries().values() for name in each.absent]
    for names in (organ_names(), zone_names(), table["sides"]):
        terms += [name for several in names.values() for name in several]
    terms += [word for row in table["states"]["words"] for word in row[0]]
    terms += [*table["normal"]["words"], *table["normal"]["denied"]]
    terms += [cue for name in ("denied", "doubted", "unstated") for cue in table[name]["before"]]
    terms += [cue for name in ("denied", "doubted", "unstated") for cue in table[name]["after"]]
    return frozenset(word for word in _letters(terms) if len(word) >= SHORTEST - 1)


def corrections(word: str) -> Iterator[str]:
    """The known words that one edit makes of a word: swaps, then others of its length, the rest."""
    swaps = (word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1))
    yield from (made for made in swaps if made in targets())
    yield from (made for made in _edits(word) if len(made) >= SHORTEST and made in targets())


def _edits(word: str) -> Iterator[str]:
    for i in range(len(word)):
        yield from (word[:i] + letter + word[i + 1 :] for letter in ascii_lowercase)
    for i in range(len(word) + 1):
        yield from (word[:i] + letter + word[i:] for letter in ascii_lowercase)
    for i in range(len(word)):
        yield word[:i] + word[i + 1 :]


@lru_cache(maxsize=4096)
def _correction(word: str) -> str | None:
    if len(word) < SHORTEST - 1 or word in _known():
        return None
    return next(corrections(word), None)


@cache
def _known() -> frozenset[str]:
    """All words that stay: those of the vocabulary, and English words close to them."""
    listed = _letters(_strings(vocabulary())) | _letters(known_names())
    return targets() | words("spelling", "real") | listed


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def _letters(terms: Iterable[str]) -> frozenset[str]:
    return frozenset(word.lower() for term in terms for word in _WORD.findall(term))
