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
from random import Random

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

LUNG = (
    "opacity",
    "consolidation",
    "atelectasis",
    "nodule",
    "mass",
    "pneumonia",
    "infiltrate",
    "ground-glass opacity",
)
PLEURA = ("pleural effusion", "pneumothorax")


def placed(seed: int) -> list[str]:
    """Findings of lung and pleura, each on a side by chance, and half of them in a zone."""
    rng = Random(seed)
    lung = [_place(rng, "upper", "mid", "lower") + f" lung {finding}" for finding in LUNG]
    return [*lung, *(f"{_place(rng, 'apical', 'basal')} {finding}" for finding in PLEURA)]


def _place(rng: Random, *zones: str) -> str:
    side = rng.choice(("left", "right"))
    return f"{side} {rng.choice(zones)}" if rng.random() < 0.5 else side


def write_manifest(folder: Path, out: Path, count: int, *, places: bool = False) -> int:
    """Ask for findings in the last ``count`` images; returns the rows written.

    Every one of ``PHRASES``, or, with ``places``, what `placed` gives for the image's number.
    """
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        files = [row["file"] for row in csv.DictReader(file)][-count:]
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "phrase", "category", "boxes", "patient"])
        rows = [
            [name, phrase, f"{phrase.title()} absent", "[]", Path(name).stem]
            for number, name in enumerate(files)
            for phrase in (placed(number) if places else PHRASES)
        ]
        table.writerows(rows)
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="images with an index.csv")
    parser.add_argument("out", type=Path, help="the manifest to write")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--placed", action="store_true", help="findings on a side, in a zone")
    given = parser.parse_args()
    rows = write_manifest(given.folder, given.out, given.count, places=given.placed)
    print(rows, "rows")


if __name__ == "__main__":
    main()
