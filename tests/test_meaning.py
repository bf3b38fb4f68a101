"""Phrases that deny, compare, are unknown, name several findings or a side: results and files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from cxrg.batch.task import Job
from cxrg.batch.work import expected_setting, open_worker
from cxrg.errors import PhraseError
from cxrg.grounding import ground, phrase_errors
from cxrg.heatmap.boxes import boxes_from_heatmap
from cxrg.image.read import read_image
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import resolve
from cxrg.output.picture import render
from cxrg.output.record import SCHEMA_FILE, record
from cxrg.phrase.intent import read_intent
from tests.fakes import samples, tiny_models

SCHEMA = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A random model that knows phantoms' language only, and finds everything."""
    loaded = load(tiny_models.compact(tmp_path_factory.mktemp("models") / "tiny"), device="cpu")
    return replace(loaded, card=replace(loaded.card, weights="trained"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("images") / "x.png"
    grey = np.random.default_rng(1).integers(0, 255, (96, 80), np.uint8)
    cv2.imwrite(str(file), grey)
    return file


def valid(result: Any) -> dict[str, Any]:
    facts = record(result)
    jsonschema.validate(facts, SCHEMA, cls=jsonschema.Draft202012Validator)
    return facts


def test_an_unknown_phrase_runs_no_network_unless_forced(model: Model, path: Path) -> None:
    result = ground(path, "purple elephant", model=model)
    assert (result.status, result.evaluations, result.boxes) == ("unknown phrase", 0, ())
    assert np.isnan(result.heatmap).all()
    assert valid(result)["meaning"]["kind"] == "unknown"
    forced = ground(path, "purple elephant", model=model, force_ground=True)
    assert forced.status == "uncalibrated"
    assert forced.evaluations > 0
    own = replace(model, card=replace(model.card, weights="download"))
    warned = ground(path, "purple elephant", model=own)
    np.testing.assert_array_equal(warned.heatmap, forced.heatmap)
    assert "the model may know it" in warned.warnings[0]


def test_a_denial_has_the_map_of_what_it_denies_and_no_box(model: Model, path: Path) -> None:
    denied, stated = ground(path, ["no pneumothorax", "pneumothorax"], model=model)
    assert (denied.status, denied.boxes) == ("nothing to mark", ())
    assert denied.asked == "pneumothorax"
    np.testing.assert_array_equal(denied.heatmap, stated.heatmap)
    facts = valid(denied)
    assert facts["meaning"]["summary"] == "denies pneumothorax"
    assert facts["phrase"] == "no pneumothorax"
    assert "denies pneumothorax" in denied.warnings[0]


def test_each_of_several_findings_is_answered(model: Model, path: Path) -> None:
    both, alone = ground(path, ["effusion and atelectasis", "atelectasis"], model=model)
    assert [part.phrase for part in both.parts] == ["pleural effusion", "atelectasis"]
    assert both.asked == "effusion and atelectasis"
    np.testing.assert_array_equal(both.parts[1].heatmap, alone.heatmap)
    parts = valid(both)["parts"]
    assert [(p["phrase"], p["certainty"]) for p in parts] == [
        ("pleural effusion", "present"),
        ("atelectasis", "present"),
    ]
    chosen = ground(path, "effusion and atelectasis", model=model, tokens="word:effusion")
    assert chosen.parts == ()


def test_results_keep_the_order_of_phrases_among_refusals(model: Model, path: Path) -> None:
    phrases = ["banana", "heart", "no change", "effusion and edema", "left lung"]
    results = ground(path, phrases, model=model)
    assert [result.phrase for result in results] == phrases
    np.testing.assert_array_equal(
        results[4].heatmap, ground(path, "left lung", model=model).heatmap
    )


def test_an_empty_phrase_stays_an_error(model: Model) -> None:
    errors = phrase_errors([" ", "banana"], model, resolve("fast"))
    assert list(errors) == [" "]
    assert isinstance(errors[" "], PhraseError)


@pytest.mark.parametrize(
    ("phrase", "places", "agrees", "wrong"),
    [
        ("left effusion", ("left lower zone",), True, ()),
        ("left effusion", ("right lower zone",), False, (1,)),
        ("left effusion", ("left lower zone", "both lungs"), False, (2,)),
        ("right effusion", ("beside the left lung",), False, (1,)),
        ("right effusion", ("right side, lower third",), True, ()),
        ("left effusion", ("mediastinum",), True, ()),
        ("bilateral effusions", ("left lower zone",), False, ()),
        ("bilateral effusions", ("left lower zone", "right lung"), True, ()),
        ("bilateral effusions", ("both lungs",), True, ()),
        ("effusion", ("right lung",), None, ()),
        ("left effusion", (), None, ()),
    ],
)
def test_sides_of_phrase_and_boxes_are_compared(
    phrase: str, places: tuple[str, ...], agrees: bool | None, wrong: tuple[int, ...]
) -> None:
    image = samples.image()
    box = samples.grounding(image).boxes[0]
    status = "found" if places else "not found"
    facts = {"status": status, "boxes": (box,) * len(places), "places": places}
    result = samples.grounding(image, phrase, **facts)
    assert (result.laterality.agrees, result.laterality.wrong) == (agrees, wrong)
    assert valid(result)["laterality"]["agrees"] is agrees


def test_left_never_gives_a_right_box_silently(model: Model, path: Path) -> None:
    result = ground(path, "left basal opacity", model=model)
    assert result.boxes
    assert result.laterality.wrong == (1,), result.places
    assert any("phrase names the left side, but box 1" in text for text in result.warnings)


def test_every_region_of_a_map_is_a_box_with_its_score() -> None:
    frame = samples.image().frame
    spots = [samples.spot(frame, x, y, 5) for x, y in ((16, 40), (48, 40), (48, 18))]
    heat = np.maximum.reduce([s * level for s, level in zip(spots, (1, 0.8, 0.6), strict=True)])
    boxes = boxes_from_heatmap(heat.astype(np.float32), threshold=0.4, min_area=0.003)
    assert [round(box.score or 0, 1) for box in boxes] == [1.0, 0.8, 0.6]
    assert [box.x0 < 32 for box in boxes] == [True, False, False]


def test_pictures_of_refusals_show_no_map_and_flag_sides(model: Model, path: Path) -> None:
    image = read_image(path, side=model.side)
    unknown = ground(image, "purple elephant", model=model)
    shown = render(unknown, image)
    plain = render(replace(unknown, heatmap=np.zeros_like(unknown.heatmap)), image)
    assert shown.shape == plain.shape
    half = shown.shape[1] // 2
    assert shown[:, :half].any()
    wrong = samples.grounding(samples.image(), "right opacity")
    agreeing = replace(wrong, intent=read_intent("left opacity"))
    assert wrong.laterality.wrong == (1,)
    assert not np.array_equal(render(wrong, samples.image()), render(agreeing, samples.image()))


def test_the_ledger_tells_forced_results_from_others(
    tmp_path: Path,
) -> None:
    folder = tiny_models.compact(tmp_path / "tiny")
    job = Job(model=str(folder), preset="fast", out=tmp_path, device="cpu", force_ground=True)
    expected = expected_setting(job)
    assert expected == open_worker(job).setting
    assert expected is not None
    assert expected.facts != replace(expected, force_ground=False).facts
