"""Phantoms: the truth that comes with a picture must be the truth about that picture."""

from __future__ import annotations

import numpy as np
import pytest

from cxrg.chest.lung import ZONES, extent
from cxrg.chest.regions import regions
from cxrg.phantom import findings, queries, sample
from cxrg.phantom.findings import ONE_SIDED, Chest, Finding, bounding
from cxrg.phantom.language import Query
from cxrg.phantom.sample import Phantom

SIDE = 96


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [sample.render(seed, side=SIDE) for seed in range(24)]


def healthy(side: int = SIDE) -> Chest:
    """A chest of two plain dark boxes in a bright body."""
    image = np.full((side, side), 0.9, np.float32)
    right, left = np.zeros((side, side), bool), np.zeros((side, side), bool)
    right[10:80, 12:40] = True
    left[10:80, 56:84] = True
    image[right | left] = 0.2
    middle = np.zeros((side, side), bool)
    middle[20:80, 42:54] = True
    masks = {"right lung": right, "left lung": left, "heart and mediastinum": middle}
    return Chest(image=image, regions=regions(masks))


def test_the_same_seed_gives_the_same_phantom_and_another_seed_another() -> None:
    one, same, other = (sample.render(s, side=64) for s in (5, 5, 6))
    np.testing.assert_array_equal(one.image, same.image)
    assert [f.kind for f in one.findings] == [f.kind for f in same.findings]
    assert not np.array_equal(one.image, other.image)


def test_images_are_grey_in_unit_range_and_use_it(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        assert phantom.image.dtype == np.float32
        assert phantom.image.shape == (SIDE, SIDE)
        assert phantom.image.min() >= 0
        assert phantom.image.max() <= 1
        assert phantom.image.std() > 0.05


def test_left_is_the_right_side_of_the_picture(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        columns = {s: np.nonzero(phantom.regions[f"{s} lung"])[1].mean() for s in ("left", "right")}
        assert columns["right"] < columns["left"]
        for finding in phantom.findings:
            if finding.side is not None and finding.kind in ONE_SIDED:
                inside = phantom.regions[f"{finding.side} lung"]
                other = "left" if finding.side == "right" else "right"
                wrong = (finding.mask & phantom.regions[f"{other} lung"]).sum()
                assert (finding.mask & inside).sum() > 5 * wrong


def test_zones_of_a_lung_are_its_thirds() -> None:
    named = healthy().regions
    lung = named["left lung"]
    thirds = [named[f"left {zone}"] for zone in ("upper", "mid", "lower")]
    assert np.array_equal(sum(t.astype(int) for t in thirds), lung.astype(int))
    for third, top in zip(thirds, (10, 10 + 70 / 3, 10 + 140 / 3), strict=True):
        box = extent(third)
        assert box is not None
        assert box[1] == pytest.approx(top, abs=1)
        assert box[3] - box[1] == pytest.approx(70 / 3, abs=1)
    assert set(ZONES) == {"upper", "mid", "lower", "apical", "basal"}


def test_costophrenic_angle_is_lateral_and_hilum_medial() -> None:
    named = healthy().regions
    for side, lateral in (("right", np.less), ("left", np.greater)):
        angle = np.nonzero(named[f"{side} costophrenic angle"])[1].mean()
        hilum = np.nonzero(named[f"{side} hilum"])[1].mean()
        assert lateral(angle, hilum)


@pytest.mark.parametrize("kind", sorted(ONE_SIDED))
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_finding_changes_the_image_where_its_mask_is(kind: str, side: str) -> None:
    drawn = 0
    for seed in range(6):
        chest = healthy()
        image, found = ONE_SIDED[kind][0](np.random.default_rng(seed), chest, side, kind)
        if found is None:
            np.testing.assert_array_equal(image, chest.image)
            continue
        drawn += 1
        change = np.abs(image - chest.image)
        assert change[found.mask].mean() > 3 * change[~found.mask].mean()
        assert found.side == side
        assert (found.mask & chest.regions[f"{side} lung"]).sum() > 0.5 * found.mask.sum()
    assert drawn >= 4


def test_opacities_brighten_and_pneumothorax_darkens() -> None:
    rng = np.random.default_rng(3)
    chest = healthy()
    for draw, kind, sign in (
        (findings.draw_opacity, "consolidation", 1),
        (findings.draw_effusion, "pleural effusion", 1),
        (findings.draw_pneumothorax, "pneumothorax", -1),
    ):
        image, found = draw(rng, chest, "left", kind)
        assert found is not None
        inside = found.mask & chest.regions["left lung"]
        assert sign * float((image - chest.image)[inside].mean()) > 0


def two(kind: str, right: str | None, left: str | None) -> Phantom:
    """One finding of a kind in each lung, in the zones given."""
    chest = healthy()
    found = tuple(
        Finding(kind=kind, side=side, zone=zone, size="small", mask=chest.regions[f"{side} {zone}"])
        for side, zone in (("right", right), ("left", left))
        if zone is not None
    )
    return Phantom(image=chest.image, regions=chest.regions, findings=found)


def test_a_query_is_answered_by_every_finding_that_it_describes() -> None:
    phantom = two("consolidation", "upper", "lower")
    right, left = (f.mask for f in phantom.findings)
    expected = {
        Query("opacity"): right | left,
        Query("consolidation", "left"): left,
        Query("opacity", "right", "upper"): right,
        Query("opacity", "bilateral"): right | left,
        Query("opacity", None, "lower"): left,
    }
    for query, mask in expected.items():
        np.testing.assert_array_equal(queries.answer(phantom, query).mask, mask)


@pytest.mark.parametrize(
    "query",
    [
        Query("opacity", "left", "upper"),
        Query("pneumothorax"),
        Query("ground-glass opacity", "left"),
        Query("nodule", "right"),
    ],
)
def test_a_query_about_something_else_has_an_empty_answer(query: Query) -> None:
    assert not queries.answer(two("consolidation", "upper", "lower"), query).mask.any()


def test_bilateral_needs_both_sides() -> None:
    phantom = two("consolidation", None, "lower")
    assert not queries.answer(phantom, Query("opacity", "bilateral")).mask.any()


def test_absent_queries_are_absent_and_present_ones_present(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        rng = np.random.default_rng(0)
        assert all(not a.mask.any() for a in queries.absent(phantom, rng, 4))
        assert all(a.mask.any() for a in queries.present(phantom))
        names = {a.query.concept for a in queries.anatomy(phantom)}
        assert {"lung", "airways", "heart and mediastinum"} <= names


def test_bounding_fills_the_boxes_of_large_parts_and_drops_specks() -> None:
    mask = np.zeros((40, 40), bool)
    mask[5:15, 5] = mask[14, 5:15] = True
    mask[30:38, 30:38] = True
    mask[0, 39] = True
    expected = np.zeros((40, 40), bool)
    expected[5:15, 5:15] = True
    expected[30:38, 30:38] = True
    np.testing.assert_array_equal(bounding(mask), expected)
