"""Scores of findings in healthy chests, as a model's card has them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cxrg.heatmap.reference import Reference, reference_of
from cxrg.model.card import WEIGHTS, Card, known_cards
from cxrg.model.checkpoint.identity import fingerprint
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import resolve
from tests.fakes import tiny_models
from tests.fakes.samples import REFERENCE as TABLE

OPTIONS = resolve("fast")


def model(**changes: Any) -> Model:
    facts = {"card": Card(name="tiny", reference=TABLE), "adapter": None, **changes}
    return cast(Model, SimpleNamespace(**facts))


def test_scores_are_those_of_the_finding() -> None:
    found = reference_of(model(), OPTIONS, "opacity")
    assert found == Reference(
        finding="opacity",
        images=40,
        of="held-out normals",
        quantiles=(0.25, 0.5, 0.75),
        scores=(0.2, 0.3, 0.5),
    )


@pytest.mark.parametrize(
    ("changes", "options", "finding"),
    [
        ({}, OPTIONS, "nodule"),
        ({}, OPTIONS, None),
        ({"card": Card(name="tiny")}, OPTIONS, "opacity"),
        ({"adapter": object()}, OPTIONS, "opacity"),
        ({}, replace(OPTIONS, timesteps=(100,)), "opacity"),
        ({}, resolve("paper"), "opacity"),
    ],
)
def test_scores_of_something_else_are_none(changes, options, finding) -> None:
    assert reference_of(model(**changes), options, finding) is None


def test_what_changes_no_score_leaves_the_reference() -> None:
    other = replace(OPTIONS, seed=7, draws=9, threshold=0.2, absent_below=0.9, mask="none")
    assert reference_of(model(), other, "opacity") is not None


@pytest.mark.parametrize(
    ("score", "share"), [(0.1, 0.0), (0.2, 0.25), (0.25, 0.375), (0.4, 0.625), (0.5, 0.75)]
)
def test_shares_are_read_between_quantiles(score: float, share: float) -> None:
    found = reference_of(model(), OPTIONS, "opacity")
    assert found is not None
    assert found.share_below(score) == pytest.approx(share)


def test_beyond_the_last_quantile_all_score_lower_as_far_as_is_known() -> None:
    found = reference_of(model(), OPTIONS, "opacity")
    assert found is not None
    assert found.share_below(0.51) == 1.0


def test_a_table_of_other_weights_is_left_out(tmp_path: Path) -> None:
    folder = tiny_models.compact(tmp_path / "tiny")
    card = folder / "cxrg.json"
    facts = json.loads(card.read_text()) if card.exists() else {"name": "tiny"}
    table = {**TABLE, "weights": fingerprint(folder)}
    card.write_text(json.dumps({**facts, "reference": table}))
    assert load(folder, device="cpu").card.reference == table
    card.write_text(json.dumps({**facts, "reference": TABLE}))
    assert load(folder, device="cpu").card.reference == {}


def test_the_shipped_table_is_of_the_shipped_weights() -> None:
    table = known_cards()["compact"].reference
    assert table["weights"] == fingerprint(WEIGHTS / "compact")
    assert table["scores"].keys() >= {"opacity", "pneumothorax", "pleural effusion"}
