"""What the measures beside grounding share: going through images, tables of means, and files.

A measure writes three files: ``NAME.json`` (facts, tables, problems), ``NAME.jsonl`` (a record per
sample) and ``NAME.html`` (the same tables for people, with pictures where there are any). Those
that run a model go on where they stopped: records are appended image by image, and
``NAME.run.json`` describes the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cxrg.about import NOTICE, __version__
from cxrg.anatomy import LOCATIONS, Source, Structures, locate
from cxrg.errors import InputError
from cxrg.evaluate.datasets import Dataset
from cxrg.evaluate.method import GroundingLike, Method
from cxrg.evaluate.metrics.bootstrap import NAN, Mean
from cxrg.evaluate.resume import Run, as_line, identify
from cxrg.evaluate.run import Open, Settings, by_image, reduce
from cxrg.evaluate.sample import Sample, without_path
from cxrg.files import atomic_write, json_values
from cxrg.image.read import CxrImage
from cxrg.output.html import write_page

LONGEST = 512
"""Masks and heatmaps are compared at no more pixels than this on the longest side."""
MAPS = ("attention", "heatmap")
"""What is measured of a phrase: the mean attention, and what the run's options make of it."""
Heat = NDArray[np.float32]
Fields = dict[str, Any]
Read = Callable[["Path | CxrImage"], CxrImage]
Advance = Callable[[str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of names and means; ``head`` names both."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str | Mean, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The outcome of a measure; ``records`` are all in its folder, also those beyond a limit.

    ``about`` is a sentence for the page: what was measured, where its title does not say it.
    """

    name: str
    facts: Fields
    tables: tuple[Table, ...]
    records: tuple[Fields, ...]
    pictures: dict[str, bytes] = field(default_factory=dict)
    plots: tuple[Markup, ...] = ()
    about: str = ""


class RecordStore:
    """A measure's records by id, kept in a file as they come.

    A record is a question, which is known before the network runs (``id`` and all that decides what
    is asked), with its answers. Of several with one id the last counts; `write` keeps it alone.

    Args:
        out: the measure's folder.
        name: of the measure.
        facts: what decides the answers.

    Raises:
        InputError: a line of the file is no record.
        UsageError: the folder holds another run of this measure.
    """

    def __init__(self, out: Path, name: str, facts: Mapping[str, Any]) -> None:
        self._run = Run(out / f"{name}.run.json", out / f"{name}.jsonl", facts, _parse)
        self.records: dict[str, Fields] = {r["id"]: r for r in self._run.records}

    def answers(self, questions: Iterable[Fields]) -> bool:
        """Whether all these questions have their answers."""
        return all(q.items() < self.records.get(q["id"], {}).items() for q in questions)

    def add(self, records: Sequence[Fields]) -> None:
        """Keep the records of one image."""
        self._run.append(map(as_line, records))
        self.records |= {record["id"]: record for record in records}


def _parse(line: str) -> Fields:
    """A record from its line; nulls are undefined numbers."""
    undefined = lambda fields: {k: NAN if v is None else v for k, v in fields.items()}  # noqa: E731
    fields: Fields = json.loads(line, object_hook=undefined)
    if not isinstance(fields["id"], str):
        raise TypeError(fields["id"])
    return fields


def describe(
    dataset: Dataset,
    readers: Mapping[str, Method],
    settings: Settings,
    facts: Mapping[str, Any],
) -> Fields:
    """What decides the answers; the limit does not, so a run may be made longer."""
    return {
        "dataset": identify(dataset),
        "readers": {name: method.facts for name, method in readers.items()},
        "settings": {"seed": settings.seed},
        **facts,
    }


def each_image(
    dataset: Dataset,
    chosen: Sequence[Sample],
    read: Read,
    source: Source,
    opened: Open,
    advance: Advance,
    *,
    done: Callable[[Sequence[Sample]], bool] = lambda samples: False,
) -> Iterator[tuple[CxrImage, Heat, list[Sample]]]:
    """Each image with the masks ``(20, h, w)`` of its locations and its samples.

    Masks are reduced to :data:`LONGEST`. Images that cannot be read, or in which no anatomy is
    found, are added to the data set's problems; those whose samples are ``done`` are not opened.
    """
    for path, samples in by_image(chosen).items():
        if not done(samples):
            try:
                image = read(opened(samples[0]))
                masks = locate(reduced(source(image)))
            except InputError as error:
                dataset.problems.add(
                    "no anatomy",
                    samples[0].row or samples[0].id,
                    without_path(str(error), samples[0].image),
                )
            else:
                yield image, masks, samples
        advance(path.name, len(samples))


def maps_of(found: GroundingLike) -> dict[str, Heat]:
    """A phrase's :data:`MAPS`, with at most :data:`LONGEST` pixels on the longest side."""
    maps = (found.attention, found.heatmap)
    return {kind: reduce(heat, LONGEST) for kind, heat in zip(MAPS, maps, strict=True)}


def reduced(structures: Structures) -> dict[str, NDArray[np.bool_]]:
    """Structures with at most :data:`LONGEST` pixels on the longest side."""
    found = {}
    for name, mask in structures.items():
        factor = LONGEST / max(mask.shape)
        if factor < 1:
            size = (max(round(mask.shape[1] * factor), 1), max(round(mask.shape[0] * factor), 1))
            mask = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
        found[name] = mask
    return found


def union(masks: Heat, names: Sequence[str]) -> Heat:
    """The union (h, w) of some of the twenty locations."""
    return np.asarray(masks[[LOCATIONS.index(name) for name in names]].max(axis=0))


def write(measured: Measured, dataset: Dataset, out: Path) -> None:
    """Write the three files, and each picture as ``NAME.png``."""
    report = {
        "schema": f"cxrg.{measured.name}/1",
        "cxrg": __version__,
        **measured.facts,
        "problems": dataset.problems.counts(),
        "tables": [_table_fields(table) for table in measured.tables],
        "notice": NOTICE,
    }
    files = {
        f"{measured.name}.json": _json(report, indent=1) + "\n",
        f"{measured.name}.jsonl": "".join(map(as_line, measured.records)),
    }
    for name, text in files.items():
        with atomic_write(out / name) as file:
            file.write(text.encode())
    write_page(
        "measure.html",
        out / f"{measured.name}.html",
        name=measured.name,
        dataset=measured.facts["dataset"],
        pictures=measured.pictures.values(),
        plots=measured.plots,
        about=measured.about,
        tables=measured.tables,
        facts=_json(measured.facts, indent=1),
    )
    for name, data in measured.pictures.items():
        with atomic_write(out / f"{name}.png") as file:
            file.write(data)


def _table_fields(table: Table) -> Fields:
    rows = [
        {
            name: value if isinstance(value, str) else asdict(value)
            for name, value in zip(table.head, row, strict=True)
        }
        for row in table.rows
    ]
    return {"title": table.title, "rows": rows}


def _json(value: Any, *, indent: int | None = None) -> str:
    return json.dumps(json_values(value), indent=indent, ensure_ascii=False, allow_nan=False)
