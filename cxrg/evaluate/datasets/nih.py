"""NIH ChestX-ray14 boxes: ``BBox_List_2017.csv``.

The header is literally ``Image Index,Finding Label,Bbox [x,y,w,h],,,``: four columns of numbers of
which one has a name. Boxes are in pixels of the published 1024 x 1024 images. Several boxes of one
image and label are one sample.
"""

from __future__ import annotations

import csv
from pathlib import Path

from cxrg.errors import InputError
from cxrg.evaluate.datasets.common import Reading, numbers, read_text, xywh
from cxrg.evaluate.sample import Sample
from cxrg.geometry import Box

HEADER = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
NAMES = {"Infiltrate": "Infiltration"}
"""The label that the image labels of the same set spell otherwise."""


def read(path: Path, reading: Reading) -> list[Sample]:
    """The samples of the list.

    Raises:
        InputError: the header is another.
    """
    lines = list(csv.reader(read_text(path).splitlines()))
    # "Bbox [x,y,w,h]" unquoted is itself split at its commas.
    names = [name.strip() for name in lines[0]] if lines else []
    if tuple(names[: len(HEADER)]) != HEADER and names[:3] != [*HEADER[:2], "Bbox [x,y,w,h]"]:
        raise InputError(f"{path.name} has not the header of BBox_List_2017.csv; check --format")
    groups: dict[tuple[str, str], list[Box]] = {}
    for i, line in enumerate(lines[1:], 1):
        if not any(line):
            continue
        where = f"{path.name} row {i}"
        if len(line) < 6:
            reading.problems.add("bad row", where, f"{len(line)} fields, not 6")
            continue
        row = dict(zip(HEADER, line, strict=False))
        values = numbers(row, HEADER[2:], where, reading.problems)
        if values:
            groups.setdefault((line[0].strip(), line[1].strip()), []).append(xywh(*values))
    samples = (
        reading.sample(
            image,
            NAMES.get(label, label),
            boxes,
            space=(1024.0, 1024.0),
            patient=image.split("_")[0],
        )
        for (image, label), boxes in groups.items()
    )
    return [sample for sample in samples if sample]
