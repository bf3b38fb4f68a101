"""Metrics against hand-worked 4x4 arrays, brute force, and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

from cxrg.errors import UsageError
from cxrg.evaluate.metrics import heatmaps as m
from cxrg.geometry import Box
from cxrg.heatmap.mixture import mask_of_seen, mixture_threshold

# Two boxes: A the 2x2 at the top left, B the single pixel at the bottom right.
A, B = Box(0, 0, 2, 2), Box(3, 3, 4, 4)
H = np.array(
    [
        [0.9, 0.7, 0.1, 0.0],
        [0.5, 0.3, 0.1, 0.0],
        [0.2, 0.2, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.6],
    ],
    dtype=np.float32,
)
NAN = float("nan")


def noisy(seed: int, shape: tuple[int, int] = (13, 17)) -> tuple[np.ndarray, np.ndarray]:
    """A coarse random map (many ties) and a random mask."""
    rng = np.random.default_rng(seed)
    return np.round(rng.random(shape), 1).astype(np.float32), rng.random(shape) < 0.3


def test_box_mask_is_half_open_and_keeps_small_boxes() -> None:
    assert m.box_mask([A, B], (4, 4)).astype(int).tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 1],
    ]
    assert np.argwhere(m.box_mask([Box(1.6, 2.6, 1.9, 2.9)], (4, 4))).tolist() == [[2, 1]]
    assert np.argwhere(m.box_mask([Box(0.5, 0.6, 2.5, 1.6)], (4, 4))).tolist() == [[1, 0], [1, 1]]
    assert not m.box_mask([Box(4, 0, 6, 2), Box(-3, 0, 0, 2)], (4, 4)).any()


def test_miou_by_hand() -> None:
    # truth has 5 pixels. h > .1: .9 .7 .5 .3 .2 .2 .6 -> 7 predicted (.1 itself is not above),
    # 5 hits, union 7. > .2: 5 of 5. > .3: 4 of 5. > .4: 4 of 5. > .5: 3 of 5.
    h = H
    expected = (5 / 7 + 1 + 4 / 5 + 4 / 5 + 3 / 5) / 5
    assert m.miou(h, [A, B]) == pytest.approx(expected)
    assert m.miou(h, [B, A]) == pytest.approx(expected)


def test_miou_counts_blanks_as_not_predicted() -> None:
    h = H.copy()
    h[3, 3] = NAN
    # Without the .6 every threshold has one hit fewer and the same five truth pixels.
    assert m.miou(h, [A, B]) == pytest.approx((4 / 7 + 4 / 5 + 3 / 5 + 3 / 5 + 2 / 5) / 5)


def test_miou_of_empty_and_full() -> None:
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    assert m.miou(np.zeros((4, 4)), empty) == 0
    assert m.miou(H, empty) == 0
    assert m.miou(np.zeros((4, 4)), full) == 0
    assert m.miou(np.ones((4, 4)), full) == 1


def test_cnr_union_by_hand() -> None:
    inside = [0.9, 0.7, 0.5, 0.3, 0.6]  # mean .6, population variance .04
    outside = [0.1, 0, 0.1, 0, 0.2, 0.2, 0, 0, 0, 0, 0]  # mean .6/11, mean square .1/11
    variance_out = 0.1 / 11 - (0.6 / 11) ** 2
    signal = 0.6 - 0.6 / 11
    assert np.var(inside) == pytest.approx(0.04)
    assert np.var(outside) == pytest.approx(variance_out)
    expected = signal / math.sqrt(0.04 + variance_out)
    assert m.cnr(H, [A, B]) == pytest.approx(expected, rel=1e-5)
    assert m.cnr(H, m.box_mask([A, B], (4, 4))) == pytest.approx(expected, rel=1e-5)
    assert m.cnr(1 - H, [A, B]) == pytest.approx(-expected, rel=1e-5)
    assert m.abs_cnr(1 - H, [A, B]) == pytest.approx(expected, rel=1e-5)
    sample = signal / math.sqrt(0.04 * 5 / 4 + variance_out * 11 / 10)
    assert m.cnr(H, [A, B], protocol="v3") == pytest.approx(sample, rel=1e-5)


def cnr_of(inside: np.ndarray, outside: np.ndarray) -> float:
    return float((inside.mean() - outside.mean()) / np.sqrt(inside.var() + outside.var()))


def test_cnr_per_box_and_the_published_leak() -> None:
    h = H.astype(np.float64)
    first, second = m.box_mask([A], (4, 4)), m.box_mask([B], (4, 4))
    a, b = cnr_of(h[first], h[~first]), cnr_of(h[second], h[~second])
    assert m.cnr(h, [A, B], protocol="per_box") == pytest.approx((a + b) / 2)
    assert m.cnr(h, [B, A], protocol="per_box") == pytest.approx((a + b) / 2)
    rest = ~first & ~second
    leaked = (a + cnr_of(h[second], h[rest])) / 2
    other = (b + cnr_of(h[first], h[rest])) / 2
    assert m.cnr(h, [A, B], protocol="v1") == pytest.approx(leaked)
    assert m.cnr(h, [B, A], protocol="v1") == pytest.approx(other)
    assert leaked != pytest.approx(other)


def test_cnr_leak_blanks_an_overlap_inside_too() -> None:
    h = H.astype(np.float64)
    twin = Box(0, 0, 1, 3)  # shares two pixels with A
    only, rest = h[2:3, 0], np.delete(h.ravel(), [0, 1, 4, 5, 8])
    part = cnr_of(h[:2, :2], np.delete(h.ravel(), [0, 1, 4, 5]))
    assert m.cnr(h, [A, twin], protocol="v1") == pytest.approx((part + cnr_of(only, rest)) / 2)
    # A box wholly inside a scored one has no pixel left: undefined, published as 0.
    assert m.cnr(h, [A, Box(0, 0, 1, 1)], protocol="v1") == pytest.approx(part / 2)


def test_abs_cnr_takes_the_size_before_the_mean_over_boxes() -> None:
    h = 1 - H.astype(np.float64)
    h[3, 3] = 1
    parts = [m.cnr(h, [box], protocol="per_box") for box in (A, B)]
    assert parts[0] < 0 < parts[1]
    expected = (abs(parts[0]) + abs(parts[1])) / 2
    assert m.abs_cnr(h, [A, B], protocol="per_box") == pytest.approx(expected)


def test_cnr_v6_is_blind_to_scale_and_zero_where_nothing_varies() -> None:
    assert m.cnr(H * 0.3 + 0.1, [A], protocol="v6") == pytest.approx(
        m.cnr(H, [A], protocol="v6"), rel=1e-4
    )
    for protocol in m.CNR_PROTOCOLS:
        flat = np.full((8, 8), np.float32(0.3))
        assert m.cnr(flat, [A], protocol=protocol) == 0, protocol


def test_cnr_undefined() -> None:
    full = [Box(0, 0, 4, 4)]
    assert math.isnan(m.cnr(H, full))
    assert math.isnan(m.cnr(H, []))
    assert m.cnr(H, full, protocol="v1") == 0
    assert math.isnan(m.cnr(H, [B], protocol="v3")), "one pixel has no sample variance"
    with pytest.raises(UsageError, match="per box"):
        m.cnr(H, np.ones((4, 4), bool), protocol="per_box")
    with pytest.raises(UsageError, match="union"):
        m.cnr(H, [A], protocol="v2")  # type: ignore[arg-type]


def test_blanks_excluded_or_zero() -> None:
    h = H.astype(np.float64)
    h[:, 2:] = NAN  # a crop that never saw the right half: B is out of sight
    mask = m.box_mask([A, B], (4, 4))
    left, truth = h[:, :2], mask[:, :2]
    assert m.cnr(h, [A, B]) == pytest.approx(cnr_of(left[truth], left[~truth]))
    zeroed = np.nan_to_num(h)
    assert m.cnr(h, [A, B], outside="zero") == pytest.approx(cnr_of(zeroed[mask], zeroed[~mask]))
    assert m.auc_roc(h, [A, B]) == 1
    assert m.auc_roc(h, [A, B], outside="zero") == pytest.approx(
        roc_auc_score(mask.ravel(), zeroed.ravel())
    )
    assert m.pointing_game(h, [B]) == 0
    assert m.pointing_game(np.full((4, 4), NAN), [A]) == 0
    assert m.dice(h, [A, B], threshold=0.1) == pytest.approx(2 * 4 / (6 + 4))
    assert m.dice(h, [A, B], threshold=0.1, outside="zero") == pytest.approx(2 * 4 / (6 + 5))
    with pytest.raises(UsageError, match="exclude"):
        m.auc_roc(h, [A], outside="drop")  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_exact(seed: int) -> None:
    h, mask = noisy(seed)
    assert m.auc_roc(h, mask) == pytest.approx(roc_auc_score(mask.ravel(), h.ravel()), abs=1e-12)
    inside, rest = h[mask], h[~mask]
    pairs = (inside[:, None] > rest) + 0.5 * (inside[:, None] == rest)
    assert m.auc_roc(h, mask) == pytest.approx(pairs.mean(), abs=1e-12)


def test_auc_undefined_and_constant() -> None:
    assert math.isnan(m.auc_roc(H, []))
    assert math.isnan(m.auc_roc(H, np.ones((4, 4), bool)))
    assert m.auc_roc(np.full((4, 4), 0.2), [A]) == 0.5


def test_binned_auc_by_hand() -> None:
    # tau 1: (0, 0); .75: tpr 1/5; .5: tpr 4/5 (.9 .7 .5 .6); .25: tpr 1, fpr 0; 0: (1, 1).
    assert m.auc_roc_binned5(H, [A, B]) == pytest.approx(1.0)
    # Truth is the pixel of .1 at (0, 2): tpr is 0 until tau 0, where fpr comes from 5/15 to 1.
    assert m.auc_roc_binned5(H, [Box(2, 0, 3, 1)]) == pytest.approx((1 - 5 / 15) / 2)
    assert math.isnan(m.auc_roc_binned5(H, []))


def test_pointing_game() -> None:
    assert m.pointing_game(H, [A]) == 1
    assert m.pointing_game(H, [B]) == 0
    tied = H.copy()
    tied[3, 3] = tied[0, 0]
    assert m.pointing_game(tied, [A]) == 0.5
    assert m.pointing_game(np.ones((4, 4)), [A]) == pytest.approx(4 / 16)


def test_dice() -> None:
    # h > .5: .9 .7 .6, all in the truth of five.
    assert m.dice(H, [A, B]) == pytest.approx(2 * 3 / (3 + 5))
    assert m.dice(np.zeros((4, 4)), []) == 0
    assert m.dice(np.ones((4, 4)), np.ones((4, 4), bool)) == 1


def test_box_iou() -> None:
    assert m.box_iou([Box(0, 0, 2, 4), B], [A, B]) == pytest.approx((0.5 + 1) / 2)
    assert m.box_iou([], [A]) == 0
    assert math.isnan(m.box_iou([A], []))


@pytest.mark.parametrize("seed", range(3))
def test_miou_and_dice_against_sets(seed: int) -> None:
    h, mask = noisy(seed)
    truth = {tuple(p) for p in np.argwhere(mask)}
    parts = []
    for tau in m.MIOU_THRESHOLDS:
        found = {tuple(p) for p in np.argwhere(h > tau)}
        parts.append(len(found & truth) / len(found | truth))
    assert m.miou(h, mask) == pytest.approx(np.mean(parts))
    found = {tuple(p) for p in np.argwhere(h > 0.5)}
    assert m.dice(h, mask) == pytest.approx(2 * len(found & truth) / (len(found) + len(truth)))


@pytest.mark.parametrize("seed", range(3))
def test_mixture_threshold_agrees_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(0.2, 0.05, 3000), rng.normal(0.7, 0.1, 1096)])
    mixture = GaussianMixture(2, random_state=0).fit(values[:, None])
    assert mixture_threshold(values) == pytest.approx(mixture.means_.mean(), abs=2e-3)
    assert mixture_threshold(np.full(9, 0.4)) == 0.4


def test_family_b_rewards_background() -> None:
    # A bright square far from a truth of a tenth of the image: foreground 0, background near .9.
    h = np.zeros((512, 512), np.float32)
    h[:80, :80] = 1
    truth = np.zeros((512, 512), bool)
    truth[-162:, -162:] = True
    shared = 512 * 512 - 80 * 80 - 162 * 162
    assert m.iou_fg_bg(h, truth) == pytest.approx(shared / 512**2 / 2, abs=1e-3)
    truth[:] = h > 0.5
    assert m.iou_fg_bg(h, truth) == pytest.approx(1, abs=1e-2)
    assert m.iou_fg_bg(np.full((64, 64), 0.3), [A]) == 0, "an empty mask makes all 0"


def test_mixture_mask_drops_single_pixels_and_skips_blanks() -> None:
    h = np.zeros((64, 64), np.float32)
    h[30, 10] = 1
    h[10:20, 40:50] = 1
    predicted, seen = mask_of_seen(h)
    assert seen.all()
    assert not predicted[:, :300].any()
    assert predicted[8 * 12 : 8 * 18, 8 * 42 : 8 * 48].all()
    h[:, :32] = NAN
    _, seen = mask_of_seen(h)
    assert seen.sum() == 512 * 256
    _, seen = mask_of_seen(h, outside="zero")
    assert seen.all()


def test_score_heatmap_names_and_shapes() -> None:
    both = m.score_heatmap(H, [A, B])
    assert tuple(both) == m.METRICS
    assert both["cnr"] == m.cnr(H, [A, B])
    masked = m.score_heatmap(H, m.box_mask([A, B], (4, 4)))
    assert set(both) - set(masked) == m.PER_BOX
    assert masked["miou"] == both["miou"]
    assert list(m.score_heatmap(H, [A], names=["miou"])) == ["miou"]
    with pytest.raises(UsageError, match="pointing_game"):
        m.score_heatmap(H, [A], names=["mIoU"])
    with pytest.raises(UsageError, match="one shape"):
        m.miou(H, np.ones((3, 4), bool))
