"""The curves of a run as one page that needs nothing but itself."""

from __future__ import annotations

import json
from pathlib import Path

from cxrg.about import NOTICE
from cxrg.files import atomic_write
from cxrg.learn.tune.config import TuneConfig
from cxrg.learn.tune.recipe import Energies
from cxrg.output.plots import lines

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>cxrg tune</title>
<style>body {{ font: 14px sans-serif; max-width: 760px; margin: 2em auto }}
svg {{ width: 100%; font: 12px sans-serif }} .title {{ font-weight: bold }}</style></head>
<body><h1>cxrg tune</h1>
{plots}
<p>From left to right {steps} steps. Cxrg is for {notice}.</p></body></html>
"""


def write_curves(log: Path, energies: dict[int, Energies], path: Path, config: TuneConfig) -> None:
    """Draw the losses that a run's log holds, and what its held-out images showed by step.

    Raises:
        WriteError: the page cannot be written.
    """
    told: dict[str, dict[int, float]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "loss" in entry:  # of a step that was done twice, the last counts
            told.setdefault(entry["stage"], {})[entry["step"]] = entry["loss"]
    held_out = {
        name: {step: found[name] for step, found in energies.items()} for name in energies[0]
    }
    plots = [
        _plot(held_out, "share of attention in the named place, held-out images", config.steps),
        _plot(told, "loss and its terms, unweighted, while learning", config.steps),
    ]
    page = _PAGE.format(plots="\n".join(plots), steps=config.steps, notice=NOTICE)
    with atomic_write(path) as file:
        file.write(page.encode())


def _plot(curves: dict[str, dict[int, float]], title: str, steps: int) -> str:
    first = next(iter(curves.values()), {})
    at = sorted(first)
    drawn = {name: [curve[step] for step in at] for name, curve in curves.items()}
    return lines([step / steps for step in at], drawn, title=title)
