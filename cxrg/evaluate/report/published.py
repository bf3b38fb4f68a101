"""Published values beside a run, only where data set and metric family are the same.

Families are not interchangeable: ``miou`` and ``iou_fg_bg`` are both called mIoU by their papers.
The values are data, in ``published.toml``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files

FAMILIES = {
    "cnr": "cnr",
    "cnr_per_box": "cnr",
    "cnr_v1": "cnr",
    "cnr_v3": "cnr",
    "cnr_v6": "cnr",
}
"""The family of a metric, where it isn't the metric's own name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published value."""

    family: str
    model: str
    value: float
    spread: float | None
    column: str
    tag: str


def published(dataset: str) -> list[Published]:
    """The values known for a data set's format; none for any other."""
    text = files("cxrg.evaluate.report").joinpath("published.toml").read_text(encoding="utf-8")
    return [
        Published(
            family=entry["family"],
            model=model,
            value=float(value),
            spread=entry.get("spread", {}).get(model),
            column=entry["column"],
            tag=entry["tag"],
        )
        for entry in tomllib.loads(text)["value"]
        if entry["dataset"] == dataset
        for model, value in entry["models"].items()
    ]


def family_of(metric: str) -> str:
    """The family that a metric is compared in."""
    return FAMILIES.get(metric, metric)
