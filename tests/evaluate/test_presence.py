"""Status and score: intervals, calibration and false boxes against scikit-learn and by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from cxrg.evaluate.metrics import presence as p
from cxrg.evaluate.record import METHOD, Record
from cxrg.evaluate.report.presence import presence_of


def test_wilson_is_scipys() -> None:
    for hits, count in ((0, 1), (0, 30), (1, 7), (20, 20), (333, 1000)):
        expected = binomtest(hits, count).proportion_ci(method="wilson")
        assert p.wilson(hits / count, count) == pytest.approx((expected.low, expected.high))
    assert math.isnan(p.wilson(0.5, 0)[0])
    assert math.isnan(p.wilson(float("nan"), 3)[1])


def test_samples_of_one_patient_narrow_no_interval() -> None:
    flags = np.array([True, False, True, True])
    apart = p.share_of(flags, ["a", "b", "c", "d"])
    together = p.share_of(flags, ["a", "a", "b", "b"])
    assert apart.value == together.value == 0.75
    assert together.high - together.low > apart.high - apart.low
    assert (together.low, together.high) == p.wilson(0.75, 2)
    assert math.isnan(p.share_of(flags[:0], []).value)


@pytest.mark.parametrize("bins", [1, 4, 10])
@pytest.mark.parametrize("decimals", [1, 9])
def test_reliability_is_scikit_learns(bins: int, decimals: int) -> None:
    rng = np.random.default_rng(bins)
    scores = rng.random(237).round(decimals)
    there = rng.random(237) < scores**2
    found = p.reliability(scores, there, bins)
    share, score = calibration_curve(there, scores, n_bins=bins, strategy="quantile")
    np.testing.assert_allclose([each.share for each in found], share)
    np.testing.assert_allclose([each.score for each in found], score)
    assert sum(np.count_nonzero(each.members) for each in found) == 237


def test_bins_hold_equally_many() -> None:
    scores = np.random.default_rng(0).random(100) ** 3
    counts = [np.count_nonzero(b.members) for b in p.reliability(scores, scores > 0.5, 10)]
    assert counts == [10] * 10


def test_calibration_error_by_hand() -> None:
    # Two bins of two: mean scores .2 and .8, shares .5 and 1.
    scores, there = np.array([0.1, 0.3, 0.7, 0.9]), np.array([False, True, True, True])
    assert p.calibration_error(p.reliability(scores, there, 2)) == pytest.approx(0.25)
    # Bins of one and three, as equal scores stay together: |.1 - 0| / 4 + |.5 - 2/3| * 3 / 4.
    tied = np.array([0.1, 0.5, 0.5, 0.5])
    there = np.array([False, True, False, True])
    error = p.calibration_error(p.reliability(tied, there, 4))
    assert error == pytest.approx(0.1 / 4 + (2 / 3 - 0.5) * 3 / 4)
    assert math.isnan(p.calibration_error([]))


def test_free_response_by_hand() -> None:
    curve = p.free_response(
        scores=np.array([0.9, 0.8, 0.8, 0.4, 0.2]),
        hits=np.array([1.0, 0, 2, 0, 0]),
        true_boxes=np.array([2.0, 0, 2, 0, 1]),
        false_boxes=np.array([3.0, 1, 2, 2, 0]),  # those of present phrases do not count
        absent=np.array([False, True, False, True, False]),
    )
    assert curve.thresholds == [0.9, 0.8, 0.4, 0.2]
    assert curve.sensitivity == pytest.approx([1 / 5, 3 / 5, 3 / 5, 3 / 5])
    assert curve.false_boxes == pytest.approx([0, 1 / 2, 3 / 2, 3 / 2])


@pytest.mark.parametrize("seed", range(3))
def test_free_response_is_counting_at_each_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, absent = rng.random(50).round(1), rng.random(50) < 0.4
    true_boxes = np.where(absent, 0, rng.integers(1, 4, 50)).astype(float)
    hits = np.minimum(true_boxes, rng.integers(0, 4, 50))
    drawn = rng.integers(0, 4, 50).astype(float)
    curve = p.free_response(scores, hits, true_boxes, drawn, absent)
    for number, threshold in enumerate(curve.thresholds):
        counts = scores >= threshold
        assert curve.sensitivity[number] == pytest.approx(hits[counts].sum() / true_boxes.sum())
        false = drawn[counts & absent].sum() / absent.sum()
        assert curve.false_boxes[number] == pytest.approx(false)


def test_no_curve_without_absent_phrases() -> None:
    one = np.ones(3)
    assert p.free_response(one, one, one, one, np.zeros(3, bool)).thresholds == []


def record(
    category: str, present: bool, status: str, score: float, *, patient: str, boxes: int = 0
) -> Record:
    drawn = [[10.0 * i, 0, 10.0 * i + 9, 9, score] for i in range(boxes)]
    return Record(
        id=f"{category} {patient} {present}",
        image=patient,
        phrase=category.lower(),
        category=category,
        group="finding",
        patient=patient,
        side=None,
        zone=None,
        present=present,
        shape=(64, 64),
        area=0.1,
        status=status,
        score=score,
        laterality_hit=None,
        shuffled_phrase=None,
        other_image=None,
        presence=None,
        truth=[[0, 0, 9, 9]] if present else [],
        boxes={METHOD: drawn},
        values={},
        sweep={},
        warnings=[],
    )


def records() -> list[Record]:
    rows: Sequence[tuple[str, bool, str, float, int]] = (
        ("Nodule", True, "found", 0.9, 1),
        ("Nodule", True, "not found", 0.3, 0),
        ("Nodule", False, "found", 0.6, 2),
        ("Nodule", False, "not found", 0.2, 0),
        ("Nodule", False, "not found", 0.1, 0),
        ("Nodule", False, "unknown phrase", 0.0, 0),
        ("Heart", True, "found", 0.95, 1),
    )
    return [
        record(name, there, status, score, patient=f"p{i}", boxes=boxes)
        for i, (name, there, status, score, boxes) in enumerate(rows)
    ]


def test_statuses_by_category_and_of_categories_with_both() -> None:
    found = presence_of(records())
    assert list(found.categories) == ["Heart", "Nodule"]
    nodule = found.categories["Nodule"]
    assert (nodule.found_present, nodule.missed) == (1, 1)
    assert (nodule.found_absent, nodule.clear, nodule.undecided) == (1, 2, 1)
    assert nodule.sensitivity.value == 0.5
    assert nodule.specificity.value == pytest.approx(2 / 3)
    assert (nodule.specificity.low, nodule.specificity.high) == p.wilson(2 / 3, 3)
    assert nodule.false_boxes.value == 0.5, "two boxes on four images without a nodule"
    assert found.both == nodule, "hearts are never absent"
    heart = found.categories["Heart"]
    assert heart.sensitivity.value == 1
    assert math.isnan(heart.specificity.value)
    assert math.isnan(heart.auroc.value)


def test_scores_against_scikit_learn() -> None:
    made = records()
    found = presence_of(made)
    assert found.both is not None
    assert found.calibration is not None
    nodules = [r for r in made if r.category == "Nodule"]
    there, scores = [r.present for r in nodules], [r.score for r in nodules]
    assert found.both.auroc.value == pytest.approx(roc_auc_score(there, scores))
    assert found.calibration.brier.value == pytest.approx(brier_score_loss(there, scores))
    assert found.calibration.brier_of_share == pytest.approx(
        brier_score_loss(there, [2 / 6] * len(there))
    )
    assert found.calibration.error.value == pytest.approx(abs(np.mean(scores) - 2 / 6))
    assert found.curve.sensitivity == pytest.approx([0.5] * 6)
    assert found.curve.false_boxes[-1] == 0.5


def test_probabilities_are_used_where_a_model_is_calibrated() -> None:
    raw, made = presence_of(records()), records()
    sure = [replace(r, presence=0.99 if r.present else 0.01) for r in made]
    found = presence_of(sure)
    assert raw.calibration is not None
    assert found.calibration is not None
    assert (raw.calibration.calibrated, found.calibration.calibrated) == (False, True)
    assert found.calibration.brier.value == pytest.approx(0.01**2)
    assert found.both is not None
    assert found.both.auroc.value == 1
    mixed = presence_of([sure[0], *made[1:]]).calibration
    assert mixed is not None
    assert not mixed.calibrated


def test_without_absent_phrases_nothing_is_pretended() -> None:
    found = presence_of([r for r in records() if r.present])
    assert found.both is None
    assert found.calibration is None
    assert found.curve.thresholds == []
    assert presence_of([]).categories == {}
