"""The benchmarks run, on few steps and counts, and what they print can be trusted in kind."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def table(script: str, *arguments: str) -> list[list[str]]:
    """Run a benchmark as a command; the cells of its tables' lines."""
    command = [sys.executable, "-m", f"tests.benchmarks.{script}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    difference = re.findall(r"differs from published by (\S+)", done.stdout)
    assert all(float(each) < 1e-4 for each in difference)
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_peers() -> None:
    cells = table(
        "peers",
        *("--steps", "20", "--window", "8:10", "--phrases", "1", "2", "--repeat", "1"),
    )
    names = [row[0] for row in cells]
    assert names.count("published") == names.count("cxrg paper") == 2
    paper = [float(row[2]) for row in cells if row[0] == "cxrg paper"]
    assert all(ratio > 1 for ratio in paper)


def test_linear() -> None:
    cells = table("linear", "--counts", "2", "32")
    rows = [row for row in cells if row[0].isdigit()]
    assert [row[0] for row in rows] == ["2", "32", "2", "32"]
    for few, many in (rows[:2], rows[2:]):
        assert float(many[3]) - float(few[3]) < 50  # MiB, for thirty more


def test_startup() -> None:
    cells = table("startup", "--repeat", "1")
    (ratio,) = [float(row[3]) for row in cells if row[0] == "processor"]
    assert 0.5 < ratio < 2


def test_grid(tmp_path: Path) -> None:
    lines = ("--line", "paper steps=20 window=8:10", "--line", "fast draws=1 timesteps=100,200")
    cells = table("grid", "phantoms", "--count", "2", "--out", str(tmp_path), *lines)
    rows = cells[2:]
    assert [row[1] for row in rows] == ["11", "2"]
    assert all(re.match(r"0\.\d{3} \(", row[2]) for row in rows)
    assert rows[0][-1] == ""
    assert re.match(r"[+-]0\.\d{3} \(", rows[1][-1])


def test_tuning(tmp_path: Path) -> None:
    small = ("steps=2", "batch=2", "warmup=0", "data.phantoms=50", "check_every=1")
    knobs = [text for change in small for text in ("--set", change)]
    line = ("--line", "prefix=1 loss.nce=0")
    cells = table("tuning", "phantoms", "--count", "3", "--out", str(tmp_path), *line, *knobs)
    frozen, tuned = cells[2:]
    assert frozen[:3] == ["frozen", "", ""]
    assert re.match(r"0\.\d{3} to 0\.\d{3}", tuned[1])
    assert all(re.match(r"-?\d\.\d{3}<br>[+-]\d\.\d{3} \(", cell) for cell in tuned[3:])


def test_misses(tmp_path: Path) -> None:
    run, picture = tmp_path / "run", tmp_path / "misses.jpg"
    words = ["phantoms", "--count", "8", "--no-controls", "--quiet", "--out", str(run)]
    evaluate = [sys.executable, "-m", "cxrg", "evaluate", *words, "--set", "draws=1"]
    subprocess.run(evaluate, check=True, capture_output=True)
    table("misses", str(run), str(picture), "--count", "2")
    written = cv2.imread(str(picture))
    assert written is not None
    height, width = written.shape[:2]
    assert width > 2 * height


def test_normals(tmp_path: Path) -> None:
    from tests.benchmarks.normals import PHRASES

    (tmp_path / "index.csv").write_text("file,labels\na.png,x\nb.png,x\nc.png,x\n", "utf-8")
    out = tmp_path / "normals.csv"
    table("normals", str(tmp_path), str(out), "--count", "2")
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 2 * len(PHRASES)
    assert lines[1] == "b.png,lung opacity,Lung Opacity absent,[],b"
    assert not any("a.png" in line for line in lines)


def test_shortcut_finds_a_blur_and_nothing_where_nothing_is() -> None:
    from cxrg.learn.train.pool import PRESENT, Pool
    from tests.benchmarks.shortcut import shortcut

    rng = np.random.default_rng(0)
    count = 160
    drawn = np.arange(count) % 2 == 0
    images = rng.integers(60, 190, (count, 64, 64)).astype(np.uint8)
    empty = np.zeros((drawn.sum(), 8, 8), np.uint8)
    lungs = np.zeros((count, 8, 8), np.uint8)
    lungs[:, 3:5, 2:6] = 255
    pool = Pool(
        images=images,
        lungs=lungs,
        complete=np.ones(count, bool),
        owner=np.flatnonzero(drawn).astype(np.int32),
        query=np.array(["opacity||"] * int(drawn.sum())),
        kind=np.full(drawn.sum(), PRESENT, np.uint8),
        mask=empty,
        box=empty,
    )
    same, used = shortcut(pool)
    assert used == count
    assert 0.3 < same < 0.7
    blurred = images.copy()
    for index in np.flatnonzero(drawn):
        blurred[index] = cv2.GaussianBlur(images[index], (0, 0), 0.5)
    assert shortcut(replace(pool, images=blurred))[0] > 0.95
    # Inside the lungs it does not look.
    inside = images.copy()
    inside[drawn, 24:40, 16:48] = 255
    assert shortcut(replace(pool, images=inside))[0] == pytest.approx(same, abs=0.02)


def test_a_table_of_healthy_chests_is_a_fact_of_a_card() -> None:
    from cxrg.model.card import card_from
    from tests.benchmarks.reference import table_of

    scores = {"opacity": [i / 100 for i in range(101)], "nodule": [0.5] * 101}
    table = table_of(scores, weights="sha256:01", preset="fast", of="somewhere")
    assert table["scores"]["opacity"] == table["quantiles"]
    assert table["images"] == 101
    assert card_from({"name": "x", "reference": table}, origin="here").reference == table


def test_placed_phrases_name_a_side_and_are_the_same_for_the_same_number() -> None:
    from cxrg.phrase.intent import read_intent
    from tests.benchmarks.normals import LUNG, PLEURA, placed

    meant = [read_intent(phrase) for number in range(20) for phrase in placed(number)]
    assert len(meant) == 20 * len(LUNG + PLEURA)
    assert {intent.side for intent in meant} == {"left", "right"}
    assert all(intent.kind == "present" and intent.concept for intent in meant)
    assert 0.3 < sum(intent.zone is not None for intent in meant) / len(meant) < 0.7
    assert placed(3) == placed(3) != placed(4)
