"""Presence scores of healthy chests, for the fact ``reference`` of a model's card.

``python -m tests.benchmarks.reference ../shared/data/normals --count 130`` prints the table that
`cxrg.heatmap.reference` describes, with preset ``fast`` of the shipped model. The last rows of the
folder's index are used, as in `tests.benchmarks.normals`.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.normals import PHRASES

QUANTILES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)


def table_of(
    scores: Mapping[str, Sequence[float]], *, weights: str, preset: str, of: str
) -> dict[str, Any]:
    """The table of scores by finding, all of the same images."""
    return {
        "weights": weights,
        "preset": preset,
        "images": len(next(iter(scores.values()))),
        "of": of,
        "quantiles": list(QUANTILES),
        "scores": {
            finding: [round(float(each), 4) for each in np.quantile(values, QUANTILES)]
            for finding, values in scores.items()
        },
    }


def main() -> None:
    from cxrg import ground, load
    from cxrg.model.card import WEIGHTS
    from cxrg.model.checkpoint.identity import fingerprint
    from cxrg.phrase.intent import read_intent

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="images with an index.csv")
    parser.add_argument("--count", type=int, default=130)
    parser.add_argument("--of", default="RSNA class Normal, held out of training")
    given = parser.parse_args()
    with (given.folder / "index.csv").open(newline="", encoding="utf-8") as file:
        files = [row["file"] for row in csv.DictReader(file)][-given.count :]
    model = load()
    scores: dict[str, list[float]] = {}
    for name in files:
        for found in ground(given.folder / name, list(PHRASES), model=model):
            finding = read_intent(found.phrase).stated[0].name
            assert finding is not None
            scores.setdefault(finding, []).append(found.score)
    print(
        json.dumps(
            table_of(
                scores, weights=fingerprint(WEIGHTS / model.card.name), preset="fast", of=given.of
            )
        )
    )


if __name__ == "__main__":
    main()
