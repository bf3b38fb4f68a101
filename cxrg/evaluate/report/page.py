"""The report as one HTML page that needs no other file: verdict, plots, cases, and all numbers.

First what a reader wants to know of the findings (or of all samples, where none are findings): a
verdict, four metrics beside the controls, plots, status and score, cases. Other groups, other
metrics, published values and the facts of the run are folded away.

Everything that comes from a data set is escaped; pictures are PNG inside the page. The page can
hold patients' images, so it states this and stays in the run's folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cxrg.evaluate.controls import OTHER_IMAGE, TO_BEAT
from cxrg.evaluate.metrics.bootstrap import Mean, Summary
from cxrg.evaluate.record import METHOD, Record, as_boxes
from cxrg.evaluate.report.glossary import glossary
from cxrg.evaluate.report.presence import Calibration, Presence, presence_rows, short
from cxrg.evaluate.report.published import family_of, published
from cxrg.evaluate.report.summary import HEADLINE, NAMES, Part, verdict
from cxrg.evaluate.report.verdict import answers, capitalised, phrases, sentence
from cxrg.evaluate.run import SWEEP
from cxrg.geometry import Box
from cxrg.output.html import write_page
from cxrg.output.plots import against_diagonal, bars, lines, trade_off

T = TypeVar("T")
CASE_SIDE = 280
_SIZE_METRICS = (*HEADLINE, "box_iou")
_EXPLAINED = {
    False: "Phrases in bins of equal counts by the model's raw score. On the dashed line, the "
    "score would be the chance that a phrase of this data set is present.",
    True: "Phrases in bins of equal counts by the calibrated probability, for which a finding is "
    "as likely as not before. Where fewer are present, points are below the dashed line.",
}
"""Of the plot of calibration, by whether the model is calibrated."""
_SHORT = 24


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


def main_part(parts: Mapping[str, Part]) -> str:
    """The group that the page shows first: findings, unless none is present in its image."""
    return "finding" if "finding" in parts and parts["finding"].positives else "all"


def write_report_page(
    report: dict[str, Any], parts: dict[str, Part], cases: Sequence[Case], path: Path
) -> None:
    """Write the page of a run: its facts, each group of samples, and the cases."""
    dataset = report["dataset"]
    main = main_part(parts)
    sections = {
        name: _part(name, part, str(dataset["format"]), missing=_missing(report, part))
        for name, part in parts.items()
    }
    half = (len(cases) + 1) // 2
    write_page(
        "evaluation.html",
        path,
        dataset=dataset["name"],
        model=report["method"].get("model", "method"),
        counts=report["counts"],
        facts=_facts(report),
        problems=list(report["problems"]["counts"].items()),
        named_problems=[
            (each["kind"], each["where"], each["detail"]) for each in report["problems"]["first"]
        ],
        main=sections.pop(main),
        others=list(sections.values()),
        cases=[
            (title, [_case(case) for case in some])
            for title, some in (("Best", cases[:half]), ("Worst", cases[half:]))
            if some
        ],
        maps=[glossary("maps")[name] for name in _shown(parts[main].maps)],
        headline=[glossary("metrics")[name] for name in HEADLINE],
        metrics=[(name, *glossary("metrics")[name]) for name in NAMES],
        sets=list(glossary("sets").values()),
        presence=list(glossary("presence").values()),
    )


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    others = dict(report["counts"])
    scored = f"{others.pop('samples')} of {others.pop('of')} samples"
    counts = ", ".join([scored, *(f"{value} {name}" for name, value in others.items())])
    rows = [("data set", f"{report['dataset']['name']} ({report['dataset']['format']})")]
    rows += [("scored", counts), ("pixels never seen", report["settings"]["outside"])]
    longest = report["settings"]["longest"]
    rows.append(("resolution", f"longest side {longest}" if longest else "the image's own"))
    rows += [("seed", str(report["settings"]["seed"])), ("cxrg", str(report["cxrg"]))]
    for key, value in report["method"].items():
        each = value.items() if isinstance(value, dict) else ()
        rows += [(f"{key}: {name}", str(part)) for name, part in each] or [(key, str(value))]
    return rows


def _missing(report: dict[str, Any], part: Part) -> str:
    """Why a control is missing, if one is that should be there."""
    if not report["settings"]["controls"] or OTHER_IMAGE in part.maps or not part.positives:
        return ""
    if report["counts"]["patients"] > 1:
        return "The images of other patients could not be read."
    return "All images are of one patient, so that no phrase could be tried on another patient's."


def _part(name: str, part: Part, dataset: str, *, missing: str) -> dict[str, Any]:
    """What the template shows of one group of samples; rows are cells from left to right."""
    return {
        "name": _GROUPS.get(name, name),
        "count": f"{phrases(part.positives)} present, {part.negatives} absent",
        "summary": sentence(part),
        "questions": answers(part),
        "missing": missing,
        "headline": _headline(part),
        "plots": _plots(part),
        "presence": presence_rows(part.presence),
        "presence_plots": _presence_plots(part.presence),
        "both": part.presence.both is not None,
        "calibration": _calibration(part.presence.calibration),
        "map_names": [glossary("maps")[name].title for name in _shown(part.maps)],
        "micro": _every_metric(part, lambda summary: summary.micro),
        "macro": _every_metric(part, lambda summary: summary.macro),
        "sizes": [
            [size, means["miou"].n, *(_cell(means[metric]) for metric in _SIZE_METRICS)]
            for size, means in part.sizes.items()
        ],
        "size_head": [glossary("metrics")[metric].title for metric in _SIZE_METRICS],
        "sets": [
            (glossary("sets")[metric].title, _cell(mean), mean.n)
            for metric, mean in part.sets.items()
            if math.isfinite(mean.value)
        ],
        "differences": _differences(part),
        "published": _published(part, dataset),
    }


_GROUPS = {"all": "All phrases", "finding": "Findings", "anatomy": "Anatomy", "device": "Devices"}


def _headline(part: Part) -> list[dict[str, Any]]:
    """A row per map: its title, and by headline metric the value and whether the method is better.

    ``better`` is None for the method itself and for maps that it is not compared with.
    """
    won = verdict(part) if part.beaten else {}
    return [
        {
            "title": glossary("maps")[name].title,
            "method": name == METHOD,
            "cells": [
                {
                    "text": short(by_metric[metric].micro),
                    "better": won[metric].get(name) if won else None,
                }
                for metric in HEADLINE
            ],
        }
        for name, by_metric in _shown(part.maps).items()
    ]


def _shown(by_map: Mapping[str, T]) -> dict[str, T]:
    """What is known by map, in the order of the glossary: the method, then what it has to beat."""
    return {name: by_map[name] for name in glossary("maps") if name in by_map}


def _every_metric(part: Part, average: Callable[[Summary], Mean]) -> list[list[str]]:
    """A row per metric: its title, the method with its interval, and the value of each control."""
    maps = _shown(part.maps)
    return [
        [
            glossary("metrics")[metric].title,
            short(average(maps[METHOD][metric])),
            *(_value(average(maps[name][metric])) for name in maps if name != METHOD),
        ]
        for metric in (NAMES if maps else ())
    ]


def _differences(part: Part) -> list[list[str]]:
    return [
        [glossary("maps")[name].title, *(_signed(by_metric[metric]) for metric in HEADLINE)]
        for name, by_metric in _shown(part.beaten).items()
    ]


def _plots(part: Part) -> list[tuple[Markup, str]]:
    """Plots of the maps, each with what it shows."""
    if not part.maps:
        return []
    ours, prior = part.maps[METHOD], part.maps.get("mean_box", {})
    tick = "; tick: usual place of the category" if prior else ""
    drawn = [
        (
            bars(
                ours[metric].categories,
                title=f"{glossary('metrics')[metric].title}, by category",
                baseline=prior[metric].categories if metric in prior else {},
            ),
            f"{capitalised(glossary('metrics')[metric].meaning)}, with 95 % intervals{tick}.",
        )
        for metric in ("pointing_game", "miou")
    ]
    curves = {
        glossary("maps")[name].title: curve
        for name, curve in _shown(part.sweep).items()
        if name in (METHOD, *TO_BEAT)
    }
    overlap = lines(
        SWEEP, curves, title="overlap, by threshold", labels=("threshold of the map", "overlap")
    )
    sizes = bars(
        {f"{size} of the image": means["miou"] for size, means in part.sizes.items()},
        title="overlap, by size of the true region",
        baseline={},
    )
    return [
        *drawn,
        (overlap, "Overlap of {map > threshold} and true region: no threshold is favoured."),
        (sizes, "Mean overlap by the share of the image that is true; small regions are harder."),
    ]


def _presence_plots(presence: Presence) -> list[tuple[Markup, str]]:
    """Plots of status and score; none where nothing is absent."""
    if presence.calibration is None:
        return []
    calibration, curve = presence.calibration, presence.curve
    named = presence.categories.items()
    found = bars(
        {name: each.sensitivity for name, each in named if math.isfinite(each.specificity.value)},
        title="found, by category",
        baseline={name: _false_alarms(each.specificity) for name, each in named},
    )
    plots = [
        (
            against_diagonal(
                calibration.scores,
                calibration.shares,
                title=f"{_score_name(calibration)} against share present",
                labels=(f"mean {_score_name(calibration)}", "share present"),
            ),
            _EXPLAINED[calibration.calibrated],
        )
    ]
    if curve.thresholds:
        froc = trade_off(
            curve.false_boxes,
            curve.sensitivity,
            title="true boxes found against false boxes",
            labels=("false boxes per image without the finding", "true boxes found"),
        )
        text = "Boxes count from a score on, which falls from left to right; the dot is as shipped."
        plots.append((froc, text))
    text = "Bar: share found where present; tick: share found where absent (false alarms)."
    return [*plots, (found, text)]


def _score_name(calibration: Calibration) -> str:
    return "probability" if calibration.calibrated else "score"


def _false_alarms(specificity: Mean) -> Mean:
    low, high = 1 - specificity.high, 1 - specificity.low
    return replace(specificity, value=1 - specificity.value, low=low, high=high)


def _calibration(calibration: Calibration | None) -> str:
    if calibration is None:
        return ""
    return (
        f"Over {calibration.error.n} phrases of categories with both, {_score_name(calibration)} "
        f"and share present differ by {calibration.error.value:.3f} on average (expected "
        f"calibration error, {len(calibration.scores)} bins). Brier score {calibration.brier}; a "
        f"fixed score would reach {calibration.brier_of_share:.3f}."
    )


def _published(part: Part, dataset: str) -> list[tuple[str, ...]]:
    values = published(dataset) if part.maps else []
    return [
        (
            glossary("metrics")[metric].title,
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
    record = case.record
    return {
        "phrase": record.phrase,
        "image": record.image if len(record.image) <= _SHORT else f"{record.image[:_SHORT]}…",
        "miou": f"{record.values[METHOD]['miou']:.2f}",
        "score": f"{record.score:.2f}",
        "status": record.status,
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


def _value(mean: Mean) -> str:
    return f"{mean.value:.3f}" if math.isfinite(mean.value) else "-"


def _signed(mean: Mean) -> str:
    if not math.isfinite(mean.value):
        return "-"
    between = f" [{mean.low:+.3f}, {mean.high:+.3f}]" if math.isfinite(mean.low) else ""
    return f"{mean.value:+.3f}{between}"
