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

from cxrg.errors import CxrgError, InputError
from cxrg.files import atomic_write, stem
from cxrg.geometry import Box
from cxrg.heatmap.draws import BoxDraws, Draws
from cxrg.options import Options
from cxrg.output.arrays import read_heatmap, write_arrays
from cxrg.output.picture import render, write_picture
from cxrg.output.record import SCHEMA_FILE, record, record_line, write_record
from tests.fakes import samples

SCHEMA = json.loads(SCHEMA_FILE.read_text())
# The ends of viridis, from its published table.
YELLOW = np.array([253, 231, 37])
NOT_FOUND: dict[str, Any] = {
    "status": "not found",
    "boxes": (),
    "places": (),
    "edge": None,
    "score": 0.01,
}


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


# --- picture --------------------------------------------------------------------------------------


def panels_of(picture: np.ndarray, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The X-ray without and with its map, found by looking for its grey."""
    height, width = grey.shape
    unit = max(12, round(width * 0.038))  # margin and gap
    first, second = (slice(left, left + width) for left in (unit, 2 * unit + width))
    shown = np.rint(grey * 255).astype(np.uint8)
    matches = cv2.matchTemplate(picture[:, first, 1], shown, cv2.TM_SQDIFF)
    rows = slice(top := int(matches.argmin()), top + height)
    return picture[rows, first], picture[rows, second]


def test_picture_shows_the_xray_as_it_is_and_under_the_map_with_its_box() -> None:
    image = samples.image()
    grounding = samples.grounding(image)
    plain, marked = (
        panel.astype(float) for panel in panels_of(render(grounding, image), image.grey)
    )
    grey = image.grey * 255
    above = np.s_[:590]  # of the letters R and L
    expected = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_allclose(plain[above], expected[above], atol=0.51)
    # Far from the disc (canonical 64 -> 640 pixels) the X-ray stands as it is, without colour.
    far = np.s_[:300, :300]
    np.testing.assert_allclose(marked[far], expected[far], atol=0.51)
    # In the middle of the disc the map's colour covers 45 % of it.
    middle = 0.55 * grey[440, 440] + 0.45 * YELLOW
    np.testing.assert_allclose(marked[440, 440], middle, atol=3)
    # The box's edges are where they should be, in white: half-open, so 520 is outside.
    for x, y in [(440, 360), (440, 519), (360, 440), (519, 440)]:
        assert marked[y, x].min() > 200, (x, y)
    assert marked[440, 525].min() < 200


def test_sides_are_the_patients() -> None:
    """R is on the left of the picture: its upright stroke is left of its bowl, L has a foot."""
    image = samples.image()
    image = replace(image, grey=np.full_like(image.grey, 0.3))
    image.grey[0, 0] = 0.5
    plain, marked = panels_of(render(samples.grounding(image), image), image.grey)
    for panel in (plain, marked):
        bright = panel.min(-1) > 200
        low = bright[590:]
        right, left = low[:, :60], low[:, -60:]
        assert right.any()
        assert left.any()
        rows = np.flatnonzero(left.any(1))
        widths = [int(np.ptp(np.flatnonzero(left[row]))) for row in (rows[1], rows[-1])]
        assert widths[1] > widths[0] + 4  # L: wide at the bottom only
        rows = np.flatnonzero(right.any(1))
        top = int(np.ptp(np.flatnonzero(right[rows[1]])))
        assert top > widths[0] + 4  # R: wide at the top, too


def test_a_contour_runs_where_the_boxes_regions_end() -> None:
    image = samples.image()
    image = replace(image, grey=np.full_like(image.grey, 0.3))
    image.grey[0, 0] = 0.5
    ramp = np.tile(np.linspace(0, 1, 640, dtype=np.float32), (640, 1))
    grounding = samples.grounding(image, heatmap=ramp, boxes=(), places=(), edge=0.75)
    _, marked = panels_of(render(grounding, image), image.grey)
    bright = np.flatnonzero(marked[300].min(-1) > 180)
    # The region is what lies to the right, closed at the picture's edge.
    assert abs(bright[0] - 0.75 * 639) <= 2
    assert not ((bright > 490) & (bright < 630)).any()
    without = replace(grounding, edge=None)
    _, bare = panels_of(render(without, image), image.grey)
    assert bare[300, 400:600].min(-1).max() < 180


def test_stronger_is_less_transparent() -> None:
    image = samples.image()
    image = replace(image, grey=np.full_like(image.grey, 0.5))
    image.grey[0, 0] = 1
    ramp = np.tile(np.linspace(0, 1, 640, dtype=np.float32), (640, 1))
    grounding = samples.grounding(image, heatmap=ramp, boxes=(), places=(), edge=None)
    _, marked = panels_of(render(grounding, image), image.grey)
    away = np.abs(marked[300].astype(float) - 127.5).sum(1)
    assert away[0] < 3
    assert away[160] < away[320] < away[639]


def test_not_found_shows_a_fainter_map_without_box_or_contour() -> None:
    image = samples.image()
    found = samples.grounding(image)
    missing = replace(found, **NOT_FOUND)
    pictures = render(found, image), render(missing, image)
    assert pictures[0].shape[1] == pictures[1].shape[1]
    plain, marked = panels_of(pictures[1], image.grey)
    grey = image.grey * 255
    expected = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_allclose(plain[:590].astype(float), expected[:590], atol=0.51)
    middle = 0.775 * grey[440, 440] + 0.225 * YELLOW
    np.testing.assert_allclose(marked[440, 440].astype(float), middle, atol=3)
    assert marked[360:520, 360:520].min(-1).max() < 200  # neither box nor contour


def test_what_the_model_never_saw_is_darker() -> None:
    image = samples.image(640, 900, options=Options(fit="crop"))
    empty = np.zeros((64, 64), np.float32)
    grounding = samples.grounding(image, canonical=empty, boxes=(), places=(), edge=None)
    grounding = replace(grounding, heatmap=image.frame.restore(grounding.canonical))
    seen = ~np.isnan(grounding.heatmap)
    grey = np.where(seen, image.grey, image.grey * 0.45)
    for panel in panels_of(render(grounding, image), grey):
        np.testing.assert_allclose(panel[:580, :, 0].astype(float), grey[:580] * 255, atol=0.51)


@pytest.mark.parametrize(
    ("size", "aspect", "drawn"),
    [
        ((3000, 2000), 1.0, (1130, 753)),
        ((128, 128), 1.0, (512, 512)),
        ((700, 900), 1.0, (700, 900)),
        ((400, 800), 2.0, (800, 800)),  # pixels twice as high as wide
    ],
)
def test_picture_has_the_sources_size_within_limits(size, aspect, drawn) -> None:
    image = samples.image(*size, aspect=aspect)
    picture = render(samples.grounding(image, **NOT_FOUND), image)
    unit = max(12, round(drawn[1] * 0.038))
    assert picture.shape[1] == 2 * drawn[1] + 7 * unit  # margin, gap, colour bar
    assert drawn[0] + 6 * unit < picture.shape[0] < drawn[0] + 12 * unit


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
    faint = replace(grounding, heatmap=grounding.heatmap * 0.02, edge=0.01)
    strong, weak = render(grounding, image), render(faint, image)
    panels = panels_of(strong, image.grey)[1], panels_of(weak, image.grey)[1]
    np.testing.assert_allclose(panels[0].astype(int), panels[1].astype(int), atol=1)
    assert not np.array_equal(strong, weak)  # but the ticks tell
