"""Where a box lies, in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxrg.anatomy.whereabouts import Whereabouts
from cxrg.chest.whereabouts import in_lungs, in_picture
from cxrg.geometry import Box
from cxrg.image.read import read_image
from tests.fakes import samples


def lungs() -> dict[str, np.ndarray]:
    """Two upright rectangles, 90 pixels high: the patient's right one is on the left."""
    right, left = np.zeros((120, 200), bool), np.zeros((120, 200), bool)
    right[15:105, 20:80] = True
    left[15:105, 120:180] = True
    return {"right lung": right, "left lung": left}


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (Box(130, 20, 150, 40), "left upper zone"),  # zones: rows 15, 45, 75 to 105
        (Box(30, 50, 60, 70), "right mid zone"),
        (Box(130, 80, 170, 104), "left lower zone"),
        (Box(30, 50, 60, 100), "right mid and lower zones"),
        (Box(130, 15, 170, 105), "left lung"),
        (Box(130, 70, 170, 105), "left lower zone"),  # a seventh of it is higher
        (Box(20, 60, 180, 100), "both lungs"),
        (Box(85, 40, 115, 100), "mediastinum"),
        (Box(70, 40, 125, 100), "mediastinum"),  # a heart reaches into both lungs
        (Box(130, 0, 160, 12), "above the left lung"),
        (Box(30, 107, 60, 119), "below the right lung"),
        (Box(185, 40, 198, 60), "beside the left lung"),
        (Box(129.2, 20.4, 129.4, 20.6), "left upper zone"),  # less than a pixel
    ],
)
def test_words_follow_the_lungs_and_the_patients_sides(box: Box, words: str) -> None:
    assert in_lungs(box, lungs()) == words


def test_zones_are_thirds_of_the_lungs_own_height() -> None:
    """The same box is lower in a short lung than in a tall one."""
    box = Box(130, 54, 160, 70)
    short = {name: mask & (np.arange(120) < 75)[:, None] for name, mask in lungs().items()}
    assert in_lungs(box, lungs()) == "left mid zone"
    assert in_lungs(box, short) == "left lower zone"


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (Box(700, 10, 900, 110), "left side, upper third"),
        (Box(100, 300, 300, 500), "right side, middle third"),
        (Box(600, 700, 800, 790), "left side, lower third"),
        (Box(460, 300, 560, 500), "midline, middle third"),
        (Box(100, 600, 900, 800), "both sides, lower third"),
        (Box(400, 300, 900, 500), "left side, middle third"),
    ],
)
def test_words_without_lungs_are_the_pictures(box: Box, words: str) -> None:
    assert in_picture(box, (800, 1000)) == words


def test_the_example_is_named_by_its_own_lungs(root: Path) -> None:
    image = read_image(root / "examples/left_basal_opacity.dcm", side=256)
    describe = Whereabouts(image)
    assert describe(Box(495, 336, 636, 507)) == "left lower zone"  # its centre is above two thirds
    assert describe(Box(273, 246, 531, 543)) == "mediastinum"
    # The same place in pixels twice as large.
    grey = image.grey[::2, ::2].copy()
    frame = replace(image.frame, source=grey.shape, crop=Box(0, 0, 384, 384))
    assert Whereabouts(replace(image, grey=grey, frame=frame))(Box(248, 168, 318, 254)) == (
        "left lower zone"
    )


def test_a_picture_without_lungs_is_named_by_its_thirds() -> None:
    image = samples.image(640, 640)
    assert Whereabouts(image)(Box(500, 20, 600, 100)) == "left side, upper third"
