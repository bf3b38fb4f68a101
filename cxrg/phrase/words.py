"""The content words of a phrase: adjectives, nouns and verbs. Characters ``[start, stop)`` of each.

As a part-of-speech tagger finds them (arXiv 2507.12236, released code, with a scientific spaCy
pipeline). Trained pipelines are on no package index, so without a name a lexicon stands in: closed
word classes and suffixes of adverbs, the rest is kept. Either keeps *small left apical
pneumothorax* of *there is a small left apical pneumothorax*.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from cxrg.errors import UsageError

Spans = list[tuple[int, int]]

WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Universal part-of-speech tags (universaldependencies.org) that a tagger drops: determiners,
# pronouns, adpositions, conjunctions, auxiliaries, particles, numerals, and adverbs without suffix.
CLOSED_CLASSES = _words(
    """
    a an the this that these those some any no each every either neither both all such another
    it its they them their there which who whose what where when how we our i you
    of in on at to for with within without by from into onto over under above below between among
    through throughout during since after before until about near along around across behind
    beneath beyond against toward towards up down out off than as via per upon despite except
    and or but nor so if while although though because whether versus vs
    is are was were be been being am has have had having do does did
    can could may might must shall should will would cannot not n't
    one two three four five six seven eight nine ten
    again also almost already always away else even ever far here however just less least more most
    much never now often only otherwise perhaps quite rather somewhat soon still then therefore
    thus too very well yet instead maybe likewise hence
    """
)
ADVERB_SUFFIXES = ("ly", "wise", "wards")
# Adjectives and nouns with such an ending.
NO_ADVERBS = _words("early likely unlikely daily anomaly family belly assembly")
NO_ADVERB_SUFFIXES = ("megaly",)
KEPT_TAGS = ("ADJ", "NOUN", "VERB")


def tagged_words(text: str, pipeline: str = "") -> Spans:
    """Adjectives, nouns and verbs.

    Args:
        text: the phrase.
        pipeline: name of an installed spaCy pipeline with a tagger; empty: the lexicon.

    Raises:
        UsageError: there is no such pipeline, or it does not tag.
    """
    if not pipeline:
        return [word.span() for word in WORD.finditer(text) if _is_open_class(word.group().lower())]
    doc = _tagger(pipeline)(text)
    if not doc.has_annotation("POS"):
        raise UsageError(f"spaCy pipeline {pipeline!r} tags no parts of speech; use tokens=tagged")
    return [(each.idx, each.idx + len(each)) for each in doc if each.pos_ in KEPT_TAGS]


def _is_open_class(word: str) -> bool:
    """Whether a word can be an adjective, noun or verb."""
    if word in CLOSED_CLASSES or word[0].isdigit():
        return False
    named = word in NO_ADVERBS or word.endswith(NO_ADVERB_SUFFIXES)
    return named or not word.endswith(ADVERB_SUFFIXES)


@cache
def _tagger(pipeline: str) -> Any:
    """The spaCy pipeline of that name; it takes seconds to load."""
    try:
        import spacy

        return spacy.load(pipeline)
    except ImportError as error:
        raise UsageError(
            "tokens=tagged:NAME needs spaCy; pip install 'cxrg[tagger]', or use tokens=tagged"
        ) from error
    except OSError as error:
        raise UsageError(
            f"no spaCy pipeline {pipeline!r} is installed; install one with a tagger, such as "
            "en_core_sci_sm, or use tokens=tagged"
        ) from error
