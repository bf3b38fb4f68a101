"""MS-CXR (PhysioNet): phrases of reports with boxes, as CSV or COCO JSON.

CSV 1.x: ``dicom_id, category_name, label_text, path, x, y, w, h, image_width, image_height
[, split]``. JSON: ``images[].path``, ``annotations[].bbox, category_id, label_text``,
``categories[].name``. Rows with the same path and phrase are one sample with several boxes.
Paths are those of MIMIC-CXR: ``files/p10/p10000032/s50414267/<dicom_id>.dcm`` or ``.jpg``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cxrg.chest.categories import named_side
from cxrg.errors import InputError
from cxrg.evaluate.datasets.common import Reading, cell, numbers, read_json, read_rows, xywh
from cxrg.evaluate.sample import Sample
from cxrg.geometry import Box

COLUMNS = (
    "category_name",
    "label_text",
    "path",
    "x",
    "y",
    "w",
    "h",
    "image_width",
    "image_height",
)


class _Row(NamedTuple):
    path: str
    phrase: str
    category: str
    box: Box
    size: tuple[float, float]


def read(path: Path, reading: Reading) -> list[Sample]:
    """The samples of an MS-CXR file, CSV or JSON.

    Raises:
        InputError: the file has not that form.
    """
    rows = _from_json(path) if path.suffix.lower() == ".json" else _from_csv(path, reading)
    groups: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        if row.phrase:
            groups.setdefault((row.path, row.phrase), []).append(row)
        else:
            reading.problems.add("no phrase", f"{row.path} {row.category}", "label_text is empty")
    samples = (_sample(group, reading) for group in groups.values())
    return [sample for sample in samples if sample]


def _from_csv(path: Path, reading: Reading) -> Iterator[_Row]:
    for i, row in enumerate(read_rows(path, COLUMNS), 1):
        where = f"{path.name} row {i}"
        values = numbers(row, COLUMNS[3:], where, reading.problems)
        if values:
            x, y, w, h, width, height = values
            box = xywh(x, y, w, h)
            yield _Row(row["path"], row["label_text"], row["category_name"], box, (height, width))


def _from_json(path: Path) -> Iterator[_Row]:
    try:
        coco = read_json(path)
        names = {entry["id"]: entry["name"] for entry in coco["categories"]}
        images: dict[Any, dict[str, Any]] = {entry["id"]: entry for entry in coco["images"]}
        for note in coco["annotations"]:
            image = images[note["image_id"]]
            yield _Row(
                image.get("path") or image["file_name"],
                cell(note["label_text"]),
                names[note["category_id"]],
                xywh(*map(float, note["bbox"])),
                (float(image["height"]), float(image["width"])),
            )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path.name} is no MS-CXR JSON ({type(error).__name__} {error}); check --format"
        ) from error


def _sample(rows: list[_Row], reading: Reading) -> Sample | None:
    first = rows[0]
    return reading.sample(
        first.path,
        first.category,
        [row.box for row in rows],
        phrase=first.phrase,
        space=first.size,
        patient=mimic_patient(first.path),
        side=named_side(first.phrase),
    )


def mimic_patient(path: str) -> str:
    """The patient folder of a MIMIC-CXR path (``p10000032``), else the file's own name."""
    found = re.search(r"(?:^|/)(p\d{8})(?:/|$)", path)
    return found.group(1) if found else PurePosixPath(path).stem
