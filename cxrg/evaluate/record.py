"""What is kept of every sample: one JSON line, so that a run can go on and two can be compared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cxrg.errors import InputError
from cxrg.geometry import Box

METHOD = "method"
Corners = list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One sample's outcome.

    ``shape`` is the image's (H, W); ``area`` the share of it that is truth. ``values`` are metrics
    and ``sweep`` IoUs by threshold, per map (``method`` and each control); empty for negatives.
    ``boxes`` are ``[x0, y0, x1, y1, score]`` per map, in pixels of the image. ``obeys`` is the
    share of the heatmap's maximal pixels on the side that the phrase names, where it names one.
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
    obeys: float | None
    shuffled_phrase: str | None
    truth: list[Corners]
    boxes: dict[str, list[Corners]]
    values: dict[str, dict[str, float]]
    sweep: dict[str, list[float]]
    warnings: list[str]

    def line(self) -> str:
        """The record as one line of strict JSON; undefined values are null."""
        return json.dumps(_plain(asdict(self)), ensure_ascii=False, allow_nan=False) + "\n"


def parse(line: str) -> Record:
    """A record from its line.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    fields = json.loads(line)
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
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(parse(line))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path.name} line {number} is no sample of an evaluation; start in a new folder"
            ) from error
    return records


def corners(boxes: Iterable[Box]) -> list[Corners]:
    """Boxes as lists of numbers, with the score where there is one."""
    return [
        [b.x0, b.y0, b.x1, b.y1] if b.score is None else [b.x0, b.y0, b.x1, b.y1, b.score]
        for b in boxes
    ]


def as_boxes(rows: Sequence[Sequence[float]]) -> tuple[Box, ...]:
    """The inverse of :func:`corners`."""
    return tuple(Box(*row) for row in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
