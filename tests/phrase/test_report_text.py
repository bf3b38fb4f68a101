"""Which texts are refused as phrases because they are reports."""

from __future__ import annotations

import pytest

from cxrg.phrase.report_text import MOST_WORDS, is_report

PHRASES = [
    "heart",
    "left basal opacity",
    "1. approx. 2 cm nodule in the left upper lobe, e.g. a granuloma.",
    "Small left effusion. Right lung is clear.",
    "opacity at the level of the 5. rib vs. scarring",
    " ".join(["word"] * MOST_WORDS),
]
REPORTS = [
    "FINDINGS: The heart is enlarged.",
    "Impression : small left effusion",
    "The heart is enlarged. There is a left effusion. No pneumothorax.",
    "The heart is enlarged.\n\nThere is a left effusion.\n\nNo pneumothorax",
    " ".join(["word"] * (MOST_WORDS + 1)),
]


@pytest.mark.parametrize("text", PHRASES)
def test_phrases_are_no_reports(text: str) -> None:
    assert not is_report(text)


@pytest.mark.parametrize("text", REPORTS)
def test_reports_are_no_phrases(text: str) -> None:
    assert is_report(text)
