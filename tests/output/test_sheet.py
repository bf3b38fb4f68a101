"""A sheet of several phrases: its cells, its one legend, and that text stays inside."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from cxrg.errors import UsageError
from cxrg.options import Options
from cxrg.output.overlay import draw_xray, palette
from cxrg.output.sheet import MOST, SIDE, Sheet, render_sheet
from tests.fakes import samples
from tests.fakes.samples import NOT_FOUND

CELL = SIDE + 20


def cells(width: int, phrases: int) -> tuple[int, int]:
    """Columns that a width holds, and rows that the phrases and one X-ray need."""
    across = (width - 2 * 34 + 20) // CELL
    return across, -(-(phrases + 1) // across)


@pytest.mark.parametrize(
    ("phrases", "across", "down"),
    [(1, 2, 1), (2, 3, 1), (3, 2, 2), (5, 3, 2), (8, 3, 3), (13, 4, 4)],
)
def test_cells_are_in_rows_of_at_most_four(phrases: int, across: int, down: int) -> None:
    image = samples.image()
    sheet = render_sheet([samples.grounding(image)] * phrases)
    assert cells(sheet.shape[1], phrases) == (across, down)
    assert down * SIDE < len(sheet) < down * (SIDE + 250) + 300


def test_the_xray_comes_first_and_each_map_beside_it() -> None:
    """Drawn at the sheet's own size, so that pixels can be compared one by one."""
    image = samples.image(SIDE, SIDE)
    found = samples.grounding(image, "one")
    missing = samples.grounding(image, "two", **NOT_FOUND)
    sheet = render_sheet([found, missing])
    plain = draw_xray(image, (SIDE, SIDE))
    first = sheet[:, 34 : 34 + SIDE]
    top = int(cv2.matchTemplate(first, plain, cv2.TM_SQDIFF).argmin())
    shown = [sheet[top : top + SIDE, 34 + at * CELL : 34 + at * CELL + SIDE] for at in range(3)]
    np.testing.assert_array_equal(shown[0], plain)
    changed = [(panel != plain).any(-1) for panel in shown]
    assert changed[1].sum() > changed[2].sum() > 1000  # a box on one of them only
    assert not changed[1][:200, :150].any()


def test_each_image_has_its_xray_and_there_is_one_legend() -> None:
    one, other = samples.image(), samples.image(sha256="cd" * 32)
    sheet = render_sheet([samples.grounding(one), samples.grounding(other)])
    assert cells(sheet.shape[1], 3)[0] == 2  # four cells
    lowest = (sheet == palette()[0]).all(-1)  # of the colour bar; of nothing else
    assert len(np.flatnonzero(np.diff(lowest.any(1).astype(int)) == 1)) == 1


def test_a_sheet_without_maps_has_no_colour_bar() -> None:
    image = samples.image()
    unknown = samples.grounding(image, **{**NOT_FOUND, "status": "unknown phrase"})
    unknown = replace(unknown, heatmap=np.full_like(unknown.heatmap, np.nan))
    assert not (render_sheet([unknown]) == palette()[0]).all(-1).any()


@pytest.mark.parametrize("size", [(640, 640), (40, 2000), (2000, 40), (1400, 900)])
def test_long_texts_stay_inside(size: tuple[int, int]) -> None:
    image = samples.image(*size, options=Options(fit="crop"))
    grounding = samples.grounding(image, "opacity " * 100, places=("lung " * 50,))
    sheet = render_sheet([grounding, samples.grounding(image, "x" * 500)])
    for edge in (sheet[:, :30], sheet[:, -30:], sheet[:10], sheet[-10:]):
        assert edge.max() < 30


def test_a_sheet_has_a_most_and_a_least() -> None:
    image = samples.image(100, 100)
    sheet = Sheet()
    with pytest.raises(UsageError, match="results are missing"):
        sheet.render()
    for _ in range(MOST + 5):
        sheet.add(samples.grounding(image))
    assert cells(sheet.render().shape[1], MOST) == (4, 12)
