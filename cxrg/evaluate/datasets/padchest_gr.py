"""PadChest-GR (BIMCV): report sentences with boxes, ``grounded_reports_*.json``.

A list of ``{StudyID, ImageID, findings: [{sentence_en, abnormal, boxes, labels, ...}]}``; boxes are
``[x0, y0, x1, y1]`` in shares of width and height. Normal sentences have no box
and are negatives; abnormal ones without a box cannot be scored and are left out, counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxrg.chest.categories import named_side
from cxrg.errors import InputError
from cxrg.evaluate.datasets.common import Reading, cell, read_json
from cxrg.evaluate.sample import RELATIVE, Sample
from cxrg.geometry import Box


def read(path: Path, reading: Reading) -> list[Sample]:
    """The samples of the grounded reports.

    Raises:
        InputError: the file has not that form.
    """
    reports = read_json(path)
    try:
        pairs = [(report, finding) for report in reports for finding in report["findings"]]
        samples = [_sample(report, finding, reading) for report, finding in pairs]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path.name} is no PadChest-GR JSON ({type(error).__name__} {error}); check --format"
        ) from error
    return [sample for sample in samples if sample]


def _sample(report: dict[str, Any], finding: dict[str, Any], reading: Reading) -> Sample | None:
    image, phrase = cell(report["ImageID"]), cell(finding["sentence_en"])
    where = f"{image} {phrase}"
    if not phrase:
        reading.problems.add("no phrase", where, "sentence_en is empty")
        return None
    try:
        boxes = [Box(*map(float, corners)) for corners in finding.get("boxes") or ()]
    except (TypeError, ValueError):
        reading.problems.add("bad entry", where, "a box is not four numbers")
        return None
    if finding["abnormal"] and not boxes:
        reading.problems.note("abnormal without a box", where, "cannot be scored")
        return None
    labels = [*filter(None, map(cell, finding.get("labels") or ())), "finding"]
    return reading.sample(
        image,
        labels[0],
        boxes,
        phrase=phrase,
        space=RELATIVE,
        absent=not boxes,
        patient=cell(report.get("PatientID")) or cell(report["StudyID"]) or None,
        side=named_side(phrase),
    )
