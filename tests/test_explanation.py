"""Explanations: shares that add up, controls, and pages that name nobody."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrg.explanation import Explanation, explain, other_phrases
from cxrg.grounding import ground
from cxrg.heatmap.reference import Reference
from cxrg.image.read import read_image
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import RunSettings, resolve
from cxrg.output.explanation import sentences, write_explanation
from cxrg.phrase.intent import read_intent

PHRASE = "small left apical pneumothorax"
OPTIONS = resolve("fast", timesteps=(300, 500, 700), draws=3, sigma=0.02)
ANY = RunSettings(any_image=True)


@pytest.fixture(scope="module")
def model(folders: dict[str, Path]) -> Model:
    return load(folders["compact"], device="cpu")


def draw(path: Path, seed: int) -> Path:
    grey = np.random.default_rng(seed).integers(0, 255, (80, 96), np.uint8)
    grey = cv2.GaussianBlur(grey, (0, 0), 4)
    path.write_bytes(cv2.imencode(".png", grey)[1].tobytes())
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("images") / "DOE^JANE.png", 1)


@pytest.fixture(scope="module")
def made(model: Model, image: Path) -> Explanation:
    return explain(image, PHRASE, model=model, options=OPTIONS, settings=ANY)


def test_the_result_is_that_of_grounding(made: Explanation, model: Model, image: Path) -> None:
    alone = ground(image, PHRASE, model=model, options=OPTIONS, settings=ANY)
    assert made.grounding.score == pytest.approx(alone.score, abs=1e-6)
    np.testing.assert_allclose(made.grounding.heatmap, alone.heatmap, atol=1e-4)
    assert made.grounding.evaluations == alone.evaluations == 9


def test_tokens_add_up_to_the_peak_and_layers_and_timesteps_average_to_it(
    made: Explanation,
) -> None:
    assert made.peak == pytest.approx(made.grounding.score, abs=1e-6)
    assert sum(each.at_peak for each in made.tokens) == pytest.approx(made.peak, abs=1e-6)
    for shares in (made.layers, made.timesteps):
        assert np.mean([each.at_peak for each in shares]) == pytest.approx(made.peak, abs=1e-6)
    assert [each.name for each in made.timesteps] == ["t = 300", "t = 500", "t = 700"]
    assert len(made.layers) == len(made.grounding.layers) > 1
    total = np.sum([each.map for each in made.tokens], axis=0)
    frame = made.grounding.image.frame
    seen = frame.sample(np.ones(frame.source, np.float32)) == 1  # not the margins
    whole = made.grounding.canonical_attention
    np.testing.assert_allclose(total[seen], whole[seen], atol=1e-6)


def test_one_pass_reads_each_token_as_its_own_pass_would(
    made: Explanation, model: Model, image: Path
) -> None:
    tokens = made.grounding.tokens
    assert [each.name for each in made.tokens] == [each.lstrip("Ġ") for each in tokens]
    for number, share in enumerate(made.tokens):
        only = replace(OPTIONS, tokens=(number,))
        alone = ground(image, PHRASE, model=model, options=only, settings=ANY)
        np.testing.assert_allclose(share.map, alone.canonical_attention, atol=1e-6)


def test_tokens_that_are_left_out_are_shown_and_not_counted(model: Model, image: Path) -> None:
    some = replace(OPTIONS, tokens=(1, 3))
    made = explain(image, PHRASE, model=model, options=some, settings=ANY)
    assert [number for number, each in enumerate(made.tokens) if each.counts] == [1, 3]
    counted = sum(each.at_peak for each in made.tokens if each.counts)
    assert counted == pytest.approx(made.peak, abs=1e-6)
    assert any("do not count" in each for each in sentences(made))


def test_other_phrases_name_the_other_side_and_other_findings() -> None:
    assert other_phrases(read_intent("left apical pneumothorax")) == [
        "right apical pneumothorax",
        "pleural effusion",
        "lung opacity",
        "lung nodule",
    ]
    assert other_phrases(read_intent("cardiomegaly")) == [
        "pleural effusion",
        "pneumothorax",
        "lung opacity",
    ]


def test_the_phrase_is_read_in_synthetic_chests_that_are_always_the_same(
    made: Explanation, model: Model, image: Path
) -> None:
    again = explain(image, PHRASE, model=model, options=OPTIONS, settings=ANY)
    assert made.chests is not None
    assert again.chests is not None
    assert made.chests.synthetic
    assert made.chests.scores == again.chests.scores
    assert len(set(made.chests.scores)) == 4
    assert [each.phrase for each in made.others][-1] is None


def test_given_chests_take_their_place_without_the_image_itself(
    made: Explanation, model: Model, image: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and nothing more")
    others = [draw(tmp_path / f"{seed}.png", seed) for seed in (2, 3)]
    given = [tmp_path / "broken.png", image, *others]
    result = explain(image, PHRASE, model=model, options=OPTIONS, settings=ANY, controls=given)
    assert result.chests is not None
    assert (result.chests.synthetic, result.chests.unused) == (False, 1)
    each = [ground(p, PHRASE, model=model, options=OPTIONS, settings=ANY) for p in others]
    assert result.chests.scores == tuple(found.score for found in each)
    mean = np.mean([found.canonical_attention for found in each], axis=0)
    np.testing.assert_allclose(result.chests.map, mean, atol=1e-6)
    whole = made.grounding.canonical_attention
    expected = np.corrcoef(mean.ravel(), whole.ravel())[0, 1]
    assert result.chests.alike == pytest.approx(expected, abs=1e-4)


def test_page_and_picture_name_nobody_and_need_no_other_file(
    made: Explanation, tmp_path: Path
) -> None:
    files = write_explanation(made, tmp_path)
    assert sorted(files) == ["html", "png"]
    assert {path.name for path in files.values()} == {path.name for path in tmp_path.iterdir()}
    page = re.sub('base64,[^"]*', "", files["html"].read_text())
    assert "Research use only" in page
    for text in (PHRASE, "Which token", "Which layer", "Which timestep", "t = 700"):
        assert text in page
    for secret in ("DOE", "JANE", "http://", "https://", 'src="/'):
        assert secret not in page
        assert all(secret not in path.name for path in files.values())
    picture = cv2.imread(str(files["png"]))
    assert picture is not None
    assert picture.shape[1] > 1000


def test_the_score_is_set_beside_those_of_healthy_chests(made: Explanation) -> None:
    none = "No reference distribution of healthy chests for this model, finding and options."
    assert none in sentences(made)
    score = made.grounding.score
    reference = Reference(
        finding="pneumothorax",
        images=40,
        of="held-out normals",
        quantiles=(0.0, 1.0),
        scores=(score - 0.02, score + 0.02),
    )
    line = "Of 40 healthy chests (held-out normals) searched for pneumothorax, 50% score"
    assert any(each.startswith(line) for each in sentences(replace(made, reference=reference)))


def test_a_phrase_that_only_compares_is_explained_without_maps(
    model: Model, image: Path, tmp_path: Path
) -> None:
    made = explain(image, "unchanged", model=model, options=OPTIONS, settings=ANY)
    assert (made.tokens, made.chests, made.reference) == ((), None, None)
    first, *_ = sentences(made)
    assert first == "NOTHING TO MARK: the phrase only compares."
    page = write_explanation(made, tmp_path)["html"].read_text()
    assert "What was looked at" in page
    assert "Which token" not in page


def test_what_is_cut_is_told(model: Model, image: Path) -> None:
    long = "left basal opacity " * 20
    made = explain(image, long, model=model, options=OPTIONS, settings=ANY)
    assert any("; cut: " in each for each in sentences(made))


@pytest.mark.parametrize("size", [(40, 200), (300, 90)])
def test_images_of_any_shape_are_drawn(
    size: tuple[int, int], made: Explanation, model: Model, tmp_path: Path
) -> None:
    grey = np.random.default_rng(0).random(size, np.float32)
    for fit in ("pad", "crop"):
        image = read_image(grey, side=model.side, fit=fit)
        found = replace(made.grounding, image=image, heatmap=image.frame.restore(
            made.grounding.canonical
        ), boxes=(), places=(), status="not found", edge=None)  # fmt: skip
        write_explanation(replace(made, grounding=found), tmp_path / fit)


def test_the_verdict_is_by_what_the_status_was_decided_by(made: Explanation) -> None:
    without = replace(made.grounding, status="not found", boxes=(), places=())
    low = next(sentences(replace(made, grounding=without, least=1.0)))
    assert low.startswith("NOT FOUND")
    assert low.endswith("found is from 1.00 on.")
    flat = next(sentences(replace(made, grounding=without, least=0.0)))
    assert flat.endswith("no region of the map rises above the threshold.")
    likely = replace(made, grounding=replace(made.grounding, presence=0.25))
    assert "(probability that it is there: 0.25)" in next(sentences(likely))


def test_a_phrase_that_leaves_no_other_to_compare_with_is_explained(made: Explanation) -> None:
    nothing = tuple(each for each in made.others if each.phrase is None)
    assert nothing
    assert not any("other phrases" in each for each in sentences(replace(made, others=nothing)))
