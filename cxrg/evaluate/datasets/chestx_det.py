"""ChestX-Det (Deepwise): a list of ``{file_name, syms, boxes, polygons}``, public.

``syms``, ``boxes`` and ``polygons`` run in parallel; entries of one image and label are one sample.
Images are 1024 x 1024. Images without a label are normal and give no sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxrg.errors import InputError
from cxrg.evaluate.datasets.common import Reading, cell, read_json
from cxrg.evaluate.sample import Sample
from cxrg.geometry import Box


def read(path: Path, reading: Reading) -> list[Sample]:
    """The samples of ``ChestX_Det_train.json`` or ``ChestX_Det_test.json``.

    Raises:
        InputError: the file has not that form.
    """
    samples = []
    try:
        for entry in read_json(path):
            if not entry["syms"]:
                reading.problems.note("normal image", entry["file_name"], "nothing to ask")
            samples += _samples(entry, reading)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path.name} is no ChestX-Det JSON ({type(error).__name__} {error}); check --format"
        ) from error
    return samples


def _samples(entry: dict[str, Any], reading: Reading) -> list[Sample]:
    groups: dict[str, list[int]] = {}
    for i, label in enumerate(entry["syms"]):
        if cell(label):
            groups.setdefault(label, []).append(i)
        else:
            reading.problems.add("bad entry", entry["file_name"], "a label is empty")
    outlines = entry.get("polygons") or []
    samples = []
    for label, indices in groups.items():
        where = f"{entry['file_name']} {label}"
        boxes = [Box(*map(float, entry["boxes"][i])) for i in indices]
        rings = [outlines[i] for i in indices if i < len(outlines) and outlines[i]]
        region = reading.outlines(rings, where)
        # Without an outline of each, the boxes are the truth.
        whole = region is not None and len(region.rings) == len(indices)
        sample = reading.sample(
            entry["file_name"],
            label,
            boxes,
            space=(1024.0, 1024.0),
            region=region if whole else None,
        )
        samples += [sample] if sample else []
    return samples
