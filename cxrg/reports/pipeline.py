"""The spaCy pipeline that marks words up: no trained model, nothing to download.

Spans of a document, by key:

- ``stated``: ``finding`` (id: its name), ``gone`` (a word for its absence), ``state`` (of
  an organ), ``generic`` (normal if denied) and ``normal``;
- ``places``: ``side``, ``zone``, ``both`` (id ``side|zone``) and ``nowhere``;
- ``organs``, ``ends`` (words that end a clause) and ``sentences``.

``doc.sents`` are *clauses*, since negspacy lets a cue reach as far as spaCy's sentence does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import spacy
from negspacy.negation import Negex  # noqa: F401 - registers the component "negex"
from spacy.language import Language
from spacy.tokens import Doc, Span

from cxrg.chest.findings import entries, read_as
from cxrg.chest.places import organ_names, zone_names
from cxrg.reports.answers import answers
from cxrg.reports.clauses import starts
from cxrg.reports.markup import Clause, Sentence, Word
from cxrg.reports.vocabulary import vocabulary

CUES = ("denied", "doubted", "unstated")
KEYS = ("stated", "places", "organs")
Pattern = dict[str, Any]


def mark_up(texts: Iterable[str]) -> Iterator[list[Sentence]]:
    """The sentences of each text; the first call builds the pipeline, which takes a moment."""
    for doc in _pipeline().pipe(texts):
        tokens = [token.lower_ for token in doc]
        words = {key: [_word(span) for span in doc.spans[key]] for key in KEYS}
        named = [(w.start, w.stop) for w in words["stated"] if w.label in ("finding", "gone")]
        words["organs"] = [w for w in words["organs"] if not _meets(w, named)]
        clauses = [_clause(clause.start, clause.end, words) for clause in doc.sents]
        yield [
            Sentence(
                chars=(sentence.start_char, sentence.end_char),
                tokens=tokens,
                clauses=tuple(c for c in clauses if sentence.start <= c.start < sentence.end),
            )
            for sentence in doc.spans["sentences"]
        ]


@cache
def _pipeline() -> Language:
    nlp = spacy.blank("en")
    nlp.max_length = sys.maxsize  # spaCy's limit is for the memory of trained models
    # spaCy takes "Mass." for the state of Massachusetts; here a finding ends the sentence.
    terms = {name for names in read_as().values() for name in names}
    tokenizer: Any = nlp.tokenizer
    tokenizer.rules = {
        text: rule
        for text, rule in tokenizer.rules.items()
        if text.rstrip(".").lower() not in terms
    }
    for key, patterns in (
        ("stated", _stated()),
        ("places", _places()),
        ("organs", _named("organ", organ_names())),
        ("ends", _listed("end", vocabulary()["clauses"]["ends"])),
    ):
        ruler: Any = nlp.add_pipe("span_ruler", name=key, config=_longest(key))
        ruler.add_patterns(list(patterns))
    # "?" questions what follows it ("? consolidation") more often than it ends a sentence.
    nlp.add_pipe("sentencizer", config={"punct_chars": [".", "!"]})
    nlp.add_pipe("cxrg_clauses")
    for name in CUES:
        cues = vocabulary()[name]
        termset = {
            "preceding_negations": cues["before"],
            "following_negations": cues["after"],
            "pseudo_negations": _pseudo(name),
            "termination": [],
        }
        config = {"neg_termset": termset, "extension_name": f"cxrg_{name}", "span_keys": ["stated"]}
        nlp.add_pipe("negex", name=name, config=config)
    nlp.add_pipe("cxrg_answers")
    return nlp


def _pseudo(name: str) -> list[str]:
    """The pseudo cues of a table: those listed, "without change" as "no change", and distances."""
    listed: list[str] = vocabulary()[name]["pseudo"]
    without = [f"without {cue.removeprefix('no ')}" for cue in listed if cue.startswith("no ")]
    moved = vocabulary()["moved"]
    by = [*moved["by"], *(f"{n}{half}" for n in range(1, 16) for half in ("", ".5"))]
    distances = [f"{verb} {how}" for verb in moved["verbs"] for how in by]
    return [*listed, *without, *(distances if name == "denied" else ())]


def _word(span: Span) -> Word:
    return Word(
        label=span.label_,
        name=span.id_,
        text=span.text.lower(),
        start=span.start,
        stop=span.end,
        chars=(span.start_char, span.end_char),
        **{cue: span._.get(f"cxrg_{cue}") for cue in CUES},
    )


def _meets(word: Word, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(start < word.stop and word.start < stop for start, stop in ranges)


def _clause(start: int, stop: int, words: dict[str, list[Word]]) -> Clause:
    """The clause of tokens ``[start, stop)``, with the words that begin in it."""
    inside = {key: [w for w in words[key] if start <= w.start < stop] for key in KEYS}
    return Clause(start=start, stop=stop, **{key: tuple(inside[key]) for key in KEYS})


@Language.component("cxrg_clauses")
def _split(doc: Doc) -> Doc:
    """Keep the sentences, and make each clause a sentence for spaCy and negspacy."""
    doc.spans["sentences"] = list(doc.sents)
    words = [token.lower_ for token in doc]
    stated = [(span.start, span.end) for span in doc.spans["stated"]]
    ends = {span.start for span in doc.spans["ends"]}
    for sentence in doc.spans["sentences"]:
        ends |= set(_breaks(doc, words, sentence))
    for sentence in doc.spans["sentences"]:
        for start in starts(words, stated, ends, sentence.start, sentence.end):
            doc[start].is_sent_start = True
    return doc


def _breaks(doc: Doc, words: Sequence[str], sentence: Span) -> Iterator[int]:
    """Tokens that begin a clause: behind an answer, and at a dash between statements."""
    for answer in answers(words, sentence.start, sentence.end):
        if answer.stop < sentence.end:
            yield answer.stop
    stated = [span.start for span in doc.spans["stated"]]
    for index in range(sentence.start + 1, sentence.end):
        dash = words[index] in ("-", "--") and doc[index].whitespace_ and doc[index - 1].whitespace_
        before = any(sentence.start <= at < index for at in stated)
        if dash and before and any(index < at < sentence.end for at in stated):
            yield index


@Language.component("cxrg_answers")
def _answer(doc: Doc) -> Doc:
    """Deny what an answer is about: everything stated before it in its clause."""
    words = [token.lower_ for token in doc]
    for clause in doc.sents:
        for answer in answers(words, clause.start, clause.end):
            for span in doc.spans["stated"]:
                if clause.start <= span.start < answer.start:
                    span._.cxrg_denied = True
    return doc


def _longest(key: str) -> dict[str, Any]:
    return {
        "spans_key": key,
        "spans_filter": {"@misc": "spacy.first_longest_spans_filter.v1"},
        "phrase_matcher_attr": "LOWER",
    }


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
    yield from _named("side", vocabulary()["sides"])
    yield from _named("zone", zone_names())
    for letter, side in vocabulary()["initials"].items():
        yield {"label": "side", "pattern": [{"ORTH": letter}], "id": side}
    for word, side, zone in vocabulary()["both"]["words"]:
        yield from _listed("both", (word,), f"{side}|{zone}")
    yield from _listed("nowhere", vocabulary()["nowhere"]["words"])


def _named(label: str, table: Mapping[str, Sequence[str]]) -> Iterator[Pattern]:
    for name, terms in table.items():
        yield from _listed(label, terms, name)


def _listed(label: str, terms: Iterable[str], name: str = "") -> Iterator[Pattern]:
    for term in terms:
        yield {"label": label, "pattern": term, "id": name}
