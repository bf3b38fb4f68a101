"""What is written: whole files, names that tell nothing, records, arrays, the picture."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import jsonschema
import numpy as np
import pytest

from cxrg.chest.whereabouts import whereabouts
from cxrg.errors import CxrgError
from cxrg.files import atomic_write, stem
from cxrg.geometry import Box
from cxrg.options import Options
from cxrg.output.arrays import write_arrays
from cxrg.output.picture import render, write_picture
from cxrg.output.record import SCHEMA_FILE, record, record_line, write_record
from tests.fakes import samples

SCHEMA = json.loads(SCHEMA_FILE.read_text())
# The ends of viridis, from its published table.
YELLOW = np.array([253, 231, 37])
NOT_FOUND: dict[str, Any] = {"status": "not found", "boxes": (), "score": 0.01}


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


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (Box(700, 10, 900, 110), "left upper"),  # right in the picture is the patient's left
        (Box(100, 300, 300, 500), "right mid"),
        (Box(600, 700, 800, 790), "left lower"),
        (Box(460, 300, 560, 500), "midline mid"),
        (Box(100, 600, 900, 800), "both sides lower"),
        (Box(400, 300, 900, 500), "left mid"),
    ],
)
def test_words_are_the_patients(box: Box, words: str) -> None:
    assert whereabouts(box, (800, 1000)) == words


# --- record ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, NOT_FOUND, {"warnings": ("cut: é",), "phrase": "左 [x]"}])
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
    told = record(samples.grounding(image, boxes=(box,)))
    edges: dict[str, Any] = {"x0": 600.0, "y0": 700.0, "x1": 800.0, "y1": 790.0}
    assert told["boxes"] == [{**edges, "score": 0.5, "where": "left lower"}]
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
    grounding = samples.grounding(image, boxes=boxes)
    write_arrays(grounding, image, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["heatmap"], grounding.heatmap)
        assert archive["heatmap"].dtype == np.float32
        assert np.isnan(archive["heatmap"]).any()
        np.testing.assert_array_equal(archive["canonical"], grounding.canonical)
        expected = [[1, 2, 3.5, 4, 0.5], [5, 6, 7, 8, np.nan]]
        np.testing.assert_array_equal(archive["boxes"], np.array(expected, np.float32))
        check(json.loads(str(archive["record"])))


def test_arrays_of_nothing_found_have_no_box(tmp_path: Path) -> None:
    image = samples.image()
    write_arrays(samples.grounding(image, **NOT_FOUND), image, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as archive:
        assert archive["boxes"].shape == (0, 5)


# --- picture --------------------------------------------------------------------------------------


def panel_of(picture: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """The part of a picture that shows the X-ray, found by looking for its grey."""
    shown = np.rint(grey * 255).astype(np.uint8)
    places = cv2.matchTemplate(picture[..., 1], shown, cv2.TM_SQDIFF)
    _, _, (x, y), _ = cv2.minMaxLoc(places)
    return picture[y : y + grey.shape[0], x : x + grey.shape[1]]


def test_picture_shows_the_grey_the_map_and_the_box() -> None:
    image = samples.image()
    grounding = samples.grounding(image)
    panel = panel_of(render(grounding, image), image.grey).astype(float)
    grey = image.grey * 255
    # Far from the disc (canonical 64 -> 640 pixels) the X-ray stands as it is, without colour.
    far = np.s_[:300, :300]
    np.testing.assert_allclose(panel[far], np.repeat(grey[far][..., None], 3, 2), atol=0.51)
    # In the middle of the disc the map's colour covers 62 % of it.
    middle = 0.38 * grey[440, 440] + 0.62 * YELLOW
    np.testing.assert_allclose(panel[440, 440], middle, atol=3)
    # The box's edges are where they should be, in white: half-open, so 520 is outside.
    for x, y in [(440, 360), (440, 519), (360, 440), (519, 440)]:
        assert panel[y, x].min() > 200, (x, y)
    assert panel[440, 525].min() < 200


def test_stronger_is_less_transparent() -> None:
    image = samples.image()
    image = replace(image, grey=np.full_like(image.grey, 0.5))
    ramp = np.tile(np.linspace(0, 1, 640, dtype=np.float32), (640, 1))
    picture = render(samples.grounding(image, heatmap=ramp, boxes=()), image)
    row = picture[picture.shape[0] // 2]
    inside = row[np.flatnonzero(np.abs(row.astype(int) - 128).max(1) <= 2)[0] :][:640]
    away = np.abs(inside.astype(float) - 127.5).sum(1)
    assert away[0] < 3
    assert away[160] < away[320] < away[639]


def test_not_found_shows_the_bare_xray() -> None:
    image = samples.image()
    grounding = samples.grounding(image, **NOT_FOUND)
    panel = panel_of(render(grounding, image), image.grey)
    expected = np.repeat(np.rint(image.grey * 255)[..., None], 3, 2)
    np.testing.assert_allclose(panel.astype(float), expected, atol=0.51)


def test_what_the_model_never_saw_is_darker() -> None:
    image = samples.image(640, 900, options=Options(fit="crop"))
    grounding = samples.grounding(image, canonical=np.zeros((64, 64), np.float32), boxes=())
    grounding = replace(grounding, heatmap=image.frame.restore(grounding.canonical))
    seen = ~np.isnan(grounding.heatmap)
    grey = np.where(seen, image.grey, image.grey * 0.45)
    panel = panel_of(render(grounding, image), grey)
    np.testing.assert_allclose(panel[..., 0].astype(float), grey * 255, atol=0.51)


@pytest.mark.parametrize(
    ("size", "aspect", "drawn"),
    [
        ((3000, 2000), 1.0, (1600, 1067)),
        ((128, 128), 1.0, (640, 640)),
        ((700, 900), 1.0, (700, 900)),
        ((400, 800), 2.0, (800, 800)),  # pixels twice as high as wide
    ],
)
def test_picture_has_the_sources_size_within_limits(size, aspect, drawn) -> None:
    image = samples.image(*size, aspect=aspect)
    picture = render(samples.grounding(image, **NOT_FOUND), image)
    unit = max(14, round(drawn[1] * 0.024))
    assert picture.shape[1] == drawn[1] + 2 * unit  # one margin on each side
    assert drawn[0] + 4 * unit < picture.shape[0] < drawn[0] + 9 * unit


@pytest.mark.parametrize("size", [(512, 512), (1500, 300)])
def test_long_title_is_wrapped_and_cut(size) -> None:
    image = samples.image(*size)
    heights = {}
    for words in (2, 40, 400, 800):
        picture = render(samples.grounding(image, "opacity " * words), image)
        heights[words] = picture.shape[0]
        assert picture[:, -3:].max() < 30  # nothing runs off the right edge
    assert heights[2] < heights[40] <= heights[400] == heights[800]
    render(samples.grounding(image, "x" * 3000), image)


@pytest.mark.parametrize("phrase", ["épanchement", "плевральный выпот", "左下肺の浸潤影"])
def test_letters_of_other_languages_are_drawn(phrase: str) -> None:
    image = samples.image()
    title = np.s_[15:40]
    drawn = render(samples.grounding(image, phrase), image)[title]
    unknown = render(samples.grounding(image, "?" * len(phrase)), image)[title]
    assert (drawn > 200).sum() > 200
    assert not np.array_equal(drawn, unknown)


def test_png_holds_the_picture_and_no_text(tmp_path: Path) -> None:
    image = samples.image()
    grounding = samples.grounding(image)
    write_picture(grounding, image, tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    chunks, at = set(), 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.add(data[at + 4 : at + 8])
        at += 12 + length
    assert chunks == {b"IHDR", b"IDAT", b"IEND"}
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded, render(grounding, image))


def test_bar_of_small_probabilities_ends_at_their_maximum() -> None:
    image = samples.image()
    grounding = samples.grounding(image)
    faint = replace(grounding, heatmap=grounding.heatmap * 0.02)
    strong, weak = render(grounding, image), render(faint, image)
    panels = panel_of(strong, image.grey), panel_of(weak, image.grey)
    np.testing.assert_allclose(panels[0].astype(int), panels[1].astype(int), atol=1)
    assert not np.array_equal(strong, weak)  # but the ticks tell
