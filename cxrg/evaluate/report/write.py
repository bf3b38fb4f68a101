"""After the last sample: the three reports of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cxrg.about import __version__
from cxrg.evaluate.datasets import Dataset
from cxrg.evaluate.method import Method
from cxrg.evaluate.record import Record
from cxrg.evaluate.report.page import Case, main_part, pick, write_report_page
from cxrg.evaluate.report.summary import Part, build, summarise_run, write_csv, write_json
from cxrg.evaluate.run import Open, Settings, describe, open_file


def finish(
    records: Sequence[Record],
    dataset: Dataset,
    method: Method,
    settings: Settings,
    out: Path,
    *,
    open_image: Open = open_file,
    cases: int = 12,
) -> dict[str, Part]:
    """Write ``report.json``, ``report.csv`` and ``report.html``, and return their content.

    ``cases`` samples, half the best and half the worst, are grounded once more for their pictures.
    """
    parts = summarise_run(records, seed=settings.seed)
    facts = {"cxrg": __version__, **describe(dataset, method, settings)}
    counts = {
        "samples": len(records),
        "of": len(dataset.samples),
        "images": len({(record.image, record.patient) for record in records}),
        "patients": len({record.patient for record in records}),
        "negatives": sum(not record.present for record in records),
    }
    report = build(facts, parts, dataset.problems, counts)
    write_json(report, out / "report.json")
    write_csv(parts, out / "report.csv")
    group = main_part(parts)
    of_group = [record for record in records if group in ("all", record.group)]
    shown = _cases(pick(of_group, cases), dataset, method, open_image)
    write_report_page(json.loads(json.dumps(report)), parts, shown, out / "report.html")
    return parts


def _cases(records: Sequence[Record], dataset: Dataset, method: Method, opened: Open) -> list[Case]:
    samples = {sample.id: sample for sample in dataset.samples}
    cases = []
    for record in records:
        image = method.read(opened(samples[record.id]))
        found = method.ground(image, [record.phrase])[0]
        cases.append(Case(record=record, grey=image.grey, heatmap=found.heatmap))
    return cases
