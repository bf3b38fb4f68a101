"""A manifest of findings that healthy chests do not have, for `cxrg evaluate`.

``python -m tests.benchmarks.normals ../shared/data/normals normals.csv --count 500``, then
``cxrg evaluate normals.csv --images ../shared/data/normals --no-controls``.

The share of samples with status ``found`` is the model's rate of false alarms. The last rows of the
folder's index are used; the training recipe holds out the last 500 of them (``[data] held_out``).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

PHRASES = (
    "lung opacity",
    "consolidation",
    "atelectasis",
    "pulmonary edema",
    "pleural effusion",
    "pneumothorax",
    "lung nodule",
    "lung mass",
    "cardiomegaly",
    "pacemaker",
    "endotracheal tube",
    "nasogastric tube",
    "central venous line",
    "pneumonia",
    "infiltrate",
    "ground-glass opacity",
    "emphysema",
    "hiatal hernia",
    "hilar enlargement",
)


def write_manifest(folder: Path, out: Path, count: int) -> int:
    """Ask for every one of ``PHRASES`` in the last ``count`` images; returns the rows written."""
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        files = [row["file"] for row in csv.DictReader(file)][-count:]
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "phrase", "category", "boxes", "patient"])
        for name in files:
            for phrase in PHRASES:
                table.writerow([name, phrase, f"{phrase.title()} absent", "[]", Path(name).stem])
    return len(files) * len(PHRASES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="images with an index.csv")
    parser.add_argument("out", type=Path, help="the manifest to write")
    parser.add_argument("--count", type=int, default=500)
    given = parser.parse_args()
    print(write_manifest(given.folder, given.out, given.count), "rows")


if __name__ == "__main__":
    main()
