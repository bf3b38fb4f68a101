"""Phrases asked as "{location} {finding}": the parse, the two maps and their geometric mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxrg.chest.vocabulary import Template, template_of
from cxrg.grounding import ground
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import Options
from cxrg.output.record import record
from cxrg.phrase.encode import encode_phrase, encode_template
from cxrg.result import Grounding
from tests.fakes import samples
from tests.oracles import naive

FAMILIES = ("sd2", "compact", "pixart")
PHRASE, ASKED = "There is a small left apical pneumothorax.", "left apex pneumothorax"
BOTH = "bilateral pleural effusions"
PAPER = Options(preset="paper", steps=20, window=(8, 11), mask="none")
PLAIN: dict[str, Any] = {"mask": "none", "sigma": 0.0, "normalise": "none"}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Model]:
    return {name: load(folders[name], device="cpu") for name in FAMILIES}


def asked(model: Model, phrase: str, **knobs: Any) -> Grounding:
    return ground(samples.image(64, 64), phrase, model=model, **knobs)


def scaled(heat: np.ndarray) -> np.ndarray:
    return (heat - heat.min()) / np.ptp(heat)


def parts_read(model: Model, **knobs: Any) -> dict[str, Grounding]:
    """The template's two parts, each read as option ``tokens`` of the template's own text."""
    prompt = encode_template(model, PHRASE)
    return {
        part: asked(
            model, ASKED, tokens=tuple(k - prompt.span.start for k in prompt.parts[part]), **knobs
        )
        for part in ("finding", "location")
    }


# --- the parse ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrase", "location", "finding"),
    [
        (PHRASE, "left apex", "pneumothorax"),
        ("Patchy airspace opacities in the RIGHT lower lobe", "right lower zone", "lung opacity"),
        ("right lung opacity", "right lung", "lung opacity"),
        ("opacification at the base of the left lung", "left lung base", "lung opacity"),
        # A side alone is that lung, not the place where such a finding usually is.
        ("moderate left-sided effusion", "left lung", "pleural effusion"),
        ("right pneumothorax", "right lung", "pneumothorax"),
        ("mild cardiomegaly", "heart", "cardiomegaly"),
        ("the cardiac silhouette is enlarged: cardiomegaly", "heart", "cardiomegaly"),
        ("enlarged cardiac silhouette", "heart", "cardiomegaly"),
        ("left pulmonary edema", "left lung", "edema"),
    ],
)
def test_one_finding_at_one_place_is_a_template(phrase, location, finding) -> None:
    template = template_of(phrase)
    assert template == Template(location=location, finding=finding)
    # Asked again, a template stays what it is.
    assert template_of(template.text) == template


@pytest.mark.parametrize(
    "phrase",
    [
        "",
        "heart",
        "left lung",
        "nasogastric tube",
        "pleural effusion",
        "left nodule",
        "left effusion with atelectasis",
        "left and right lower lobe pneumonia",
        BOTH,
        "bilateral effusions, larger on the left",
        "left upper and lower lobe opacities",
        "left retrocardiac opacity",
        "opacity in the left lung, lower zone",
        "no left pneumothorax",
        "left effusion has resolved",
    ],
)
def test_what_says_less_or_more_is_none(phrase: str) -> None:
    assert template_of(phrase) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_are_the_templates_words(family, models) -> None:
    prompt = encode_template(models[family], PHRASE)
    plain = encode_phrase(models[family], ASKED)
    assert (prompt.text, prompt.asked) == (PHRASE, ASKED)
    assert prompt.tokens == plain.tokens
    assert prompt.selected == plain.selected
    assert prompt.parts["location"] + prompt.parts["finding"] == prompt.selected
    said = [prompt.tokens[k - prompt.span.start] for k in prompt.parts["location"]]
    text = "".join(said).replace("</w>", " ").replace("Ġ", " ").replace("▁", " ")
    assert text.split() == ["left", "apex"]
    assert prompt.warnings == ()


def test_a_template_that_the_model_cannot_read_is_not_asked(models) -> None:
    model = models["compact"]
    room = len(encode_template(model, PHRASE).parts["location"])
    short = replace(model, card=replace(model.card, text_length=room + 2))
    prompt = encode_template(short, PHRASE)
    assert (prompt.asked, prompt.parts) == (PHRASE, {})
    assert any("encoded as it is" in warning for warning in prompt.warnings)


# --- the heatmap ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "alpha"), [("sd2", 0.5), ("compact", 0.8), ("pixart", 0.5)])
def test_equals_the_naive_loop(family, alpha, folders, models) -> None:
    image = samples.image(64, 64, options=PAPER)
    config = json.loads((folders[family] / "scheduler" / "scheduler_config.json").read_text())
    words = ("left apex", "pneumothorax")
    expected = naive.template_heatmap(
        models[family], config, image.pixels, *words, alpha=alpha, steps=20, window=(8, 11)
    )
    options = replace(PAPER, evidence="template", alpha=alpha)
    result = ground(image, PHRASE, model=models[family], options=options)
    np.testing.assert_allclose(result.canonical, expected, atol=1e-4)
    phrase = ground(image, ASKED, model=models[family], options=PAPER)
    assert not np.allclose(phrase.canonical, expected, atol=0.02)
    assert result.evaluations == phrase.evaluations


@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("normalise", ["final", "none"])
def test_the_mean_is_of_the_two_finished_maps(normalise, reduce, models) -> None:
    model = models["compact"]
    knobs = {**PLAIN, "reduce": reduce}
    read = {part: each.canonical for part, each in parts_read(model, **knobs).items()}
    joined = read["finding"] ** 0.3 * read["location"] ** 0.7
    result = asked(
        model, PHRASE, evidence="template", alpha=0.3, **knobs | {"normalise": normalise}
    )
    expected = joined if normalise == "none" else scaled(joined)
    np.testing.assert_allclose(result.canonical, expected, atol=1e-4)
    assert np.ptp(expected) > 0


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"path": "ddim", "steps": 20, "window": (4, 6)},
        {"path": "redraw", "steps": 20, "window": (4, 6)},
        {"readout": "entmax15", "completion": "self-attention"},
    ],
)
@pytest.mark.parametrize(("alpha", "part"), [(1, "finding"), (0, "location")])
def test_at_its_ends_alpha_reads_one_part_only(alpha, part, knobs, models) -> None:
    model = models["compact"]
    alone = parts_read(model, **knobs)
    result = asked(model, PHRASE, evidence="template", alpha=alpha, **knobs)
    np.testing.assert_allclose(result.canonical, alone[part].canonical, atol=1e-4)
    other = "location" if part == "finding" else "finding"
    assert not np.allclose(result.canonical, alone[other].canonical, atol=0.05)


def test_the_score_is_that_of_the_templates_text(models) -> None:
    model = models["compact"]
    for reduce in ("mean", "sum"):
        whole = asked(model, ASKED, reduce=reduce)
        for alpha in (0, 0.5):
            result = asked(model, PHRASE, evidence="template", alpha=alpha, reduce=reduce)
            assert result.score == pytest.approx(whole.score, rel=1e-5)
    knobs = {"evidence": "template", "reduce": "sum"}
    below, above = whole.score * 0.99, whole.score * 1.01
    assert asked(model, PHRASE, absent_below=below, **knobs).status == "found"
    assert asked(model, PHRASE, absent_below=above, **knobs).status == "not found"


@pytest.mark.parametrize("normalise", ["minmax", "final", "none"])
def test_without_a_template_all_is_as_with_the_phrase(normalise, models) -> None:
    model, image = models["compact"], samples.image(64, 64)
    phrases = [BOTH, PHRASE, "heart"]
    # Beside a template in the same evaluation.
    results = ground(image, phrases, model=model, evidence="template", normalise=normalise)
    plain = ground(image, phrases, model=model, normalise=normalise)
    for i in (0, 2):
        np.testing.assert_array_equal(results[i].heatmap, plain[i].heatmap)
        assert (results[i].score, results[i].boxes) == (plain[i].score, plain[i].boxes)
        assert results[i].tokens == plain[i].tokens
    assert not np.allclose(results[1].canonical, plain[1].canonical, atol=0.02)


# --- what is told ---------------------------------------------------------------------------------


def test_the_result_tells_what_was_asked(models) -> None:
    template, plain = ground(
        samples.image(64, 64), [PHRASE, BOTH], model=models["sd2"], evidence="template"
    )
    assert (template.phrase, template.asked) == (PHRASE, ASKED)
    assert template.tokens == encode_phrase(models["sd2"], ASKED).tokens
    assert (plain.phrase, plain.asked) == (BOTH, BOTH)
    (warning,) = set(plain.warnings) - set(template.warnings)
    assert "one finding at one place" in warning
    facts = record(template)
    assert (facts["phrase"], facts["asked"]) == (PHRASE, ASKED)
    assert (facts["options"]["evidence"], facts["options"]["alpha"]) == ("template", 0.5)
