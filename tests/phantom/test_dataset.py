"""A folder of phantoms: whole or not at all, the same for the same seed, true to its masks."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
import typer
from typer.testing import CliRunner

from cxrg.cli.phantom import phantom as command
from cxrg.errors import CxrgError, UsageError
from cxrg.evaluate.datasets import read_dataset
from cxrg.phantom import dataset
from cxrg.phantom.dataset import image_seed, rows, write_dataset
from cxrg.phantom.sample import render

SIDE = 96


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "set"
    write_dataset(out, count=12, seed=3, side=SIDE)
    return out


def test_rows_are_of_all_kinds_and_hold_boxes_only_where_something_is(folder: Path) -> None:
    kinds = Counter(row["kind"] for row in table(folder))
    assert kinds["present"] > 12
    assert kinds["anatomy"] == 24
    assert kinds["absent"] == kinds["denied"] == 12
    for row in table(folder):
        there = row["kind"] in ("present", "anatomy")
        assert bool(json.loads(row["boxes"])) == there
        assert row["present"] == str(there).lower()
        assert row["category"].endswith(" absent") == (row["kind"] in ("absent", "denied"))
        assert row["width"] == row["height"] == str(SIDE)
    assert len({row["id"] for row in table(folder)}) == len(table(folder))


def test_boxes_enclose_the_masks_of_their_rows(folder: Path) -> None:
    for name, its in by_image(folder).items():
        with np.load(folder / "masks" / f"{name}.npz") as stored:
            masks, phrases = stored["rows"], stored["row_phrases"]
            assert stored["regions"].shape == (len(stored["region_names"]), SIDE, SIDE)
            assert stored["findings"].shape == (len(stored["finding_names"]), SIDE, SIDE)
        assert [row["phrase"] for row in its] == phrases.tolist()
        for row, mask in zip(its, masks, strict=True):
            covered = np.zeros((SIDE, SIDE), bool)
            for x0, y0, x1, y1 in json.loads(row["boxes"]):
                covered[y0:y1, x0:x1] = True
                edges = mask[y0, x0:x1], mask[y1 - 1, x0:x1], mask[y0:y1, x0], mask[y0:y1, x1 - 1]
                assert all(edge.any() for edge in edges), "a box that is not tight"
            assert mask[~covered].sum() <= 0.1 * mask.sum(), "crumbs only may lie outside"


def by_image(folder: Path) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for row in table(folder):
        found.setdefault(Path(row["image"]).stem, []).append(row)
    return found


def test_left_is_the_right_side_of_the_picture(folder: Path) -> None:
    centres: dict[str, list[float]] = {"left": [], "right": []}
    for row in table(folder):
        if row["kind"] == "present" and row["side"] in centres:
            centres[row["side"]] += [(x0 + x1) / 2 for x0, _, x1, _ in json.loads(row["boxes"])]
    assert min(map(len, centres.values())) > 3
    assert np.median(centres["right"]) < SIDE / 2 < np.median(centres["left"])


def test_images_are_the_rendered_ones(folder: Path) -> None:
    stored = cv2.imread(str(folder / "images" / "000004.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    assert stored.dtype == np.uint8
    rendered = render(image_seed(3, 4), side=SIDE).image
    np.testing.assert_allclose(stored / 255, rendered, atol=0.5 / 255 + 1e-6)


def test_a_larger_set_begins_with_the_smaller_one(folder: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "small", count=4, seed=3, side=SIDE)
    small, large = digests(tmp_path / "small"), digests(folder)
    text = (tmp_path / "small" / "manifest.csv").read_text()
    assert (folder / "manifest.csv").read_text().startswith(text)
    del small["manifest.csv"]
    assert len(small) == 8
    assert small.items() <= large.items()


def test_another_seed_gives_other_images(folder: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "other", count=2, seed=4, side=SIDE)
    assert not set(digests(tmp_path / "other").values()) & set(digests(folder).values())


def test_size_words_are_true(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def say(query: Any, rng: random.Random) -> str:
        asked.append(query)
        return "something"

    for name in ("say", "sentence", "negate"):
        monkeypatch.setattr(f"cxrg.phantom.language.{name}", say)
    sized = 0
    for seed in range(40):
        phantom = render(seed, side=64)
        asked.clear()
        rows(phantom, seed)
        for query in asked:
            if query.size is not None:
                sized += 1
                meant = [f for f in phantom.findings if f.kind == query.concept]
                meant = [f for f in meant if query.side in (None, "bilateral", f.side)]
                assert meant
                assert {f.size for f in meant} == {query.size}
    assert sized > 10


def test_dicom_holds_the_same_picture(folder: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "dx", count=2, seed=3, side=SIDE, dicom=True)
    read = pydicom.dcmread(tmp_path / "dx" / "images" / "000001.dcm")
    rendered = render(image_seed(3, 1), side=SIDE).image
    np.testing.assert_allclose(read.pixel_array / 4095, rendered, atol=0.5 / 4095 + 1e-6)
    rows_here = [row | {"image": ""} for row in table(tmp_path / "dx")]
    assert rows_here == [row | {"image": ""} for row in table(folder)][: len(rows_here)]
    assert {Path(row["image"]).suffix for row in table(tmp_path / "dx")} == {".dcm"}


def test_normal_statements_where_nothing_was_drawn() -> None:
    for seed in range(200):
        phantom = render(seed, side=64)
        normal = [row for row in rows(phantom, seed) if row.kind == "normal"]
        assert len(normal) == (not phantom.findings)
        if normal:
            assert not normal[0].mask.any()
            return
    pytest.fail("no phantom without findings")


def test_nothing_is_left_of_a_set_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, pixels: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset, "_write_png", full)
    with pytest.raises(CxrgError, match=r"set: cannot be written .No space left"):
        write_dataset(tmp_path / "set", count=2, side=64)
    assert not list(tmp_path.iterdir())


def test_interruption_leaves_nothing(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", count=2, side=64, advance=stop)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(UsageError, match="not empty; choose another"):
        write_dataset(tmp_path, count=1, side=64)
    assert [file.name for file in tmp_path.iterdir()] == ["note"]


def test_command_line(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    out = tmp_path / "set"
    arguments = ["--out", str(out), "--count", "3", "--side", "64", "--seed", "5"]
    result = CliRunner().invoke(app, [*arguments, "--contact-sheet"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}/manifest.csv: 3 images, {len(table(out))} phrases\n"
    assert result.stderr == ""
    sheet = cv2.imread(str(out / "contact-sheet.png"))
    assert sheet is not None
    # three in a line of four, each the picture and its outlined copy, with a caption below
    assert sheet.shape == (192 + 20, 4 * 2 * 192, 3)
    assert sheet[:192, : 3 * 384].std() > 20
    assert sheet[:192, 3 * 384 :].max() == 0
    assert len(list((out / "images").iterdir())) == len(list((out / "masks").iterdir())) == 3


def test_command_line_passes_every_option_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: dict[str, Any] = {}

    def record(out: Path, **options: Any) -> dataset.Written:
        got.update(options, out=out)
        return dataset.Written(manifest=out / "manifest.csv", images=7, rows=1)

    monkeypatch.setattr(dataset, "write_dataset", record)
    app = typer.Typer()
    app.command()(command)
    asked = ["--out", str(tmp_path), "--count=7", "--seed=8", "--side=90", "--dicom", "--quiet"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert result.output == ""
    assert callable(got.pop("advance"))
    numbers = {"count": 7, "seed": 8, "side": 90}
    assert got == {"out": tmp_path, "dicom": True, "sheet": False, **numbers}


@pytest.mark.parametrize("wrong", [["--count", "0"], ["--side", "16"], ["--seed", "-1"]])
def test_impossible_numbers_are_refused(tmp_path: Path, wrong: list[str]) -> None:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, ["--out", str(tmp_path / "set"), *wrong])
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_the_evaluation_reads_it(folder: Path) -> None:
    read = read_dataset(folder / "manifest.csv", strict=True)
    assert read.format == "manifest"
    assert [sample.phrase for sample in read.samples] == [row["phrase"] for row in table(folder)]
    there = [row["present"] == "true" for row in table(folder)]
    assert [sample.present for sample in read.samples] == there
