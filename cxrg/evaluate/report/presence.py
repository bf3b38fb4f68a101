"""What a run shows of status and score, where phrases are present and where they are not.

Only categories of which the data set has both can show that a score separates the two, so the sums
over categories, the calibration and the curve of false boxes are of those alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxrg.evaluate.metrics import boxes as sets
from cxrg.evaluate.metrics.bootstrap import NAN, Array, Mean, Resampling, interval, mean_of
from cxrg.evaluate.metrics.heatmaps import auc_of
from cxrg.evaluate.metrics.presence import (
    Flags,
    FreeResponse,
    calibration_error,
    free_response,
    reliability,
    share_of,
)
from cxrg.evaluate.record import METHOD, Record, as_boxes

DECIDED = ("found", "not found")
"""The statuses that answer whether a phrase is present."""
HIT_IOU = 0.3
"""The least IoU with a true box from which a drawn box finds it."""
_MOST_BINS, _FEWEST_IN_BIN = 10, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Statuses:
    """Counts of samples by truth and status, and the shares that follow.

    Attributes:
        found_present: phrases that are present and found.
        missed: present and not found.
        found_absent: absent and found: false alarms.
        clear: absent and not found.
        undecided: phrases with another status; they are in no share.
        sensitivity: share found of the present.
        specificity: share not found of the absent.
        auroc: how well the score separates present from absent.
        false_boxes: boxes per image that lacks what the phrase names.
    """

    found_present: int
    missed: int
    found_absent: int
    clear: int
    undecided: int
    sensitivity: Mean
    specificity: Mean
    auroc: Mean
    false_boxes: Mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Score against the share of phrases that are present.

    Attributes:
        calibrated: whether scores are the probabilities of a calibrated model, for findings that
            were as likely as not before; else they are its raw scores.
        scores: the mean score of each bin, ascending.
        shares: the share present in each bin.
        error: the expected calibration error.
        brier: the mean squared distance of score and truth.
        brier_of_share: what one fixed score, the share of all that are present, would reach.
    """

    calibrated: bool
    scores: list[float]
    shares: list[Mean]
    error: Mean
    brier: Mean
    brier_of_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Status and score of one group of samples.

    Attributes:
        categories: by category that occurs.
        both: of the categories with present and absent phrases; None where there are none.
        calibration: of the same; None, too.
        curve: sensitivity to true boxes against false boxes per image, of the same.
    """

    categories: dict[str, Statuses]
    both: Statuses | None
    calibration: Calibration | None
    curve: FreeResponse


def presence_of(records: Sequence[Record], *, seed: int = 0) -> Presence:
    """Status and score of some samples."""
    names = sorted({record.category for record in records})
    kept = _with_both(records)
    return Presence(
        categories={
            name: statuses([r for r in records if r.category == name], seed=seed) for name in names
        },
        both=statuses(kept, seed=seed) if kept else None,
        calibration=_calibration(kept, seed) if kept else None,
        curve=_curve(kept),
    )


def _with_both(records: Sequence[Record]) -> list[Record]:
    """Samples of categories that are present in some and absent in others."""
    there = {record.category for record in records if record.present}
    both = there & {record.category for record in records if not record.present}
    return [record for record in records if record.category in both]


def statuses(records: Sequence[Record], *, seed: int = 0) -> Statuses:
    """The counts and shares of some samples."""
    there, found = _there(records), np.array([r.status == "found" for r in records], dtype=bool)
    decided = np.array([record.status in DECIDED for record in records], dtype=bool)
    patients = np.array([record.patient for record in records], dtype=object)
    yes, no = decided & there, decided & ~there
    resampling = Resampling.of(list(patients), seed=seed)
    amount = np.array([float(len(record.boxes[METHOD])) for record in records])
    return Statuses(
        found_present=int((yes & found).sum()),
        missed=int((yes & ~found).sum()),
        found_absent=int((no & found).sum()),
        clear=int((no & ~found).sum()),
        undecided=int((~decided).sum()),
        sensitivity=share_of(found[yes], patients[yes].tolist()),
        specificity=share_of(~found[no], patients[no].tolist()),
        auroc=auroc(_scores(records), there, resampling),
        false_boxes=mean_of(amount[~there], resampling.only(~there)),
    )


def auroc(scores: Array, there: Flags, draw: Resampling) -> Mean:
    """How well scores separate samples that are present from those that are not."""
    if not scores.size:
        return Mean(value=NAN, low=NAN, high=NAN, n=0)
    low, high = interval(draw.auc(scores, there))
    return Mean(value=auc_of(scores[there], scores[~there]), low=low, high=high, n=len(scores))


def presence_rows(presence: Presence) -> list[list[str]]:
    """Rows for people: a category each, and one of all with present and absent phrases."""
    rows = dict(presence.categories)
    if presence.both is not None and len(rows) > 1:
        rows["categories with both"] = presence.both
    return [
        [
            name,
            _of(each.found_present, each.missed),
            _of(each.found_absent, each.clear),
            *(map(short, (each.sensitivity, each.specificity, each.auroc, each.false_boxes))),
        ]
        for name, each in rows.items()
    ]


def _of(found: int, others: int) -> str:
    return f"{found} of {found + others}" if found + others else "-"


def short(mean: Mean) -> str:
    """A mean with two decimals."""
    if not math.isfinite(mean.value):
        return "-"
    between = f" [{mean.low:.2f}, {mean.high:.2f}]" if math.isfinite(mean.low) else ""
    return f"{mean.value:.2f}{between}"


def _calibration(records: Sequence[Record], seed: int) -> Calibration:
    scores, there = _scores(records), _there(records)
    patients = np.array([record.patient for record in records], dtype=object)
    bins = reliability(scores, there, max(min(_MOST_BINS, len(records) // _FEWEST_IN_BIN), 1))
    share = float(there.mean())
    return Calibration(
        calibrated=all(record.presence is not None for record in records),
        scores=[each.score for each in bins],
        shares=[share_of(there[m], patients[m].tolist()) for _, _, m in bins],
        error=Mean(value=calibration_error(bins), low=NAN, high=NAN, n=len(records)),
        brier=mean_of((scores - there) ** 2, Resampling.of(list(patients), seed=seed)),
        brier_of_share=share * (1 - share),
    )


def _curve(records: Sequence[Record]) -> FreeResponse:
    drawn = [as_boxes(record.boxes[METHOD]) for record in records]
    truth = [as_boxes(record.truth) for record in records]
    hits = [sets.count(p, t, HIT_IOU).hits for p, t in zip(drawn, truth, strict=True)]
    return free_response(
        _scores(records),
        np.array(hits, dtype=float),
        np.array([len(boxes) for boxes in truth], dtype=float),
        np.array([len(boxes) for boxes in drawn], dtype=float),
        ~_there(records),
    )


def _scores(records: Sequence[Record]) -> Array:
    return np.array([record.strength for record in records], dtype=float)


def _there(records: Sequence[Record]) -> Flags:
    return np.array([record.present for record in records], dtype=bool)
