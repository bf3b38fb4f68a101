"""How well a source of anatomy outlines what a data set outlines too.

``dice`` compares masks where the truth is a mask; ``box_dice`` compares their bounding boxes (of
connected parts) everywhere, as many sets hold boxes only. Truth are samples about anatomy, and in
phantoms every location.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cxrg.anatomy import LOCATIONS, Source, Structures
from cxrg.evaluate.datasets import Dataset
from cxrg.evaluate.measures.common import Advance, Measured, Read, Table, each_image
from cxrg.evaluate.measures.wordings import locations_of
from cxrg.evaluate.metrics.bootstrap import NAN, Mean, Resampling, mean_of
from cxrg.evaluate.metrics.heatmaps import as_mask, box_mask
from cxrg.evaluate.run import Open, Settings, choose, open_file
from cxrg.evaluate.sample import Sample
from cxrg.geometry import Mask, mask_boxes
from cxrg.image.read import CxrImage

SCORES = ("dice", "box_dice")


def dice(a: Mask, b: Mask) -> float:
    """``2 |A and B| / (|A| + |B|)``; NaN where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else NAN


def measure(
    dataset: Dataset,
    read: Read,
    source: Source,
    settings: Settings,
    *,
    open_image: Open = open_file,
    advance: Advance = lambda name, count: None,
    exact: Callable[[CxrImage], Structures] | None = None,
    facts: Mapping[str, Any],
) -> Measured:
    """Dice of a source's locations with the data set's anatomy.

    ``exact`` gives the true structures of an image, where all are known (phantoms).
    """
    chosen = [s for s in dataset.samples if exact or (s.present and _part(s))]
    ids = {s.id for s in chosen}
    chosen = [s for s in choose(dataset.samples, settings) if s.id in ids]
    records: list[dict[str, Any]] = []
    for image, masks, samples in each_image(dataset, chosen, read, source, open_image, advance):
        shape = masks.shape[1:]
        truths = _exact(exact(image)) if exact else _samples(samples, (shape[0], shape[1]))
        for name, truth, is_mask in truths:
            ours = masks[LOCATIONS.index(name)] >= 0.5
            records.append(
                {
                    "id": samples[0].id,
                    "patient": samples[0].patient,
                    "location": name,
                    "dice": dice(ours, truth) if is_mask else NAN,
                    "box_dice": dice(_boxed(ours), _boxed(truth) if is_mask else truth),
                }
            )
    return Measured(
        name="anatomy",
        facts={"dataset": dataset.name, **facts, "outlines": len(records)},
        tables=(_table(records, settings.seed),),
        records=tuple(records),
    )


def _part(sample: Sample) -> str | None:
    """The one location that a sample about anatomy outlines."""
    from cxrg.chest.findings import finding_of

    names = locations_of(sample) if finding_of(sample.category) is None else ()
    return names[0] if names else None


def _exact(structures: Structures) -> Iterator[tuple[str, Mask, bool]]:
    yield from ((name, structures[name], True) for name in LOCATIONS if structures[name].any())


def _samples(samples: Sequence[Sample], shape: tuple[int, int]) -> Iterator[tuple[str, Mask, bool]]:
    for sample in samples:
        name = _part(sample)
        if name is not None:
            yield name, as_mask(sample.truth(shape), shape), sample.region is not None


def _boxed(mask: Mask) -> Mask:
    """The union of the bounding boxes of a mask's parts."""
    shape = (mask.shape[0], mask.shape[1])
    return box_mask(mask_boxes(mask), shape) if mask.any() else mask


def _table(records: Sequence[dict[str, Any]], seed: int) -> Table:
    rows: list[tuple[str | Mean, ...]] = []
    draw = Resampling.of([r["patient"] for r in records], seed=seed) if records else None
    for name in LOCATIONS:
        keep = np.array([record["location"] == name for record in records], dtype=bool)
        if draw is None or not keep.any():
            continue
        part = [record for record in records if record["location"] == name]
        columns = [np.array([r[score] for r in part], dtype=float) for score in SCORES]
        rows.append((name, str(len(part)), *(mean_of(c, draw.only(keep)) for c in columns)))
    return Table(
        title="overlap with the data set", head=("location", "n", *SCORES), rows=tuple(rows)
    )
