"""ChestX-Det (Deepwise): a list of ``{file_name, syms, boxes, polygons}``, public.

``syms``, ``boxes`` and ``polygons`` run in parallel; entries of one image and label are one sample.
Images are 1024 x 1024. Images without a label are normal and give no sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxrg.errors import InputError
from cxrg.evaluate.datasets.common import Reading, read_json
from cxrg.evaluate.sample import Polygons, Sample
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
        groups.setdefault(label, []).append(i)
    outlines = entry.get("polygons") or []
    samples = []
    for label, indices in groups.items():
        boxes = [Box(*map(float, entry["boxes"][i])) for i in indices]
        rings = [
            tuple((float(x), float(y)) for x, y in outlines[i])
            for i in indices
            if i < len(outlines) and outlines[i]
        ]
        sample = reading.sample(
            entry["file_name"],
            label,
            boxes,
            space=(1024.0, 1024.0),
            region=Polygons(tuple(rings)) if len(rings) == len(indices) else None,
        )
        samples += [sample] if sample else []
    return samples
