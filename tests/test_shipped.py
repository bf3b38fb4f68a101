"""The shipped model: small enough to ship, and looking where the words say."""

from __future__ import annotations

from pathlib import Path
from random import Random

import cv2
import numpy as np
import pytest

from cxrg.card import WEIGHTS, read_card
from cxrg.evaluate.metrics import pointing_game
from cxrg.ground import ground
from cxrg.model import Model, load
from cxrg.phantom import queries
from cxrg.phantom.findings import OPACITIES
from cxrg.phantom.language import Query, say
from cxrg.phantom.sample import Phantom, render

FOLDER = WEIGHTS / "compact"
FIRST = 2**41  # seeds that neither training nor `cxrg evaluate` uses


@pytest.fixture(scope="module")
def model() -> Model:
    return load("compact", device="cpu")


def one_sided(count: int) -> list[tuple[Phantom, str]]:
    """Phantoms with an opacity in one lung only, and the lung."""
    found: list[tuple[Phantom, str]] = []
    seed = FIRST
    while len(found) < count:
        phantom = render(seed, side=128)
        sides = {f.side for f in phantom.findings if f.kind in OPACITIES}
        if len(sides) == 1 and "edema" not in {f.kind for f in phantom.findings}:
            found.append((phantom, str(sides.pop())))
        seed += 1
    return found


def test_the_package_stays_below_thirty_megabytes() -> None:
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert size < 30_000_000


def test_its_card_says_whose_images_it_saw_and_its_readme_what_it_cannot() -> None:
    card = read_card(FOLDER)
    assert card is not None
    assert card.shipped
    assert "NIH Clinical Center" in card.attribution
    assert "Hannover" in card.attribution
    told = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "Limits" in told
    assert card.attribution.split(";")[0] in told


@pytest.mark.slow
def test_it_points_into_the_finding_and_obeys_the_side(model: Model, tmp_path: Path) -> None:
    hits, swapped, obeyed = [], [], []
    words = Random(0)
    for phantom, side in one_sided(24):
        other = "left" if side == "right" else "right"
        phrases = [say(Query("opacity", s), words) for s in (side, other)]
        image = tmp_path / "phantom.png"
        cv2.imwrite(str(image), np.rint(phantom.image * 255).astype(np.uint8))
        right, wrong = ground(image, phrases, model=model, absent_below="none")
        truth = queries.answer(phantom, Query("opacity", side)).mask
        hits.append(pointing_game(right.heatmap, truth))
        swapped.append(pointing_game(wrong.heatmap, truth))
        column = int(np.nanargmax(right.heatmap)) % right.heatmap.shape[1]
        obeyed.append((column >= right.heatmap.shape[1] / 2) == (side == "left"))
    assert np.mean(hits) > 0.6
    assert np.mean(hits) - np.mean(swapped) > 0.4
    assert np.mean(obeyed) > 0.9
