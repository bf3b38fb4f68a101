"""Cards: facts as data, refused where they are invalid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cxrg.errors import ModelError
from cxrg.model import card
from cxrg.model.card import Card, card_from, known_cards, read_card
from tests.fakes.samples import REFERENCE

FALLING = {"opacity": [0.5, 0.3, 0.2]}


def test_scores_of_healthy_chests_are_facts() -> None:
    assert card_from({"name": "x", "reference": REFERENCE}, origin="here").reference == REFERENCE


def test_the_public_checkpoints_are_known() -> None:
    cards = known_cards()
    assert set(cards) >= {
        *("stable-diffusion-1.5", "stable-diffusion-2.1-base", "monai-cxr", "gen2ground"),
        *("roentgen", "radedit", "chexgenbench-sana", "chexgenbench-pixart-sigma"),
    }
    monai = cards["monai-cxr"]
    assert (monai.image_range, monai.side, monai.text_length) == ("0..1", 512, 77)
    assert len(monai.layers) == 4
    assert not monai.shipped
    for name, each in cards.items():
        assert each.name == name
        # What cannot be loaded says why.
        assert each.weights in ("shipped", "download") or each.note
        assert not each.revision or each.hub_id


def test_a_shipped_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    facts = {"name": "own", "weights": "shipped", "licence": "Apache-2.0"}
    (tmp_path / "own" / "cxrg.json").write_text(json.dumps(facts))
    monkeypatch.setattr(card, "WEIGHTS", tmp_path)
    assert next(iter(known_cards().values())) == Card(
        name="own", weights="shipped", licence="Apache-2.0"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"title": "x"}', "no name"),
        ('{"name": "x", "colour": 1}', "unknown fact colour"),
        ('{"name": "x", "image_range": "0..255"}', "use 0..1 or -1..1"),
        ('{"name": "x", "dtype": "int8"}', "use float32 or bfloat16"),
        ('{"name": 3}', "name cannot be 3"),
        ('{"name": "x", "side": "512"}', "side cannot be '512'"),
        ('{"name": "x", "side": -8}', "side cannot be -8"),
        ('{"name": "x", "text_length": 77.5}', "text_length cannot be 77.5"),
        ('{"name": "x", "pass_attention_mask": 1}', "pass_attention_mask cannot be 1"),
        ('{"name": "x", "layers": "mid_block"}', "layers cannot be 'mid_block'"),
        ('{"name": "x", "layers": [1]}', r"layers cannot be \[1\]"),
        ('{"name": "x", "presets": {"fast": 1}}', "presets cannot be .*"),
        ('{"name": "x", "licence": "a\\u001b[31mb"}', "licence cannot be"),
        ('{"name": "x", "reference": [1]}', "reference cannot be"),
        ('{"name": "x", "reference": {"scores": {}}}', "reference cannot be"),
        (f'{{"name": "x", "reference": {json.dumps(REFERENCE | {"images": 0})}}}', "reference"),
        (f'{{"name": "x", "reference": {json.dumps(REFERENCE | {"quantiles": [0.5]})}}}', "refer"),
        (f'{{"name": "x", "reference": {json.dumps(REFERENCE | {"scores": FALLING})}}}', "refer"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_broken_card_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "cxrg.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        read_card(tmp_path)


def test_a_card_is_read_from_a_folder(tmp_path: Path) -> None:
    assert read_card(tmp_path) is None
    facts = {"name": "x", "layers": ["mid_block"], "presets": {"fast": {"draws": 1}}}
    (tmp_path / "cxrg.json").write_text(json.dumps(facts))
    found = read_card(tmp_path)
    assert found == card_from(facts, origin="here")
    assert found is not None
    assert found.layers == ("mid_block",)
