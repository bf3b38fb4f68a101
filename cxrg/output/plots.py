"""Plots as SVG for the pages: bars with intervals, and curves.

Matplotlib, extra ``plots``, draws them through its figure object alone. Equal data gives equal
text: identifiers come from a fixed salt, and no date is written. Colours are Okabe and Ito's, which
differ for readers with every common colour vision deficiency.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#999999", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#000000")
_BAR, _TICK = _COLOURS[0], _COLOURS[6]
_STYLE: Any = {  # its keys are literals in the types of some versions of matplotlib
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 9,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "cxrg",
    "text.parse_math": False,
}
_WIDTH, _ROW, _HEIGHT, _SQUARE = 4.6, 0.25, 2.5, 2.6
_LONGEST = 60


class Estimate(Protocol):
    """A value with the interval around it (NaN where there is none), from ``n`` samples."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def n(self) -> int: ...


def bars(
    estimates: Mapping[str, Estimate], *, title: str, baseline: Mapping[str, Estimate]
) -> Markup:
    """Draw a horizontal bar with its interval for each finite value; ticks mark the baseline."""
    shown = {name: each for name, each in estimates.items() if math.isfinite(each.value)}
    values = [each.value for each in shown.values()]
    rows = max(len(shown), 1)

    def draw(axes: Axes) -> None:
        axes.barh(range(len(shown)), values, height=0.7, color=_BAR, alpha=0.75)
        for row, (name, each) in enumerate(shown.items()):
            if math.isfinite(each.low):
                axes.hlines(row, each.low, each.high, color="black", linewidth=1.2)
            if name in baseline and math.isfinite(baseline[name].value):
                at, ends = baseline[name].value, (row - 0.45, row + 0.45)
                axes.vlines(at, *ends, color=_TICK, linewidth=3, clip_on=False)
            text = f"{each.value:.3f} (n={each.n})"
            axes.text(1.02, row, text, va="center", transform=axes.get_yaxis_transform())
        axes.axvline(0, color="black", linewidth=1.2)
        if all(0 <= edge <= 1 for edge in axes.dataLim.intervalx):
            axes.set_xlim(0, 1)
        axes.set_yticks(range(len(shown)), [_label(name) for name in shown])
        axes.set_ylim(rows - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)

    return _drawn(draw, title, height=_ROW * rows)


def lines(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    title: str,
    labels: tuple[str, str] = ("", ""),
) -> Markup:
    """Draw curves over 0 to 1 with a legend; the vertical axis includes 0.

    ``labels`` name the horizontal and the vertical axis.
    """
    finite = [value for curve in curves.values() for value in curve if math.isfinite(value)]

    def draw(axes: Axes) -> None:
        for number, (name, curve) in enumerate(curves.items()):
            colour, width = _COLOURS[number % len(_COLOURS)], 1.4 if number else 2.4
            axes.plot(x, curve, color=colour, lw=width, label=_label(name), clip_on=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(min([0.0, *finite]), max([0.05, *finite]))
        axes.grid(axis="y", color="#dddddd")
        axes.set(xlabel=labels[0], ylabel=labels[1])
        if curves:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, ncols=2)

    return _drawn(draw, title, height=_HEIGHT)


def against_diagonal(
    x: Sequence[float], estimates: Sequence[Estimate], *, title: str, labels: tuple[str, str]
) -> Markup:
    """Draw points with their intervals in the unit square, with the diagonal on which x is y."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_COLOURS[1], lw=1.4, linestyle="--")
        for at, each in zip(x, estimates, strict=True):
            if math.isfinite(each.low):
                axes.vlines(at, each.low, each.high, color="black", linewidth=1.2)
        axes.plot(
            x, [each.value for each in estimates], color=_BAR, lw=1.4, marker="o", clip_on=False
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=labels[0], ylabel=labels[1])
        axes.grid(color="#dddddd")

    return _drawn(draw, title, height=_SQUARE, width=_SQUARE)


def trade_off(
    x: Sequence[float], y: Sequence[float], *, title: str, labels: tuple[str, str]
) -> Markup:
    """Draw shares y against amounts x as a curve from (0, 0), with a mark at its end."""

    def draw(axes: Axes) -> None:
        axes.plot([0, *x], [0, *y], color=_BAR, lw=2.4, drawstyle="steps-post", clip_on=False)
        axes.plot(x[-1:], y[-1:], color=_TICK, marker="o", clip_on=False)
        axes.set(xlim=(0, max([*x, 0.1]) * 1.05), ylim=(0, 1), xlabel=labels[0], ylabel=labels[1])
        axes.grid(color="#dddddd")

    return _drawn(draw, title, height=_SQUARE, width=1.4 * _SQUARE)


def _drawn(
    draw: Callable[[Axes], None], title: str, *, height: float, width: float = _WIDTH
) -> Markup:
    """Return a plot as an SVG element, or a line that says that matplotlib is missing.

    Axes have a fixed size, and the drawing is as large as its labels need, so none is cut off.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        remark = Markup('<p class="small">{}: install cxrg[plots] for the plots.</p>')
        return remark.format(title)
    text = io.StringIO()
    undated = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The browser has glyphs that matplotlib's own font, which only measures, lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        draw(axes)
        axes.set_title(_printable(title))
        figure.savefig(text, format="svg", bbox_inches="tight", metadata=undated)
    return _inline(text.getvalue())


def _inline(document: str) -> Markup:
    """The element of an SVG document, without the identifiers that every plot repeats."""
    element = document[document.index("<svg") :]
    return Markup(
        re.sub(r'<g id="[\w.]+_\d+"', "<g", element).replace("<svg", '<svg role="img"', 1)
    )


def _label(name: str) -> str:
    """A name that leaves room for the plot."""
    text = _printable(name)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)
