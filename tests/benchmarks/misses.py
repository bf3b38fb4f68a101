"""Draw what a run on phantoms missed, one case of each category, as a picture for a model's card.

``cxrg evaluate phantoms --count 500 --seed 1 --out RUN``, then
``python -m tests.benchmarks.misses RUN misses.jpg``

Of every category of findings and devices the pointing game's first miss, the category that is
missed most often first. White: truth; orange: predicted; colour: heatmap, as in the run's page.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.evaluate.method import LatentDiffusion
from cxrg.evaluate.phantoms import ask, opener
from cxrg.evaluate.record import METHOD, Record
from cxrg.evaluate.record import load as read_records
from cxrg.evaluate.report.page import CASE_SIDE, Case, picture
from cxrg.model.load import load
from cxrg.options import resolve
from cxrg.output.text import text_width, write_text

COLUMNS, GAP, FOOT, TEXT = 4, 8, 24, 13


def missed(records: Sequence[Record], count: int) -> list[Record]:
    """The first miss of each category, the most frequently missed one first."""
    misses: dict[str, list[Record]] = {}
    counts: Counter[str] = Counter()
    for record in records:
        if not record.present or record.group == "anatomy":
            continue
        counts[record.category] += 1
        if record.values[METHOD]["pointing_game"] < 0.5:
            misses.setdefault(record.category, []).append(record)
    ranked = sorted(misses, key=lambda name: -len(misses[name]) / counts[name])
    return [misses[name][0] for name in ranked[:count]]


def tile(case: Case) -> NDArray[np.uint8]:
    """One case above its phrase and score."""
    canvas = np.full((CASE_SIDE + FOOT, CASE_SIDE + GAP, 3), 255, np.uint8)
    drawn = cv2.imdecode(np.frombuffer(picture(case), np.uint8), cv2.IMREAD_COLOR)
    if drawn is None:
        raise ValueError("the picture cannot be decoded")
    canvas[: drawn.shape[0], : drawn.shape[1]] = drawn
    caption = case.record.phrase
    while text_width(caption, TEXT) > CASE_SIDE:
        caption = caption[:-2] + "…"
    write_text(canvas, caption, (0, CASE_SIDE + FOOT - 8), TEXT, (0, 0, 0))
    return canvas


def sheet(cases: Sequence[Case]) -> NDArray[np.uint8]:
    """All cases, a few in a row."""
    tiles = [tile(case) for case in cases]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the misses of a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of cxrg evaluate phantoms")
    parser.add_argument("picture", type=Path, help="to write, such as misses.jpg")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--count", type=int, default=8)
    given = parser.parse_args(arguments)
    run = json.loads((given.run / "run.json").read_text(encoding="utf-8"))
    seed, knobs = run["settings"]["seed"], run["method"]["options"]
    model = load(given.model)
    method = LatentDiffusion(model=model, options=resolve(**knobs))
    if method.facts != run["method"]:
        parser.error(f"{given.run}: made by another model; name it with --model")
    open_phantom, cases = opener(seed, model.side), []
    for record in missed(read_records(given.run / "samples.jsonl"), given.count):
        image = open_phantom(ask(int(record.patient), seed)[0])
        found = method.ground(image, [record.phrase])[0]
        cases.append(Case(record=record, grey=image.grey, heatmap=found.heatmap))
        print(f"{record.category}: {record.phrase}")
    cv2.imwrite(str(given.picture), sheet(cases), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
