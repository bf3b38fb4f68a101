"""Masks of anatomy: rules against drawn lungs, the segmenter against phantoms, the user's files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from typer.testing import CliRunner

from cxrg.anatomy import LOCATIONS, anatomy, locate
from cxrg.anatomy.folder import canonical, mask_folder
from cxrg.anatomy.segmenter import outline, segmenter, shipped, whole_part
from cxrg.cli import app
from cxrg.errors import ImageError, InputError, ModelError, UsageError
from cxrg.geometry import Frame, Mask
from cxrg.image.read import CxrImage
from cxrg.phantom.sample import render
from cxrg.phantom.structures import of_phantom

HEIGHT, WIDTH = 140, 160
# Rows 20 to 119, the right lung in columns 20 to 59, the left in 100 to 139 of the picture.
TOP, TALL, WIDE = 20, 100, 40


def lungs() -> dict[str, Mask]:
    right, left = np.zeros((2, HEIGHT, WIDTH), bool)
    right[TOP : TOP + TALL, 20 : 20 + WIDE] = True
    left[TOP : TOP + TALL, 100 : 100 + WIDE] = True
    return {"right lung": right, "left lung": left}


def as_image(grey: NDArray[np.float32], name: str = "chest.png") -> CxrImage:
    shape = (grey.shape[0], grey.shape[1])
    frame = Frame.fit(shape, 128, "pad")
    return CxrImage(
        pixels=frame.sample(grey),
        frame=frame,
        grey=grey,
        path=Path(name),
        sha256="0" * 64,
        kind="png",
        uid=None,
        window="full range",
        warnings=(),
    )


def dice(a: NDArray[Any], b: NDArray[Any]) -> float:
    both = np.count_nonzero((a > 0) & (b > 0))
    return 2 * both / (np.count_nonzero(a) + np.count_nonzero(b))


def test_there_are_twenty_locations_in_a_fixed_order() -> None:
    assert len(LOCATIONS) == len(set(LOCATIONS)) == 20
    assert LOCATIONS[:4] == ("left lung", "right lung", "left upper zone", "right upper zone")
    assert LOCATIONS[14:18] == (
        "left costophrenic angle",
        "right costophrenic angle",
        "heart",
        "mediastinum",
    )
    assert LOCATIONS[18:] == ("left hemidiaphragm", "right hemidiaphragm")


@pytest.mark.parametrize(
    ("part", "rows"),
    [
        ("upper zone", (20, 53)),
        ("mid zone", (53, 87)),
        ("lower zone", (87, 120)),
        ("apex", (20, 38)),
        ("lung base", (95, 120)),
    ],
)
@pytest.mark.parametrize(("side", "columns"), [("right", (20, 60)), ("left", (100, 140))])
def test_bands_of_a_drawn_pair_of_lungs(
    part: str, rows: tuple[int, int], side: str, columns: tuple[int, int]
) -> None:
    expected = np.zeros((HEIGHT, WIDTH), np.float32)
    expected[rows[0] : rows[1], columns[0] : columns[1]] = 1
    found = locate(lungs())[LOCATIONS.index(f"{side} {part}")]
    np.testing.assert_array_equal(found, expected)


def test_angles_are_lateral_and_hila_medial() -> None:
    found = dict(zip(LOCATIONS, locate(lungs()), strict=True))
    angle = np.zeros((HEIGHT, WIDTH), np.float32)
    angle[98:120, 20:34] = 1  # the outer third of the patient's right lung
    np.testing.assert_array_equal(found["right costophrenic angle"], angle)
    np.testing.assert_array_equal(found["left costophrenic angle"], angle[:, ::-1])
    y, x = ndimage.center_of_mass(found["right hilum"])
    assert (y + 0.5, x + 0.5) == pytest.approx((66, 60), abs=0.1)
    assert found["right hilum"].sum() == pytest.approx(np.pi * 13**2, rel=0.03)
    assert ndimage.center_of_mass(found["left hilum"])[1] + 0.5 == pytest.approx(100, abs=0.1)
    band = np.flatnonzero(found["left hemidiaphragm"].any(1))
    assert (band[0], band[-1] + 1) == (114, 125)


def test_the_hilum_follows_the_border_of_the_lung_beside_the_heart() -> None:
    """A heart that pushes the left lung outwards takes the left hilum with it, not the right."""
    pushed = lungs()
    pushed["left lung"][TOP + TALL // 3 :, : 100 + 10] = False
    before, after = (dict(zip(LOCATIONS, locate(each), strict=True)) for each in (lungs(), pushed))
    assert ndimage.center_of_mass(after["left hilum"])[1] + 0.5 == pytest.approx(110, abs=0.1)
    np.testing.assert_array_equal(after["right hilum"], before["right hilum"])


def test_heart_and_mediastinum_lie_between_the_lungs() -> None:
    found = dict(zip(LOCATIONS, locate(lungs()), strict=True))
    expected = np.zeros((HEIGHT, WIDTH), np.float32)
    expected[20:120, 60:100] = 1
    np.testing.assert_array_equal(found["mediastinum"], expected)
    expected[:70] = 0
    np.testing.assert_array_equal(found["heart"], expected)


def test_what_is_outlined_wins_over_the_rules() -> None:
    heart = np.zeros((HEIGHT, WIDTH), bool)
    heart[5, 5] = True
    found = locate({**lungs(), "heart": heart})
    np.testing.assert_array_equal(found[LOCATIONS.index("heart")], heart)


def test_a_missing_lung_is_refused() -> None:
    known = lungs()
    known["left lung"] = np.zeros_like(known["left lung"])
    with pytest.raises(ImageError, match="no left lung"):
        locate(known)


def test_phantoms_are_exact_and_rules_come_close() -> None:
    known = of_phantom(phantom := render(5_000_000_000, side=128))
    found = dict(zip(LOCATIONS, locate(known), strict=True))
    np.testing.assert_array_equal(found["left apex"], phantom.regions["left apical"])
    np.testing.assert_array_equal(found["heart"], phantom.regions["heart"])
    for name, mask in found.items():
        if name.startswith(("left", "right")):
            middle = np.nonzero(mask)[1].mean()
            other = np.nonzero(found[name.replace(*_swap(name))])[1].mean()
            assert (middle > other) == name.startswith("left"), name
    two = {name: known[name] for name in ("left lung", "right lung")}
    ruled = dict(zip(LOCATIONS, locate(two), strict=True))
    for name, least in (("heart", 0.65), ("mediastinum", 0.7), ("left mid zone", 0.99)):
        assert dice(ruled[name], found[name]) > least, name


def _swap(name: str) -> tuple[str, str]:
    return ("left", "right") if name.startswith("left") else ("right", "left")


@pytest.mark.parametrize("seed", range(5))
def test_the_shipped_segmenter_finds_the_lungs_of_phantoms(seed: int) -> None:
    phantom = render(6_000_000_000 + seed, side=256)
    # A picture that is no square, so that masks must come back through the frame.
    grey = np.pad(phantom.image, ((0, 0), (30, 50)))
    found = dict(zip(LOCATIONS, anatomy(as_image(grey)), strict=True))
    for name in ("left lung", "right lung"):
        truth = np.pad(phantom.regions[name], ((0, 0), (30, 50)))
        assert found[name].shape == grey.shape
        assert dice(found[name], truth) > 0.9


def test_sides_go_by_position_and_parts_are_whole() -> None:
    chance = np.zeros((4, 64, 64), np.float32)
    chance[0, 10:50, 36:56] = 0.9  # the channel of the right lung, on the patient's left
    chance[1, 10:50, 8:28] = 0.9
    chance[1, 60:63, 60:63] = 0.9  # a speck
    chance[1, 20:24, 14:18] = 0.1  # a hole
    chance[2, 10:55, 29:35] = 0.9
    grey = np.zeros((64, 64), np.float32)
    grey[:, 28:36] = 1  # between two dark lungs
    found = outline(as_image(grey), chance)
    rows, columns = np.nonzero(found["right lung"])
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (10, 50, 8, 28)
    assert found["right lung"].sum() == 40 * 20
    assert np.nonzero(found["left lung"])[1].min() == 36
    with pytest.raises(ImageError, match="no two lungs"):  # bright where air should be
        outline(as_image(1 - grey), chance)
    chance[0] = 0
    with pytest.raises(ImageError, match="no two lungs"):
        outline(as_image(grey), chance)


@pytest.mark.parametrize("seed", range(4))
def test_whole_part_is_scipys_largest_component_without_holes(seed: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(60, 70)), 3)
    mask = noise > 0
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    expected = ndimage.binary_fill_holes(labels == 1 + sizes.argmax())
    np.testing.assert_array_equal(whole_part(mask), expected)
    assert not whole_part(np.zeros((5, 5), bool)).any()


@pytest.mark.parametrize("kind", ["noise", "black", "stripes"])
def test_what_is_no_chest_is_refused_in_one_line(kind: str) -> None:
    grey = {
        "noise": np.random.default_rng(0).random((128, 128)),
        "black": np.zeros((128, 128)),
        "stripes": np.tile(np.repeat([0.0, 1.0], 8), (128, 8)),
    }[kind].astype(np.float32)
    with pytest.raises(ImageError, match="no two lungs were found") as refused:
        shipped()(as_image(grey, "hand.png"))
    assert "hand.png" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_segmenter_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no segmenter"):
        segmenter(tmp_path)


def test_names_of_other_programs() -> None:
    assert canonical("right apical zone lung") == "right apex"  # cxas
    assert canonical("Left_Lung") == "left lung"
    assert canonical("Cardiomediastinum") == "mediastinum"
    assert canonical("liver") is None


def test_masks_of_one_structure_each(tmp_path: Path) -> None:
    (tmp_path / "chest").mkdir()
    for name, mask in lungs().items():
        # At half the size: proportions count.
        small = mask[::2, ::2].astype(np.uint8) * 255
        cv2.imwrite(str(tmp_path / "chest" / f"{name}.png"), small)
    cv2.imwrite(str(tmp_path / "chest" / "liver.png"), np.zeros((70, 80), np.uint8))
    found = mask_folder(tmp_path)(as_image(np.zeros((HEIGHT, WIDTH), np.float32), "x/chest.dcm"))
    assert set(found) == {"left lung", "right lung"}
    np.testing.assert_array_equal(found["left lung"], lungs()["left lung"])


def test_a_label_map_with_names(tmp_path: Path) -> None:
    both = lungs()
    labels = (both["right lung"] * 7 + both["left lung"] * 300).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "chest.png"), labels)
    (tmp_path / "names.json").write_text(json.dumps({"7": "Right Lung", "300": "lung left"}))
    found = mask_folder(tmp_path)(as_image(np.zeros((HEIGHT, WIDTH), np.float32)))
    for name, mask in both.items():
        np.testing.assert_array_equal(found[name], mask)


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_masks_are_written_mended_and_read_back(tmp_path: Path) -> None:
    phantom = render(6_500_000_000, side=200)
    picture = tmp_path / "SMITH^JOHN.png"
    cv2.imwrite(str(picture), (phantom.image * 255).astype(np.uint8)[:, 10:])
    told = call("anatomy", picture, "--out", tmp_path / "masks", "-q")
    assert told.exit_code == 0, told.output
    line = json.loads(told.stdout)
    folder = Path(line["folder"])
    assert folder.name == line["image"]["sha256"][:16]
    assert {path.stem for path in folder.glob("*.png")} == {*LOCATIONS, "overview"}
    heart = cv2.imread(str(folder / "heart.png"), cv2.IMREAD_UNCHANGED)
    assert heart is not None
    assert heart.shape == (200, 190)
    assert line["share"]["heart"] == pytest.approx((heart > 0).mean(), abs=1e-4)
    assert dice(heart, phantom.regions["heart"][:, 10:]) > 0.75

    mended = np.zeros_like(heart)
    mended[:50] = 255
    cv2.imwrite(str(folder / "heart.png"), mended)
    again = call("anatomy", picture, "--out", tmp_path / "b", "--masks", tmp_path / "masks", "-q")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["share"]["heart"] == 0.25


def test_faults_of_the_command(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), grey)
    told = call("anatomy", tmp_path / "noise.png", "--out", tmp_path / "out")
    assert (told.exit_code, told.stdout) == (3, "")
    assert told.stderr.startswith("cxrg: ")
    assert "no two lungs" in told.stderr
    assert told.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    told = call("anatomy", "x.png", "--out", tmp_path / "out", "--masks", tmp_path / "none")
    assert told.exit_code == 2
    told = call("anatomy", tmp_path / "noise.png", tmp_path / "no.png", "--out", tmp_path / "out")
    assert told.exit_code == 1
    assert told.stderr.count("\n") == 2


def test_faults_of_a_folder_of_masks(tmp_path: Path) -> None:
    image = as_image(np.zeros((HEIGHT, WIDTH), np.float32))
    with pytest.raises(UsageError, match="no folder"):
        mask_folder(tmp_path / "none")
    with pytest.raises(InputError, match=r"no masks of chest\.png"):
        mask_folder(tmp_path)(image)
    cv2.imwrite(str(tmp_path / "chest.png"), np.zeros((HEIGHT, HEIGHT), np.uint8))
    with pytest.raises(InputError, match=r"names\.json is missing"):
        mask_folder(tmp_path)(image)
    (tmp_path / "names.json").write_text("[1]")
    with pytest.raises(InputError, match="no names of grey values"):
        mask_folder(tmp_path)
    (tmp_path / "names.json").write_text('{"1": "left lung"}')
    with pytest.raises(InputError, match="140 x 140 pixels for an image of 160 x 140"):
        mask_folder(tmp_path)(image)
    (tmp_path / "chest.png").write_text("no picture")
    with pytest.raises(InputError, match="no grey PNG"):
        mask_folder(tmp_path)(replace(image, path=Path("chest.dcm")))
