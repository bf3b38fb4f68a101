"""Phrases as typed and pasted: blanks, quotation marks, hyphens and invisible characters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cxrg.errors import PhraseError
from cxrg.grounding import ground
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.phantom.sample import render
from cxrg.phrase.encode import check_phrase, encode_phrase
from cxrg.phrase.normalise import normalise
from tests.fakes import tiny_models

TYPED = [
    "left  basal opacity",
    "left\tbasal opacity",
    "left basal\nopacity",
    "left basal\r\nopacity",
    " left basal opacity ",
    "left\u00a0basal\u2009opacity",
    '"left basal opacity"',
    "\u201cleft basal opacity\u201d",
    "\u00ableft basal opacity\u00bb",
    "'left basal opacity'",
    "\u2018left basal\u2019 opacity",
    "left ba\u00adsal opacity",
    "left\u200b basal\ufeff opacity\u200e",
]


@pytest.fixture(scope="module", params=["sd1", "compact"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder: Path = tmp_path_factory.mktemp("models") / request.param
    return load(tiny_models.FAMILIES[request.param](folder), device="cpu")


@pytest.mark.parametrize("text", TYPED)
def test_what_places_nothing_in_a_picture_is_left_out(text: str) -> None:
    assert normalise(text) == "left basal opacity"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("ground\u2011glass opacity", "ground-glass opacity"),
        ("left\u2013sided effusion", "left-sided effusion"),
        ("effusion\u2014small", "effusion - small"),
        ("Hodgkin\u2019s disease", "Hodgkin's disease"),
        ("\ufb01brosis", "fibrosis"),
        ("caf\u0065\u0301", "caf\u00e9"),
        ("patients' lungs", "patients' lungs"),
        ("5 mm nodule (left), 3/4", "5 mm nodule (left), 3/4"),
        ("No Opacity.", "No Opacity."),
        ("\u80f8\u6c34", "\u80f8\u6c34"),
        ('" "', ""),
    ],
)
def test_hyphens_apostrophes_and_ligatures_are_those_of_a_keyboard(text: str, plain: str) -> None:
    assert normalise(text) == plain
    assert normalise(plain) == plain


@pytest.mark.parametrize("text", TYPED)
def test_a_phrase_as_typed_is_encoded_as_the_plain_one(model: Model, text: str) -> None:
    plain = encode_phrase(model, "left basal opacity")
    prompt = encode_phrase(model, text)
    assert (prompt.text, prompt.asked) == (text, "left basal opacity")
    assert prompt.tokens == plain.tokens
    assert prompt.selected == plain.selected
    np.testing.assert_array_equal(prompt.embeds.cpu(), plain.embeds.cpu())
    assert encode_phrase(model, text, "word:basal").selected_tokens


def test_a_phrase_of_quotation_marks_is_empty(model: Model) -> None:
    for text in ("", " ", '""', "\u201c\u201d", "\u00ad"):
        with pytest.raises(PhraseError, match="the phrase is empty; name what to look for"):
            check_phrase(model, text)


def test_the_answer_to_a_phrase_as_typed_is_that_to_the_plain_one(
    model: Model, tmp_path: Path
) -> None:
    import cv2

    path = tmp_path / "chest.png"
    cv2.imwrite(str(path), np.round(render(3, side=64).image * 255).astype(np.uint8))
    results = ground(path, ["left basal opacity", *TYPED], model=model)
    assert [result.phrase for result in results[1:]] == TYPED
    for result in results[1:]:
        np.testing.assert_array_equal(result.canonical, results[0].canonical)
        assert (result.score, result.boxes) == (results[0].score, results[0].boxes)
