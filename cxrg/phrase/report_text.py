"""Whether a text is a report rather than a phrase of one."""

from __future__ import annotations

import re

MOST_WORDS = 40
"""Most words of a phrase: the longest of published phrases with boxes are shorter."""

MOST_SENTENCES = 2

_HEADING = re.compile(
    r"\b(clinical (history|information)|comparison|examination|findings?|impression|indication"
    r"|technique)\s*:",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?:\s+|$)|\n\s*\n")


def is_report(text: str) -> bool:
    """Whether a text has a report's heading, more than two sentences, or more than 40 words.

    A sentence has at least two words, so that abbreviations and numbers of lists are none.
    """
    sentences = [part for part in _SENTENCE_END.split(text) if len(part.split()) > 1]
    return (
        _HEADING.search(text) is not None
        or len(sentences) > MOST_SENTENCES
        or len(text.split()) > MOST_WORDS
    )
