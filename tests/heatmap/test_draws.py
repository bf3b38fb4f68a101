"""Spread over noise draws, on planted maps."""

from __future__ import annotations

import numpy as np
import pytest

from cxrg.attention.watch import AttentionMaps
from cxrg.geometry import Box, Frame
from cxrg.heatmap.draws import BoxDraws, compare_draws
from cxrg.options import Options

SIDE = 64
FRAME = Frame.fit((128, 128), SIDE, "pad")
OPTIONS = Options(
    preset="fast", path="noise", sigma=0.0, threshold=0.4, normalise="final", absent_below=0.2
)


def planted(x0: int, value: float) -> np.ndarray:
    """A map with one rectangle, 16 wide and 20 high, from (x0, 8)."""
    heat = np.zeros((SIDE, SIDE), np.float32)
    heat[8:28, x0 : x0 + 16] = value
    return heat


def maps(*draws: np.ndarray, timesteps: int = 2) -> AttentionMaps:
    """Draws of which all timesteps are alike, in the order in which they are read."""
    every = np.stack([*draws] * timesteps)
    return AttentionMaps(layers={"a": every}, timesteps=(100,) * len(every))


def test_each_draw_gives_a_score_and_each_box_an_interval() -> None:
    # Overlaps with the box from 20 on: all, 12 of 16 columns (IoU .6), 4 of 16 (.14), and a draw
    # whose score is below the limit.
    several = maps(planted(20, 0.8), planted(24, 0.6), planted(32, 0.5), planted(20, 0.1))
    box = Box(40, 16, 72, 56)  # in source pixels, which are half as large
    result = compare_draws(several, FRAME, OPTIONS, [box], count=4, marks=True, least=0.2)
    assert result is not None
    assert result.scores == pytest.approx((0.8, 0.6, 0.5, 0.1), abs=1e-6)
    assert (result.minimum, result.maximum) == pytest.approx((0.1, 0.8), abs=1e-6)
    assert result.mean == pytest.approx(0.5, abs=1e-6)
    assert result.found == 3
    (spread,) = result.boxes
    assert spread == BoxDraws(agree=2, x0=(40, 48), y0=(16, 16), x1=(72, 80), y1=(56, 56))


def test_a_box_without_a_draw_that_agrees_has_no_interval() -> None:
    three = maps(*[planted(20, 0.8)] * 3)
    result = compare_draws(
        three, FRAME, OPTIONS, [Box(0, 90, 20, 120)], count=3, marks=True, least=0.2
    )
    assert result is not None
    assert result.boxes == (BoxDraws(agree=0),)


def test_the_nearest_box_of_a_draw_is_compared() -> None:
    both = planted(4, 0.8) + planted(36, 0.9)
    result = compare_draws(maps(both, both, both), FRAME, OPTIONS, [Box(8, 16, 40, 56)], count=3,
                           marks=True, least=0.2)  # fmt: skip
    assert result is not None
    assert result.boxes[0] == BoxDraws(agree=3, x0=(8, 8), y0=(16, 16), x1=(40, 40), y1=(56, 56))


def test_where_nothing_is_marked_no_draw_has_a_box() -> None:
    three = maps(*[planted(20, 0.8)] * 3)
    result = compare_draws(three, FRAME, OPTIONS, [], count=3, marks=False, least=0.2)
    assert result is not None
    assert (result.found, result.boxes) == (0, ())


@pytest.mark.parametrize("count", [1, 2])
def test_few_draws_give_no_spread(count: int) -> None:
    some = maps(*[planted(20, 0.8)] * count)
    assert compare_draws(some, FRAME, OPTIONS, [], count=count, marks=True, least=0.2) is None
