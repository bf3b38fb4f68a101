"""What is kept of every sample: one JSON line, so that a run can go on and two can be compared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cxrg.evaluate import resume
from cxrg.geometry import Box
from cxrg.model.calibration import strength

METHOD = "method"
Corners = list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One sample's outcome.

    ``shape`` is the image's (H, W); ``area`` the share of it that is truth. ``values`` are metrics
    and ``sweep`` IoUs by threshold, per map (``method`` and each control); empty for negatives.
    ``boxes`` are ``[x0, y0, x1, y1, score]`` per map, in pixels of the image.
    ``laterality_hit`` is the share of the heatmap's maximal pixels on the side that the phrase
    names, where it names one. ``shuffled_phrase`` and ``other_image`` are what the controls of
    those names took: the phrase of another sample, and the image of another patient.
    """

    id: str
    image: str
    phrase: str
    category: str
    group: str
    patient: str
    side: str | None
    zone: str | None
    present: bool
    shape: tuple[int, int]
    area: float
    status: str
    score: float
    presence: float | None
    laterality_hit: float | None
    shuffled_phrase: str | None
    other_image: str | None
    truth: list[Corners]
    boxes: dict[str, list[Corners]]
    values: dict[str, dict[str, float]]
    sweep: dict[str, list[float]]
    warnings: list[str]

    @property
    def strength(self) -> float:
        """Presence, or the score where there is none: what status is decided by."""
        return strength(self.score, self.presence)

    def line(self) -> str:
        """The record as one line of strict JSON; undefined values are null."""
        return resume.as_line(asdict(self))


def parse(line: str) -> Record:
    """A record from its line.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    fields = json.loads(line)
    if "obeys" in fields:  # its former name
        fields["laterality_hit"] = fields.pop("obeys")
    for name in ("other_image", "presence"):
        fields.setdefault(name, None)  # of earlier versions
    fields["shape"] = tuple(fields["shape"])
    fields["values"] = {
        name: {metric: math.nan if value is None else value for metric, value in values.items()}
        for name, values in fields["values"].items()
    }
    return Record(**fields)


def load(path: Path) -> list[Record]:
    """The records of a file; a last line that was cut short is left out.

    Raises:
        InputError: another line is no record.
    """
    return resume.load(path, parse)


def corners(boxes: Iterable[Box]) -> list[Corners]:
    """Boxes as lists of numbers, with the score where there is one."""
    return [
        [b.x0, b.y0, b.x1, b.y1] if b.score is None else [b.x0, b.y0, b.x1, b.y1, b.score]
        for b in boxes
    ]


def as_boxes(rows: Sequence[Sequence[float]]) -> tuple[Box, ...]:
    """The inverse of :func:`corners`."""
    return tuple(Box(*row) for row in rows)
