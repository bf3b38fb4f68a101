"""Comma-separated values: a row per box, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from cxrg.geometry import Box
from cxrg.output.record import record
from cxrg.output.table import COLUMNS, write_table
from tests.fakes import samples
from tests.fakes.samples import NOT_FOUND


def table(path: Path, *groundings: Any) -> list[dict[str, str]]:
    write_table(((f"stem-{n}", record(each)) for n, each in enumerate(groundings)), path)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_box_is_a_row_and_so_is_a_phrase_without_boxes(tmp_path: Path) -> None:
    image = samples.image()
    boxes = (Box(10.5, 20, 110, 70.25, 0.9), Box(300, 0, 640, 480, 0.5))
    places = ("left lower zone", "right lung")
    found = samples.grounding(image, boxes=boxes, places=places, presence=0.75)
    missing = samples.grounding(
        image, "épanchement, 左", **NOT_FOUND, warnings=("one", "two\nthree")
    )
    rows = table(tmp_path / "results.csv", found, missing)
    assert [row["file"] for row in rows] == ["stem-0", "stem-0", "stem-1"]
    assert [row["box"] for row in rows] == ["1", "2", ""]
    for row, box in zip(rows, boxes, strict=False):
        assert [float(row[name]) for name in ("x0", "y0", "x1", "y1", "box_score")] == [
            *(box.x0, box.y0, box.x1, box.y1),
            box.score,
        ]
    assert rows[1]["where"] == "right lung"
    assert (rows[2]["phrase"], rows[2]["status"]) == ("épanchement, 左", "not found")
    assert rows[2]["warnings"] == "one; two\nthree"
    assert not any(rows[2][name] for name in ("x0", "y1", "box_score", "where"))
    assert float(rows[2]["presence_score"]) == 0.01
    assert [row["presence"] for row in rows] == ["0.75", "0.75", ""]
    assert tuple(rows[0]) == COLUMNS


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_is_a_formula(tmp_path: Path, start: str) -> None:
    text = f'{start}cmd|"/c calc"!A1'
    hostile = samples.grounding(samples.image(), text, warnings=(text,), places=(text,))
    (row,) = table(tmp_path / "x.csv", hostile)
    for name in ("phrase", "where", "warnings"):
        assert row[name] == f"'{text}"


def test_a_failed_export_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_table([("a", {"image": {}})], tmp_path / "x.csv")
    assert not list(tmp_path.iterdir())
