"""Studies of real images: a table of files and report texts, and a folder of anatomy masks.

The table is CSV with columns ``image`` (paths from the table's folder) and ``report``, perhaps
``patient`` (else every image counts as a patient of its own). The masks of ``x/NAME.png`` are
``NAME.npz`` with an array ``(H, W)`` for each location by its name, or a folder ``NAME`` with
``left lung.png`` and so on (blanks may be underscores), white where the location is; both at the
image's size or a multiple of it. Locations without a mask are not learnt from.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.errors import InputError
from cxrg.image import CxrImage, read_image
from cxrg.tune.study import Study, Triple, coarse, plain
from cxrg.tune.vocabulary import LOCATIONS, finding_named, locations_of

if TYPE_CHECKING:
    from cxrg.reports import Statement

Masks = dict[str, NDArray[np.float32]]


def read_studies(
    table: Path, masks: Path, *, side: int, grid: int, report: Callable[[int, int], None]
) -> list[Study]:
    """The table's images that have at least one finding at a place with a mask.

    Args:
        table: the CSV file.
        masks: the folder of masks.
        side: pixels of the model's square.
        grid: cells along a side of the masks.
        report: called with rows done and rows.

    Raises:
        InputError: table, image or mask cannot be read, or nothing in it can be learnt from.
        UsageError: the package for reading reports is not installed.
    """
    from cxrg.reports import statements

    if not masks.is_dir():
        raise InputError(f"{masks}: no such folder; set data.masks to the images' anatomy masks")
    rows = _rows(table)
    studies = []
    for number, row in enumerate(rows, start=1):
        path = table.parent / row["image"]
        image = read_image(path, side=side)
        cells = coarse(
            {
                name: image.frame.sample(mask)
                for name, mask in read_masks(masks, path.stem, image).items()
            },
            grid,
        )
        found = triples(statements(row["report"]), cells)
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


def triples(said: Iterable[Statement], masks: NDArray[np.uint8]) -> tuple[Triple, ...]:
    """What a report says is present, place by place; what is denied or uncertain is left out."""
    phrases: dict[tuple[str, str], list[str]] = {}
    for statement in said:
        finding = finding_named(statement.finding or "")
        if statement.certainty != "present" or finding is None:
            continue
        for location in locations_of(finding, statement.side, statement.zone):
            if masks[LOCATIONS.index(location)].any():
                own = phrases.setdefault((location, finding), [])
                own.append(statement.phrase or "")
    return tuple(
        Triple(location=location, finding=finding, phrases=plain(location, finding, tuple(texts)))
        for (location, finding), texts in phrases.items()
    )


def read_masks(folder: Path, stem: str, image: CxrImage) -> Masks:
    """The masks of one image, float32 in [0, 1] at its size, by location.

    Raises:
        InputError: there are none, or one has another shape or cannot be read.
    """
    path = folder / f"{stem}.npz"
    if path.is_file():
        found = _from_arrays(path)
    else:
        path = folder / stem
        found = _from_pictures(path)
    if not found:
        raise InputError(f"{path}: no mask of a location such as {LOCATIONS[0]!r}; see --help")
    height, width = image.frame.source
    sized = {}
    for name, mask in found.items():
        if mask.shape[0] * width != mask.shape[1] * height:
            raise InputError(
                f"{path}: {name} is {mask.shape}, the image {(height, width)}; make them alike"
            )
        small = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        sized[name] = np.asarray(small, np.float32)
    return sized


def _from_arrays(path: Path) -> Masks:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files if name in LOCATIONS}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable NPZ file; write it with numpy.savez") from error
    wrong = [name for name, mask in found.items() if mask.ndim != 2]
    if wrong:
        raise InputError(f"{path}: {wrong[0]} is no (H, W) array; write one per location")
    return {name: (mask > 0).astype(np.float32) for name, mask in found.items()}


def _from_pictures(folder: Path) -> Masks:
    found: Masks = {}
    for path in sorted(folder.glob("*.png")):
        name = path.stem.replace("_", " ")
        if name in LOCATIONS:
            mask = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
            if mask is None:
                raise InputError(f"{path}: no readable PNG; write it again")
            found[name] = (np.asarray(mask) > 127).astype(np.float32)
    return found


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read; give a CSV file in UTF-8") from error
    if not rows or not {"image", "report"} <= rows[0].keys():
        raise InputError(f"{table}: needs the columns image and report")
    return rows
