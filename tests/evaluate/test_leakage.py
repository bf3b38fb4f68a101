"""Leakage and grounded classification: by hand, with methods that listen or don't, end to end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from cxrg.anatomy import Source, Structures
from cxrg.chest.findings import finding_of, findings
from cxrg.cli import evaluate as command
from cxrg.evaluate.datasets import Dataset, read_dataset
from cxrg.evaluate.measures import anatomy as outlines
from cxrg.evaluate.measures import classification as classify
from cxrg.evaluate.measures import leakage
from cxrg.evaluate.measures.classification import labels_of, labels_of_kinds, margin
from cxrg.evaluate.measures.common import Measured, write
from cxrg.evaluate.measures.leakage import leak
from cxrg.evaluate.measures.wordings import locations_of, mirrored, wording
from cxrg.evaluate.method import Method
from cxrg.evaluate.metrics.bootstrap import Mean
from cxrg.evaluate.run import Settings
from cxrg.evaluate.sample import Problems, Sample
from cxrg.geometry import Box
from cxrg.image.read import CxrImage, read_image
from cxrg.learn.tune.config import read_config
from cxrg.learn.tune.recipe import new_vectors
from cxrg.model.adapters.prompt_vectors import write_vectors
from cxrg.model.load import load
from tests.fakes import tiny_models
from tests.fakes.evaluate import (
    PLACES,
    SIZE,
    Answer,
    Fake,
    Heat,
    blob,
    chest,
    deaf,
    listens,
    manifest,
)

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(command.evaluate)
app.command()(command.compare)


def readers(heat: Any = listens) -> dict[str, Method]:
    return {"frozen": Fake(heat)}


def leaks(
    data: Dataset, out: Path, asked: dict[str, Method] | None = None, source: Source = chest
) -> Measured:
    return leakage.measure(data, asked or readers(), source, Settings(), out, facts={})


def sample(category: str, side: str | None = None, zone: str | None = None, **more: Any) -> Sample:
    facts: dict[str, Any] = {
        "id": "1",
        "image": Path("a.png"),
        "phrase": category.lower(),
        "patient": "p",
    }
    boxes = (Box(0, 0, 1, 1),)
    return Sample(
        **{**facts, "boxes": boxes, **more},
        category=category,
        side=side,
        zone=zone,
    )


def test_leak_by_hand() -> None:
    heat = np.array([[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5]], np.float32)
    mask = np.zeros((4, 4), np.float32)
    mask[:2, :2] = 1
    assert leak(heat, mask) == pytest.approx(1 - 10 / 20)
    mask[2, 2] = 0.5  # half of a pixel
    assert leak(heat, mask) == pytest.approx(1 - 12.5 / 20)
    heat[3, 3] = np.nan  # never seen
    assert leak(heat, mask) == pytest.approx(1 - 12.5 / 15)
    assert leak(7 * heat, mask) == pytest.approx(leak(heat, mask))
    assert np.isnan(leak(np.zeros((4, 4), np.float32), mask))
    assert leak(np.ones((4, 4), np.float32), mask) == pytest.approx(1 - 4.5 / 16)


def test_margin_by_hand() -> None:
    heat = np.array([[1, 2], [3, np.nan]], np.float32)
    mask = np.array([[1, 0], [0.5, 0]], np.float32)
    assert margin(heat, mask) == pytest.approx((1 + 3) / 2 - 2)
    assert np.isnan(margin(heat, np.ones((2, 2), np.float32)))


def test_mirrored_exchanges_sides_only() -> None:
    text = "Left-sided opacity, RIGHT base; bright, upright, lefty"
    assert mirrored(text) == "Right-sided opacity, LEFT base; bright, upright, lefty"
    assert mirrored(mirrored(text)) == text


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (sample("Consolidation", "left", "lower"), ("left lower zone",)),
        (sample("Consolidation", "right", "apical"), ("right apex",)),
        (sample("Lung Opacity", "bilateral"), ("left lung", "right lung")),
        (sample("Pneumonia", "left", "retrocardiac"), ("heart",)),
        (sample("Pneumonia", "right", "perihilar"), ("right lung",)),
        (sample("Pneumonia", None, "lower"), ()),
        (sample("Cardiomegaly"), ("heart",)),
        (sample("Right Lung"), ("right lung",)),
        (sample("Hilum", "left"), ("left hilum",)),
        (sample("Heart and Mediastinum"), ("mediastinum",)),
        (sample("Endotracheal Tube", "left"), ()),
    ],
)
def test_locations_that_words_name(asked: Sample, expected: tuple[str, ...]) -> None:
    assert locations_of(asked) == expected


def test_a_saying_has_both_forms_and_their_mirrors() -> None:
    said = wording(sample("Lung Opacity", "left", "lower", phrase="left lower lung opacities"))
    assert said is not None
    assert said.right["template"] == "left lower lung opacity"
    assert said.wrong["template"] == "right lower lung opacity"
    # A label is no sentence; the grammar says one that names the side in words.
    assert said.right["sentence"] != "left lower lung opacities"
    assert "left" in said.right["sentence"].lower()
    assert mirrored(said.wrong["sentence"]) == said.right["sentence"]
    own = "There is a large left apical pneumothorax"
    said = wording(sample("Pneumothorax", "left", "apical", phrase=own))
    assert said is not None
    assert said.right["sentence"] == own
    assert said.locations == ("left lung",)  # its template names the side alone
    both = wording(sample("Lung Opacity", "bilateral"))
    assert both is not None
    assert both.wrong == {}


def expected_leaks(data: Dataset, of: Callable[[Heat], Heat]) -> dict[str, dict[str, float]]:
    """Leaks of the template by brute force, for a map of the fake that listens."""
    found = {}
    for s in data.samples:
        if not s.present or s.side not in PLACES:
            continue
        columns = slice(36, 60) if s.side == "left" else slice(4, 28)
        assert s.zone == "mid"  # as the boxes lie: the middle third of rows 8 to 55
        rows = slice(24, 40)
        values = {}
        for name, side in (("right", s.side), ("wrong", {"left": "right"}.get(s.side, "left"))):
            heat = of(blob(PLACES[side])).astype(float)
            values[name] = 1 - heat[rows, columns].sum() / heat.sum()
        found[s.id] = values
    return found


def test_leakage_of_a_method_that_listens(tmp_path: Path) -> None:
    data = read_dataset(manifest(tmp_path))
    measured = leaks(data, tmp_path / "out")
    expected = expected_leaks(data, lambda heat: np.sqrt(heat))
    heatmaps = expected_leaks(data, lambda heat: heat)
    assert {r["id"] for r in measured.records} == set(expected)
    for record in measured.records:
        for form in ("sentence", "template"):
            told = record["leak"][f"frozen/{form}/attention"]
            assert told == pytest.approx(expected[record["id"]], abs=1e-5)
            told = record["leak"][f"frozen/{form}/heatmap"]
            assert told == pytest.approx(heatmaps[record["id"]], abs=1e-5)
        assert record["uniform"] == pytest.approx(1 - 16 * 24 / 64**2)
    table = measured.tables[0]
    row = dict(zip(table.head, table.rows[2], strict=True))
    means = {s: np.mean([v[s] for v in expected.values()]) for s in ("right", "wrong")}
    assert mean(row["leak"]) == pytest.approx(means["right"], abs=1e-5)
    assert mean(row["wrong - right"]) == pytest.approx(means["wrong"] - means["right"], abs=1e-5)
    assert means["wrong"] - means["right"] > 0.3


def test_a_deaf_method_leaks_alike_on_the_wrong_side(tmp_path: Path) -> None:
    data = read_dataset(manifest(tmp_path))
    measured = leaks(data, tmp_path / "out", readers(deaf))
    gap = measured.tables[0].rows[1][-1]
    assert mean(gap) == 0
    assert isinstance(gap, Mean)
    assert (gap.low, gap.high, gap.n) == (0, 0, 12)


def test_a_tuned_reader_is_told_beside_and_in_pairs(tmp_path: Path) -> None:
    data = read_dataset(manifest(tmp_path))
    measured = leaks(data, tmp_path / "out", {**readers(deaf), "tuned": Fake()})
    names = [row[0] for row in measured.tables[0].rows]
    assert names[-2:] == ["tuned, sentence", "tuned, template"]
    pairs = {row[0]: row[1] for row in measured.tables[2].rows}
    # Deaf to sides: right where the left is asked for, all wrong otherwise.
    assert mean(pairs["tuned/template - frozen/template"]) < -0.3


def mean(value: str | Mean) -> float:
    assert isinstance(value, Mean)
    return value.value


def test_the_files_of_a_measure(tmp_path: Path) -> None:
    data = read_dataset(manifest(tmp_path))
    measured = leaks(data, tmp_path / "out")
    write(measured, data, tmp_path / "out")
    text = (tmp_path / "out" / "leakage.json").read_text()
    report = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert report["schema"] == "cxrg.leakage/1"
    assert report["tables"][0]["rows"][1]["leak"]["n"] == 12
    lines = (tmp_path / "out" / "leakage.jsonl").read_text().splitlines()
    assert len(lines) == len(measured.records)
    picture = cv2.imread(str(tmp_path / "out" / "leakage.png"))
    assert picture is not None
    assert picture.shape[1] == 4 * 280  # anatomy, sentence, template, wrong side
    page = (tmp_path / "out" / "leakage.html").read_text()
    assert "data:image/png" in page
    assert "<script" not in page


def test_images_without_anatomy_are_problems(tmp_path: Path) -> None:
    from cxrg.errors import ImageError

    def blind(image: CxrImage) -> Structures:
        if image.path.name == "i0.png":
            raise ImageError("no two lungs were found")
        return chest(image)

    data = read_dataset(manifest(tmp_path))
    measured = leaks(data, tmp_path / "out", source=blind)
    assert len(measured.records) == 10
    assert data.problems.counts() == {"no anatomy": 1}


def test_findings_know_locations_and_the_phantoms_concepts() -> None:
    from cxrg.anatomy import LOCATIONS
    from cxrg.phantom.language import concepts

    for concept, finding in findings().items():
        assert set(finding.plausible) <= set(LOCATIONS)
        assert finding.plausible
        assert concept in concepts("finding")
    known = finding_of("Ground_Glass Opacity")
    assert known is not None
    assert known.concept == "ground-glass opacity"
    assert finding_of("Tubing") is None


def test_labels_follow_from_wider_and_narrower_findings() -> None:
    absent: dict[str, Any] = {"boxes": ()}
    labels = labels_of([sample("Lung Opacity", **absent), sample("Pleural Effusion")])
    assert labels["opacity"] is False
    assert labels["pneumonia"] is False  # where there is no opacity
    assert labels["pleural effusion"] is True
    assert "nodule" not in labels  # nobody looked
    labels = labels_of([sample("Pneumonia")])
    assert (labels["pneumonia"], labels["opacity"]) == (True, True)
    exact = labels_of_kinds(["ground-glass opacity"])
    assert (exact["opacity"], exact["nodule"]) == (True, False)
    assert set(exact) == set(findings())


@dataclass
class Sees(Fake):
    """Attention on the left lung, as strong as the picture's first pixel."""

    strength: dict[str, float] = field(default_factory=dict)

    def ground(self, image: CxrImage, phrases: Sequence[str]) -> list[Any]:
        heat: Heat = blob(PLACES["left"]) * np.float32(self.strength[image.path.name])
        return [Answer(heat, (), "found", 0.5) for _ in phrases]


def test_auc_of_grounded_classification_is_sklearns(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    samples, strength = [], {}
    for i in range(30):
        noise = rng.integers(20, 200, (SIZE, SIZE), dtype=np.uint8)
        path = tmp_path / f"i{i}.png"
        cv2.imwrite(str(path), noise)
        there = i % 3 == 0
        strength[path.name] = float(np.round(rng.random() + 0.3 * there, 1))  # with ties
        boxes = (Box(40, 20, 56, 40),) if there else ()
        more: dict[str, Any] = {"id": str(i), "image": path, "patient": str(i), "boxes": boxes}
        samples.append(sample("Nodule", "left", **more))
    data = Dataset(name="x", format="manifest", samples=tuple(samples), problems=Problems())
    method = {"frozen": Sees(strength=strength)}
    measured = classify.measure(data, method, chest, Settings(), tmp_path / "out", facts={})
    truth = [record["labels"]["nodule"] for record in measured.records]
    scores = [record["scores"]["nodule"]["frozen/attention"] for record in measured.records]
    row = dict(zip(measured.tables[0].head, measured.tables[0].rows[0], strict=True))
    assert (row["finding"], row["there"], row["not there"]) == ("nodule", "10", "20")
    assert mean(row["attention"]) == pytest.approx(roc_auc_score(truth, scores))
    by_strength = [strength[f"i{record['id']}.png"] for record in measured.records]
    assert mean(row["attention"]) == pytest.approx(roc_auc_score(truth, by_strength))
    assert mean(row["presence"]) == 0.5


def test_dice_by_hand_and_of_boxes(tmp_path: Path) -> None:
    a, b = np.zeros((2, 10, 10), bool)
    a[0:4, 0:4] = True
    b[2:6, 0:4] = True
    assert outlines.dice(a, b) == pytest.approx(2 * 8 / 32)
    cv2.imwrite(str(tmp_path / "a.png"), np.arange(SIZE**2).reshape(SIZE, -1) % 251)
    truth = sample("Left Lung", image=tmp_path / "a.png", boxes=(Box(36, 8, 60, 32),))
    data = Dataset(name="x", format="manifest", samples=(truth,), problems=Problems())
    read = lambda image: read_image(image, side=SIZE)  # noqa: E731
    measured = outlines.measure(data, read, chest, Settings(), facts={})
    (row,) = measured.tables[0].rows
    assert row[:2] == ("left lung", "1")
    assert mean(row[3]) == pytest.approx(2 * 24 * 24 / (24 * 24 + 24 * 48))
    assert np.isnan(mean(row[2]))  # a box is no mask


def untuned(path: Path, folder: Path) -> Path:
    """An adapter that was not trained, which changes nothing."""
    model = load(folder, device="cpu")
    vectors = new_vectors(model, read_config())
    width = vectors.prefix.shape[1]
    base = {"name": model.card.name, "identity": model.identity, "width": width}
    write_vectors(path, vectors, {"base": base})
    return path


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("x.csv", "--measure", "leaks"), "use one of grounding, leakage"),
        (("x.csv", "--masks", "."), "set --measure"),
        (("x.csv", "--measure", "leakage", "--masks", "none"), "no folder none"),
    ],
)
def test_usage_errors_in_one_line(words: tuple[str, ...], expected: str) -> None:
    told = call("evaluate", *words)
    assert expected in str(told.exception)
    assert "\n" not in str(told.exception)


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["leakage", "classification", "anatomy"])
def test_measures_from_the_command_line(measure: str, tmp_path: Path) -> None:
    folder = tiny_models.compact(tmp_path / "tiny")
    words = ["evaluate", "phantoms", "--count", 4, "--seed", 3, "--measure", measure]
    words += ["--model", folder, "--set", "draws=1", "--out", tmp_path / "out"]
    if measure == "leakage":
        words += ["--adapter", untuned(tmp_path / "untuned.safetensors", folder)]
    told = call(*words)
    assert told.exit_code == 0, told.output
    assert f"{measure}.html" in told.stdout
    report = json.loads((tmp_path / "out" / f"{measure}.json").read_text())
    assert report["tables"]
    assert report["problems"] == {}
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert call(*words).exit_code == 0
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    if measure != "anatomy":
        told = call(*words, "--set", "sigma=0.1")
        assert "readers differ" in str(told.exception)
    if measure == "leakage":
        rows = [row for table in report["tables"] for row in table["rows"] if "pair" in row]
        pairs = {row["pair"]: row for row in rows}
        assert pairs["tuned/template - frozen/template"]["attention"]["value"] == 0
