"""The curves of a run as one page that needs nothing but itself."""

from __future__ import annotations

import json
from pathlib import Path

from markupsafe import Markup

from cxrg.learn.tune.config import TuneConfig
from cxrg.learn.tune.recipe import Energies
from cxrg.output.html import write_page
from cxrg.output.plots import lines


def write_curves(log: Path, energies: dict[int, Energies], path: Path, config: TuneConfig) -> None:
    """Draw the losses that a run's log holds, and what its held-out images showed by step.

    Raises:
        WriteError: the page cannot be written.
    """
    losses: dict[str, dict[int, float]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "loss" in entry:  # of a step that was done twice, the last counts
            losses.setdefault(entry["stage"], {})[entry["step"]] = entry["loss"]
    held_out = {
        name: {step: found[name] for step, found in energies.items()} for name in energies[0]
    }
    plots = [
        _plot(held_out, "share of attention in the named place, held-out images", config.steps),
        _plot(losses, "loss and its terms, unweighted, while learning", config.steps),
    ]
    write_page("tuning.html", path, plots=plots, steps=config.steps)


def _plot(curves: dict[str, dict[int, float]], title: str, steps: int) -> Markup:
    first = next(iter(curves.values()), {})
    at = sorted(first)
    drawn = {name: [curve[step] for step in at] for name, curve in curves.items()}
    return lines([step / steps for step in at], drawn, title=title)
