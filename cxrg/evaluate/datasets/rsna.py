"""RSNA Pneumonia Detection Challenge 2018: ``patientId, x, y, width, height, Target``.

Boxes are in pixels of the 1024 x 1024 images. Rows with ``Target`` 0 are negatives: the phrase
names an opacity that isn't there.
"""

from __future__ import annotations

from pathlib import Path

from cxrg.evaluate.datasets.common import Reading, numbers, read_rows, xywh
from cxrg.evaluate.sample import Sample
from cxrg.geometry import Box

CATEGORY = "Lung Opacity"
TARGETS = {"0": False, "1": True, "0.0": False, "1.0": True}
"""As published, and as table programs write a column of numbers."""
EXTENT = ("x", "y", "width", "height")


def read(path: Path, reading: Reading) -> list[Sample]:
    """The samples of ``stage_2_train_labels.csv``.

    Raises:
        InputError: a column is missing.
    """
    groups: dict[str, list[Box]] = {}
    for i, row in enumerate(read_rows(path, ("patientId", *EXTENT, "Target")), 1):
        where = f"{path.name} row {i}"
        target = TARGETS.get(row["Target"])
        if target is None:
            reading.problems.add("bad row", where, "Target is not 0 or 1")
            continue
        if not target:
            groups.setdefault(row["patientId"], [])
            continue
        values = numbers(row, EXTENT, where, reading.problems)
        if values:
            groups.setdefault(row["patientId"], []).append(xywh(*values))
    samples = (
        reading.sample(patient, CATEGORY, boxes, space=(1024.0, 1024.0), absent=not boxes)
        for patient, boxes in groups.items()
    )
    return [sample for sample in samples if sample]
