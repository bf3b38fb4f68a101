"""Set metrics: matching against all assignments, average precision against its definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from cxrg.evaluate.metrics import boxes as sets
from cxrg.geometry import Box

A, B, C = Box(0, 0, 10, 10), Box(20, 0, 30, 10), Box(40, 0, 50, 10)


def test_matching_maximises_the_sum_not_the_first_come() -> None:
    # A greedy match would give the first prediction its best (A) and leave the second with nothing.
    wide, narrow = Box(0, 0, 18, 10), Box(0, 0, 9, 10)
    truth = [A, Box(9, 0, 19, 10)]
    greedy = wide.iou(A) + narrow.iou(truth[1])
    assert sum(sets.match([wide, narrow], truth)) > greedy
    assert sets.count([wide, narrow], truth, 0.45) == (2, 0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_matching_against_all_assignments(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(count: int) -> list[Box]:
        corners = rng.random((count, 4)) * 10
        return [Box(x, y, x + 1 + w, y + 1 + h) for x, y, w, h in corners]

    predicted, truth = draw(3), draw(4)
    best = max(
        sum(p.iou(t) for p, t in zip(predicted, order, strict=True))
        for order in itertools.permutations(truth, 3)
    )
    assert sum(sets.match(predicted, truth)) == pytest.approx(best)


def test_f1_of_zero_one_and_many() -> None:
    near = Box(0, 0, 10, 6)  # IoU .6 with A
    assert sets.count([near, C], [A, B], 0.5) == (1, 1, 1)
    assert sets.count([near], [A], 0.7) == (0, 1, 1)
    assert sets.count([], [A], 0.3) == (0, 0, 1)
    assert sets.count([A], [], 0.3) == (0, 1, 0)
    assert sets.f1([sets.Counts(1, 1, 1), sets.Counts(1, 0, 0)]) == pytest.approx(4 / 6)
    assert math.isnan(sets.f1([sets.Counts(0, 0, 0)]))
    assert math.isnan(sets.f1([]))


def scored(box: Box, score: float | None) -> Box:
    return Box(box.x0, box.y0, box.x1, box.y1, score)


def test_average_precision_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    # By falling score: hit, miss, hit. Two true boxes: precision 1 up to recall .5 (51 of 101
    # recall points), then 2/3.
    result = sets.average_precision(
        [[scored(A, 0.9)], [scored(C, 0.8), scored(B, 0.7)]], [[A], [B]]
    )
    assert result["ap50"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert result["ap"] == pytest.approx(result["ap50"]), "the hits are exact at every IoU"
    assert capsys.readouterr().out == ""


def test_average_precision_counts_boxes_on_negatives_and_loose_boxes() -> None:
    clean = sets.average_precision([[scored(A, 0.5)], []], [[A], []])
    false = sets.average_precision([[scored(A, 0.5)], [scored(C, 0.9)]], [[A], []])
    assert clean["ap50"] == pytest.approx(1)
    assert false["ap50"] == pytest.approx(0.5)
    loose = sets.average_precision([[scored(Box(0, 0, 10, 6.2), None)]], [[A]])
    assert loose["ap50"] == pytest.approx(1)
    assert loose["ap"] == pytest.approx(0.3), "an IoU of .62 passes .50, .55 and .60 of ten"


def test_average_precision_without_boxes() -> None:
    assert sets.average_precision([[]], [[A]]) == {"ap": 0, "ap50": 0}
    assert math.isnan(sets.average_precision([[A]], [[]])["ap"])
