"""What the view network makes of X-rays, turned ones, negatives and other pictures."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrg import ground, load
from cxrg.anatomy.check import check_view
from cxrg.anatomy.view import SIDE, View, judge_square, judge_view
from cxrg.errors import ImageError
from cxrg.evaluate.measures.gate import CHANGES, judged
from cxrg.evaluate.method import LatentDiffusion
from cxrg.image.read import read_image
from cxrg.options import RunSettings
from cxrg.phantom.sample import render
from tests.benchmarks.view import read_grey
from tests.cli.test_ground import run
from tests.fakes import samples

__all__ = ["run"]  # a fixture

pytestmark = pytest.mark.view

KINDS = [name for name in CHANGES if name not in ("upper half", "a part")]
"""Parts of a chest often pass as a whole one, see the network's README."""


def changed(name: str, picture: np.ndarray) -> str:
    """How a picture is judged after a change."""
    return judged(CHANGES[name].make(picture, np.random.default_rng(0)))


@pytest.fixture(scope="module")
def phantoms() -> list[np.ndarray]:
    return [np.asarray(render(seed, side=96).image, np.float32) for seed in range(12)]


@pytest.mark.parametrize("change", KINDS)
def test_phantoms_are_judged_as_they_lie(phantoms, change: str) -> None:
    found = [changed(change, each) for each in phantoms]
    assert found.count(CHANGES[change].expected) >= 11, found


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((200, 160), np.float32)


def smooth(seed: int) -> np.ndarray:
    spots = cv2.GaussianBlur(noise(seed), (0, 0), 12)
    return (spots - spots.min()) / np.ptp(spots)


def stripes(seed: int) -> np.ndarray:
    columns = np.arange(160) // (4 + seed)
    return np.tile((columns % 2).astype(np.float32), (200, 1))


def disc(seed: int) -> np.ndarray:
    picture = np.zeros((200, 200), np.float32)
    cv2.circle(picture, (100, 100), 60 + seed, 0.8, -1)
    return picture


@pytest.mark.parametrize("make", [noise, smooth, stripes, disc])
def test_patterns_are_no_chest(make: Callable[[int], np.ndarray]) -> None:
    assert {judged(make(seed)) for seed in range(5)} == {"other"}


def test_real_x_rays_are_upright_and_known_when_turned(shared: Path) -> None:
    with (shared / "data/realval/manifest.csv").open(newline="", encoding="utf-8") as file:
        names = sorted({row["image"] for row in csv.DictReader(file)})
    pictures = [read_grey(shared / "data/realval" / name) for name in names]
    assert {judged(each) for each in pictures} == {"upright"}
    for change in KINDS:
        found = [changed(change, each) for each in pictures[::5]]
        assert found.count(CHANGES[change].expected) >= 0.9 * len(found), change


def test_the_whole_picture_is_judged_in_its_physical_shape() -> None:
    """An X-ray with pixels twice as tall as wide is no squeezed one; fit=crop hides nothing."""
    grey = np.asarray(render(3, side=256).image, np.float32)
    flat = np.asarray(cv2.resize(grey, (256, 128), interpolation=cv2.INTER_AREA), np.float32)
    plain = replace(samples.image(256, 256), grey=grey)
    tall = replace(samples.image(128, 256, aspect=2.0), grey=flat)
    want = judge_view(plain)
    assert want.fits
    assert judge_view(tall).chance == pytest.approx(want.chance, abs=0.01)


def test_a_doubtful_picture_passes_as_the_likeliest_chest() -> None:
    """Other than ``other`` by a small margin is not refused; the limit is .8."""
    view = View(kind="upright", chance=0.5, negative=False)
    assert view.fits
    assert view.description == ""
    both = View(kind="upside down", chance=0.9, negative=True)
    assert not both.fits
    assert both.description == (
        "looks like a chest X-ray upside down and looks like a negative, with dark bones and "
        "bright air"
    )
    flat = judge_square(np.full((SIDE, SIDE), 0.5, np.float32))
    assert (flat.kind, flat.negative) == ("other", False)


def test_check_refuses_or_warns() -> None:
    image = samples.image()  # patches
    with pytest.raises(ImageError, match=r"DOE\^JANE\.png: does not look like one whole frontal"):
        check_view(image, any_image=False)
    passed = check_view(image, any_image=True)
    assert passed.warnings == (
        "the image does not look like one whole frontal chest X-ray: the result means nothing "
        "if that is so",
    )
    lateral = replace(image, stated="a lateral view")
    with pytest.raises(ImageError, match=r"DOE\^JANE\.png: is a lateral view by its header; give"):
        check_view(lateral, any_image=False)
    chest = replace(samples.image(128, 128), grey=np.asarray(render(0, side=128).image, np.float32))
    assert check_view(chest, any_image=False) is chest


def test_ground_checks_and_the_example_passes(root: Path, tmp_path: Path) -> None:
    model = load()
    example = root / "examples/left_basal_opacity.dcm"
    assert ground(example, "heart", model=model).warnings == ()
    upside_down = read_image(example, side=256).grey[::-1]
    path = tmp_path / "turned.png"
    cv2.imwrite(str(path), np.rint(np.nan_to_num(upside_down) * 255).astype(np.uint8))
    with pytest.raises(ImageError, match=r"turned\.png: looks like a chest X-ray upside down; "):
        ground(path, "heart", model=model)
    found = ground(path, "heart", model=model, any_image=True)
    assert any("upside down" in warning for warning in found.warnings)
    assert LatentDiffusion.__dataclass_fields__["settings"].default == RunSettings(
        any_image=True, force_ground=True
    )


@pytest.mark.slow
def test_a_batch_lists_what_is_no_chest_and_goes_on(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    chest = np.rint(np.asarray(render(0, side=128).image) * 255).astype(np.uint8)
    cv2.imwrite("chest.png", chest)
    cv2.imwrite("cat.png", np.rint(smooth(0) * 255).astype(np.uint8))
    code, out, err = run("ground", "cat.png", "chest.png", "heart", "--json")
    assert code == 1
    assert out.count("\n") == 1
    assert "cat.png: does not look like one whole frontal chest X-ray; give an upright" in err
    code, out, err = run("ground", "cat.png", "heart", "--json", "--any-image")
    assert code == 0
    assert "the image does not look like one whole frontal chest X-ray" in out
