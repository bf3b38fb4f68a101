"""Averages by hand; resampling against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxrg.evaluate.metrics import bootstrap as a

NAN = float("nan")


def test_micro_and_macro_differ_by_hand() -> None:
    values = np.array([1.0, 0, 0, 0, NAN])
    draw = a.Resampling.of(["p1", "p2", "p3", "p4", "p5"])
    summary = a.summarise(values, ["x", "y", "y", "y", "y"], draw)
    assert summary.micro.value == 0.25
    assert (summary.micro.n, summary.micro.undefined) == (4, 1)
    assert summary.macro.value == 0.5
    assert summary.macro_sd == pytest.approx(math.sqrt(0.5))
    assert {name: part.value for name, part in summary.categories.items()} == {"x": 1, "y": 0}
    assert summary.categories["y"].undefined == 1


def test_all_undefined_is_nan_not_zero() -> None:
    summary = a.summarise(np.array([NAN, NAN]), ["x", "y"], a.Resampling.of(["p", "q"]))
    assert math.isnan(summary.micro.value)
    assert math.isnan(summary.macro.low)
    assert summary.macro.undefined == 2


def test_resampling_draws_patients_with_all_their_samples() -> None:
    rng = np.random.default_rng(0)
    patients = [f"p{i}" for i in rng.integers(0, 7, 40)]
    values = rng.random(40)
    values[3] = NAN
    draw = a.Resampling.of(patients, seed=5, resamples=20)
    names = sorted(set(patients))
    for row, mean in zip(draw.weights, draw.mean(values), strict=True):
        repeated = [
            value
            for name, times in zip(names, row.astype(int), strict=True)
            for value, owner in zip(values, patients, strict=True)
            if owner == name
            for _ in range(times)
            if not math.isnan(value)
        ]
        assert row.sum() == len(names)
        assert mean == pytest.approx(np.mean(repeated))


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        values = rng.normal(0.5, 1, 60)
        part = a.mean_of(values, a.Resampling.of([str(i) for i in range(60)], seed=trial))
        covered += part.low <= 0.5 <= part.high
    assert 0.89 <= covered / 200 <= 0.99


def test_samples_of_one_patient_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(2).random(10), 10)
    apart = a.mean_of(values, a.Resampling.of([str(i) for i in range(100)]))
    joined = a.mean_of(values, a.Resampling.of([str(i // 10) for i in range(100)]))
    assert joined.high - joined.low > 2 * (apart.high - apart.low)


def test_auc_of_resamples_against_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    patients = [f"p{i}" for i in rng.integers(0, 12, 60)]
    scores = np.round(rng.random(60), 1)
    there = rng.random(60) < 0.5
    draw = a.Resampling.of(patients, resamples=15)
    times = draw.weights[:, draw.patients]
    for weights, auc in zip(times, draw.auc(scores, there), strict=True):
        assert auc == pytest.approx(roc_auc_score(there, scores, sample_weight=weights))


def test_size_bins() -> None:
    assert [a.size_bin(x) for x in (0.0099, 0.01, 0.0499, 0.05, 0.15, 0.9)] == [
        "below 1 %",
        "1 to 5 %",
        "1 to 5 %",
        "5 to 15 %",
        "above 15 %",
        "above 15 %",
    ]


def test_paired_difference_is_tighter_than_its_parts() -> None:
    rng = np.random.default_rng(4)
    base = rng.random(50)
    draw = a.Resampling.of([str(i) for i in range(50)])
    gain = a.difference(base + 0.01 + rng.normal(0, 0.001, 50), base, draw)
    assert a.above(gain)
    assert not a.above(a.difference(base, base, draw))
    assert not a.above(a.mean_of(np.array([NAN]), a.Resampling.of(["p"])))
