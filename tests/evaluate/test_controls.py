"""Controls: what they know, and what they must not know."""

from __future__ import annotations

import numpy as np
import pytest

from cxrg.evaluate import controls as c
from cxrg.evaluate.metrics import heatmaps as m
from cxrg.geometry import Box

SHAPE = (64, 64)
LEFT, RIGHT = Box(40, 20, 56, 40), Box(8, 20, 24, 40)


def test_uniform_scores_chance_in_every_family() -> None:
    scores = m.score_heatmap(c.uniform(SHAPE), [LEFT])
    share = 16 * 20 / 64**2
    assert scores["miou"] == pytest.approx(share)
    assert scores["pointing_game"] == pytest.approx(share)
    assert scores["auc_roc"] == 0.5
    assert scores["auc_roc_binned5"] == 0.5
    assert scores["cnr"] == 0


def test_centre_gaussian_is_symmetric_and_scaled_to_the_image() -> None:
    tall = c.centre_gaussian((81, 41))
    assert divmod(int(tall.argmax()), tall.shape[1]) == (40, 20)
    assert tall.max() == 1
    np.testing.assert_allclose(tall, tall[::-1, ::-1], atol=1e-6)
    # One sigma is a quarter of the height: exp(-1/2) there.
    assert c.centre_gaussian((400, 4))[300, 1] == pytest.approx(np.exp(-0.5), abs=0.08)


def test_lung_boxes_lie_on_both_sides_of_the_middle() -> None:
    lungs = c.lung_boxes((100, 100))
    assert lungs[50, 20] == lungs[50, 80] == 1
    assert lungs[50, 50] == lungs[5, 20] == lungs[95, 80] == 0


def test_mean_box_leaves_out_the_whole_patient() -> None:
    prior = c.MeanBox()
    prior.add("p1", "Nodule", "left", [LEFT], SHAPE)
    prior.add("p1", "Nodule", "left", [LEFT], SHAPE)
    prior.add("p2", "Nodule", "right", [RIGHT], SHAPE)
    own = prior.heatmap("p1", "Nodule", None, SHAPE)
    np.testing.assert_allclose(own, m.box_mask([RIGHT], SHAPE), atol=1e-6)
    assert prior.others("p1", "Nodule") == 1
    assert prior.others("p3", "Nodule") == 3


def test_mean_box_of_a_side_falls_back_to_category_then_uniform() -> None:
    prior = c.MeanBox()
    prior.add("p1", "Nodule", "left", [LEFT], SHAPE)
    prior.add("p2", "Nodule", "right", [RIGHT], SHAPE)
    sided = prior.heatmap("p3", "Nodule", "left", SHAPE)
    np.testing.assert_allclose(sided, m.box_mask([LEFT], SHAPE), atol=1e-6)
    fallback = prior.heatmap("p1", "Nodule", "left", SHAPE)
    np.testing.assert_allclose(fallback, m.box_mask([RIGHT], SHAPE), atol=1e-6)
    np.testing.assert_array_equal(prior.heatmap("p1", "Mass", "left", SHAPE), c.uniform(SHAPE))


def test_mean_box_counts_images_of_different_size_alike() -> None:
    prior = c.MeanBox()
    prior.add("p1", "Nodule", None, [Box(0, 0, 32, 64)], SHAPE)
    prior.add("p2", "Nodule", None, [Box(0, 0, 100, 400)], (400, 200))
    both = prior.heatmap("p3", "Nodule", None, (100, 100))
    assert both[:, :48].min() == pytest.approx(1)
    assert both[:, 52:].max() == pytest.approx(0)
    mask = m.box_mask([Box(0, 0, 32, 64)], SHAPE)
    masked = c.MeanBox()
    masked.add("p1", "Nodule", None, mask, SHAPE)
    np.testing.assert_allclose(masked.heatmap("p3", "Nodule", None, (100, 100)), both, atol=1e-6)


def test_map_control_by_name() -> None:
    prior = c.MeanBox()
    prior.add("p2", "Nodule", "left", [LEFT], SHAPE)
    prior.add("p2", "Nodule", "right", [RIGHT], SHAPE)
    maps = {
        name: c.map_control(name, SHAPE, prior, owner="p1", category="Nodule", side="left")
        for name in c.MAP_CONTROLS
    }
    assert m.iou(maps["mean_box_side"] > 0.5, m.box_mask([LEFT], SHAPE)) == 1
    assert m.iou(maps["mean_box"] > 0.5, m.box_mask([LEFT, RIGHT], SHAPE)) == 1
    assert len({value.tobytes() for value in maps.values()}) == len(maps)


def test_shuffled_phrases_come_from_another_owner_and_differ() -> None:
    phrases = ["left effusion", "left effusion", "nodule", "Cardiomegaly", "nodule"] * 20
    owners = [f"p{i // 2}" for i in range(100)]
    drawn = c.shuffled_phrases(phrases, owners, seed=3)
    assert all(a.lower() != b.lower() for a, b in zip(phrases, drawn, strict=True))
    assert set(drawn) == set(phrases)
    assert drawn == c.shuffled_phrases(phrases, owners, seed=3)
    assert drawn != c.shuffled_phrases(phrases, owners, seed=4)


def test_shuffled_phrases_are_not_of_the_same_patient() -> None:
    phrases = [f"finding {i}" for i in range(60)]
    owners = [f"p{i // 20}" for i in range(60)]
    drawn = c.shuffled_phrases(phrases, owners)
    owner_of = dict(zip(phrases, owners, strict=True))
    assert all(owner_of[text] != owner for text, owner in zip(drawn, owners, strict=True))


def test_shuffled_phrases_when_there_is_no_other() -> None:
    assert c.shuffled_phrases(["a", "A "], ["1", "2"]) == ["a", "A "]
    assert c.shuffled_phrases(["a", "b"], ["1", "1"]) == ["b", "a"]
