"""Studies of real images: a table of files and report texts, and anatomy masks.

The table is CSV with columns ``image`` (paths from the table's folder) and ``report``, perhaps
``patient`` (else every image counts as a patient of its own). Masks are the user's, in a folder
that `cxrg.anatomy.folder` reads, or what the shipped segmenter finds.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy import LOCATIONS, Source, anatomy
from cxrg.chest.vocabulary import finding_named, locations_of
from cxrg.errors import InputError
from cxrg.image.read import read_image
from cxrg.learn.tune.study import Study, Triple, coarse_locations, join_triples
from cxrg.reports import Statement, statements


def read_studies(
    table: Path, source: Source, *, side: int, grid: int, report: Callable[[int, int], None]
) -> list[Study]:
    """The table's images that have at least one finding at a place with a mask.

    Args:
        table: the CSV file.
        source: where the masks come from.
        side: pixels of the model's square.
        grid: cells along a side of the masks.
        report: called with rows done and rows.

    Raises:
        InputError: table, image or mask cannot be read, or nothing in it can be learnt from.
    """
    rows = _rows(table)
    studies = []
    for number, row in enumerate(rows, start=1):
        path = table.parent / row["image"]
        image = read_image(path, side=side)
        masks = zip(LOCATIONS, anatomy(image, source), strict=True)
        cells = coarse_locations({name: image.frame.sample(mask) for name, mask in masks}, grid)
        found = report_triples(statements(row["report"]), cells)
        if found:
            studies.append(
                Study(
                    pixels=np.round(image.pixels * 255).astype(np.uint8),
                    masks=cells,
                    triples=found,
                    patient=row.get("patient") or f"row {number}",
                )
            )
        report(number, len(rows))
    if not studies:
        raise InputError(f"{table}: no report names one of the findings at a place with a mask")
    return studies


def report_triples(statements: Iterable[Statement], masks: NDArray[np.uint8]) -> tuple[Triple, ...]:
    """The triples of what a report states as present, without what is denied or uncertain."""
    present = (each for each in statements if each.certainty == "present")
    named = ((finding_named(each.finding or ""), each) for each in present)
    return join_triples(
        (
            (
                finding,
                locations_of(finding, each.side, each.zone),
                partial(list, [each.phrase or ""]),
            )
            for finding, each in named
            if finding is not None
        ),
        masks,
    )


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read; give a CSV file in UTF-8") from error
    if not rows or not {"image", "report"} <= rows[0].keys():
        raise InputError(f"{table}: needs the columns image and report")
    return rows
