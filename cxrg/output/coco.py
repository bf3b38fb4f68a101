"""Boxes as COCO's JSON (T.-Y. Lin et al., ECCV 2014), which most tools for boxes read.

A phrase is a category, a box an annotation. ``bbox`` is x, y, width and height in pixels of the
original file, as in COCO from the upper left corner of the first pixel. ``score`` is the box's
score, as in COCO's results; ``presence_score`` is the phrase's, and ``presence`` its calibrated
probability, null where the model has none. Images have no names here: their ``file_name`` is the
SHA-256 of the file, because names may tell who the patient is. A phrase that was not found has a
category and no annotation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, groupby
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from cxrg.about import NOTICE, __version__
from cxrg.files import atomic_write

Record = Mapping[str, Any]


class Records(Protocol):
    """Records of results that can be read several times."""

    def records(self) -> Iterator[Record]:
        """All records; those of one image follow each other."""

    def phrases(self) -> Iterator[str]:
        """Every phrase once, sorted."""


def coco(facts: Record) -> dict[str, Any]:
    """One result as COCO has it."""
    categories = {facts["phrase"]: 1}
    return {
        "info": _info(),
        "images": list(_images([facts])),
        "categories": list(_categories(categories)),
        "annotations": list(_annotations([facts], categories)),
    }


def write_coco(results: Records, path: Path) -> None:
    """Write results as one file; of all that is written, only the phrases are held in memory.

    Raises:
        WriteError: the file cannot be written.
    """
    categories = {phrase: number for number, phrase in enumerate(results.phrases(), 1)}
    with atomic_write(path) as file:
        file.write(b'{"info": %s' % _json(_info()))
        _write_list(file, "images", _images(results.records()))
        _write_list(file, "categories", _categories(categories))
        _write_list(file, "annotations", _annotations(results.records(), categories))
        file.write(b"\n}\n")


def _write_list(file: BinaryIO, name: str, entries: Iterable[Mapping[str, Any]]) -> None:
    file.write(b',\n"%s": [' % name.encode())
    for number, entry in enumerate(entries):
        file.write(b"%s\n%s" % (b"," if number else b"", _json(entry)))
    file.write(b"]")


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _info() -> dict[str, Any]:
    return {"description": f"cxrg: {NOTICE}", "version": __version__}


def _images(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    for number, (sha256, group) in enumerate(_by_image(records), 1):
        image = next(group)["image"]
        yield {
            "id": number,
            "file_name": sha256,
            "width": image["width"],
            "height": image["height"],
            "uid": image["uid"],
        }


def _categories(categories: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    for phrase, number in categories.items():
        yield {"id": number, "name": phrase, "supercategory": "phrase"}


def _annotations(
    records: Iterable[Record], categories: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    numbers = count(1)
    for image, (_, group) in enumerate(_by_image(records), 1):
        for facts in group:
            for box in facts["boxes"]:
                width, height = box["x1"] - box["x0"], box["y1"] - box["y0"]
                yield {
                    "id": next(numbers),
                    "image_id": image,
                    "category_id": categories[facts["phrase"]],
                    "bbox": [box["x0"], box["y0"], width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": box["score"],
                    "where": box["where"],
                    "presence": facts.get("presence"),  # results of earlier versions have none
                    "presence_score": facts["score"],
                    "model": facts["model"]["name"],
                    "preset": facts["options"]["preset"],
                }


def _by_image(records: Iterable[Record]) -> Iterator[tuple[str, Iterator[Record]]]:
    return groupby(records, key=lambda facts: facts["image"]["sha256"])
