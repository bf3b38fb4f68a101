"""Plots: what they show, that all of it is escaped, and that equal data gives equal text."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from xml.etree import ElementTree

import pytest

from cxrg.output.plots import against_diagonal, bars, lines, trade_off

NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"
SCRIPT = "<script>alert(1)</script> & $x_1$"


@dataclass(frozen=True)
class Value:
    value: float
    low: float = NAN
    high: float = NAN
    n: int = 3


def texts(svg: str) -> list[str]:
    found = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return ["".join(each.itertext()) for each in found]


def test_bars_show_each_finite_value_and_all_text_as_it_is() -> None:
    means = {SCRIPT: Value(0.5, 0.25, 0.75), "Effusion": Value(0.125), "Nodule": Value(NAN)}
    svg = bars(means, title="{h > t} by category, 95 %", baseline={"Effusion": Value(0.3)})
    assert "<script" not in svg
    shown = texts(svg)
    for text in (SCRIPT, "Effusion", "0.500 (n=3)", "0.125 (n=3)", "{h > t} by category, 95 %"):
        assert text in shown
    assert "Nodule" not in shown


def test_lines_have_a_legend_and_start_at_zero() -> None:
    svg = lines([0.0, 0.5, 1.0], {SCRIPT: [0.2, NAN, 0.4], "other": [0.1, 0.1, 0.1]}, title="t")
    assert "<script" not in svg
    assert {SCRIPT, "other", "t", "0.0", "1.0"} <= set(texts(svg))


def test_axes_are_named() -> None:
    labels = ("score", SCRIPT)
    for svg in (
        lines([0.0, 1.0], {"a": [0.0, 1.0]}, title="t", labels=labels),
        against_diagonal([0.2, 0.9], [Value(0.1, 0.0, 0.4), Value(1)], title="t", labels=labels),
        trade_off([0.5, 2.0], [0.3, 0.4], title="t", labels=labels),
    ):
        assert {*labels, "t"} <= set(texts(svg))
        assert "<script" not in svg


def test_a_label_has_room_left_of_the_bars() -> None:
    name = "A" * 60
    svg = ElementTree.fromstring(bars({name: Value(0.5)}, title="t", baseline={}))
    label = next(each for each in svg.iter(f"{SVG}text") if each.text == name)
    assert "text-anchor: end" in label.get("style", "")
    assert float(label.get("x", 0)) > len(name) * 5, "an A of 9 points is some 6 wide"


def test_a_title_has_room_even_where_it_is_wider_than_the_bars() -> None:
    title = "A" * 150
    svg = ElementTree.fromstring(bars({"a": Value(0.5)}, title=title, baseline={}))
    assert float(svg.get("width", "").removesuffix("pt")) > len(title) * 5


@pytest.mark.parametrize("name", ["胸水", "bell \x07 and \n newline"])
def test_names_that_the_font_lacks_are_drawn_without_warning(name: str) -> None:
    shown = texts(bars({name: Value(0.5)}, title=name, baseline={}))
    assert name.replace("\x07", " ").replace("\n", " ") in shown


def test_a_very_long_label_is_cut() -> None:
    svg = bars({"A" * 61: Value(0.5)}, title="t", baseline={})
    assert "A" * 59 + "…" in texts(svg)


def test_equal_data_gives_equal_text_without_repeated_identifiers() -> None:
    def drawn() -> list[str]:
        means = {"a": Value(0.5, 0.4, 0.6), "b": Value(-0.5)}
        return [bars(means, title="t", baseline=means), lines([0, 1], {"a": [0, 1]}, title="t")]

    first = drawn()
    assert first == drawn()
    assert not any('<g id="' in svg or "<metadata" in svg for svg in first)


def test_nothing_to_draw_is_no_error() -> None:
    assert texts(bars({}, title="empty", baseline={}))[-1] == "empty"
    assert "empty" in texts(lines([], {}, title="empty"))
    labels = ("x", "y")
    assert "empty" in texts(against_diagonal([], [], title="empty", labels=labels))
    assert "empty" in texts(trade_off([], [], title="empty", labels=labels))


def test_without_matplotlib_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for text in (bars({}, title=SCRIPT, baseline={}), lines([], {}, title=SCRIPT)):
        assert "install cxrg[plots] for the plots" in text
        assert "&lt;script&gt;" in text
        assert "<script" not in text
