"""The picture of one result: the X-ray untouched, the map, marks, text; colours by the numbers."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrg.geometry import Box
from cxrg.options import Options
from cxrg.output.overlay import draw_overlay, drawn_size, palette
from cxrg.output.picture import box_texts, render, status_text, write_picture
from cxrg.phrase.intent import read_intent
from tests.fakes import samples
from tests.fakes.samples import NOT_FOUND

# The ends of viridis, from its published table.
YELLOW = np.array([253, 231, 37])


def unit_of(width: int) -> int:
    """Size of the type in the picture of an X-ray that is drawn in this width."""
    return max(12, round(width * 0.052))


def top_of_panels(picture: np.ndarray, grey: np.ndarray) -> int:
    """The row in which the X-ray begins."""
    width = grey.shape[1]
    shown = np.rint(grey * 255).astype(np.uint8)
    first = picture[:, unit_of(width) : unit_of(width) + width, 1]
    return int(cv2.matchTemplate(first, shown, cv2.TM_SQDIFF).argmin())


def panels_of(picture: np.ndarray, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The X-ray without and with its map, found by looking for its grey."""
    height, width = grey.shape
    unit = unit_of(width)  # margin and gap
    first, second = (slice(left, left + width) for left in (unit, 2 * unit + width))
    rows = slice(top := top_of_panels(picture, grey), top + height)
    return picture[rows, first], picture[rows, second]


def test_picture_shows_the_xray_as_it_is_and_under_the_map_with_its_box() -> None:
    image = samples.image()
    grounding = samples.grounding(image)
    plain, marked = panels_of(render(grounding, image), image.grey)
    grey = image.grey * 255
    expected = np.repeat(grey[..., None], 3, 2)
    np.testing.assert_array_equal(plain, np.rint(expected))  # every pixel of the source
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
    """Above each X-ray R is at its left end, wide at the top, too, and L, which has a foot only."""
    image = samples.image()
    picture = render(samples.grounding(image), image)
    unit = unit_of(640)
    top = top_of_panels(picture, image.grey)
    for left in (unit, 2 * unit + 640):
        strip = picture[top - round(1.4 * unit) : top, left : left + 640].min(-1) > 200
        right, left_ = strip[:, :unit], strip[:, -unit:]
        widths = {}
        for name, letter in (("R", right), ("L", left_)):
            rows = np.flatnonzero(letter.any(1))
            widths[name] = [int(np.ptp(np.flatnonzero(letter[row]))) for row in rows[[1, -1]]]
        assert widths["L"][1] > widths["L"][0] + 4
        assert widths["R"][0] > widths["L"][0] + 4


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
    np.testing.assert_array_equal(plain, np.rint(np.repeat(grey[..., None], 3, 2)))
    middle = 0.775 * grey[440, 440] + 0.225 * YELLOW
    np.testing.assert_allclose(marked[440, 440].astype(float), middle, atol=3)
    assert marked[360:520, 360:520].min(-1).max() < 200  # neither box nor contour


def test_what_the_model_never_saw_is_darker_beside_the_untouched_xray() -> None:
    image = samples.image(640, 900, options=Options(fit="crop"))
    empty = np.zeros((64, 64), np.float32)
    grounding = samples.grounding(image, canonical=empty, boxes=(), places=(), edge=None)
    grounding = replace(grounding, heatmap=image.frame.restore(grounding.canonical))
    seen = ~np.isnan(grounding.heatmap)
    dark = np.where(seen, image.grey, image.grey * 0.45)
    panels = panels_of(render(grounding, image), image.grey)
    for panel, grey in zip(panels, (image.grey, dark), strict=True):
        np.testing.assert_allclose(panel[..., 0].astype(float), grey * 255, atol=0.51)


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
    unit = unit_of(drawn[1])
    assert picture.shape[1] == 2 * drawn[1] + 3 * unit  # margins and gap
    assert drawn[0] + 6 * unit < picture.shape[0] < drawn[0] + 12 * unit


@pytest.mark.parametrize("size", [(512, 512), (1500, 300), (300, 1500), (40, 2000), (2000, 40)])
def test_long_texts_are_folded_and_cut_inside_the_margins(size) -> None:
    image = samples.image(*size)
    box = Box(0, 0, size[1], size[0], 0.5)
    heights = {}
    for words in (2, 40, 400, 800):
        phrase = "opacity " * words
        places = ("lung " * words,)
        grounding = samples.grounding(image, phrase, boxes=(box,), places=places)
        picture = render(grounding, image)
        heights[words] = picture.shape[0]
        for edge in (picture[:, :10], picture[:, -10:], picture[:4], picture[-4:]):
            assert edge.max() < 30  # nothing runs off an edge
    assert heights[2] < heights[40] <= heights[400] == heights[800]
    render(samples.grounding(image, "x" * 3000), image)


@pytest.mark.parametrize("phrase", ["épanchement", "плевральный выпот", "左下肺の浸潤影"])
def test_letters_of_other_languages_are_drawn(phrase: str) -> None:
    image = samples.image()
    title = np.s_[15:60]
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


# --- boxes, statuses, sides -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 6, 9])
def test_every_box_has_its_number_and_six_have_a_line(count: int) -> None:
    image = samples.image()
    rows = [Box(20 + 60 * at, 300, 70 + 60 * at, 360, 0.9) for at in range(count)]
    grounding = samples.grounding(image, boxes=tuple(rows), places=("left lower zone",) * count)
    fewer = replace(grounding, boxes=grounding.boxes[:1], places=grounding.places[:1])
    picture, one = render(grounding, image), render(fewer, image)
    line = round(unit_of(640) * 1.4)
    assert picture.shape[0] - one.shape[0] == line * (min(count, 6) - 1 + (count > 6))
    _, marked = panels_of(picture, image.grey)
    for box in rows:
        corner = marked[int(box.y0) - 20 : int(box.y0), int(box.x0) : int(box.x0) + 30]
        assert (corner.min(-1) > 230).sum() > 100  # a white tag ...
        assert (corner.max(-1) < 40).sum() > 10  # ... with a dark number


def test_texts_name_each_score_and_flag_the_wrong_side() -> None:
    image = samples.image()
    grounding = samples.grounding(image, "right basal opacity", options=Options(absent_below=0.5))
    assert box_texts(grounding) == ["1: left lower zone · box score 0.90 · NOT ON THE RIGHT SIDE"]
    assert status_text(grounding) == "found · 1 box · presence score 0.42 (found from 0.50 on)"
    place = replace(grounding, intent=read_intent("left lung"))
    assert status_text(place) == "found · 1 box · presence score 0.42"  # it is always there
    unjudged = replace(grounding, status="uncalibrated")
    assert status_text(unjudged) == (
        "UNCALIBRATED · whether it is there is not judged · presence score 0.42"
    )
    assert box_texts(unjudged)
    refused = replace(grounding, status="nothing to mark", intent=read_intent("no effusion"))
    assert status_text(refused).startswith("NOTHING TO MARK · phrase: ")
    assert "presence" not in status_text(refused)


STATUSES = ["found", "not found", "uncalibrated", "nothing to mark", "unknown phrase"]


@pytest.mark.parametrize("status", STATUSES)
def test_only_an_unknown_phrase_has_no_colours(status) -> None:
    image = samples.image()
    marks = status in ("found", "uncalibrated")
    changes = {"status": status} if marks else {**NOT_FOUND, "status": status}
    grounding = samples.grounding(image, **changes)
    if status == "unknown phrase":
        grounding = replace(grounding, heatmap=np.full_like(grounding.heatmap, np.nan))
    picture = render(grounding, image)
    plain, marked = panels_of(picture, image.grey)
    assert np.array_equal(plain, marked) == (status == "unknown phrase")
    # The colour bar's lower end; nothing else is of that colour.
    bar = (picture == palette()[0]).all(-1)
    assert bar.any() == (status != "unknown phrase")


# --- colours --------------------------------------------------------------------------------------


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of RGB in 0..255, (N, 3)."""
    scaled = np.ascontiguousarray(rgb, np.float32)[None] / 255
    return cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB)[0]


# Complete deuteranopia and protanopia, on linear RGB: G. Machado, M. Oliveira and L. Fernandes,
# "A Physiologically-based Model for Simulation of Color Vision Deficiency", IEEE TVCG 2009.
BLINDNESS = {
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
}


def seen_by(kind: str, rgb: np.ndarray) -> np.ndarray:
    """RGB as a colour-blind reader sees it."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(BLINDNESS[kind]).T, 0, 1)
    back = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return back * 255


def steps(rgb: np.ndarray) -> np.ndarray:
    """Colour differences between every 16th colour and the next (CIE76)."""
    colours = lab(rgb)[::16]
    return np.linalg.norm(np.diff(colours, axis=0), axis=1)


def test_colours_are_uniform_and_rise_in_lightness() -> None:
    lightness = lab(palette())[:, 0]
    assert (np.diff(lightness[::4]) > 0).all()
    assert lightness[-1] - lightness[0] > 70
    sizes = steps(palette())
    assert sizes.max() < 3 * sizes.min()


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_stay_apart_for_colour_blind_readers(kind: str) -> None:
    seen = seen_by(kind, palette().astype(float))
    assert (np.diff(lab(seen)[::8, 0]) > 0).all()
    assert steps(seen).min() > 3  # just noticed: 2.3


def test_the_rainbow_would_fail() -> None:
    """The two tests above can fail: they do for the colours of many heatmaps, jet."""
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    jet = cv2.applyColorMap(ramp, cv2.COLORMAP_JET)[:, 0, ::-1]
    assert (np.diff(lab(jet)[::4, 0]) < 0).any()
    assert steps(jet).max() > 3 * steps(jet).min()


@pytest.mark.parametrize("grey", [0.02, 0.5, 0.98])
def test_contour_and_box_are_seen_in_a_grey_print(grey: float) -> None:
    """On air, soft tissue and metal the grey changes across the line by a third or more."""
    image = samples.image()
    image = replace(image, grey=np.full_like(image.grey, grey))
    panel = draw_overlay(samples.grounding(image), image, (640, 640), 32)
    print_ = cv2.cvtColor(panel, cv2.COLOR_RGB2GRAY)[440].astype(int)
    for x in (360, 520):  # the disc touches its box there
        assert np.ptp(print_[x - 12 : x + 12]) > 85


def test_letters_are_read_at_400_pixels() -> None:
    """The smallest type is at least 8 pixels high there."""
    for size in ((640, 640), (1300, 1000), (1000, 1300)):
        image = samples.image(*size)
        width = render(samples.grounding(image), image).shape[1]
        drawn = drawn_size(image.frame, least=512, most=1130)
        assert 0.85 * unit_of(drawn[1]) * 400 / width >= 8
