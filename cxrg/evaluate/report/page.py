"""The report as one HTML page that needs no other file: tables, plots, best and worst cases.

Everything that comes from a data set is escaped; pictures are PNG inside the page. The page can
hold patients' images, so it states this and stays in the run's folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cxrg.evaluate.metrics.bootstrap import Mean, Summary
from cxrg.evaluate.record import METHOD, Record, as_boxes
from cxrg.evaluate.report.published import family_of, published
from cxrg.evaluate.report.summary import HEADLINE, NAMES, Part, verdict
from cxrg.evaluate.run import SWEEP
from cxrg.geometry import Box
from cxrg.output.html import write_page
from cxrg.output.plots import bars, lines

CASE_SIDE = 280
_SIZE_METRICS = (*HEADLINE, "box_iou")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One sample to show: grey (H, W) and heatmap (H, W) of its image, and what was scored."""

    record: Record
    grey: NDArray[np.float32]
    heatmap: NDArray[np.float32]


def pick(records: Sequence[Record], count: int, *, metric: str = "miou") -> list[Record]:
    """The best and the worst samples by a metric, half each, best first."""
    ranked = sorted(
        (r for r in records if r.present and math.isfinite(r.values[METHOD][metric])),
        key=lambda record: (-record.values[METHOD][metric], record.id),
    )
    half = min(count // 2, len(ranked) // 2)
    return [*ranked[:half], *ranked[len(ranked) - half :]]


def write_report_page(
    report: dict[str, Any], parts: dict[str, Part], cases: Sequence[Case], path: Path
) -> None:
    """Write the page of a run: its facts, each group of samples, and the cases."""
    dataset = report["dataset"]
    write_page(
        "evaluation.html",
        path,
        dataset=dataset["name"],
        model=report["method"].get("model", "method"),
        facts=_facts(report),
        problems=list(report["problems"]["counts"].items()),
        named_problems=[
            (each["kind"], each["where"], each["detail"]) for each in report["problems"]["first"]
        ],
        metrics=list(NAMES),
        size_metrics=list(_SIZE_METRICS),
        parts=[_part(name, part, str(dataset["format"])) for name, part in parts.items()],
        cases=[_case(case) for case in cases],
    )


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    others = dict(report["counts"])
    scored = f"{others.pop('samples')} of {others.pop('of')} samples"
    counts = ", ".join([scored, *(f"{value} {name}" for name, value in others.items())])
    rows = [("data set", f"{report['dataset']['name']} ({report['dataset']['format']})")]
    rows += [("scored", counts), ("pixels never seen", report["settings"]["outside"])]
    longest = report["settings"]["longest"]
    rows.append(("resolution", f"longest side {longest}" if longest else "the image's own"))
    for key, value in report["method"].items():
        each = value.items() if isinstance(value, dict) else ()
        rows += [(f"{key}: {name}", str(part)) for name, part in each] or [(key, str(value))]
    return rows


def _part(name: str, part: Part, dataset: str) -> dict[str, Any]:
    """What the template shows of one group of samples; rows are cells from left to right."""
    return {
        "name": name,
        "positives": part.positives,
        "negatives": part.negatives,
        "verdict": _verdict(part),
        "micro": _maps(part, lambda summary: summary.micro),
        "macro": _maps(part, lambda summary: summary.macro),
        "plots": _plots(part),
        "sizes": [
            [size, means["miou"].n, *(_cell(means[metric]) for metric in _SIZE_METRICS)]
            for size, means in part.sizes.items()
        ],
        "sets": [
            (metric, _cell(mean), mean.n)
            for metric, mean in part.sets.items()
            if math.isfinite(mean.value)
        ],
        "published": _published(part, dataset),
    }


def _verdict(part: Part) -> list[tuple[str, list[tuple[bool, str, str]]]]:
    """By metric: whether the method beats each control, and by how much; empty without controls."""
    if not part.beaten:
        return []
    return [
        (metric, [(beats, name, _signed(part.beaten[name][metric])) for name, beats in by.items()])
        for metric, by in verdict(part).items()
    ]


def _maps(part: Part, average: Callable[[Summary], Mean]) -> list[list[str]]:
    return [
        [name, *(_cell(average(by_metric[metric])) for metric in NAMES)]
        for name, by_metric in part.maps.items()
    ]


def _plots(part: Part) -> list[Markup]:
    if not part.maps:
        return []
    ours, prior = part.maps[METHOD], part.maps.get("mean_box", {})
    drawn = [
        bars(
            ours[metric].categories,
            title=f"{metric} by category, 95 % over patients; tick: mean box of other patients",
            baseline=prior[metric].categories if metric in prior else {},
        )
        for metric in ("pointing_game", "miou")
    ]
    return [*drawn, lines(SWEEP, part.sweep, title="mean IoU of {h > threshold} by threshold")]


def _published(part: Part, dataset: str) -> list[tuple[str, ...]]:
    values = published(dataset) if part.maps else []
    return [
        (
            metric,
            _cell(summary.macro),
            known.model,
            f"{known.value:g}" + (f" ± {known.spread:g}" if known.spread is not None else ""),
            known.column,
            known.tag,
        )
        for metric, summary in part.maps.get(METHOD, {}).items()
        for known in values
        if known.family == family_of(metric)
    ]


def _case(case: Case) -> dict[str, Any]:
    return {
        "id": case.record.id,
        "phrase": case.record.phrase,
        "miou": f"{case.record.values[METHOD]['miou']:.3f}",
        "picture": picture(case),
    }


def picture(case: Case) -> bytes:
    """The case as PNG: grey, heatmap in viridis by strength, true and predicted boxes."""
    height, width = case.grey.shape
    factor = CASE_SIDE / max(height, width)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    grey = cv2.resize(case.grey, size, interpolation=cv2.INTER_AREA)[..., None] * 255
    heat = cv2.resize(np.nan_to_num(case.heatmap), size, interpolation=cv2.INTER_AREA)
    heat = np.clip(heat, 0, 1)
    colour = cv2.applyColorMap(np.asarray(heat * 255, dtype=np.uint8), cv2.COLORMAP_VIRIDIS)
    mixed = grey * (1 - 0.6 * heat[..., None]) + colour * 0.6 * heat[..., None]
    canvas = np.ascontiguousarray(np.clip(mixed, 0, 255).astype(np.uint8))
    for box in as_boxes(case.record.boxes[METHOD]):
        _draw(canvas, box, factor, (0, 159, 230))
    for box in as_boxes(case.record.truth):
        _draw(canvas, box, factor, (255, 255, 255))
    _, data = cv2.imencode(".png", canvas)
    return data.tobytes()


def _draw(canvas: NDArray[np.uint8], box: Box, factor: float, colour: Sequence[int]) -> None:
    first = (round(box.x0 * factor), round(box.y0 * factor))
    last = (round(box.x1 * factor) - 1, round(box.y1 * factor) - 1)
    cv2.rectangle(canvas, first, last, tuple(colour), 2)


def _cell(mean: Mean) -> str:
    return f"{mean} ({mean.undefined} undefined)" if mean.undefined else str(mean)


def _signed(mean: Mean) -> str:
    if not math.isfinite(mean.value):
        return "-"
    return f"{mean.value:+.3f} [{mean.low:+.3f}, {mean.high:+.3f}]"
