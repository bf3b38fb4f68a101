"""What is written: whole files, names that tell nothing, records, arrays, the picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jsonschema
import numpy as np
import pytest

from cxrg.errors import CxrgError, InputError
from cxrg.files import atomic_write, stem
from cxrg.geometry import Box
from cxrg.heatmap.draws import BoxDraws, Draws
from cxrg.options import Options
from cxrg.output.arrays import read_heatmap, write_arrays
from cxrg.output.record import SCHEMA_FILE, record, record_line, write_record
from tests.fakes import samples
from tests.fakes.samples import NOT_FOUND

SCHEMA = json.loads(SCHEMA_FILE.read_text())


def check(line: object) -> None:
    jsonschema.validate(line, SCHEMA, cls=jsonschema.Draft202012Validator)


# --- files ----------------------------------------------------------------------------------------


def test_file_appears_only_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    with atomic_write(path) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    before = tmp_path / "before"
    before.hardlink_to(path)
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.writelines(cast(Any, [b"half of the sec", None]))
    assert path.read_bytes() == b"first"
    with atomic_write(path) as file:
        file.write(b"second")
    # Renamed over the old file, not written into it.
    assert (path.read_bytes(), before.read_bytes()) == (b"second", b"first")
    assert [each.name for each in path.parent.iterdir()] == ["result.json"]


def test_folder_that_cannot_be_made_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file, not a folder")
    complaint = r"cannot be written \(.+\); choose another folder"
    with pytest.raises(CxrgError, match=complaint), atomic_write(tmp_path / "out" / "result.json"):
        pass


def test_names_tell_image_and_phrase_and_never_collide() -> None:
    sha = "0123456789abcdef" * 4
    name = stem(sha, "Left basal opacity!", "model", "options")
    assert name.startswith("0123456789abcdef-left-basal-opacity-")
    others = [
        stem(sha, "left basal opacity", "model", "options"),
        stem(sha, "Left basal opacity!", "other model", "options"),
        stem(sha, "Left basal opacity!", "model", "other options"),
        stem(sha, "Left basal opacity!", "modeloptions", ""),
        stem("f" * 64, "Left basal opacity!", "model", "options"),
        stem(sha, "opacity " * 50, "model", "options"),
        stem(sha, "opacity " * 51, "model", "options"),
        stem(sha, "左下肺の浸潤影", "model", "options"),
        stem(sha, "../../etc/passwd", "model", "options"),
    ]
    assert len({name, *others}) == 1 + len(others)
    assert all(set(each) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for each in others)
    assert max(map(len, others)) < 80


# --- record ---------------------------------------------------------------------------------------


SPREAD = Draws(
    scores=(0.25, 0.5, 0.75),
    found=2,
    boxes=(BoxDraws(agree=2, x0=(1.0, 2.0), y0=(3.0, 3.0), x1=(40.0, 41.0), y1=(50.0, 52.0)),),
)


@pytest.mark.parametrize(
    "changes",
    [{}, NOT_FOUND, {"warnings": ("cut: é",), "phrase": "左 [x]"}, {"draws": SPREAD}],
)
def test_record_keeps_its_schema(changes: dict[str, Any]) -> None:
    grounding = samples.grounding(samples.image(), **changes)
    check(record(grounding))
    line = record_line(record(grounding), path="a/b.dcm", files={"png": Path("out/x.png")})
    assert line.isascii()
    assert "\n" not in line
    told = json.loads(line)
    check(told)
    assert told["image"]["path"] == "a/b.dcm"
    assert told["files"] == {"png": "out/x.png"}
    assert told["phrase"] == grounding.phrase


def test_record_tells_the_spread_over_draws() -> None:
    told = record(samples.grounding(samples.image(), draws=SPREAD))
    counts = {"count": 3, "found": 2, "mean": 0.5, "minimum": 0.25, "maximum": 0.75}
    assert told["draws"] == {**counts, "scores": [0.25, 0.5, 0.75]}
    edges = {"x0": [1, 2], "y0": [3, 3], "x1": [40, 41], "y1": [50, 52]}
    assert told["boxes"][0]["draws"] == {"agree": 2, **edges}
    without = record(samples.grounding(samples.image()))
    assert without["draws"] is without["boxes"][0]["draws"] is None
    none = replace(SPREAD, boxes=(BoxDraws(agree=0),))
    told = record(samples.grounding(samples.image(), draws=none))
    check(told)
    assert told["boxes"][0]["draws"]["x0"] is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.pop("phrase"),
        lambda line: line.update(patient="DOE^JANE"),
        lambda line: line.update(score=1.5),
        lambda line: line.update(status="not found"),
        lambda line: line.update(boxes=[]),
        lambda line: line["boxes"][0].pop("where"),
        lambda line: line["image"].update(sha256="ab"),
        lambda line: line.update(schema="cxrg.grounding/1"),
    ],
)
def test_schema_refuses_what_is_no_record(spoil) -> None:
    line = record(samples.grounding(samples.image()))
    spoil(line)
    with pytest.raises(jsonschema.ValidationError):
        check(line)


def test_box_is_told_in_source_pixels_with_words() -> None:
    image = samples.image(800, 1000)
    box = Box(600, 700, 800, 790, 0.5)
    told = record(samples.grounding(image, boxes=(box,), places=("left lower zone",)))
    edges: dict[str, Any] = {"x0": 600.0, "y0": 700.0, "x1": 800.0, "y1": 790.0}
    assert told["boxes"] == [{**edges, "score": 0.5, "where": "left lower zone", "draws": None}]
    assert (told["image"]["width"], told["image"]["height"]) == (1000, 800)


def test_record_is_the_same_for_equal_runs_and_does_not_name_the_file(tmp_path: Path) -> None:
    image = samples.image()
    grounding = samples.grounding(image)
    write_record(grounding, image, tmp_path / "a")
    write_record(replace(grounding, timings={"read": 9.9}), image, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert b"DOE" not in (tmp_path / "a").read_bytes()
    check(json.loads((tmp_path / "a").read_text()))


# --- arrays ---------------------------------------------------------------------------------------


def test_arrays_come_back(tmp_path: Path) -> None:
    image = samples.image(100, 300, options=Options(fit="crop"))
    boxes = (Box(1, 2, 3.5, 4, 0.5), Box(5, 6, 7, 8))
    grounding = samples.grounding(image, boxes=boxes, places=("left lung",) * len(boxes))
    write_arrays(grounding, image, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["canonical"], grounding.canonical)
        expected = [[1, 2, 3.5, 4, 0.5], [5, 6, 7, 8, np.nan]]
        np.testing.assert_array_equal(archive["boxes"], np.array(expected, np.float32))
        check(json.loads(str(archive["record"])))
    heatmap = read_heatmap(tmp_path / "x.npz")
    np.testing.assert_array_equal(heatmap, grounding.heatmap)
    assert heatmap.dtype == np.float32
    assert np.isnan(heatmap).any()


def test_arrays_of_a_large_image_are_as_small_as_the_square(tmp_path: Path) -> None:
    for name, height in (("small", 64), ("large", 1024)):
        image = samples.image(height, height)
        write_arrays(samples.grounding(image), image, tmp_path / name)
    assert (tmp_path / "large").stat().st_size < 1.5 * (tmp_path / "small").stat().st_size


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"no archive"])
def test_a_file_without_a_heatmap_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz: holds no heatmap.*--format npz"):
        read_heatmap(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", canonical=np.zeros((4, 4)))
    with pytest.raises(InputError, match=r"y\.npz"):
        read_heatmap(tmp_path / "y.npz")


def test_arrays_of_nothing_found_have_no_box(tmp_path: Path) -> None:
    image = samples.image()
    write_arrays(samples.grounding(image, **NOT_FOUND), image, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as archive:
        assert archive["boxes"].shape == (0, 5)
