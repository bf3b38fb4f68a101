"""CheXlocalize: radiologists' segmentations of CheXpert images, as outlines or COCO run lengths.

Outlines: ``{id: {"img_size": [h, w], <pathology>: [[[x, y], ...], ...]}}``; run lengths:
``{id: {<pathology>: {"size": [h, w], "counts": ...}}}``, compressed or not, with an empty mask
where the pathology isn't there. Ids are ``patient64541_study1_view1_frontal``; lateral views are
left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cxrg.errors import InputError
from cxrg.evaluate.datasets.common import Reading, read_json
from cxrg.evaluate.sample import Polygons, Sample, decode, read_run_lengths, ring_box
from cxrg.geometry import mask_boxes


def read(path: Path, reading: Reading) -> list[Sample]:
    """The samples of a ``gt_annotations_*.json`` or ``gt_segmentations_*.json``.

    Raises:
        InputError: the file has not that form.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise InputError(f"{path.name} is no CheXlocalize JSON; check --format")
    samples = []
    for name, entry in content.items():
        if name.endswith("lateral"):
            reading.problems.note("lateral view", name, "only frontal views are grounded")
            continue
        samples += [sample for sample in _samples(name, entry, reading) if sample]
    return samples


def _samples(name: str, entry: dict[str, Any], reading: Reading) -> Iterator[Sample | None]:
    for pathology, shapes in entry.items():
        if pathology == "img_size":
            continue
        where = f"{name} {pathology}"
        try:
            if isinstance(shapes, dict):
                more = _coded(shapes)
            else:
                outlines = reading.outlines(shapes, where)
                more = _outlined(outlines, entry["img_size"])
        except (KeyError, TypeError, ValueError) as error:
            reading.problems.add("bad entry", where, f"{error!r}")
            continue
        # Every study has a view1_frontal, so the bare name is no use.
        yield reading.sample(
            _file(name, reading),
            pathology,
            more.pop("boxes"),
            anywhere=False,
            id=where,
            patient=name.split("_")[0],
            **more,
        )


def _file(name: str, reading: Reading) -> str:
    """The image's path: as CheXpert has it (patient64541/study1/view1_frontal), or all in one."""
    return name if reading.images.find(name, anywhere=False) else "/".join(name.split("_", 2))


def _outlined(region: Polygons | None, size: list[float]) -> dict[str, Any]:
    if region is None:
        raise ValueError("no outline")
    boxes = [ring_box(ring) for ring in region.rings]
    return {"boxes": boxes, "region": region, "space": (float(size[0]), float(size[1]))}


def _coded(shape: dict[str, Any]) -> dict[str, Any]:
    region = read_run_lengths(shape)
    mask = decode(region, region.size)
    space = (float(region.size[0]), float(region.size[1]))
    if not np.any(mask):
        return {"boxes": [], "absent": True, "space": space}
    return {"boxes": mask_boxes(mask), "region": region, "space": space}
