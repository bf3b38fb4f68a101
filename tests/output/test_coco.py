"""COCO's JSON, read by a kept fork of its own tools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faster_coco_eval import COCO  # type: ignore[import-untyped]  # has no types

from cxrg.geometry import Box
from cxrg.output.coco import write_coco
from cxrg.output.record import record
from tests.fakes import samples
from tests.fakes.samples import NOT_FOUND


@dataclass(frozen=True)
class Some:
    """Records in a list."""

    kept: Sequence[Mapping[str, Any]]

    def records(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.kept)

    def phrases(self) -> Iterator[str]:
        return iter(sorted({each["phrase"] for each in self.kept}))


def some() -> Some:
    one, other = samples.image(480, 640), samples.image(sha256="cd" * 32)
    boxes = (Box(10.5, 20, 110, 70.25, 0.9), Box(300, 0, 640, 480, 0.5))
    places = ("left lower zone", "right lung")
    return Some(
        [
            record(samples.grounding(one, "opacity", boxes=boxes, places=places)),
            record(samples.grounding(one, "=nodule", **NOT_FOUND)),
            record(samples.grounding(other, "opacity", presence=0.75)),
        ]
    )


def test_a_run_is_read_by_cocos_tools(tmp_path: Path) -> None:
    file = tmp_path / "coco.json"
    results = some()
    write_coco(results, file)
    read = COCO(str(file))
    images = {each["file_name"]: each for each in read.loadImgs(read.getImgIds())}
    sizes = {name: (each["width"], each["height"]) for name, each in images.items()}
    assert sizes == {"ab" * 32: (640, 480), "cd" * 32: (640, 640)}
    names = {each["id"]: each["name"] for each in read.loadCats(read.getCatIds())}
    assert sorted(names.values()) == ["=nodule", "opacity"]
    for number, facts in enumerate(results.kept):
        (category,) = read.getCatIds(catNms=[facts["phrase"]])
        image = images[facts["image"]["sha256"]]["id"]
        found = read.loadAnns(read.getAnnIds(imgIds=[image], catIds=[category]))
        assert len(found) == len(facts["boxes"]), number
        for box, annotation in zip(facts["boxes"], found, strict=True):
            x, y, width, height = annotation["bbox"]
            assert (x, y, x + width, y + height) == (box["x0"], box["y0"], box["x1"], box["y1"])
            assert annotation["area"] == width * height
            assert (annotation["score"], annotation["where"]) == (box["score"], box["where"])
            assert annotation["presence_score"] == facts["score"]
            assert annotation["presence"] == facts["presence"]


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_coco(some(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert b"DOE" not in (tmp_path / "a").read_bytes()


def test_nothing_is_a_valid_file(tmp_path: Path) -> None:
    write_coco(Some([]), tmp_path / "empty.json")
    facts = json.loads((tmp_path / "empty.json").read_text())
    assert (facts["images"], facts["categories"], facts["annotations"]) == ([], [], [])


def test_a_failed_export_leaves_no_file(tmp_path: Path) -> None:
    damaged = Some([{**some().kept[0], "boxes": [{"x0": 1}]}])
    with pytest.raises(KeyError):
        write_coco(damaged, tmp_path / "coco.json")
    assert not list(tmp_path.iterdir())


def test_one_result_is_what_a_file_of_it_holds(tmp_path: Path) -> None:
    grounding = samples.grounding(samples.image())
    write_coco(Some([record(grounding)]), tmp_path / "coco.json")
    assert json.loads((tmp_path / "coco.json").read_text()) == grounding.to_coco()
