"""Line charts as SVG, for the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#0072B2", "#999999", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#000000")


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
