"""The worker with a tiny network: rows of network evaluations, failures, and results."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from cxrg.batch.local import pipeline
from cxrg.batch.task import Job, Outcome, Task
from cxrg.batch.work import MOST_UNWRITTEN, Unwritten, Worker, expected_setting, open_worker
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import Options, resolve
from cxrg.output.record import SCHEMA_FILE
from cxrg.phantom.dx import write_dx
from tests.fakes import tiny_models
from tests.fakes.batch import draw

PHRASES = ("left lung", "right effusion", "heart", "opacity")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tiny_models.compact(tmp_path_factory.mktemp("models") / "tiny"), device="cpu")


@pytest.fixture
def rows(model: Model) -> Iterator[list[int]]:
    """How many rows each network evaluation had."""
    seen: list[int] = []
    hook = model.denoiser.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    yield seen
    hook.remove()


def worker_of(model: Model, out: Path, *, deidentify: bool = False, **knobs: Any) -> Worker:
    defaults = {"path": "ddim", "steps": 50, "window": (20, 26)}
    options: Options = resolve("paper", model.card.presets, **{**defaults, **knobs})
    job = Job(
        model="tiny",
        preset="paper",
        out=out,
        formats=("json", "png", "npz") if deidentify else ("json",),
        deidentify=deidentify,
        debug=True,
        batch=8,
    )
    return Worker(job, model, options)


def do(worker: Worker, task: Task) -> Outcome:
    """Do all of a task."""
    (outcome,) = pipeline(worker, [task])
    return outcome


def task(path: Path, *phrases: str, index: int = 0) -> Task:
    return Task(index=index, path=path, phrases=phrases or PHRASES)


def test_results_of_an_image_are_written_as_they_are_made(
    model: Model, tmp_path: Path, monkeypatch
) -> None:
    """Their arrays do not wait for the last phrase: memory does not grow with the phrases."""
    worker = worker_of(model, tmp_path / "out")
    most, alive = 0, {0}
    write = worker.write

    def watched(result: Unwritten) -> Any:
        nonlocal most
        number = max(alive) + 1
        alive.add(number)
        weakref.finalize(result.grounding.heatmap, alive.discard, number)
        most = max(most, len(alive) - 1)
        return write(result)

    monkeypatch.setattr(worker, "write", watched)
    phrases = [f"opacity {number}" for number in range(12)]
    found = do(worker, task(draw(tmp_path / "a.png"), *phrases))
    assert [each.phrase for each in found.rows] == phrases
    assert len(list((tmp_path / "out").glob("*.json"))) == 12
    assert most <= MOST_UNWRITTEN + 3


def test_the_uid_of_a_dicom_file_is_hashed_on_request(model: Model, tmp_path: Path) -> None:
    path, out = tmp_path / "a.dcm", tmp_path / "out"
    pixels = np.random.default_rng(1).integers(0, 4096, (96, 80), np.uint16)
    write_dx(path, pixels, seed=1)
    (plain,) = do(worker_of(model, out), task(path, "heart")).rows
    uid = plain.record["image"]["uid"]
    before = set(out.iterdir())
    assert any(uid.encode() in file.read_bytes() for file in before)
    (hashed,) = do(worker_of(model, out, deidentify=True), task(path, "heart")).rows
    number = int(sha256(uid.encode()).hexdigest()[:32], 16)
    assert hashed.record["image"]["uid"] == f"2.25.{number}"
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.validate(hashed.record, schema, cls=jsonschema.Draft202012Validator)
    image = {**hashed.record["image"], "uid": uid}
    assert {**hashed.record, "image": image} == plain.record
    made = set(out.iterdir()) - before
    assert made  # under other names, so that no earlier file is taken for one of these
    assert not any(uid.encode() in file.read_bytes() for file in made)


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_the_setting_is_known_before_the_model_is_loaded(tmp_path: Path, dtype: str) -> None:
    folder = tiny_models.compact(tmp_path / "tiny")
    job = Job(
        model=str(folder),
        preset="fast",
        out=tmp_path,
        device="cpu",
        dtype=dtype,
        knobs={"seed": "3"},
        deidentify=True,
    )
    expected = expected_setting(job)
    assert expected == open_worker(job).setting
    weights = next(folder.glob("unet/*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert expected_setting(job) != expected


def test_the_setting_is_not_known_where_the_device_decides_the_precision(tmp_path: Path) -> None:
    folder = tiny_models.compact(tmp_path / "tiny")
    card = folder / "cxrg.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "dtype": "bfloat16"}))
    job = Job(model=str(folder), preset="fast", out=tmp_path)
    assert expected_setting(job) is None
    assert expected_setting(replace(job, dtype="float32")) is not None


def test_an_incomplete_model_has_no_setting_before_it_is_loaded(tmp_path: Path) -> None:
    folder = tiny_models.compact(tmp_path / "tiny")
    (folder / "vae").rename(folder / "other")
    assert expected_setting(Job(model=str(folder), preset="fast", out=tmp_path)) is None


def test_an_invalid_phrase_costs_no_evaluation(model: Model, rows: Any, tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png")
    worker = worker_of(model, tmp_path / "out")
    expected = do(worker, task(image))
    # 25 steps lead to the window's last index; then 4 phrases at 6 latents.
    assert (sum(rows), expected.failure) == (49, None)
    rows.clear()
    found = do(worker, task(image, PHRASES[0], "", *PHRASES[1:], " "))
    assert sum(rows) == 49
    assert found.rows == expected.rows
    assert found.failure
    assert found.failure.kind == "phrase"
    assert found.failure.detail == ""  # nothing unexpected, so no traceback
    assert found.failure.message.count("the phrase is empty") == 1  # though two are
    rows.clear()
    assert do(worker, task(image, "")).rows == ()
    assert rows == []


def test_the_sheet_of_a_task_is_drawn_with_its_last_phrase(model: Model, tmp_path: Path) -> None:
    path, out = draw(tmp_path / "a.png"), tmp_path / "out"
    given = replace(task(path, "left lung", "", "heart"), sheet=out / "sheet.png")
    made = do(worker_of(model, out), given)
    assert [row.phrase for row in made.rows] == ["left lung", "heart"]
    sheet = cv2.imread(str(out / "sheet.png"))
    assert sheet is not None
    assert sheet.shape[1] == 3 * 480 + 2 * 20 + 2 * 34  # the X-ray and two phrases
