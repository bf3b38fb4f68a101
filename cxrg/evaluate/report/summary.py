"""The report of a run: means, controls, set metrics and verdict as plain data, JSON and CSV.

Report findings, anatomy and devices apart as well as together: anatomy is found by its place alone
and would lift every mean.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxrg.chest.categories import GROUPS
from cxrg.evaluate.controls import TO_BEAT
from cxrg.evaluate.metrics import boxes as sets
from cxrg.evaluate.metrics.bootstrap import (
    NAN,
    SIZE_NAMES,
    Array,
    Mean,
    Resampling,
    Summary,
    above,
    difference,
    interval,
    mean_of,
    ratio,
    size_bin,
    summarise,
)
from cxrg.evaluate.metrics.heatmaps import METRICS
from cxrg.evaluate.record import METHOD, Record, as_boxes
from cxrg.evaluate.report.presence import Presence, auroc, presence_of
from cxrg.evaluate.report.published import published
from cxrg.evaluate.run import SWEEP
from cxrg.evaluate.sample import Problems
from cxrg.files import atomic_write, json_values

SCHEMA = "cxrg.evaluation/1"
NAMES = (*METRICS, "box_iou")
HEADLINE = ("pointing_game", "miou", "cnr", "auc_roc")
"""The metrics of which the verdict is made."""
LISTED = 50
"""How many problems of each run the report names; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The results of one group of samples: by map, then metric."""

    maps: dict[str, dict[str, Summary]]
    beaten: dict[str, dict[str, Mean]]
    sizes: dict[str, dict[str, Mean]]
    sweep: dict[str, list[float]]
    sets: dict[str, Mean]
    presence: Presence
    positives: int
    negatives: int


def summarise_run(records: Sequence[Record], *, seed: int = 0) -> dict[str, Part]:
    """``all`` samples, and each group that occurs where there is more than one."""
    groups = [group for group in GROUPS if any(r.group == group for r in records)]
    parts = {"all": part_of(records, seed=seed)}
    if len(groups) > 1:
        parts |= {g: part_of([r for r in records if r.group == g], seed=seed) for g in groups}
    return parts


def part_of(records: Sequence[Record], *, seed: int = 0) -> Part:
    """All metrics of one group of samples."""
    positive = [record for record in records if record.present]
    maps: dict[str, dict[str, Summary]] = {}
    beaten: dict[str, dict[str, Mean]] = {}
    sizes: dict[str, dict[str, Mean]] = {}
    sweep: dict[str, list[float]] = {}
    if positive:
        resampling = Resampling.of([record.patient for record in positive], seed=seed)
        categories = [record.category for record in positive]
        names = list(dict.fromkeys(name for record in positive for name in record.values))
        for name in names:
            columns = {metric: column(positive, name, metric) for metric in NAMES}
            maps[name] = {m: summarise(v, categories, resampling) for m, v in columns.items()}
            swept = [record.sweep[name] for record in positive if name in record.sweep]
            sweep[name] = [float(value) for value in np.mean(swept, axis=0)]
            if name != METHOD:
                beaten[name] = {
                    metric: difference(column(positive, METHOD, metric), theirs, resampling)
                    for metric, theirs in columns.items()
                }
        sizes = _by_size(positive, resampling)
    presence = presence_of(records, seed=seed)
    return Part(
        maps=maps,
        beaten=beaten,
        sizes=sizes,
        sweep=sweep,
        sets=set_metrics(records, presence, seed=seed),
        presence=presence,
        positives=len(positive),
        negatives=len(records) - len(positive),
    )


def column(records: Sequence[Record], name: str, metric: str) -> Array:
    """One metric of one map over samples; NaN where a sample has none."""
    return np.array(
        [record.values.get(name, {}).get(metric, NAN) for record in records], dtype=float
    )


def _by_size(records: Sequence[Record], resampling: Resampling) -> dict[str, dict[str, Mean]]:
    """Headline metrics of the method in each bin of lesion size that occurs."""
    bins = np.array([size_bin(record.area) for record in records], dtype=object)
    return {
        name: {
            metric: mean_of(column(records, METHOD, metric)[bins == name], part)
            for metric in (*HEADLINE, "box_iou")
        }
        for name in SIZE_NAMES
        if (part := resampling.only(bins == name)).patients.size
    }


def set_metrics(records: Sequence[Record], presence: Presence, *, seed: int = 0) -> dict[str, Mean]:
    """Metrics of the method's boxes as sets, of its presence score, and of laterality."""
    if not records:
        return {}
    resampling = Resampling.of([record.patient for record in records], seed=seed)
    there = np.array([record.present for record in records])
    predicted = [as_boxes(record.boxes[METHOD]) for record in records]
    truth = [as_boxes(record.truth) for record in records]
    found: dict[str, Mean] = {}
    for least in sets.F1_IOUS:
        counts = [sets.count(p, t, least) for p, t in zip(predicted, truth, strict=True)]
        found[f"f1_{round(least * 100)}"] = _f1(counts, resampling)
    for name, value in sets.average_precision(predicted, truth).items():
        found[name] = Mean(value=value, low=NAN, high=NAN, n=len(records))
    amount = np.array([float(len(boxes)) for boxes in predicted])
    absent = resampling.only(~there)
    found["null_accuracy"] = mean_of((amount[~there] == 0).astype(float), absent)
    found["false_box_rate"] = mean_of(amount[~there], absent)
    scores = np.array([record.strength for record in records])
    found["presence_auroc"] = auroc(scores, there, resampling)
    none = Mean(value=NAN, low=NAN, high=NAN, n=0)
    found["presence_auroc_same_category"] = presence.both.auroc if presence.both else none
    sided = np.array(
        [r.laterality_hit if r.laterality_hit is not None else NAN for r in records], dtype=float
    )
    one = np.isfinite(sided)
    found["laterality_obeyed"] = mean_of(sided[one], resampling.only(one))
    return found


def _f1(counts: Sequence[sets.Counts], resampling: Resampling) -> Mean:
    hits, extra, missed = (np.array(part, dtype=float) for part in zip(*counts, strict=True))
    top = resampling.totals(2 * hits)
    total = resampling.totals(2 * hits + extra + missed)
    low, high = interval(ratio(top, total))
    return Mean(value=sets.f1(counts), low=low, high=high, n=len(counts))


def verdict(part: Part) -> dict[str, dict[str, bool]]:
    """By headline metric and control: whether the method is better, beyond chance."""
    return {
        metric: {name: above(part.beaten[name][metric]) for name in TO_BEAT if name in part.beaten}
        for metric in HEADLINE
    }


def build(
    facts: dict[str, Any], parts: dict[str, Part], problems: Problems, counts: dict[str, int]
) -> dict[str, Any]:
    """The whole report as JSON-ready data; undefined values are null."""
    values = published(str(facts["dataset"]["format"]))
    return {
        "schema": SCHEMA,
        **facts,
        "counts": counts,
        "problems": {
            "counts": problems.counts(),
            "first": [asdict(problem) for problem in problems.found[:LISTED]],
            "left_out_by_format": len(problems.notes),
        },
        "thresholds": list(SWEEP),
        "parts": {
            name: {**json_values(asdict(part)), "verdict": verdict(part)}
            for name, part in parts.items()
        },
        "published": [asdict(value) for value in values],
    }


def write_json(report: dict[str, Any], path: Path) -> None:
    """Write ``report.json``."""
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write((text + "\n").encode())


CSV_HEAD = (
    "part",
    "map",
    "metric",
    "average",
    "category",
    "value",
    "low",
    "high",
    "sd",
    "n",
    "undefined",
)


def write_csv(parts: dict[str, Part], path: Path) -> None:
    """Write ``report.csv``: one number in a row, with its interval."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for name, part in parts.items():
        writer.writerows((name, *row) for row in _rows(part))
    with atomic_write(path) as file:
        file.write(buffer.getvalue().encode())


def _rows(part: Part) -> Iterator[tuple[Any, ...]]:
    for name, by_metric in part.maps.items():
        for metric, summary in by_metric.items():
            yield name, metric, "micro", "", *_cells(summary.micro)
            yield name, metric, "macro", "", *_cells(summary.macro, summary.macro_sd)
            for category, mean in summary.categories.items():
                yield name, metric, "category", _safe(category), *_cells(mean)
    for size, means in part.sizes.items():
        for metric, mean in means.items():
            yield METHOD, metric, "size", size, *_cells(mean)
    for metric, mean in part.sets.items():
        yield METHOD, metric, "set", "", *_cells(mean)
    for category, statuses in part.presence.categories.items():
        for metric in ("sensitivity", "specificity", "auroc", "false_boxes"):
            mean = getattr(statuses, metric)
            yield METHOD, metric, "presence", _safe(category), *_cells(mean)


def _cells(mean: Mean, sd: float = NAN) -> tuple[Any, ...]:
    numbers = [
        f"{v:.6f}" if math.isfinite(v) else "" for v in (mean.value, mean.low, mean.high, sd)
    ]
    return (*numbers, mean.n, mean.undefined)


def _safe(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text
