"""Boxes against rasters, the frame against block means, ramps and planted blobs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from cxrg.errors import UsageError
from cxrg.geometry import Box, Frame


def raster(box: Box, side: int = 20) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
    return mask


def test_iou_is_that_of_rasters() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 12, (60, 4))
    boxes = [Box(x, y, x + w, y + h) for x, y, w, h in corners % 8]
    for one, two in pairwise(boxes):
        a, b = raster(one), raster(two)
        union = (a | b).sum()
        expected = (a & b).sum() / union if union else 0.0
        assert one.iou(two) == pytest.approx(expected)


def test_boxes_that_only_touch_do_not_overlap() -> None:
    assert Box(0, 0, 4, 4).intersection(Box(4, 0, 8, 4)) is None


def test_intersection_keeps_the_score_of_the_first() -> None:
    assert Box(0, 0, 4, 4, 0.7).intersection(Box(2, 1, 8, 3, 0.1)) == Box(2, 1, 4, 3, 0.7)


@pytest.mark.parametrize(
    ("how", "aspect", "crop"),
    [
        # 100 rows, 200 columns.
        ("pad", 1.0, Box(0, -50, 200, 150)),
        ("crop", 1.0, Box(50, 0, 150, 100)),
        # Rows four times as far apart as columns: the plane is 400 tall, 200 wide.
        ("pad", 4.0, Box(-100, 0, 300, 100)),
        ("crop", 4.0, Box(0, 25, 200, 75)),
        # Rows twice as far apart: the plane is square.
        ("pad", 2.0, Box(0, 0, 200, 100)),
        ("crop", 2.0, Box(0, 0, 200, 100)),
    ],
)
def test_fit_lays_the_square_over_the_middle(how: str, aspect: float, crop: Box) -> None:
    assert Frame.fit((100, 200), 64, how, aspect).crop == crop  # type: ignore[arg-type]


def test_fit_refuses_other_words() -> None:
    with pytest.raises(UsageError, match="use pad or crop"):
        Frame.fit((10, 10), 8, "stretch")  # type: ignore[arg-type]


def test_box_goes_to_the_source_and_back() -> None:
    frame = Frame.fit((300, 200), 100, "pad")
    # 3 source pixels per canonical one; the square begins at x = -50.
    assert frame.to_source(Box(20, 10, 40, 30, 0.5)) == Box(10, 30, 70, 90, 0.5)
    back = frame.to_canonical(Box(10, 30, 70, 90, 0.5))
    assert back is not None
    np.testing.assert_allclose((back.x0, back.y0, back.x1, back.y1), (20, 10, 40, 30))
    assert back.score == 0.5


def test_box_is_clipped_to_the_image_and_to_the_square() -> None:
    padded = Frame.fit((300, 200), 100, "pad")
    assert padded.to_source(Box(0, 0, 100, 100)) == Box(0, 0, 200, 300)
    assert padded.to_source(Box(0, 0, 10, 100)) is None
    cropped = Frame.fit((300, 200), 100, "crop")
    assert cropped.to_canonical(Box(0, 0, 200, 300)) == Box(0, 0, 100, 100)
    assert cropped.to_canonical(Box(0, 0, 200, 40)) is None


def test_box_of_non_square_pixels() -> None:
    frame = Frame.fit((100, 200), 100, "pad", 2.0)
    assert frame.to_source(Box(10, 10, 20, 20)) == Box(20, 10, 40, 20)


def test_sample_leaves_an_image_of_the_right_size_alone() -> None:
    image = np.random.default_rng(1).random((64, 64), dtype=np.float32)
    np.testing.assert_array_equal(Frame.fit((64, 64), 64, "pad").sample(image), image)


def test_sample_averages_blocks() -> None:
    image = np.random.default_rng(2).random((96, 192), dtype=np.float32)
    square = Frame.fit((96, 192), 32, "crop").sample(image)
    middle = image[:, 48:144].reshape(32, 3, 32, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(square, middle, atol=1e-6)


def test_sample_averages_blocks_of_non_square_pixels() -> None:
    image = np.random.default_rng(3).random((64, 128), dtype=np.float32)
    square = Frame.fit((64, 128), 32, "pad", 2.0).sample(image)
    blocks = image.reshape(32, 2, 32, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(square, blocks, atol=1e-6)


def test_sample_fills_the_margins() -> None:
    square = Frame.fit((64, 32), 64, "pad").sample(np.ones((64, 32), np.float32), fill=0.25)
    np.testing.assert_array_equal(square[:, 16:48], 1.0)
    np.testing.assert_array_equal(square[:, :16], 0.25)
    np.testing.assert_array_equal(square[:, 48:], 0.25)


@pytest.mark.parametrize("how", ["pad", "crop"])
@pytest.mark.parametrize("source", [(301, 201), (97, 160), (40, 40)])
@pytest.mark.parametrize("aspect", [1.0, 1.5])
def test_sample_and_box_agree_where_a_blob_is(
    how: str, source: tuple[int, int], aspect: float
) -> None:
    frame = Frame.fit(source, 64, how, aspect)  # type: ignore[arg-type]
    y, x = np.mgrid[: source[0], : source[1]] + 0.5
    cx, cy = 0.55 * source[1], 0.45 * source[0]
    blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (0.04 * min(source)) ** 2))
    square = frame.sample(blob.astype(np.float32))
    v, u = np.mgrid[:64, :64] + 0.5
    found = (u * square).sum() / square.sum(), (v * square).sum() / square.sum()
    expected = frame.to_canonical(Box(cx - 0.5, cy - 0.5, cx + 0.5, cy + 0.5))
    assert expected is not None
    middle = (expected.x0 + expected.x1) / 2, (expected.y0 + expected.y1) / 2
    np.testing.assert_allclose(found, middle, atol=0.1)


@pytest.mark.parametrize("how", ["pad", "crop"])
@pytest.mark.parametrize("aspect", [1.0, 2.0])
def test_restore_of_a_ramp_is_the_ramp_in_source_pixels(how: str, aspect: float) -> None:
    frame = Frame.fit((250, 180), 50, how, aspect)  # type: ignore[arg-type]
    u = np.tile(np.arange(50, dtype=np.float32) + 0.5, (50, 1))
    sx, sy = frame.scale
    for square, start, scale, axis in ((u, frame.crop.x0, sx, 1), (u.T, frame.crop.y0, sy, 0)):
        centres = np.arange((250, 180)[axis]) + 0.5
        expected = (centres - start) / scale
        full = frame.restore(square)
        line = full[125] if axis else full[:, 90]
        # Half a canonical pixel at the rim is held constant, since nothing lies beyond it.
        inner = (expected > 0.5) & (expected < 49.5)
        np.testing.assert_allclose(line[inner], expected[inner], atol=0.02)


def test_restore_is_nan_where_the_model_never_looked() -> None:
    full = Frame.fit((30, 50), 10, "crop").restore(np.ones((10, 10), np.float32))
    assert full.shape == (30, 50)
    assert full.dtype == np.float32
    assert np.isnan(full[:, :10]).all()
    assert np.isnan(full[:, 40:]).all()
    np.testing.assert_array_equal(full[:, 10:40], 1.0)


def test_restore_sees_everything_of_a_padded_image() -> None:
    full = Frame.fit((31, 50), 16, "pad").restore(np.ones((16, 16), np.float32))
    np.testing.assert_array_equal(full, np.ones((31, 50), np.float32))
