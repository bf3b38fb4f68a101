"""VinDr-CXR (PhysioNet, VinBigData): ``image_id, class_name, x_min, y_min, x_max, y_max``.

The training split has three readers for each image, so boxes of one image and class with an IoU of
at least .55 are merged (the smaller goes), and the rest is one sample. Rows without a box ("No
finding", and labels given for the whole image) are left out.

Boxes are in pixels of the original film. Where the images are smaller copies of it, as VinBigData's
often are, the columns ``width`` and ``height`` give the film's size.
"""

from __future__ import annotations

from pathlib import Path

from cxrg.evaluate.datasets.common import Reading, merge_duplicates, numbers, read_rows
from cxrg.evaluate.sample import Sample
from cxrg.geometry import Box

CORNERS = ("x_min", "y_min", "x_max", "y_max")
SIZE = ("height", "width")


def read(path: Path, reading: Reading) -> list[Sample]:
    """The samples of ``annotations_train.csv`` or ``annotations_test.csv``.

    Raises:
        InputError: a column is missing.
    """
    groups: dict[tuple[str, str, tuple[float, ...]], list[Box]] = {}
    for i, row in enumerate(read_rows(path, ("image_id", "class_name", *CORNERS)), 1):
        where = f"{path.name} row {i}"
        if not any(row[name] for name in CORNERS):
            reading.problems.note("row without a box", where, row["class_name"])
            continue
        sized = SIZE if any(row.get(name) for name in SIZE) else ()
        values = numbers(row, (*CORNERS, *sized), where, reading.problems)
        if values:
            key = (row["image_id"], row["class_name"], tuple(values[4:]))
            groups.setdefault(key, []).append(Box(*values[:4]))
    samples = (
        reading.sample(
            image, category, merge_duplicates(boxes), space=(size[0], size[1]) if size else None
        )
        for (image, category, size), boxes in groups.items()
    )
    return [sample for sample in samples if sample]
