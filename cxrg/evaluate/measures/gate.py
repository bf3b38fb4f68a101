"""How well the view gate tells upright frontal chest X-rays from turned, inverted, cut and others.

Every image of a data set is judged as it is and changed; no grounding model runs. Changes that keep
an upright chest must be let through, all others refused; a turned picture or a negative should be
named as such, too. Pictures of a folder that show no chest may be judged beside them.

`cxrg ground` refuses by the same judgement (`cxrg.anatomy.check.check_view`), where a DICOM header
does not state what the image is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from cxrg.anatomy.view import SIDE, WEIGHTS, judge_square
from cxrg.errors import InputError
from cxrg.evaluate.datasets import Dataset
from cxrg.evaluate.measures.common import Advance, Fields, Measured, Read, Table
from cxrg.evaluate.metrics.bootstrap import Mean
from cxrg.evaluate.metrics.presence import share_of
from cxrg.evaluate.run import Open, Settings, by_image, choose, open_file
from cxrg.evaluate.sample import without_path
from cxrg.geometry import Frame
from cxrg.image.read import CxrImage, is_image
from cxrg.learn.view import others
from cxrg.output.plots import bars

Grey = NDArray[np.float32]
NAME = "gate"
UPRIGHT, NEGATIVE, OTHER = "upright", "negative", "other"
_LONGEST = 512
_NOISE = 0.05
_ABOUT = (
    "Which images would be refused as no upright frontal chest X-ray: those of the data set, as "
    "they are and changed. Shares of images; intervals are Wilson's, of as many as are patients."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is made of a picture, and how the gate should judge it."""

    make: Callable[[Grey, Generator], Grey]
    expected: str


def _noisy(picture: Grey, rng: Generator) -> Grey:
    noise = rng.normal(0, _NOISE, picture.shape)
    return np.asarray((picture + noise).clip(0, 1), np.float32)


def _bytes(picture: Grey) -> NDArray[np.uint8]:
    """A picture on a square of 96 pixels, as `cxrg.learn.view.others` takes them."""
    return others.squared(np.asarray((picture * 255).round().astype(np.uint8)))


def _floats(picture: NDArray[np.uint8]) -> Grey:
    return picture.astype(np.float32) / np.float32(255)


CHANGES = {
    "as it is": Change(make=lambda x, rng: x, expected=UPRIGHT),
    "mirrored left to right": Change(make=lambda x, rng: x[:, ::-1], expected=UPRIGHT),
    "with noise added": Change(make=_noisy, expected=UPRIGHT),
    "turned clockwise": Change(make=lambda x, rng: np.rot90(x, -1), expected="turned clockwise"),
    "turned by 180 degrees": Change(make=lambda x, rng: np.rot90(x, 2), expected="upside down"),
    "turned counter-clockwise": Change(
        make=lambda x, rng: np.rot90(x, 1), expected="turned counter-clockwise"
    ),
    "mirrored at a horizontal line": Change(make=lambda x, rng: x[::-1], expected="upside down"),
    "inverted": Change(make=lambda x, rng: 1 - x, expected=NEGATIVE),
    "upper half": Change(make=lambda x, rng: x[: len(x) // 2], expected=OTHER),
    "one side": Change(make=lambda x, rng: x[:, : x.shape[1] // 2], expected=OTHER),
    "a part": Change(make=lambda x, rng: _floats(others.part(_bytes(x), rng)), expected=OTHER),
    "twice side by side": Change(make=lambda x, rng: np.hstack([x, x]), expected=OTHER),
    "cut into shuffled squares": Change(
        make=lambda x, rng: _floats(others.shuffled(_bytes(x), rng)), expected=OTHER
    ),
    "noise instead": Change(make=lambda x, rng: _floats(others.spectrum(rng)), expected=OTHER),
}
"""By name; those that keep an upright chest come first."""


def judged(picture: Grey) -> str:
    """The kind of a grey picture in [0, 1] of any size; ``negative`` of an upright one's."""
    frame = Frame.fit((picture.shape[0], picture.shape[1]), SIDE, "pad")
    view = judge_square(frame.sample(np.ascontiguousarray(picture)).clip(0, 1))
    return NEGATIVE if view.kind == UPRIGHT and view.negative else view.kind


def picture_of(image: CxrImage) -> Grey:
    """An image in [0, 1] with square pixels, at most 512 on the longest side."""
    height, width = image.grey.shape
    tall = height * image.frame.crop.width / image.frame.crop.height
    factor = min(_LONGEST / max(tall, width), 1.0)
    size = max(round(width * factor), 1), max(round(tall * factor), 1)
    grey = np.nan_to_num(image.grey).clip(0, 1)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)


def measure(
    dataset: Dataset,
    read: Read,
    settings: Settings,
    *,
    open_image: Open = open_file,
    advance: Advance = lambda name, count: None,
    other: Path | None = None,
) -> Measured:
    """Shares of a data set's images that the gate refuses, as they are and changed.

    Args:
        dataset: its images are upright frontal chest X-rays.
        read: reads an image.
        settings: the limit and the seed.
        open_image: opens the image of a sample.
        advance: is called after each image.
        other: a folder of images that are none.

    Raises:
        InputError: no image of the data set, or of the folder, can be read.
    """
    records: list[Fields] = []
    for number, (path, samples) in enumerate(by_image(choose(dataset.samples, settings)).items()):
        first = samples[0]
        try:
            image = read(open_image(first))
        except InputError as error:
            reason = without_path(str(error), first.image)
            dataset.problems.add("cannot be read", first.row or first.id, reason)
        else:
            records.append(
                {
                    "id": first.image_id or first.image.name,
                    "patient": first.patient,
                    "stated": image.stated is not None,
                    "judged": _judge_all(image, np.random.default_rng([settings.seed, number])),
                }
            )
        advance(path.name, len(samples))
    if not records:
        raise InputError(f"no image of {dataset.name} can be read; check --images")
    facts: dict[str, Any] = {
        "dataset": dataset.name,
        "network": hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()[:16],
        "seed": settings.seed,
        "images": len(records),
    }
    tables = [_kept(records), _refused(records)]
    if other is not None:
        kinds, unread = judge_folder(other, read)
        if not kinds:
            raise InputError(f"{other}: no folder with images; give another for --other")
        facts |= {"other pictures": len(kinds), "other files that are no readable image": unread}
        tables.append(_others(kinds))
    return Measured(
        name=NAME,
        facts=facts,
        tables=tuple(tables),
        records=tuple(records),
        plots=(_plot(tables),),
        about=_ABOUT,
    )


def judge_folder(folder: Path, read: Read) -> tuple[list[str], int]:
    """The kind of each image below a folder, and how many files are none that can be read."""
    kinds, unread = [], 0
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        try:
            image = read(path) if is_image(path) else None
        except InputError:
            image = None
        if image is None:
            unread += 1
        else:
            kinds.append(OTHER if image.stated else judged(picture_of(image)))
    return kinds, unread


def _judge_all(image: CxrImage, rng: Generator) -> dict[str, str]:
    picture = picture_of(image)
    return {name: judged(change.make(picture, rng)) for name, change in CHANGES.items()}


def _kept(records: Sequence[Fields]) -> Table:
    """False alarms: pictures that show an upright chest, and are refused."""
    rows = [
        (name, str(len(records)), _share_refused(records, name))
        for name, change in CHANGES.items()
        if change.expected == UPRIGHT
    ]
    stated = [record["stated"] for record in records]
    if any(stated):
        name = "as it is, by what its DICOM header states"
        rows.append((name, str(len(records)), _share(records, stated)))
    return Table(title="false alarms", head=("upright X-rays", "n", "refused"), rows=tuple(rows))


def _refused(records: Sequence[Fields]) -> Table:
    """Sensitivity: pictures that show no upright chest."""
    rows = tuple(
        (
            name,
            str(len(records)),
            _share_refused(records, name),
            _share(records, [record["judged"][name] == change.expected for record in records]),
            change.expected,
        )
        for name, change in CHANGES.items()
        if change.expected != UPRIGHT
    )
    head = ("changed X-rays", "n", "refused", "named right", "right name")
    return Table(title="sensitivity", head=head, rows=rows)


def _others(kinds: Sequence[str]) -> Table:
    flags = np.array([kind != UPRIGHT for kind in kinds], dtype=bool)
    share = share_of(flags, [str(number) for number in range(len(kinds))])
    rows = (("all images of the folder", str(len(kinds)), share),)
    return Table(title="pictures of --other", head=("pictures", "n", "refused"), rows=rows)


def _share_refused(records: Sequence[Fields], name: str) -> Mean:
    return _share(records, [record["judged"][name] != UPRIGHT for record in records])


def _share(records: Sequence[Fields], flags: Sequence[bool]) -> Mean:
    return share_of(np.array(flags, dtype=bool), [record["patient"] for record in records])


def _plot(tables: Sequence[Table]) -> Any:
    shares = {
        str(row[0]): row[2] for table in tables for row in table.rows if isinstance(row[2], Mean)
    }
    return bars(shares, title="share refused", baseline={})
