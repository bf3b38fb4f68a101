"""cxrg's own manifest, CSV or JSONL: ``image, phrase[, category, boxes, ...]``.

``boxes`` is a JSON list of ``[x0, y0, x1, y1]`` in pixels of the picture (of DICOM as it is stored,
of other files with their orientation tag applied); ``[]`` means that the phrase names something
that isn't there, as does a category that ends in " absent". Further columns that are used where
they exist: ``id, patient, side, zone, width, height, mask`` (``mask`` a COCO run-length object).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cxrg.chest.categories import named_side
from cxrg.errors import InputError
from cxrg.evaluate.datasets.common import Reading, cell, parse_json, read_rows, read_text
from cxrg.evaluate.sample import Rle, Sample, read_run_lengths
from cxrg.geometry import Box

ABSENT = " absent"


def read(path: Path, reading: Reading) -> list[Sample]:
    """The samples of a manifest.

    Raises:
        InputError: not a CSV or JSONL file with the columns ``image`` and ``phrase``.
    """
    rows = _json_lines(path) if path.suffix.lower() in (".jsonl", ".ndjson") else _table(path)
    samples = (_sample(row, f"{path.name} row {i}", reading) for i, row in enumerate(rows, 1))
    return [sample for sample in samples if sample]


def _table(path: Path) -> list[dict[str, Any]]:
    return [dict(row) for row in read_rows(path, ("image", "phrase"))]


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        row = parse_json(line, where)
        if not isinstance(row, dict) or not {"image", "phrase"} <= row.keys():
            raise InputError(f"{where} has no image and phrase; check --format")
        rows.append(row)
    return rows


def _sample(row: dict[str, Any], where: str, reading: Reading) -> Sample | None:
    row = {name: value for name, value in row.items() if cell(value)}
    phrase = cell(row.get("phrase"))
    category = cell(row.get("category")) or phrase
    absent = category.endswith(ABSENT)
    try:
        given = row.get("boxes")
        listed = json.loads(given) if isinstance(given, str) else given
        boxes = [Box(*map(float, corners)) for corners in listed or ()]
        mask = _mask(row.get("mask"))
        space = _space(row)
    except (TypeError, ValueError, KeyError) as error:
        reading.problems.add("bad row", where, f"boxes, mask or size cannot be read ({error})")
        return None
    if absent and (boxes or mask):
        reading.problems.add("bad row", where, f"category {category!r} has boxes")
        return None
    more: dict[str, Any] = {
        name: cell(row[name]) for name in ("id", "patient", "zone") if name in row
    }
    side = cell(row.get("side")) or named_side(phrase)
    return reading.sample(
        cell(row.get("image")),
        category.removesuffix(ABSENT),
        boxes,
        phrase=phrase,
        space=space,
        absent=absent or (isinstance(listed, list) and not listed),
        region=mask,
        side=side,
        row=where,
        **more,
    )


def _space(row: dict[str, Any]) -> tuple[float, float] | None:
    if "width" in row and "height" in row:
        return float(row["height"]), float(row["width"])
    return None


def _mask(given: Any) -> Rle | None:
    if not given:
        return None
    return read_run_lengths(json.loads(given) if isinstance(given, str) else given)
