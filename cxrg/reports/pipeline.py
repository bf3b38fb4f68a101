"""The spaCy pipeline that marks words up: no trained model, nothing to download.

Spans of a document, by key:

- ``said``: ``finding`` (id: its name), ``gone`` (a word that says that it is gone), ``state`` (what
  is said of an organ), ``generic`` (normal if denied) and ``normal``;
- ``places``: ``side``, ``zone``, ``both`` (id ``side|zone``) and ``nowhere``;
- ``organs``, ``ends`` (words that end a clause) and ``sentences``.

``doc.sents`` are *clauses*, since negspacy lets a cue reach as far as spaCy's sentence does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import spacy
from negspacy.negation import Negex  # noqa: F401 - registers the component "negex"
from spacy.language import Language
from spacy.tokens import Doc

from cxrg.reports.clauses import starts
from cxrg.reports.vocabulary import vocabulary

CUES = ("denied", "doubted", "unstated")
Pattern = dict[str, str]


@cache
def pipeline() -> Language:
    """The pipeline; the first call takes a moment."""
    nlp = spacy.blank("en")
    for key, patterns in (
        ("said", _said()),
        ("places", _places()),
        ("organs", _named("organ", vocabulary()["organs"])),
        ("ends", _listed("end", vocabulary()["clauses"]["ends"])),
    ):
        ruler: Any = nlp.add_pipe("span_ruler", name=key, config=_longest(key))
        ruler.add_patterns(list(patterns))
    # "?" asks about what follows it ("? consolidation") more often than it ends a sentence.
    nlp.add_pipe("sentencizer", config={"punct_chars": [".", "!"]})
    nlp.add_pipe("cxrg_clauses")
    for name in CUES:
        cues = vocabulary()[name]
        terms = {
            "preceding_negations": cues["before"],
            "following_negations": cues["after"],
            "pseudo_negations": cues["pseudo"],
            "termination": [],
        }
        config = {"neg_termset": terms, "extension_name": f"cxrg_{name}", "span_keys": ["said"]}
        nlp.add_pipe("negex", name=name, config=config)
    return nlp


@Language.component("cxrg_clauses")
def _clauses(doc: Doc) -> Doc:
    """Keep the sentences, and let a clause be what spaCy and negspacy take for a sentence."""
    doc.spans["sentences"] = list(doc.sents)
    words = [token.lower_ for token in doc]
    said = [(span.start, span.end) for span in doc.spans["said"]]
    ends = {span.start for span in doc.spans["ends"]}
    for sentence in doc.spans["sentences"]:
        for start in starts(words, said, ends, sentence.start, sentence.end):
            doc[start].is_sent_start = True
    return doc


def _longest(key: str) -> dict[str, Any]:
    return {
        "spans_key": key,
        "spans_filter": {"@misc": "spacy.first_longest_spans_filter.v1"},
        "phrase_matcher_attr": "LOWER",
    }


def _said() -> Iterator[Pattern]:
    for name, entry in vocabulary()["findings"].items():
        yield from _listed("finding", entry["terms"], name)
        yield from _listed("gone", entry.get("absent", ()), name)
    # A word such as "enlarged" stands in several rows; what it means depends on the organ.
    states = dict.fromkeys(word for row in vocabulary()["states"]["words"] for word in row[0])
    yield from _listed("state", states)
    yield from _listed("generic", vocabulary()["normal"]["denied"])
    yield from _listed("normal", vocabulary()["normal"]["words"])


def _places() -> Iterator[Pattern]:
    yield from _named("side", vocabulary()["sides"])
    yield from _named("zone", vocabulary()["zones"])
    for word, side, zone in vocabulary()["both"]["words"]:
        yield from _listed("both", (word,), f"{side}|{zone}")
    yield from _listed("nowhere", vocabulary()["nowhere"]["words"])


def _named(label: str, table: dict[str, list[str]]) -> Iterator[Pattern]:
    for name, terms in table.items():
        yield from _listed(label, terms, name)


def _listed(label: str, terms: Iterable[str], name: str = "") -> Iterator[Pattern]:
    for term in terms:
        yield {"label": label, "pattern": term, "id": name}
