"""Which words count: the lexicon in a tagger's place, and a tagger itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrg.errors import UsageError
from cxrg.phrase.words import Spans, tagged_words

SENTENCE = "there is a small left apical pneumothorax"


def named(text: str, spans: Spans) -> list[str]:
    return [text[start:stop] for start, stop in spans]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (SENTENCE, "small left apical pneumothorax"),
        ("Mild cardiomegaly, not significantly changed.", "Mild cardiomegaly changed"),
        ("No evidence of a pleural effusion", "evidence pleural effusion"),
        ("opacities are seen bilaterally in both lower lobes", "opacities seen lower lobes"),
        (
            "right-sided PICC line ends 2 cm below the carina",
            "right-sided PICC line ends cm carina",
        ),
        ("likely early edema; otherwise clear lungs", "likely early edema clear lungs"),
        ("hepatosplenomegaly and a congenital anomaly", "hepatosplenomegaly congenital anomaly"),
    ],
)
def test_the_lexicon_keeps_adjectives_nouns_and_verbs(text: str, kept: str) -> None:
    assert " ".join(named(text, tagged_words(text))) == kept


def test_an_installed_tagger_is_asked(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    nlp.add_pipe("attribute_ruler").add_patterns(
        [
            {"patterns": [[{"LOWER": word}]], "attrs": {"POS": tag}}
            for word, tag in (
                *(("there", "PRON"), ("is", "VERB"), ("a", "DET"), ("small", "ADJ")),
                *(("left", "ADJ"), ("apical", "X"), ("pneumothorax", "NOUN"), (".", "PUNCT")),
            )
        ]
    )
    nlp.to_disk(tmp_path / "tagger")
    text = f"{SENTENCE}."
    # Not the lexicon's choice: this tagger takes "is" for a verb and knows no "apical".
    asked = tagged_words(text, str(tmp_path / "tagger"))
    assert named(text, asked) == ["is", "small", "left", "pneumothorax"]


def test_a_missing_tagger_and_one_that_does_not_tag_are_refused(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    with pytest.raises(UsageError, match="no spaCy pipeline 'en_nowhere' is installed"):
        tagged_words(SENTENCE, "en_nowhere")
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(UsageError, match="tags no parts of speech"):
        tagged_words(SENTENCE, str(tmp_path / "blank"))
