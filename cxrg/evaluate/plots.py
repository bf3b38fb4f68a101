"""Plots as SVG text, drawn by hand so that a page needs nothing but itself.

Colours are Okabe and Ito's, told apart with every common colour vision deficiency. All text is
escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from cxrg.evaluate.aggregate import Mean

COLOURS = ("#0072B2", "#999999", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#000000")
LABEL, WIDTH, ROW = 190, 420, 22


def bars(means: Mapping[str, Mean], *, title: str, baseline: Mapping[str, Mean]) -> str:
    """Horizontal bars with intervals, one for each name; a tick marks the baseline's value."""
    shown = {name: mean for name, mean in means.items() if math.isfinite(mean.value)}
    edges = [0.0, *(v for m in shown.values() for v in (m.value, m.low, m.high))]
    edges += [mean.value for mean in baseline.values()]
    finite = [edge for edge in edges if math.isfinite(edge)]
    low, high = min(finite), max(*finite, min(finite) + 1e-9)
    if low >= 0 and high <= 1:
        high = 1.0

    def x(value: float) -> float:
        return LABEL + (value - low) / (high - low) * WIDTH

    parts = []
    for row, (name, mean) in enumerate(shown.items()):
        y = 30 + row * ROW
        left, right = sorted((x(0), x(mean.value)))
        parts.append(
            f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left:.1f}" y="{y}" width="{right - left:.1f}" height="15" '
            f'fill="{COLOURS[0]}" opacity=".75"/>'
        )
        if math.isfinite(mean.low):
            parts.append(_line(x(mean.low), y + 7.5, x(mean.high), y + 7.5, "#000"))
        if name in baseline and math.isfinite(baseline[name].value):
            at = x(baseline[name].value)
            parts.append(_line(at, y - 2, at, y + 17, COLOURS[6], width=3))
        parts.append(
            f'<text x="{LABEL + WIDTH + 12}" y="{y + 12}">{mean.value:.3f} (n={mean.n})</text>'
        )
    height = 40 + len(shown) * ROW
    axis = _line(x(0), 24, x(0), height - 8, "#000")
    head = f'<text x="{LABEL}" y="16" class="title">{escape(title)}</text>'
    return _svg(LABEL + WIDTH + 120, height, head + axis + "".join(parts))


def lines(x: Sequence[float], curves: Mapping[str, Sequence[float]], *, title: str) -> str:
    """Curves over thresholds from 0 to 1 with a legend; the vertical axis starts at 0."""
    top = max([0.05, *(value for curve in curves.values() for value in curve)])
    width, height, left, upper = 460, 240, 50, 30

    def at(px: float, py: float) -> str:
        return f"{left + px * width:.1f},{upper + height - py / top * height:.1f}"

    parts = [f'<text x="{left}" y="16" class="title">{escape(title)}</text>']
    for i in range(6):
        px, py = left + i / 5 * width, upper + height - i / 5 * height
        parts.append(_line(left, py, left + width, py, "#ddd"))
        parts.append(
            f'<text x="{left - 6}" y="{py + 4:.1f}" text-anchor="end">{top * i / 5:.2f}</text>'
            f'<text x="{px:.1f}" y="{upper + height + 18}" text-anchor="middle">{i / 5:g}</text>'
        )
    for i, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        points = " ".join(at(px, py) for px, py in zip(x, curve, strict=True))
        thick = 3 if i == 0 else 1.6
        y = upper + 8 + i * 20
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{thick}"/>'
            f'<text x="{left + width + 40}" y="{y + 4}">{escape(name)}</text>'
        )
        parts.append(_line(left + width + 12, y, left + width + 34, y, colour, width=3))
    return _svg(left + width + 170, upper + height + 30, "".join(parts))


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, *, width: float = 1.2) -> str:
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )


def _svg(width: float, height: float, inside: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'role="img">{inside}</svg>'
    )
