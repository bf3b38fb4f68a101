"""From scores to probabilities, as a card has it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from cxrg.errors import ModelError
from cxrg.model.calibration import Calibration, calibration_of, score_options
from cxrg.model.card import card_from
from cxrg.options import Options
from tests.fakes.tiny_models import compact

CALIBRATION = Calibration(slope=2.0, intercept=-1.0, offsets={"nodule": 3.0, "upper nodule": -1.5})


def test_a_probability_is_the_logistic_curve_of_the_scores_odds() -> None:
    assert CALIBRATION.probability(0.5, ()) == pytest.approx(1 / (1 + math.e))
    assert CALIBRATION.probability(0.5, ["mass"]) == CALIBRATION.probability(0.5, ())
    assert CALIBRATION.probability(0.5, ["nodule"]) == pytest.approx(1 / (1 + math.exp(-2)))
    assert CALIBRATION.probability(0.5, ["nodule", "upper nodule"]) == pytest.approx(
        1 / (1 + math.exp(-0.5))
    )
    # 2 ln(0.8 / 0.2) - 1
    assert CALIBRATION.probability(0.8, ()) == pytest.approx(1 / (1 + math.exp(-1.7726)), 1e-4)
    assert 0 <= CALIBRATION.probability(0.0, ()) < 1e-9
    assert 1 - 1e-9 < CALIBRATION.probability(1.0, ()) <= 1


def test_a_steep_curve_does_not_overflow() -> None:
    steep = replace(CALIBRATION, slope=1000.0)
    assert (steep.probability(0.0, ()), steep.probability(1.0, ())) == (0.0, 1.0)


@pytest.mark.parametrize("probability", [0.05, 0.5, 0.9])
def test_the_score_of_a_probability_has_that_probability(probability: float) -> None:
    for terms in ((), ("nodule",), ("nodule", "upper nodule")):
        score = CALIBRATION.score(probability, terms)
        assert CALIBRATION.probability(score, terms) == pytest.approx(probability)
    assert (CALIBRATION.score(0.0, ()), CALIBRATION.score(1.0, ())) == (0.0, 1.0)
    never = replace(CALIBRATION, intercept=-90.0)
    assert never.score(probability, ()) == 1.0


def test_a_calibration_is_for_the_options_that_it_was_fitted_with() -> None:
    options = Options(path="noise", timesteps=(100, 200))
    facts = json.loads(json.dumps({**_facts(), "options": score_options(asdict(options))}))
    assert calibration_of(facts, options) is not None
    for same in ({"threshold": 0.3}, {"absent_below": 0.2}, {"seed": 5}, {"draws": 8}):
        assert calibration_of(facts, replace(options, **same)) is not None
    for other in ({"timesteps": (100,)}, {"sigma": 0.1}, {"layers": "all"}, {"tokens": (0,)}):
        assert calibration_of(facts, replace(options, **other)) is None
    assert calibration_of({}, options) is None


def _facts(**changes: Any) -> dict[str, Any]:
    facts = {"slope": 1.0, "intercept": 0.0, "offsets": {}, "options": {}, "fitted_on": "phantoms"}
    return {**facts, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"slope": 0},
        {"slope": -1.0},
        {"slope": "2"},
        {"intercept": float("nan")},
        {"intercept": True},
        {"offsets": {"mass": None}},
        {"offsets": [1.0]},
        {"options": 3},
        {"fitted_on": "a\x1b[31m"},
        {"more": 1},
    ],
)
def test_a_card_whose_calibration_is_not_valid_is_refused(changes: dict[str, Any]) -> None:
    card_from({"name": "m", "presence": _facts()}, origin="cxrg.json")
    with pytest.raises(ModelError, match=r"cxrg\.json: presence is no calibration; make it with"):
        card_from({"name": "m", "presence": _facts(**changes)}, origin="cxrg.json")


def test_a_calibrated_model_judges_presence_and_is_another_model(tmp_path: Path) -> None:
    import numpy as np

    from cxrg import ground, load
    from cxrg.options import resolve

    folder = compact(tmp_path / "model")
    plain = load(folder, device="cpu")
    image = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    options = resolve("fast", plain.card.presets, timesteps="100", absent_below="0.5")
    how: dict[str, Any] = {"options": options, "any_image": True}
    before = ground(image, ["left upper nodule", "heart"], model=plain, **how)
    assert [each.presence for each in before] == [None, None]

    card = folder / "cxrg.json"
    facts = json.loads(card.read_text("utf-8")) if card.exists() else {"name": "tiny"}
    middle = math.log(before[0].score / (1 - before[0].score))
    for offset, status in ((2.0, "found"), (-2.0, "not found")):
        presence = {
            "slope": 1.0,
            "intercept": -middle,
            "offsets": {"nodule": offset + 3, "upper nodule": -3.0},
        }
        presence |= {"options": score_options(asdict(options)), "fitted_on": "nothing"}
        card.write_text(json.dumps({**facts, "presence": presence}), "utf-8")
        model = load(folder, device="cpu")
        nodule, heart = ground(image, ["left upper nodule", "heart"], model=model, **how)
        assert nodule.score == before[0].score
        assert nodule.presence == pytest.approx(1 / (1 + math.exp(-offset)))
        assert nodule.status == status
        assert heart.presence is None
        assert heart.status == "found"  # a place is always there
        assert nodule.to_dict()["presence"] == nodule.presence
        assert model.identity != plain.identity
        how["options"] = replace(options, sigma=0.1)
        other, heart = ground(image, ["left upper nodule", "heart"], model=model, **how)
        # A limit that is a probability is not compared with a score.
        assert (other.presence, other.status, heart.status) == (None, "uncalibrated", "found")
        how["options"] = options
