"""Heatmaps and boxes, each step against numbers worked out another way."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import ndimage

from cxrg.geometry import Box
from cxrg.heatmap.boxes import boxes_from_heatmap, level
from cxrg.heatmap.maps import aggregate, confine, enlarge, scale, smooth
from cxrg.heatmap.presence import peak, presence
from cxrg.heatmap.threshold import fade, mask_background, otsu, suppress


def blob(side: int, y: float, x: float, radius: float, height: float = 1.0) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] + 0.5
    near = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * radius**2))
    return (height * near).astype(np.float32)


def test_scale_works_per_map_and_leaves_constants_at_zero() -> None:
    maps = np.array([[[1, 2], [3, 5]], [[7, 7], [7, 7]]], dtype=np.float32)
    np.testing.assert_allclose(scale(maps)[0], [[0, 0.25], [0.5, 1]])
    np.testing.assert_array_equal(scale(maps)[1], 0)


def test_averaging_before_resizing_equals_resizing_every_map() -> None:
    rng = np.random.default_rng(0)
    sides = {"a": 4, "b": 8}
    layers = {n: rng.random((5, side, side)).astype(np.float32) for n, side in sides.items()}
    every = []
    for layer in layers.values():
        for each in layer:
            scaled = (each - each.min()) / (each.max() - each.min())
            grid = torch.from_numpy(scaled)[None, None]
            every.append(torch.nn.functional.interpolate(grid, size=(96, 96), mode="bilinear"))
    expected = torch.cat(every).mean(0)[0].numpy()
    np.testing.assert_allclose(aggregate(layers, 96, normalise=True), expected, atol=1e-6)
    plain = aggregate(layers, 96)
    assert plain.mean() == pytest.approx(np.mean([m.mean() for m in layers.values()]), abs=1e-2)


@pytest.mark.parametrize("sigma", [0.3, 2.5, 7.0])
def test_smooth_is_a_reflected_gaussian(sigma: float) -> None:
    heat = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    expected = ndimage.gaussian_filter(heat.astype(np.float64), sigma, mode="reflect", truncate=4)
    np.testing.assert_allclose(smooth(heat, sigma), expected, atol=1e-5)
    assert smooth(heat, 0) is heat


def test_margins_take_the_smallest_value_inside() -> None:
    heat = np.arange(16, dtype=np.float32).reshape(4, 4)
    confined = confine(heat, Box(0.4, 0.6, 3.6, 3.4))
    np.testing.assert_array_equal(
        confined, [[4, 4, 4, 4], [4, 5, 6, 7], [8, 9, 10, 11], [4, 4, 4, 4]]
    )


def test_otsu_by_hand() -> None:
    # Bins of 1/256 between 0 and 1; values 0, 0.25 and 1 fall into bins 0, 64 and 255.
    # Splits: {0 | .25, 1}: 4 * 4 * (.001953 - .626953)^2 = 6.25
    #         {0, .25 | 1}: 6 * 2 * (.085286 - .998047)^2 = 9.998, the better one.
    # It holds for any threshold in bins 64..254; the lowest is the centre of bin 64.
    heat = np.array([0, 0, 0, 0, 0.25, 0.25, 1, 1], dtype=np.float32).reshape(2, 4)
    assert otsu(heat) == pytest.approx(64.5 / 256)
    np.testing.assert_array_equal(suppress(heat).ravel(), [0, 0, 0, 0, 0, 0, 1, 1])


def test_fading_keeps_order_and_top_and_halves_about_otsus_threshold() -> None:
    heat = scale(blob(48, 20, 12, 5) + blob(48, 36, 36, 9, 0.5)).astype(np.float32)
    faded, threshold = fade(heat), otsu(heat)
    exact = heat.astype(np.float64) ** 8 / (heat.astype(np.float64) ** 8 + threshold**8)
    np.testing.assert_allclose(faded, exact / exact.max(), atol=1e-6)
    order = np.argsort(heat, axis=None)
    assert (np.diff(faded.ravel()[order]) >= 0).all()
    assert faded.max() == pytest.approx(1)
    assert (mask_background(heat, "soft") == faded).all()
    assert (mask_background(heat, "otsu") == suppress(heat)).all()
    assert mask_background(heat, "none") is heat
    assert (fade(np.zeros((4, 4), np.float32)) == 0).all()


def test_otsu_against_the_definition() -> None:
    heat = scale(blob(48, 20, 12, 5) + blob(48, 36, 36, 9, 0.5))
    bins = np.minimum((heat * 256).astype(int), 255).ravel()
    within = []
    for last in range(255):
        low, high = bins[bins <= last], bins[bins > last]
        within.append(len(low) * low.var() + len(high) * high.var())
    assert otsu(heat) == pytest.approx((int(np.argmin(within)) + 0.5) / 256)


def test_a_constant_map_has_nothing_above_its_threshold() -> None:
    flat = np.full((8, 8), 0.3, dtype=np.float32)
    assert (suppress(flat) == 0).all()
    assert boxes_from_heatmap(flat) == ()


def test_peak_is_the_mean_of_the_highest_values() -> None:
    values = np.array([3, 9, 1, 7], dtype=np.float32)
    assert peak(values, 0.5) == 8
    assert peak(values, 0.0) == 9
    spike = np.zeros((128, 128), dtype=np.float32)
    spike[3, 3] = 1
    # One pixel is no finding: 64 pixels, a cell of a 16 x 16 map, share the score.
    assert presence(spike) == pytest.approx(1 / 64)


def test_levels() -> None:
    heat = np.linspace(0, 1, 101, dtype=np.float32)[None]
    assert level(heat, 0.25) == 0.25
    assert level(heat, "quantile:0.9") == pytest.approx(0.9)
    assert level(heat, "otsu") == otsu(heat)


def test_a_planted_blob_becomes_its_box() -> None:
    heat = blob(128, 40.0, 90.0, 6.0)
    (box,) = boxes_from_heatmap(heat, threshold=0.5)
    # exp(-r^2 / 72) = 0.5 at r = 7.06: pixels whose centres lie closer.
    assert (box.x0, box.y0, box.x1, box.y1) == (83, 33, 97, 47)
    region = heat[heat > 0.5]
    highest = np.sort(region)[::-1][: round(len(region) * 0.1)]
    assert box.score == pytest.approx(float(highest.mean()), abs=1e-6)


def test_boxes_are_sorted_joined_and_large_enough() -> None:
    heat = blob(128, 30, 30, 4, 0.8) + blob(128, 90, 90, 8)
    heat[120, 2] = 0.9
    heat[100:104, 10] = 0.95
    heat[104:108, 11] = 0.95
    boxes = boxes_from_heatmap(heat, threshold=0.5)
    scores: list[Any] = [box.score for box in boxes]
    assert scores == sorted(scores, reverse=True)
    # The two strips touch at a corner and are one region.
    assert Box(10, 100, 12, 108, cast(float, pytest.approx(0.95))) in boxes
    assert len(boxes) == 4
    large = boxes_from_heatmap(heat, threshold=0.5, min_area=20 / 128**2)
    assert len(large) == 2
    assert large[0].x0 < 90 < large[0].x1


def test_nearest_repeats_and_bilinear_does_not() -> None:
    heat = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    np.testing.assert_array_equal(enlarge(heat, 12, "nearest"), np.kron(heat, np.ones((3, 3))))
    assert len(np.unique(enlarge(heat, 12, "bilinear"))) > 16


def test_the_mixtures_mask_makes_one_box_and_hides_the_background() -> None:
    heat = np.maximum(blob(64, 16, 16, 5), blob(64, 48, 40, 5, 0.9)) + np.float32(0.001)
    (box,) = boxes_from_heatmap(heat, threshold="mixture")
    shown = mask_background(heat, "mixture")
    rows, columns = (np.flatnonzero((shown > 0).any(axis)) for axis in (1, 0))
    assert (box.x0, box.y0) == (columns[0], rows[0])
    assert (box.x1, box.y1) == (columns[-1] + 1, rows[-1] + 1)
    assert box.y0 < 16 < 48 < box.y1
    assert (shown == 0).mean() > 0.5
    assert len(boxes_from_heatmap(heat, threshold=0.5)) == 2
    assert boxes_from_heatmap(np.zeros((64, 64), np.float32), threshold="mixture") == ()
    assert boxes_from_heatmap(heat, threshold="mixture", min_area=0.9) == ()
