"""Life-like pictures: projections keep what they project, warps move picture and truth alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrg.chest.regions import regions
from cxrg.errors import InputError
from cxrg.phantom import lifelike, lines, nodules, queries, scene, warps
from cxrg.phantom.devices import DEVICES
from cxrg.phantom.findings import Chest, Finding
from cxrg.phantom.nodules import Crop, draw_nodules, project, random_rotation, read_crops
from cxrg.phantom.sample import Phantom, render

SIDE = 128


def chest(side: int = SIDE) -> Chest:
    """Two dark ellipses with fine texture in a bright body, a heart between them."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    lungs = {
        name: ((x - middle) / 0.15) ** 2 + ((y - 0.45) / 0.32) ** 2 < 1
        for name, middle in (("right lung", 0.28), ("left lung", 0.72))
    }
    heart = ((x - 0.53) / 0.14) ** 2 + ((y - 0.6) / 0.2) ** 2 < 1
    heart &= ~(lungs["right lung"] | lungs["left lung"])
    image = np.full((side, side), 0.8)
    image[lungs["right lung"] | lungs["left lung"]] = 0.25
    image += 0.01 * np.random.default_rng(0).standard_normal(image.shape)
    return Chest(
        image=image.astype(np.float32), regions=regions({**lungs, "heart and mediastinum": heart})
    )


def ball(radius: float = 5.0) -> Crop:
    size = int(2 * radius + 9)
    z, y, x = np.mgrid[:size, :size, :size] - (size - 1) / 2
    mask = z**2 + y**2 + x**2 <= radius**2
    return Crop(excess=mask.astype(np.float32), mask=mask, diameter=2 * radius)


CROPS = (ball(3.0), ball(5.0), ball(10.0))


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.7])
def test_a_projection_holds_all_attenuation_of_the_crop(scale: float) -> None:
    rng = np.random.default_rng(1)
    volume = np.zeros((15, 18, 12), np.float32)
    volume[4:11, 4:14, 4:8] = rng.random((7, 10, 4), np.float32)
    for _ in range(5):
        picture = project(volume, random_rotation(rng), scale)
        assert picture.sum() == pytest.approx(volume.sum(), rel=1e-4)


def test_without_a_turn_a_projection_is_the_sum_along_an_axis() -> None:
    volume = np.zeros((9, 9, 9), np.float32)
    volume[3:6, 2:7, 4] = np.arange(15, dtype=np.float32).reshape(3, 5)
    picture = project(volume, np.eye(3), 1.0)
    plain = np.zeros_like(picture)
    low = (plain.shape[0] - 9) // 2
    # The first axis of the turned frame runs to the right, the second downwards.
    plain[low : low + 9, low : low + 9] = volume.sum(2).T
    expected = cv2.GaussianBlur(plain, (0, 0), 0.45)
    np.testing.assert_allclose(picture, expected, atol=1e-4)


def test_rotations_are_orthogonal_and_mirror_half_of_the_time() -> None:
    rng = np.random.default_rng(2)
    turns = [random_rotation(rng) for _ in range(200)]
    for turn in turns:
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    mirrored = np.mean([np.linalg.det(turn) < 0 for turn in turns])
    assert 0.35 < mirrored < 0.65


def test_crops_are_read_as_they_were_written(tmp_path: Path) -> None:
    masks = [np.zeros(shape, bool) for shape in ((3, 4, 5), (4, 4, 4))]
    masks[0][1, 1:3, 2:4] = masks[1][2, 2, 2] = True
    hu = [np.where(mask, 50, -850).astype(np.int16) for mask in masks]
    path = tmp_path / "n.npz"
    np.savez(
        path,
        shape=np.array([m.shape for m in masks], np.uint8),
        hu=np.concatenate([h.ravel() for h in hu]),
        mask=np.packbits(np.concatenate([m.ravel() for m in masks])),
        diameter_mm=np.array([2.0, 1.0], np.float32),
    )
    crops = read_crops(path)
    for crop, mask in zip(crops, masks, strict=True):
        np.testing.assert_array_equal(crop.mask, mask)
        np.testing.assert_allclose(crop.excess, np.where(mask, 0.9, 0), atol=1e-6)
    assert [crop.diameter for crop in crops] == [2.0, 1.0]
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"n\.npz"):
        read_crops(path)


def test_a_drawn_ball_has_the_outline_of_a_ball_of_its_size() -> None:
    ground = chest(256)
    rng = np.random.default_rng(5)
    areas = []
    for _ in range(40):
        image, found = nodules.draw_nodule(
            rng, ground, CROPS, "nodule", ground.regions["left lung"]
        )
        assert found is not None
        assert found.side == "left"
        change = image - ground.image
        assert change.min() >= 0
        # What was added lies inside the outline but for its soft edge.
        grown = cv2.dilate(found.mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        assert change[~grown].max(initial=0) < 0.25 * change.max()
        rows, columns = np.nonzero(found.mask)
        wide, tall = np.ptp(columns) + 1, np.ptp(rows) + 1
        if min(rows.min(), columns.min()) > 0 and max(rows.max(), columns.max()) < 255:
            areas.append(found.mask.sum() / (np.pi / 4 * wide * tall))
            assert abs(wide - tall) <= 2
    assert np.mean(areas) == pytest.approx(1, abs=0.1)


def test_many_nodules_are_single_findings_on_both_sides() -> None:
    sides, counts = set(), []
    for seed in range(30):
        _, found = draw_nodules(np.random.default_rng(seed), chest(), CROPS, "nodule")
        counts.append(len(found))
        sides |= {each.side for each in found}
    assert min(counts) >= 1
    assert max(counts) >= 6
    assert sides == {"left", "right"}
    _, masses = draw_nodules(np.random.default_rng(3), chest(), CROPS, "mass")
    assert len(masses) <= 2


@pytest.mark.parametrize("kind", list(lifelike.ONE_SIDED))
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_finding_changes_the_picture_where_its_mask_is(kind: str, side: str) -> None:
    draw = lifelike.ONE_SIDED[kind][0]
    ground, seen = chest(), 0
    for seed in range(12):
        image, found = draw(np.random.default_rng(seed), ground, side, kind)
        if found is None:
            assert image is ground.image
            continue
        seen += 1
        change = np.abs(cv2.GaussianBlur(image - ground.image, (0, 0), 1.5))
        assert change[found.mask].mean() > 3 * change[~found.mask].mean()
        half = np.zeros_like(found.mask)
        half[:, : SIDE // 2] = True
        own = half if side == "right" else ~half
        assert (found.mask & own).sum() > 0.9 * found.mask.sum()
    assert seen >= 8


def test_opacities_prefer_the_lower_half_of_the_lung() -> None:
    ground, low = chest(), []
    for seed in range(60):
        _, found = lifelike.draw_opacity(
            np.random.default_rng(seed), ground, ("left", "right")[seed % 2], "consolidation"
        )
        if found is not None:
            # The lungs reach from 13 to 77 % of the picture's height.
            low.append(np.nonzero(found.mask)[0].mean() / SIDE > 0.45)
    assert 0.65 < np.mean(low) < 0.97


def test_what_cannot_be_seen_is_not_called_present() -> None:
    ground = chest()
    lung = ground.regions["left lung"]
    spot = np.zeros_like(ground.image)
    cv2.circle(spot, (92, 60), 9, 1.0, -1)
    least = 0.02
    for strength, visible in ((0.005, False), (0.1, True)):
        after = ground.image + np.float32(strength) * spot
        mask = lifelike.seen(ground.image, after, lung, least)
        assert mask.any() == visible
        if visible:
            truth = spot > 0
            assert (mask & truth).sum() / (mask | truth).sum() > 0.75


@pytest.mark.parametrize("kind", DEVICES)
def test_lines_are_thin_bright_and_inside_their_margin(kind: str) -> None:
    ground = chest(256)
    for seed in range(6):
        image, found = lines.draw_line(np.random.default_rng(seed), ground, kind)
        assert found is not None
        change = image - ground.image
        assert change.min() >= 0
        assert change[~found.mask].max(initial=0) < 0.3 * change.max()
        if kind == "endotracheal tube":
            rows, columns = np.nonzero(found.mask)
            assert rows.min() == 0
            assert abs(columns[rows > rows.max() - 3].mean() - 128) < 16


def test_side_words_swap_with_the_mirror_and_answers_with_them() -> None:
    swap = {"left": "right", "right": "left"}
    for seed in range(12):
        phantom = render(seed, side=64)
        other = warps.mirrored(phantom)
        np.testing.assert_array_equal(other.image, np.fliplr(phantom.image))
        asked = 0
        for answer in queries.present(phantom) + queries.anatomy(phantom):
            query = answer.query
            if query.zone == "retrocardiac":
                continue
            turned = replace(query, side=swap.get(query.side or "", query.side))
            if query.concept in queries._ANATOMY:
                name = queries._ANATOMY[query.concept].format(side=turned.side)
                found = other.regions[name]
            elif query.concept in queries._MIDLINE:
                found = other.regions[query.concept]
            else:
                found = queries.answer(other, turned).mask
            np.testing.assert_array_equal(found, np.fliplr(answer.mask))
            asked += 1
        assert asked > 5
        back = warps.mirrored(other)
        assert [f.side for f in back.findings] == [f.side for f in phantom.findings]
        assert not any(name == "retrocardiac" for name in other.regions)


def test_a_cut_shows_the_same_truth_enlarged() -> None:
    ground = chest()
    mask = np.zeros((SIDE, SIDE), bool)
    mask[40:56, 88:104] = True
    away = np.zeros((SIDE, SIDE), bool)
    away[100:110, 10:20] = True
    found = tuple(
        Finding(kind="nodule", side="left", zone=None, size="small", mask=m) for m in (mask, away)
    )
    phantom = Phantom(image=ground.image, regions=ground.regions, findings=found)
    cut = warps.cropped(phantom, 0.5, 0.25, 0.5)
    assert len(cut.findings) == 1
    rows, columns = np.nonzero(cut.findings[0].mask)
    box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    np.testing.assert_allclose(box, (48, 16, 80, 48), atol=1)
    inner = ground.image[32:96, 64:128]
    shrunk = cv2.resize(cut.image, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(shrunk.ravel(), inner.ravel())[0, 1] > 0.99


def test_a_raised_base_shortens_its_own_lung_only() -> None:
    ground = chest()
    masks = {n: ground.regions[n] for n in ("right lung", "left lung", "heart and mediastinum")}
    image, moved = warps.raise_base(ground.image, masks, "right", 0.15)

    def bottom(name: str, of: dict[str, np.ndarray]) -> int:
        return int(np.flatnonzero(of[name].any(1))[-1])

    tall = np.ptp(np.flatnonzero(masks["right lung"].any(1)))
    assert bottom("right lung", masks) - bottom("right lung", moved) == pytest.approx(
        0.15 * tall, abs=3
    )
    assert bottom("left lung", masks) - bottom("left lung", moved) <= 1
    lost = masks["right lung"] & ~moved["right lung"]
    assert image[lost].mean() > ground.image[lost].mean() + 0.2


def test_a_wider_heart_raises_the_ratio_and_is_called_large_from_there() -> None:
    ground = chest()
    masks = {n: ground.regions[n] for n in ("right lung", "left lung", "heart and mediastinum")}
    before = scene.heart_ratio(regions(masks))
    heart = masks["heart and mediastinum"] & (np.arange(SIDE)[:, None] > 0.45 * SIDE)
    assert before == pytest.approx(np.ptp(np.flatnonzero(heart.any(0))) / (0.74 * SIDE), abs=0.05)
    assert scene.large_heart(ground) == ()
    image, moved = warps.widen_heart(ground.image, masks, 2.2)
    after = scene.heart_ratio(regions(moved))
    assert after > 1.3 * before
    found = scene.large_heart(Chest(image=image, regions=regions(moved)))
    assert len(found) == int(after >= 0.55)
    left = np.flatnonzero((moved["right lung"] | moved["left lung"]).any(0))
    right = np.flatnonzero((masks["right lung"] | masks["left lung"]).any(0))
    np.testing.assert_allclose(left[[0, -1]], right[[0, -1]], atol=2)


def test_low_pass_takes_fine_detail_and_leaves_the_mean() -> None:
    noise = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    soft = scene.low_pass(noise, 0.5)
    assert soft.shape == noise.shape
    assert soft.mean() == pytest.approx(noise.mean(), abs=0.01)
    assert soft.std() < 0.75 * noise.std()
    assert scene.low_pass(noise, 1.0) is noise


def test_a_blank_scene_has_no_finding_and_the_others_mostly_have() -> None:
    ground = chest()
    masks = {n: ground.regions[n] for n in ("right lung", "left lung", "heart and mediastinum")}

    def scenes(blank: float) -> list[Phantom]:
        odds = scene.Odds(blank=blank, devices=0)
        rngs = (np.random.default_rng(seed) for seed in range(16))
        return [scene.compose(rng, ground.image, masks, CROPS, odds) for rng in rngs]

    assert not any(phantom.findings for phantom in scenes(1.0))
    drawn = scenes(0.0)
    assert np.mean([bool(phantom.findings) for phantom in drawn]) > 0.7
    for phantom in drawn:
        assert phantom.image.dtype == np.float32
        assert 0 <= phantom.image.min() <= phantom.image.max() <= 1
        for finding in phantom.findings:
            assert finding.mask.shape == phantom.image.shape
            assert finding.mask.any()
