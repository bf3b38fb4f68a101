"""Results as comma-separated values: a row per box, and one for a phrase without boxes.

Text that a spreadsheet would take for a formula (OWASP, "CSV Injection") begins with an apostrophe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cxrg.files import atomic_write

COLUMNS = (
    *("image_sha256", "image_uid", "width", "height"),
    *("phrase", "status", "presence", "presence_score"),
    *("box", "x0", "y0", "x1", "y1", "box_score", "where"),
    *("model", "preset", "file", "warnings"),
)
"""``presence`` is a probability, empty where the model is not calibrated; ``presence_score`` is the
raw score. Pixels are those of the original file; ``file`` is the name of a result's files, less
suffix.
"""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_table(results: Iterable[tuple[str, Mapping[str, Any]]], path: Path) -> None:
    """Write the name and the record of each result, one after the other.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for stem, facts in results:
            writer.writerows(_rows(stem, facts))
        text.detach()  # flushes; the file is closed by the one who opened it


def _rows(stem: str, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    image = facts["image"]
    common = {
        "image_sha256": image["sha256"],
        "image_uid": image["uid"],
        "width": image["width"],
        "height": image["height"],
        "phrase": facts["phrase"],
        "status": facts["status"],
        "presence": facts.get("presence"),  # results of earlier versions have none
        "presence_score": facts["score"],
        "model": facts["model"]["name"],
        "preset": facts["options"]["preset"],
        "file": stem,
        "warnings": "; ".join(facts["warnings"]),
    }
    for number, box in enumerate(facts["boxes"], 1):
        edges = {name: box[name] for name in ("x0", "y0", "x1", "y1", "where")}
        yield _safe({**common, **edges, "box": number, "box_score": box["score"]})
    if not facts["boxes"]:
        yield _safe(common)


def _safe(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of which no cell is a formula."""
    return {
        name: f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
        for name, value in row.items()
    }
