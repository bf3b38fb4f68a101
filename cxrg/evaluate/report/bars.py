"""Plots as SVG text, drawn by hand so that a page needs nothing but itself.

Colours are Okabe and Ito's, told apart with every common colour vision deficiency. All text is
escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from cxrg.evaluate.metrics.bootstrap import Mean
from cxrg.output.plots import COLOURS, _line, _svg

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
