"""From values per sample to numbers that can be quoted, with 95 % intervals over patients.

*Micro* is the plain mean over samples; *macro* the unweighted mean of the category means, whose
spread (sample standard deviation over categories) is no confidence interval. Intervals are the
2.5 and 97.5 percentiles of 1000 bootstrap resamples of patients, as samples of one patient are not
independent. Undefined values are left out of a mean and counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]
RESAMPLES = 1000
SIZE_BINS = (0.01, 0.05, 0.15)
SIZE_NAMES = ("below 1 %", "1 to 5 %", "5 to 15 %", "above 15 %")
NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean with its interval; ``n`` values are in it and ``undefined`` are not."""

    value: float
    low: float
    high: float
    n: int
    undefined: int = 0

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return "-"
        between = f" [{self.low:.3f}, {self.high:.3f}]" if math.isfinite(self.low) else ""
        return f"{self.value:.3f}{between}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One metric of one map over some samples."""

    micro: Mean
    macro: Mean
    macro_sd: float
    categories: dict[str, Mean]


@dataclass(frozen=True, slots=True, eq=False)
class Resampling:
    """The same resamples of patients for every metric and map, so that differences are paired.

    ``weights`` (resamples, patients): how often each patient is drawn; ``patients`` (n,): the
    patient of each sample.
    """

    patients: NDArray[np.intp]
    weights: Array

    @classmethod
    def of(
        cls, patients: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES
    ) -> Resampling:
        """Draw resamples of the patients of the samples."""
        names, index = np.unique(
            np.asarray(patients, dtype=object).astype(str), return_inverse=True
        )
        rng = np.random.default_rng(seed)
        draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
        return cls(index, draws.astype(np.float64))

    def only(self, keep: NDArray[np.bool_]) -> Resampling:
        """The same resamples for a part of the samples."""
        return Resampling(self.patients[keep], self.weights)

    def totals(self, values: Array) -> Array:
        """The sum of values (n,) in each resample."""
        sums = np.bincount(self.patients, weights=values, minlength=self.weights.shape[1])
        return np.asarray(self.weights @ sums)

    def mean(self, values: Array) -> Array:
        """The mean of values (n,) in each resample; NaN where none is drawn or defined."""
        good = np.isfinite(values)
        total = self.totals(np.where(good, values, 0))
        count = self.totals(good.astype(np.float64))
        return ratio(total, count)

    def auc(self, scores: Array, positive: NDArray[np.bool_]) -> Array:
        """The ROC AUC of scores (n,) in each resample; NaN where a class isn't drawn."""
        order = np.argsort(scores, kind="stable")
        starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)
        drawn = []
        for part in np.array_split(self.weights, max(len(scores) // 1000, 1)):
            times = part[:, self.patients[order]]
            # Columns are now distinct scores, ascending: how often each class was drawn there.
            above = np.add.reduceat(times * positive[order], starts, axis=1)
            below = np.add.reduceat(times * ~positive[order], starts, axis=1)
            wins = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
            drawn.append(ratio(wins, above.sum(axis=1) * below.sum(axis=1)))
        return np.concatenate(drawn)


def ratio(total: Array, count: Array) -> Array:
    """``total / count``, NaN where there is nothing to divide by."""
    result: Array = np.divide(total, count, out=np.full(len(total), NAN), where=count > 0)
    return result


def interval(draws: Array) -> Interval:
    """The 2.5 and 97.5 percentiles, undefined draws left out."""
    good = draws[np.isfinite(draws)]
    if not good.size:
        return NAN, NAN
    low, high = np.percentile(good, (2.5, 97.5))
    return float(low), float(high)


def mean_of(values: Array, resampling: Resampling) -> Mean:
    """The mean over samples with its interval; one patient alone gives none."""
    good = np.isfinite(values)
    several = np.unique(resampling.patients[good]).size > 1
    low, high = interval(resampling.mean(values)) if several else (NAN, NAN)
    return Mean(
        value=float(values[good].mean()) if good.any() else NAN,
        low=low,
        high=high,
        n=int(good.sum()),
        undefined=int((~good).sum()),
    )


def summarise(values: Array, categories: Sequence[str], resampling: Resampling) -> Summary:
    """Micro, macro and per-category means of one metric."""
    labels = np.asarray(categories, dtype=object)
    parts: dict[str, Mean] = {}
    draws = []
    for name in sorted(set(categories)):
        keep = labels == name
        part = resampling.only(keep)
        parts[name] = mean_of(values[keep], part)
        draws.append(part.mean(values[keep]))
    means = np.array([part.value for part in parts.values()])
    means = means[np.isfinite(means)]
    low, high = interval(_mean_over(draws)) if draws else (NAN, NAN)
    macro = Mean(
        value=float(means.mean()) if means.size else NAN,
        low=low,
        high=high,
        n=int(means.size),
        undefined=len(parts) - int(means.size),
    )
    return Summary(
        micro=mean_of(values, resampling),
        macro=macro,
        macro_sd=float(means.std(ddof=1)) if means.size > 1 else NAN,
        categories=parts,
    )


def _mean_over(draws: Sequence[Array]) -> Array:
    """The mean over categories in each resample, categories that weren't drawn left out."""
    stacked = np.stack(draws)
    good = np.isfinite(stacked)
    count = good.sum(axis=0)
    total = np.where(good, stacked, 0).sum(axis=0)
    return ratio(total, count)


def size_bin(area: float) -> str:
    """The name of the lesion-size bin of a share of the image; a limit belongs to the bin above."""
    return SIZE_NAMES[int(np.searchsorted(SIZE_BINS, area, side="right"))]


def difference(ours: Array, theirs: Array, resampling: Resampling) -> Mean:
    """The mean of paired differences with its interval; pairs with an undefined value are out."""
    return mean_of(ours - theirs, resampling)


def above(part: Mean) -> bool:
    """Whether an interval is above 0."""
    return math.isfinite(part.low) and part.low > 0
