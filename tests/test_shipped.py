"""The shipped model: small enough to ship, and looking where the words say."""

from __future__ import annotations

from pathlib import Path
from random import Random

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from cxrg.attention.layers import cross_attention_layers
from cxrg.evaluate.metrics.heatmaps import pointing_game
from cxrg.grounding import ground
from cxrg.image.read import read_image
from cxrg.model.card import WEIGHTS, read_card
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.phantom import queries
from cxrg.phantom.findings import OPACITIES
from cxrg.phantom.language import Query, say
from cxrg.phantom.sample import Phantom, render
from tests.oracles import naive

FOLDER = WEIGHTS / "compact"
FIRST = 2**41  # seeds that neither training nor `cxrg evaluate` uses


@pytest.fixture(scope="module")
def model() -> Model:
    return load("compact", device="cpu")


def one_sided(count: int, side: int) -> list[tuple[Phantom, str]]:
    """Phantoms of ``side`` pixels with an opacity in one lung only, and the lung."""
    found: list[tuple[Phantom, str]] = []
    seed = FIRST
    while len(found) < count:
        phantom = render(seed, side=side)
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


def test_the_default_reads_plain_softmax_and_nothing_more(model: Model, tmp_path: Path) -> None:
    """The fast preset's heatmap, from explicit attention by formulae that share no code."""
    image, side = tmp_path / "phantom.png", model.side
    cv2.imwrite(str(image), np.rint(render(FIRST, side=side).image * 255).astype(np.uint8))
    phrase = "left lung opacity"
    found = ground(image, phrase, model=model, mask="none", absent_below="none")
    options = found.options
    layers = cross_attention_layers(model.denoiser, side // model.factor)
    names = [layer.name for layer in layers]
    wanted = [names.index(name) for name in found.layers]
    length = len(model.tokenizer(phrase)["input_ids"])
    generator = torch.Generator().manual_seed(options.seed)
    collected = []
    with torch.inference_mode(), naive.explicit_attention(model.denoiser) as seen:
        z0 = model.encode(read_image(image, side=side, fit="pad").pixels)
        for t in options.timesteps:
            alpha = float(model.schedule.alpha[t]) ** 2
            for _ in range(options.draws):
                noise = torch.randn(z0.shape, generator=generator)
                z = alpha**0.5 * z0 + (1 - alpha) ** 0.5 * noise
                seen.clear()
                model.denoise(z, t, model.embedding(phrase))
                for layer in wanted:
                    tokens = seen[layer][0].mean(0)[:, 1 : length - 1].sum(1)
                    grid = tokens.view(1, 1, layers[layer].side, layers[layer].side)
                    big = torch.nn.functional.interpolate(grid, (side, side), mode="bilinear")
                    collected.append(big[0, 0])
    mean = torch.stack(collected).mean(0).numpy()
    sigma = options.sigma * side
    heat = ndimage.gaussian_filter(mean.astype(np.float64), sigma, mode="reflect", truncate=4)
    expected = (heat - heat.min()) / np.ptp(heat)
    np.testing.assert_allclose(found.canonical, expected, atol=2e-4)
    assert options.normalise == "final"


@pytest.mark.slow
def test_it_points_into_the_finding_and_obeys_the_side(model: Model, tmp_path: Path) -> None:
    hits, swapped, obeyed = [], [], []
    words = Random(0)
    for phantom, side in one_sided(24, model.side):
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
