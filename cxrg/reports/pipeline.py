"""From text to its sentences: words of the vocabulary, their clauses, and the cues that reach them.

Words are of three kinds:

- ``stated``: ``finding`` (name: which), ``gone`` (a word for its absence), ``state`` (of an organ),
  ``generic`` (normal if denied) and ``normal``;
- ``places``: ``side``, ``zone``, ``both`` (name ``side|zone``) and ``nowhere``;
- ``organs``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise

from cxrg.chest.findings import entries, read_as
from cxrg.chest.places import organ_names, zone_names
from cxrg.reports.answers import answers
from cxrg.reports.clauses import starts
from cxrg.reports.markup import Clause, Sentence, Word
from cxrg.reports.matching import Cues, Match, Phrases, Range
from cxrg.reports.tokens import Token, sentences, tokenize
from cxrg.reports.vocabulary import vocabulary

CUES = ("denied", "doubted", "unstated")
KEYS = ("stated", "places", "organs")
Pattern = tuple[str, str, str]
"""Text, label and name."""


def mark_up(text: str) -> list[Sentence]:
    """The sentences of a text."""
    tokens = tokenize(text)
    lower = [token.lower for token in tokens]
    found = {key: _phrases(key).longest(tokens) for key in KEYS}
    spoken = list(sentences(tokens))
    stated = [(match.start, match.stop) for match in found["stated"]]
    cuts = _cuts(tokens, lower, spoken, stated)
    clauses = list(pairwise([*cuts, len(tokens)]))
    reached = {cue: _cues(cue).reached(tokens, clauses, stated) for cue in CUES}
    reached["denied"] |= set(_answered(lower, clauses, stated))
    words = {
        key: [_word(text, tokens, match, reached) for match in matches]
        for key, matches in found.items()
    }
    named = [(w.start, w.stop) for w in words["stated"] if w.label in ("finding", "gone")]
    words["organs"] = [word for word in words["organs"] if not _meets(word, named)]
    return [
        Sentence(
            chars=(tokens[start].start, tokens[stop - 1].stop),
            tokens=lower,
            clauses=tuple(
                _clause(*clause, words) for clause in clauses if start <= clause[0] < stop
            ),
        )
        for start, stop in spoken
    ]


def _cuts(
    tokens: Sequence[Token], lower: Sequence[str], spoken: Sequence[Range], stated: Sequence[Range]
) -> list[int]:
    """The first tokens of all clauses."""
    ends = {match.start for match in _phrases("ends").longest(tokens)}
    for start, stop in spoken:
        ends |= set(_breaks(tokens, lower, (start, stop), stated))
    cuts = {start for start, _ in spoken}
    for start, stop in spoken:
        cuts |= set(starts(lower, stated, ends, start, stop))
    return sorted(cuts)


def _breaks(
    tokens: Sequence[Token], lower: Sequence[str], sentence: Range, stated: Sequence[Range]
) -> Iterator[int]:
    """Tokens that begin a clause: behind an answer, and at a dash between statements."""
    start, stop = sentence
    for answer in answers(lower, start, stop):
        if answer.stop < stop:
            yield answer.stop
    for index in range(start + 1, stop - 1):
        here = tokens[index]
        apart = tokens[index - 1].stop < here.start and here.stop < tokens[index + 1].start
        before = any(start <= at < index for at, _ in stated)
        behind = any(index < at < stop for at, _ in stated)
        if here.lower in ("-", "--") and apart and before and behind:
            yield index


def _answered(
    lower: Sequence[str], clauses: Sequence[Range], stated: Sequence[Range]
) -> Iterator[Range]:
    """What an answer "no" is about: everything stated before it in its clause."""
    for first, end in clauses:
        for answer in answers(lower, first, end):
            yield from (word for word in stated if first <= word[0] < answer.start)


def _word(
    text: str, tokens: Sequence[Token], match: Match, reached: Mapping[str, set[Range]]
) -> Word:
    chars = tokens[match.start].start, tokens[match.stop - 1].stop
    where = match.start, match.stop
    return Word(
        label=match.label,
        name=match.name,
        text=text[slice(*chars)].lower(),
        start=match.start,
        stop=match.stop,
        chars=chars,
        denied=where in reached["denied"],
        doubted=where in reached["doubted"],
        unstated=where in reached["unstated"],
    )


def _meets(word: Word, ranges: Iterable[Range]) -> bool:
    return any(start < word.stop and word.start < stop for start, stop in ranges)


def _clause(start: int, stop: int, words: Mapping[str, Sequence[Word]]) -> Clause:
    """The clause of tokens ``[start, stop)``, with the words that begin in it."""
    inside = {key: tuple(w for w in words[key] if start <= w.start < stop) for key in KEYS}
    return Clause(start=start, stop=stop, **inside)


@cache
def _phrases(key: str) -> Phrases:
    if key == "stated":
        return Phrases(_stated())
    if key == "places":
        initials = {letter: ("side", side) for letter, side in vocabulary()["initials"].items()}
        return Phrases(_places(), initials)
    if key == "organs":
        return Phrases(_named("organ", organ_names()))
    return Phrases(_listed("end", vocabulary()["clauses"]["ends"]))


@cache
def _cues(name: str) -> Cues:
    cues = vocabulary()[name]
    return Cues(cues["before"], cues["after"], _pseudo(name))


def _pseudo(name: str) -> list[str]:
    """The pseudo cues of a table: those listed, "without change" as "no change", and distances."""
    listed: list[str] = vocabulary()[name]["pseudo"]
    without = [f"without {cue.removeprefix('no ')}" for cue in listed if cue.startswith("no ")]
    moved = vocabulary()["moved"]
    by = [*moved["by"], *(f"{n}{half}" for n in range(1, 16) for half in ("", ".5"))]
    distances = [f"{verb} {how}" for verb in moved["verbs"] for how in by]
    return [*listed, *without, *(distances if name == "denied" else ())]


def _stated() -> Iterator[Pattern]:
    for concept, names in read_as().items():
        yield from _listed("finding", names, concept)
        yield from _listed("gone", entries()[concept].absent, concept)
    # A word such as "enlarged" stands in several rows; what it means depends on the organ.
    states = dict.fromkeys(word for row in vocabulary()["states"]["words"] for word in row[0])
    yield from _listed("state", states)
    yield from _listed("generic", vocabulary()["normal"]["denied"])
    yield from _listed("normal", vocabulary()["normal"]["words"])


def _places() -> Iterator[Pattern]:
    for word, side, zone in vocabulary()["both"]["words"]:
        yield from _listed("both", (word,), f"{side}|{zone}")
    yield from _listed("nowhere", vocabulary()["nowhere"]["words"])
    yield from _named("side", vocabulary()["sides"])
    yield from _named("zone", zone_names())


def _named(label: str, table: Mapping[str, Sequence[str]]) -> Iterator[Pattern]:
    for name, terms in table.items():
        yield from _listed(label, terms, name)


def _listed(label: str, terms: Iterable[str], name: str = "") -> Iterator[Pattern]:
    for term in terms:
        yield term, label, name
