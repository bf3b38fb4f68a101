"""A folder of phantoms: pictures, masks, and a manifest of phrases with boxes.

``manifest.csv`` is a cxrg manifest (``image, phrase, category, boxes``, see
:mod:`cxrg.evaluate.datasets.manifest`) with one row per phrase. Column ``kind`` is the row's
origin:

========  =========================================================================
present   a finding or device that is there, with its boxes
anatomy   a part of the body, with its boxes
absent    a finding that is not there, named as if it were (category "... absent")
denied    the same, denied as a report would ("no left pleural effusion")
normal    a normal statement, where nothing was drawn
========  =========================================================================

The last three have no boxes. ``masks/NAME.npz`` holds, each as boolean ``(N, S, S)`` with its
names: ``rows`` (what each manifest row describes), ``findings`` (one by one) and ``regions``.

Picture ``i`` depends on the seed and ``i`` only, so a larger set begins with the smaller one.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.errors import CxrgError, UsageError
from cxrg.geometry import mask_boxes
from cxrg.phantom import language, queries
from cxrg.phantom.dx import write_dx
from cxrg.phantom.language import Query
from cxrg.phantom.queries import Answer
from cxrg.phantom.sample import Phantom, render
from cxrg.phantom.sheet import contact_sheet

COLUMNS = (
    "image",
    "phrase",
    "category",
    "boxes",
    "side",
    "zone",
    "kind",
    "present",
    "id",
    "patient",
    "width",
    "height",
)
SHEET_SIZE = 24
"""Pictures on the contact sheet."""

# Findings whose drawn size means what radiologists call small, moderate and large.
_SIZED = ("ground-glass opacity", "pleural effusion", "pneumothorax", "atelectasis")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Row:
    """A phrase about one phantom; ``mask`` is boolean ``(S, S)``, empty unless it is there."""

    phrase: str
    category: str
    kind: str
    query: Query
    mask: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What :func:`write_dataset` wrote."""

    manifest: Path
    images: int
    rows: int


def image_seed(seed: int, index: int) -> int:
    """The seed of picture ``index`` of a set, 32 bits."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def rows(phantom: Phantom, seed: int) -> list[Row]:
    """Phrases about a phantom: some eight of all kinds, the same for the same seed."""
    rng = random.Random(seed)
    found = [_present(phantom, answer, rng) for answer in _chosen(phantom, rng)]
    found += [
        _row(answer, "anatomy", language.say(answer.query, rng))
        for answer in _some(queries.anatomy(phantom), 2, rng)
    ]
    missing = [
        answer
        for answer in queries.absent(phantom, np.random.default_rng([seed, 2]), 4)
        if language.sayable(answer.query)
    ]
    for kind, answer in zip(("absent", "denied"), missing, strict=False):
        speak = language.say if kind == "absent" else language.negate
        found.append(_row(answer, kind, speak(answer.query, rng)))
    if not phantom.findings:
        nothing = Answer(query=Query("no finding"), mask=np.zeros(phantom.image.shape, bool))
        found.append(_row(nothing, "normal", language.normal(rng)))
    return found


def write_dataset(
    out: Path,
    *,
    count: int,
    seed: int = 0,
    side: int = 512,
    dicom: bool = False,
    sheet: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Written:
    """Render ``count`` phantoms into a new folder, which is there whole or not at all.

    Args:
        out: the folder; it must not exist or be empty.
        count: how many pictures.
        seed: picks the pictures; the first ones are the same for every ``count``.
        side: height and width in pixels.
        dicom: write DICOM DX objects (12 bits) and not PNG (8 bits).
        sheet: also write ``contact-sheet.png`` with the first pictures.
        advance: called after every picture.

    Raises:
        UsageError: the folder is not empty.
        CxrgError: it cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already and not empty; choose another --out")
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        written = _fill(part, count, seed, side, dicom, sheet, advance)
        if out.exists():
            out.rmdir()  # empty, since some systems refuse to rename onto a folder
        part.replace(out)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CxrgError(f"{out}: cannot be written ({reason}); choose another --out") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return replace(written, manifest=out / written.manifest.name)


def _fill(
    folder: Path,
    count: int,
    seed: int,
    side: int,
    dicom: bool,
    sheet: bool,
    advance: Callable[[], None],
) -> Written:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    shown: list[tuple[Phantom, str]] = []
    total = 0
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for index in range(count):
            its_seed = image_seed(seed, index)
            phantom = render(its_seed, side=side)
            queried = rows(phantom, its_seed)
            name = f"{index:06d}"
            image = f"images/{name}.{'dcm' if dicom else 'png'}"
            _write_image(folder / image, phantom, its_seed)
            _write_masks(folder / "masks" / f"{name}.npz", phantom, queried)
            table.writerows(_cells(image, name, side, queried))
            total += len(queried)
            if sheet and len(shown) < SHEET_SIZE:
                shown.append((phantom, queried[0].phrase))
            advance()
    if sheet:
        _write_png(folder / "contact-sheet.png", contact_sheet(shown))
    return Written(manifest=folder / "manifest.csv", images=count, rows=total)


def _chosen(phantom: Phantom, rng: random.Random) -> list[Answer]:
    """Answers about what is there: every finding by its name and side, and by two other queries."""
    every = [a for a in queries.present(phantom) if language.sayable(a.query)]
    named = {Query(finding.kind, finding.side) for finding in phantom.findings}
    first = [answer for answer in every if answer.query in named]
    others = [answer for answer in every if answer.query not in named]
    return first + _some(others, 2, rng)


def _some(answers: list[Answer], count: int, rng: random.Random) -> list[Answer]:
    return rng.sample(answers, min(count, len(answers)))


def _present(phantom: Phantom, answer: Answer, rng: random.Random) -> Row:
    query = answer.query
    sizes = {
        finding.size
        for finding in phantom.findings
        if finding.kind == query.concept and query.side in (None, "bilateral", finding.side)
    }
    # A size may be named where it is true of everything the phrase describes.
    if query.concept in _SIZED and len(sizes) == 1:
        query = replace(query, size=sizes.pop())
    speak = language.sentence if rng.random() < 0.25 else language.say
    return _row(replace(answer, query=query), "present", speak(query, rng))


def _row(answer: Answer, kind: str, phrase: str) -> Row:
    category = answer.query.concept.title()
    if kind in ("absent", "denied"):
        category += " absent"
    return Row(phrase=phrase, category=category, kind=kind, query=answer.query, mask=answer.mask)


def _cells(image: str, name: str, side: int, queried: list[Row]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(queried):
        boxes = [[box.x0, box.y0, box.x1, box.y1] for box in mask_boxes(row.mask)]
        yield {
            "image": image,
            "phrase": row.phrase,
            "category": row.category,
            "boxes": json.dumps(boxes),
            "side": row.query.side or "",
            "zone": row.query.zone or "",
            "kind": row.kind,
            "present": str(bool(boxes)).lower(),
            "id": f"{name}-{number:02d}",
            "patient": name,
            "width": side,
            "height": side,
        }


def _write_image(path: Path, phantom: Phantom, seed: int) -> None:
    if path.suffix == ".dcm":
        write_dx(path, np.round(phantom.image * 4095).astype(np.uint16), seed=seed)
    else:
        _write_png(path, np.round(phantom.image * 255).astype(np.uint8))


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    _, coded = cv2.imencode(".png", pixels)
    path.write_bytes(coded.tobytes())


def _write_masks(path: Path, phantom: Phantom, queried: list[Row]) -> None:
    def stack(masks: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
        return np.array(list(masks), bool).reshape(-1, *phantom.image.shape)

    findings = phantom.findings
    np.savez_compressed(
        path,
        rows=stack(row.mask for row in queried),
        row_phrases=np.array([row.phrase for row in queried], np.str_),
        findings=stack(finding.mask for finding in findings),
        finding_names=np.array([f"{f.side or ''} {f.kind}".strip() for f in findings], np.str_),
        regions=stack(phantom.regions.values()),
        region_names=np.array(list(phantom.regions), np.str_),
    )
