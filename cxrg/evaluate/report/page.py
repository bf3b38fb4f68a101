"""The report as one HTML page that needs no other file: tables, plots, best and worst cases.

Everything that comes from a data set is escaped; pictures are PNG inside the page. The page can
hold patients' images, so it says so and stays where the run is.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.evaluate.metrics.bootstrap import Mean
from cxrg.evaluate.record import METHOD, Record, as_boxes
from cxrg.evaluate.report.bars import bars
from cxrg.evaluate.report.published import family_of, published
from cxrg.evaluate.report.summary import HEADLINE, NAMES, Part, verdict
from cxrg.evaluate.run import SWEEP
from cxrg.files import atomic_write
from cxrg.geometry import Box
from cxrg.output.plots import lines

CASE_SIDE = 280
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1100px;padding:0 1em;color:#111}
table{border-collapse:collapse;margin:.6em 0 1.4em}td,th{padding:.25em .6em;text-align:right;
border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums;font-size:13px}
td:first-child,th:first-child{text-align:left}.scroll{overflow-x:auto}
.no{color:#b00020;font-weight:600}.yes{color:#00695c}.small{color:#555;font-size:13px}
svg{max-width:100%;height:auto;font:12px system-ui,sans-serif}svg .title{font-weight:600}
figure{display:inline-block;margin:0 .8em 1em 0;width:280px;vertical-align:top}
figure img{width:280px}figcaption{font-size:12px;overflow-wrap:anywhere}
"""


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


def write_page(
    report: dict[str, Any], parts: dict[str, Part], cases: Sequence[Case], path: Path
) -> None:
    """Write the page."""
    dataset = report["dataset"]
    title = f"{dataset['name']}: {report['method'].get('model', 'method')}"
    body = [
        f"<h1>Phrase grounding on {escape(title)}</h1>",
        "<p class=small>Research use only. This page can show patients' images: keep it where the "
        "data may be.</p>",
        _facts(report),
        _problems(report["problems"]),
    ]
    for name, part in parts.items():
        body.append(_part(name, part, str(dataset["format"])))
    body.append(_cases(cases))
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        + "\n".join(body)
        + "</body></html>\n"
    )
    with atomic_write(path) as file:
        file.write(text.encode())


def _facts(report: dict[str, Any]) -> str:
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
    return _table(("run", ""), rows)


def _problems(problems: dict[str, Any]) -> str:
    if not problems["counts"]:
        return "<p>No problem was found in the data.</p>"
    counted = _table(("problem", "count"), [(k, str(v)) for k, v in problems["counts"].items()])
    named = _table(
        ("problem", "where", "what"),
        [(p["kind"], p["where"], p["detail"]) for p in problems["first"]],
    )
    return (
        f"<h2>Problems in the data</h2>{counted}<details><summary>named</summary>{named}</details>"
    )


def _part(name: str, part: Part, dataset: str) -> str:
    body = [f"<h2>{escape(name)}: {part.positives} phrases, {part.negatives} negatives</h2>"]
    if part.maps:
        body += [_verdict(part), _maps(part, "micro"), _maps(part, "macro")]
        ours = part.maps[METHOD]
        prior = part.maps.get("mean_box", {})
        for metric in ("pointing_game", "miou"):
            baseline = prior[metric].categories if metric in prior else {}
            title = f"{metric} by category, 95 % over patients; tick: mean box of other patients"
            body.append(bars(ours[metric].categories, title=title, baseline=baseline))
        body.append(lines(SWEEP, part.sweep, title="mean IoU of {h > threshold} by threshold"))
        body.append(_sizes(part))
    body.append(_sets(part))
    if part.maps:
        body.append(_published(part, dataset))
    return "\n".join(body)


def _verdict(part: Part) -> str:
    if not part.beaten:
        return '<p class="no">No controls were run: these numbers say little.</p>'
    rows = []
    for metric, beats in verdict(part).items():
        cells = [
            f'<td class="{"yes" if better else "no"}">{"beats" if better else "NOT better than"} '
            f"{escape(name)} ({_signed(part.beaten[name][metric])})</td>"
            for name, better in beats.items()
        ]
        rows.append(f"<tr><td>{escape(metric)}</td>{''.join(cells)}</tr>")
    return (
        "<p>Against the controls that know position or image but not the phrase (paired micro "
        f"difference, 95 %):</p><div class=scroll><table>{''.join(rows)}</table></div>"
    )


def _maps(part: Part, average: str) -> str:
    head = (f"{average} mean", *NAMES)
    rows = []
    for name, by_metric in part.maps.items():
        cells = [name]
        for metric in NAMES:
            summary = by_metric[metric]
            cells.append(_cell(summary.micro if average == "micro" else summary.macro))
        rows.append(cells)
    return f"<div class=scroll>{_table(head, rows)}</div>"


def _sizes(part: Part) -> str:
    metrics = (*HEADLINE, "box_iou")
    rows = [
        [size, str(means["miou"].n), *(_cell(means[metric]) for metric in metrics)]
        for size, means in part.sizes.items()
    ]
    return _table(("share of the image", "n", *metrics), rows)


def _sets(part: Part) -> str:
    rows = [
        [name, _cell(mean), str(mean.n)]
        for name, mean in part.sets.items()
        if math.isfinite(mean.value)
    ]
    return "<h3>Boxes as sets, presence, laterality</h3>" + _table(("metric", "value", "n"), rows)


def _published(part: Part, dataset: str) -> str:
    values = published(dataset)
    if not values:
        return ""
    rows = []
    for metric, summary in part.maps[METHOD].items():
        for known in values:
            if known.family == family_of(metric):
                spread = f" ± {known.spread:g}" if known.spread is not None else ""
                value = f"{known.value:g}{spread}"
                ours = _cell(summary.macro)
                rows.append([metric, ours, known.model, value, known.column, known.tag])
    head = ("metric", "here (macro)", "published model", "value", "source", "kind")
    return "<h3>Published values of the same family</h3>" + _table(head, rows)


def _cases(cases: Sequence[Case]) -> str:
    if not cases:
        return ""
    figures = []
    for case in cases:
        score = case.record.values[METHOD]["miou"]
        data = base64.b64encode(picture(case)).decode()
        figures.append(
            f'<figure><img alt="" src="data:image/png;base64,{data}"><figcaption>'
            f"{escape(case.record.phrase)}<br>miou {score:.3f}, {escape(case.record.id)}"
            "</figcaption></figure>"
        )
    return (
        "<h2>Best and worst cases by miou</h2><p class=small>White: truth; orange: predicted; "
        f"colour: heatmap.</p>{''.join(figures)}"
    )


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
    if not math.isfinite(mean.value):
        return "-"
    between = f" [{mean.low:.3f}, {mean.high:.3f}]" if math.isfinite(mean.low) else ""
    lost = f" ({mean.undefined} undefined)" if mean.undefined else ""
    return f"{mean.value:.3f}{between}{lost}"


def _signed(mean: Mean) -> str:
    if not math.isfinite(mean.value):
        return "-"
    return f"{mean.value:+.3f} [{mean.low:+.3f}, {mean.high:+.3f}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table><tr>{top}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
