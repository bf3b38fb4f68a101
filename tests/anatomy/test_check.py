"""Pictures that are turned or negatives are mended where that makes a chest X-ray of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrg import ground, load
from cxrg.anatomy.check import check_view, mending_of
from cxrg.anatomy.view import View, judge_view
from cxrg.errors import ImageError
from cxrg.geometry import Box
from cxrg.image.mending import Mending, mended_by
from cxrg.image.orientation import Turn
from cxrg.image.read import CxrImage, read_image
from cxrg.phantom.sample import render
from tests.fakes import samples

pytestmark = pytest.mark.view

Grey = np.ndarray
# What happened to a picture, and what mends it.
MISHAPS: dict[str, tuple[Callable[[Grey], Grey], Mending]] = {
    "clockwise": (lambda x: np.rot90(x, -1), Mending(clockwise=270)),
    "half": (lambda x: np.rot90(x, 2), Mending(clockwise=180)),
    "counter-clockwise": (lambda x: np.rot90(x, 1), Mending(clockwise=90)),
    "negative": (lambda x: 1 - x, Mending(inverted=True)),
    "both": (lambda x: 1 - np.rot90(x, 2), Mending(clockwise=180, inverted=True)),
}


def chest(seed: int = 0) -> Grey:
    """A synthetic chest, higher than wide."""
    grey = np.asarray(render(seed, side=128).image, np.float32)
    return np.ascontiguousarray(grey[:, 4:-4])


def picture(grey: Grey, *, fit: str = "pad", side: int = 64) -> CxrImage:
    return read_image(np.ascontiguousarray(grey, np.float32), side=side, fit=fit)  # type: ignore[arg-type]


@pytest.mark.parametrize("mishap", MISHAPS)
def test_what_happened_is_undone(mishap: str) -> None:
    happen, mending = MISHAPS[mishap]
    image = picture(happen(chest()))
    with pytest.raises(ImageError, match=r"; give an upright .*, --mend to have it .*, or --any-"):
        check_view(image, any_image=False)
    mended = check_view(image, any_image=False, mend=True)
    assert mended.mended == mending
    np.testing.assert_allclose(mended.grey, chest(), atol=1e-6)
    straight = picture(chest())
    assert mended.frame == straight.frame
    np.testing.assert_allclose(mended.pixels, straight.pixels, atol=1e-6)
    assert judge_view(mended).fits
    (warning,) = mended.warnings
    assert mending.description in warning
    assert ("left and right are exchanged" in warning) == (mending.clockwise != 0)


def test_an_upright_chest_is_left_as_it_is() -> None:
    image = picture(chest())
    assert check_view(image, any_image=False, mend=True) is image
    assert image.mended is None


def test_what_is_no_chest_is_not_mended() -> None:
    image = samples.image()
    for mend in (False, True):
        with pytest.raises(ImageError, match="one whole frontal chest X-ray; give") as refused:
            check_view(image, any_image=False, mend=mend)
        assert "--mend" not in str(refused.value)
    passed = check_view(image, any_image=True, mend=True)
    assert passed.mended is None
    assert "means nothing" in passed.warnings[0]


def test_what_a_header_says_is_believed_and_not_mended() -> None:
    lateral = replace(picture(np.rot90(chest(), 2)), stated="a lateral view")
    with pytest.raises(ImageError, match="is a lateral view by its header"):
        check_view(lateral, any_image=False, mend=True)


def test_a_picture_that_was_mirrored_is_refused_where_the_heart_shows_it() -> None:
    mirrored = [picture(chest(seed)[::-1]) for seed in range(12)]
    refused = []
    for image in mirrored:
        try:
            check_view(image, any_image=False, mend=True)
        except ImageError as error:
            refused.append(str(error))
    shown = [text for text in refused if "turned by 180 degrees it has the heart on the" in text]
    assert len(shown) >= 4  # 62 % of many
    turned = [picture(np.rot90(chest(seed), 2)) for seed in range(12)]
    mended = [check_view(image, any_image=False, mend=True).mended for image in turned]
    assert mended.count(Mending(clockwise=180)) == 12


def test_what_does_not_look_right_after_mending_is_refused(monkeypatch) -> None:
    import cxrg.anatomy.check

    upside = View(kind="upside down", chance=0.9, negative=False)
    other = View(kind="other", chance=0.9, negative=False)
    views = iter([upside, other, upside, other])
    monkeypatch.setattr(cxrg.anatomy.check, "judge_view", lambda image: next(views))
    image = picture(chest())
    text = r"upside down, and turned by 180 degrees it does not look like one whole frontal"
    with pytest.raises(ImageError, match=text):
        check_view(image, any_image=False, mend=True)
    passed = check_view(image, any_image=True, mend=True)
    assert passed.mended is None
    assert passed.pixels is image.pixels


@pytest.mark.parametrize(
    ("kind", "negative", "mending"),
    [
        ("upright", False, None),
        ("upright", True, Mending(inverted=True)),
        ("turned clockwise", False, Mending(clockwise=270)),
        ("turned counter-clockwise", True, Mending(clockwise=90, inverted=True)),
        ("other", False, None),
    ],
)
def test_the_kind_says_what_mends_it(kind: str, negative: bool, mending: Mending | None) -> None:
    assert mending_of(View(kind=kind, chance=1.0, negative=negative)) == mending


@pytest.mark.parametrize(("clockwise", "quarters"), [(0, 0), (90, -1), (180, 2), (270, 1)])
@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_boxes_follow_the_turn_into_the_mended_picture(clockwise, quarters: int, fit: str) -> None:
    grey = np.zeros((60, 40), np.float32)
    grey[5:15, 20:26] = 1
    mended = mended_by(picture(grey, fit=fit), Mending(clockwise=clockwise))
    np.testing.assert_array_equal(mended.grey, np.rot90(grey, quarters))
    rows, columns = np.nonzero(mended.grey)
    box = Mending(clockwise=clockwise).turn.box(Box(20, 5, 26, 15), (60, 40))
    edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert (box.x0, box.y0, box.x1, box.y1) == edges
    straight = picture(mended.grey, fit=fit)
    assert mended.frame == straight.frame
    np.testing.assert_allclose(mended.pixels, straight.pixels, atol=1e-6)


def test_pixels_that_are_not_square_turn_too() -> None:
    image = replace(samples.image(60, 40, aspect=2.0), spacing=(0.4, 0.2))
    mended = mended_by(image, Mending(clockwise=90))
    assert mended.spacing == (0.2, 0.4)
    assert mended_by(image, Mending(clockwise=180)).spacing == (0.4, 0.2)
    crop = mended.frame.crop
    assert crop.width / crop.height == pytest.approx(0.5)
    box = mended.frame.to_source(Box(0, 0, image.frame.side, image.frame.side))
    assert box == Box(0, 0, 60, 40)


@pytest.mark.parametrize("flags", list(product([False, True], repeat=6)))
def test_two_turns_are_one(flags: tuple[bool, ...]) -> None:
    first, second = (
        Turn(transpose=a, flip_rows=b, flip_columns=c) for a, b, c in (flags[:3], flags[3:])
    )
    array = np.arange(12).reshape(3, 4)
    expected = second.array(first.array(array))
    assert np.array_equal(first.then(second).array(array), expected)


def test_grounding_a_mended_picture_is_grounding_the_upright_one(folders, tmp_path: Path) -> None:
    model = load(folders["compact"], device="cpu")
    sideways = tmp_path / "sideways.png"
    cv2.imwrite(str(sideways), np.rint(np.rot90(chest(), -1) * 255).astype(np.uint8))
    upright = np.rint(chest() * 255).astype(np.uint8).astype(np.float32) / np.float32(255)
    kept = ground(read_image(upright, side=model.side), "left opacity", model=model)
    with pytest.raises(ImageError, match="turned clockwise"):
        ground(sideways, "left opacity", model=model)
    found = ground(sideways, "left opacity", model=model, mend=True)
    assert found.heatmap.shape == upright.shape
    np.testing.assert_allclose(found.heatmap, kept.heatmap, atol=1e-3)
    facts = found.to_dict()["image"]
    assert facts["mended"] == {"clockwise": 270, "inverted": False}
    assert (facts["height"], facts["width"]) == upright.shape
    assert kept.to_dict()["image"]["mended"] is None
    again = ground(sideways, "left opacity", model=model, any_image=True)
    names = {path.name for each in (found, again) for path in each.save(tmp_path / "o").values()}
    assert len(names) == 6
