"""Phrases: the span of their own tokens, the choice among them, truncation, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cxrg.errors import PhraseError
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.phrase.encode import encode_phrase
from tests.fakes import tiny_models

SENTENCE = "There is a small left apical pneumothorax"


@pytest.fixture(scope="module", params=["sd1", "sd2", "compact"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder: Path = tmp_path_factory.mktemp("models") / request.param
    return load(tiny_models.FAMILIES[request.param](folder), device="cpu")


def words(prompt: Any) -> list[str]:
    """The selected tokens joined back to words, whichever way the tokenizer marks them."""
    text = "".join(prompt.selected_tokens)
    return text.replace("</w>", " ").replace("Ġ", " ").split()


def test_the_span_holds_the_phrase_without_start_end_and_padding(model) -> None:
    prompt = encode_phrase(model, "left opacity")
    ids = model.tokenizer("left opacity")["input_ids"]
    assert prompt.span == slice(1, len(ids) - 1)
    assert list(prompt.tokens) == model.tokenizer.convert_ids_to_tokens(ids[1:-1])
    assert prompt.selected == tuple(range(1, len(ids) - 1))
    assert prompt.embeds.shape == (model.text_length, tiny_models.WIDTH)
    assert prompt.warnings == ()


def test_of_a_content_word_its_first_token_is_read(model) -> None:
    prompt = encode_phrase(model, SENTENCE, "tagged")
    assert len(prompt.selected) == 4 < len(prompt.tokens)
    read = iter(prompt.selected_tokens)
    for word in ("small", "left", "apical", "pneumothorax"):
        whole = encode_phrase(model, SENTENCE, f"word:{word}")
        token = next(read)
        assert word.startswith(token.replace("</w>", "").replace("Ġ", ""))
        assert token == whole.selected_tokens[0]


def test_a_phrase_without_content_words_is_read_whole_with_a_warning(model) -> None:
    prompt = encode_phrase(model, "there is no", "tagged")
    assert prompt.selected_tokens == prompt.tokens
    assert any("no content words" in warning for warning in prompt.warnings)


def test_a_word_is_found_wherever_it_stands_and_only_whole(model) -> None:
    text = "left apex, and the LEFT base; leftover"
    # Byte-level BPE may set the space before a capital apart, so words are not told apart here.
    assert "".join(words(encode_phrase(model, text, "word:Left"))).lower() == "leftleft"
    assert words(encode_phrase(model, SENTENCE, "word:left apical")) == ["left", "apical"]
    with pytest.raises(PhraseError, match="no 'apica'; it has There, is, a, small"):
        encode_phrase(model, SENTENCE, "word:apica")


def test_indices_count_the_phrases_own_tokens(model) -> None:
    prompt = encode_phrase(model, SENTENCE, (2, 0, 2))
    assert prompt.selected_tokens == (prompt.tokens[0], prompt.tokens[2])
    count = len(prompt.tokens)
    with pytest.raises(PhraseError, match=f"no token {count}; use 0 to {count - 1}"):
        encode_phrase(model, SENTENCE, (count,))


def test_what_is_cut_is_named(model) -> None:
    text = "opacity " * 80 + "pneumothorax"
    prompt = encode_phrase(model, text)
    assert len(prompt.tokens) == model.text_length - 2
    assert prompt.span.stop == model.text_length - 1
    (warning,) = prompt.warnings
    assert "pneumothorax" in warning
    with pytest.raises(PhraseError, match="as far as it is read"):
        encode_phrase(model, text, "word:pneumothorax")


def test_punctuation_that_pads_still_counts_as_the_phrases(model) -> None:
    # Stable Diffusion 2.x pads with "!", which a phrase may hold as well.
    prompt = encode_phrase(model, "left!")
    assert prompt.tokens[-1].startswith("!")


def test_unknown_words_and_other_scripts_never_fail(model) -> None:
    assert encode_phrase(model, "肺炎 κύμα é̂ xyzzy 🫁").tokens


def test_an_empty_phrase_is_refused(model) -> None:
    for text in ("", " \n\t"):
        with pytest.raises(PhraseError, match="empty"):
            encode_phrase(model, text)


def test_the_embedding_is_the_encoders_own(model) -> None:
    prompt = encode_phrase(model, "left opacity")
    encoded = model.tokenizer(
        "left opacity",
        padding="max_length",
        max_length=model.text_length,
        return_attention_mask=True,
        return_tensors="pt",
    )
    mask = encoded["attention_mask"]
    with_mask = model.text_encoder(encoded["input_ids"], attention_mask=mask)[0][0]
    without = model.text_encoder(encoded["input_ids"])[0][0]
    expected = with_mask if model.card.pass_attention_mask else without
    torch.testing.assert_close(prompt.embeds, expected)
    if model.card.name == "compact":
        assert not torch.allclose(with_mask, without, atol=1e-3)
