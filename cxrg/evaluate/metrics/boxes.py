"""Metrics for zero, one or many regions: predicted boxes as a set against the true boxes.

* F1 at an IoU of .3 and of .5, after Hungarian matching that maximises the summed IoU;
* average precision of scored boxes, by COCO's program (faster-coco-eval): ``ap50`` at an IoU of
  .5, ``ap`` the mean over .50, .55 ... .95;
* for phrases that should give nothing: ``null_accuracy``, the share that gave no box, and
  ``false_box_rate``, boxes per such phrase;
* ``presence_auroc``: how well the presence score separates present phrases from those that
  aren't.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cxrg.geometry import Box

F1_IOUS = (0.3, 0.5)


class Counts(NamedTuple):
    """True boxes found, predicted boxes too many, true boxes missed."""

    hits: int
    extra: int
    missed: int


def match(predicted: Sequence[Box], truth: Sequence[Box]) -> list[float]:
    """The IoU of each matched pair, where matching is one to one and maximises their sum."""
    # Imported here, so that the command line starts without SciPy.
    from scipy.optimize import linear_sum_assignment

    overlap = np.array([[a.iou(b) for b in truth] for a in predicted], dtype=float)
    overlap = overlap.reshape(len(predicted), len(truth))
    return [float(value) for value in overlap[linear_sum_assignment(overlap, maximize=True)]]


def count(predicted: Sequence[Box], truth: Sequence[Box], least: float) -> Counts:
    """Hits, extra and missed boxes of one phrase; a pair counts from an IoU of ``least``."""
    hits = sum(value >= least for value in match(predicted, truth))
    return Counts(hits, len(predicted) - hits, len(truth) - hits)


def f1(counts: Sequence[Counts]) -> float:
    """``2 hits / (2 hits + extra + missed)`` over all phrases; NaN without any box."""
    hits, extra, missed = (sum(part) for part in zip(*counts, strict=True)) if counts else (0, 0, 0)
    total = 2 * hits + extra + missed
    return 2 * hits / total if total else float("nan")


def average_precision(
    predicted: Sequence[Sequence[Box]], truth: Sequence[Sequence[Box]]
) -> dict[str, float]:
    """``ap`` and ``ap50`` by COCO's program, each phrase in its image counting as one image.

    A box without a score has 0. NaN where there is no true box at all.
    """
    if not any(truth):
        return {"ap": float("nan"), "ap50": float("nan")}
    from faster_coco_eval import (  # type: ignore[import-untyped]  # no types
        COCO,
        COCOeval_faster,
    )

    images = {
        "images": [{"id": i} for i in range(1, len(truth) + 1)],
        "categories": [{"id": 1, "name": "region"}],
    }
    run = COCOeval_faster(
        COCO({**images, "annotations": _annotations(truth)}),
        COCO({**images, "annotations": _annotations(predicted)}),
        "bbox",
    )
    run.evaluate()
    run.accumulate()
    # precision: IoU thresholds x recalls x categories x areas (0: all) x most detections (2: 100)
    precision = run.eval["precision"][:, :, 0, 0, 2]
    return {"ap": float(precision.mean()), "ap50": float(precision[0].mean())}


def _annotations(boxes: Sequence[Sequence[Box]]) -> list[dict[str, Any]]:
    flat = [(image, box) for image, several in enumerate(boxes, 1) for box in several]
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": 1,
            "bbox": [box.x0, box.y0, box.width, box.height],
            "area": box.area,
            "iscrowd": 0,
            "score": box.score or 0.0,
        }
        for number, (image, box) in enumerate(flat, 1)
    ]
