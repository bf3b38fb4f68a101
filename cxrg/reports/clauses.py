"""Where clauses begin within a sentence: the scopes of denials, doubts and places.

NegEx lets a cue reach to the end of its sentence; ConText (Harkema et al., J Biomed Inform 2009,
42:839) adds words that end it, such as "but". Reports also change subject at a comma or "and" ("no
pneumothorax, small left effusion"), which lists use as well ("no consolidation, effusion or
pneumothorax"). The rules here distinguish these by verbs, by the words that begin a new statement,
and by the "or" that ends a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from cxrg.reports.vocabulary import vocabulary, words

_BREAKS = frozenset((",", ":", "and", "with"))


def starts(
    tokens: Sequence[str],
    stated: Sequence[tuple[int, int]],
    ends: set[int],
    start: int,
    stop: int,
) -> Iterator[int]:
    """Tokens in ``(start, stop)`` that begin a clause.

    Args:
        tokens: the words of the document in lower case.
        stated: token ranges of findings and other statements.
        ends: tokens that always end a clause ("but", "however").
        start: first token of the sentence.
        stop: its end, exclusive.
    """
    interprets = words("clauses", "interprets")
    for index in range(start + 1, stop):
        if index in ends:
            yield index
            start = index
            continue
        if tokens[index] not in _BREAKS and tokens[index] not in interprets:
            continue
        limit = min((end for end in ends if index < end < stop), default=stop)
        left, right = range(start, index), range(index + 1, limit)
        divides = _interprets if tokens[index] in interprets else _divides
        if right and divides(tokens, stated, left, right):
            yield index
            start = index


def _divides(
    tokens: Sequence[str], stated: Sequence[tuple[int, int]], left: range, right: range
) -> bool:
    word, first = tokens[left.stop], tokens[right.start]
    if word == ":":
        return _has(tokens, left, frozenset(("compared", "comparison")))
    if word == "," and _opens(tokens, left):
        return True
    known = [begin for begin, _ in stated]
    later = [begin for begin in known if begin in right]
    if not any(begin in left for begin in known) or not (
        later or first in words("clauses", "ellipses")
    ):
        return False
    verbs = words("clauses", "verbs")
    if word != "with" and _has(tokens, left, verbs) and later:
        # "... is seen and the mass is unchanged"; the verb has a subject of its own
        own = range(right.start, _next_break(tokens, right))
        subject = first == "there" or any(begin in own for begin in later)
        if subject and _has(tokens, own, verbs) and first not in verbs:
            return True
    fresh = first in words("clauses", "starts")
    if _has(tokens, left, _cue_words("denied", "doubted")):
        return fresh and (word != "," or not _has(tokens, right, frozenset(("or", "nor"))))
    return word == "," and (fresh or not _has(tokens, right, _closing_words()))


def _interprets(
    tokens: Sequence[str], stated: Sequence[tuple[int, int]], left: range, right: range
) -> bool:
    """Whether a diagnosis begins ("opacity | likely atelectasis"), so that its doubt ends here."""
    known = [begin for begin, _ in stated]
    if not tokens[right.start].isalpha():  # "3 May, 2024"
        return False
    predicate = tokens[left.stop] == "likely" and tokens[right.start] in words("clauses", "causes")
    if not any(begin in left for begin in known):
        return False
    if not predicate and not any(begin in right for begin in known):
        return False
    return not _has(tokens, left, _cue_words("denied"))


def _next_break(tokens: Sequence[str], right: range) -> int:
    return next((i for i in right if tokens[i] == "," and i > right.start), right.stop)


def _opens(tokens: Sequence[str], left: range) -> bool:
    """Whether the words are an opening such as "compared with the prior study"."""
    text = " ".join(tokens[i] for i in left)
    return text.startswith(tuple(vocabulary()["clauses"]["openers"]))


def _has(tokens: Sequence[str], where: range, which: frozenset[str]) -> bool:
    return any(tokens[index] in which for index in where)


@cache
def _cue_words(*tables: str) -> frozenset[str]:
    """First words of the cues that reach forward."""
    cues = (cue for table in tables for cue in vocabulary()[table]["before"])
    return frozenset(cue.split()[0].lower() for cue in cues)


@cache
def _closing_words() -> frozenset[str]:
    """Cues behind a list: "effusion, edema and consolidation are absent"."""
    return frozenset(cue for cue in vocabulary()["denied"]["after"] if " " not in cue)
