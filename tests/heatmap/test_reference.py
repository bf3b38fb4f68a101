"""Scores of findings in healthy chests, as a model's card has them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cxrg.heatmap.reference import Reference, reference_of
from cxrg.model.card import Card
from cxrg.model.model import Model
from cxrg.options import resolve

TABLE = {
    "identity": "sha256:0123",
    "preset": "fast",
    "images": 40,
    "of": "held-out normals",
    "quantiles": [0.25, 0.5, 0.75],
    "scores": {"opacity": [0.2, 0.3, 0.5]},
}
OPTIONS = resolve("fast")


def model(**changes: Any) -> Model:
    facts = {"card": Card(name="tiny", reference=TABLE), "identity": "sha256:0123", **changes}
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
        ({"identity": "sha256:4567"}, OPTIONS, "opacity"),
        ({"identity": "sha256:0123+89"}, OPTIONS, "opacity"),  # with an adapter
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
