"""How well status and score tell whether a phrase is present in an image.

* `wilson`: interval of a share;
* `reliability`: the share present by score, in bins of equal counts; `calibration_error` is their
  mean distance, ``sum(n_b |share_b - score_b|) / n`` (Naeini, Cooper and Hauskrecht, AAAI 2015);
* `free_response`: the share of true boxes found against false boxes per image, by the score from
  which boxes count (the FROC curve; Bunch et al., 1978).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxrg.evaluate.metrics.bootstrap import NAN, Array, Interval, Mean

Flags = NDArray[np.bool_]
_Z = 1.959963984540054  # of 95 %


def wilson(share: float, count: int) -> Interval:
    """Wilson's 95 % interval of a share of ``count`` independent observations; NaN without any."""
    # SciPy's needs whole hits; a share over samples may stand for fewer patients.
    if not count or not math.isfinite(share):
        return NAN, NAN
    spread = _Z**2 / count
    middle = share + spread / 2
    half = _Z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    return max(low, 0.0), min(high, 1.0)


def share_of(flags: Flags, patients: Sequence[str]) -> Mean:
    """A share of samples with Wilson's interval for as many observations as there are patients.

    Unlike a bootstrap it has a width where all samples agree, as they do in small groups.
    """
    value = float(flags.mean()) if flags.size else NAN
    low, high = wilson(value, len(set(patients)))
    return Mean(value=value, low=low, high=high, n=int(flags.size))


class Bin(NamedTuple):
    """Samples of similar scores: their mean score, the share present, and which they are."""

    score: float
    share: float
    members: Flags


def reliability(scores: Array, there: Flags, bins: int) -> list[Bin]:
    """The share present by score, in at most ``bins`` bins with equally many samples.

    Equal scores are in one bin, so that some bins may be larger, or empty and left out.
    """
    edges = np.percentile(scores, np.linspace(0, 100, bins + 1)[1:-1])
    number = np.searchsorted(edges, scores)
    members = [number == each for each in np.unique(number)]
    return [Bin(float(scores[m].mean()), float(there[m].mean()), m) for m in members]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The mean distance of score and share present over samples; NaN without bins."""
    if not bins:
        return NAN
    counts = [np.count_nonzero(each.members) for each in bins]
    return float(np.average([abs(each.share - each.score) for each in bins], weights=counts))


@dataclass(frozen=True, slots=True)
class FreeResponse:
    """Points of the curve, from the highest threshold to the lowest."""

    thresholds: list[float]
    false_boxes: list[float]
    sensitivity: list[float]


def free_response(
    scores: Array, hits: Array, true_boxes: Array, false_boxes: Array, absent: Flags
) -> FreeResponse:
    """Sensitivity and false boxes per image, if the boxes of a phrase count from a score.

    Args:
        scores: the presence score of each phrase in its image (n,).
        hits: how many of its true boxes are found (n,).
        true_boxes: how many there are (n,).
        false_boxes: how many boxes are drawn (n,); counted where the phrase is absent.
        absent: where the image does not show what the phrase names (n,).

    Returns:
        A point for each score that occurs; none without true boxes or without absent phrases.
    """
    if not absent.any() or not true_boxes.any():
        return FreeResponse([], [], [])
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of each group of equal scores
    found = np.cumsum(hits[order])[last] / true_boxes.sum()
    false = np.cumsum(np.where(absent, false_boxes, 0)[order])[last] / np.count_nonzero(absent)
    return FreeResponse(scores[order][last].tolist(), false.tolist(), found.tolist())
