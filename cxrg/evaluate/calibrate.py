"""Fit the curve from scores to probabilities on runs of `cxrg evaluate`; see
`cxrg.model.calibration`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from cxrg.errors import InputError, UsageError
from cxrg.evaluate.record import Record
from cxrg.evaluate.run import read_facts, read_records
from cxrg.files import atomic_write
from cxrg.model.calibration import Calibration, logit, score_options
from cxrg.model.card import card_from
from cxrg.model.checkpoint.identity import without_calibration
from cxrg.phrase.intent import read_intent

PENALTY = 1.0
"""Of the squared slope and offsets, beside the log-likelihood: as in scikit-learn with C = 1."""

FEWEST_ABSENT = 10
"""A term that was asked less often of images without the finding has no offset of its own."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledScore:
    """A score of a finding, and whether it was there; ``terms`` begin with the finding."""

    terms: tuple[str, ...]
    score: float
    present: bool


def labelled_scores(records: Sequence[Record]) -> list[LabelledScore]:
    """The records of phrases that are about one finding or device.

    An absent one counts only in an image where nothing is found: beside another finding, or on its
    other side, the score answers where rather than whether.
    """
    ill = {r.image for r in records if r.present and read_intent(r.phrase).concept is not None}
    return [
        LabelledScore(terms=intent.terms, score=record.score, present=record.present)
        for record in records
        if record.present or record.image not in ill
        if (intent := read_intent(record.phrase)).concept is not None
    ]


def calibrate(runs: Sequence[Path], *, fitted_on: str) -> tuple[Calibration, list[LabelledScore]]:
    """Fit a calibration on several runs of one model with one set of options.

    Returns:
        The calibration, and the samples that it was fitted to.

    Raises:
        InputError: a folder holds no run, or nothing is present, or nothing is absent.
        UsageError: the runs are of several models, or their scores were made with other options
            or with an adapter.
    """
    facts = [read_facts(run)["method"] for run in runs]
    for run, each in zip(runs, facts, strict=True):
        if "adapter" in each:
            raise UsageError(
                f"{run} is a run with an adapter, whose scores are not those of the model; give "
                "runs without --adapter"
            )
    models = [without_calibration(str(each.get("identity"))) for each in facts]
    methods = list(zip(models, (score_options(each["options"]) for each in facts), strict=True))
    for run, method in zip(runs, methods, strict=True):
        if method != methods[0]:
            raise UsageError(
                f"{runs[0]} and {run} are runs of different models or options; see cxrg compare"
            )
    samples = [sample for run in runs for sample in labelled_scores(read_records(run))]
    return fit(samples, options=methods[0][1], fitted_on=fitted_on), samples


def fit(
    samples: Sequence[LabelledScore], *, options: dict[str, Any], fitted_on: str
) -> Calibration:
    """The logistic curve with an offset for each term that fits best.

    Present and absent samples of a finding count the same together, as if half of its images had
    it. A finding of which all samples are absent is drawn towards "absent", and towards the others.

    Args:
        samples: at least one present and one absent.
        options: see `cxrg.model.calibration.score_options`.
        fitted_on: what the samples are, for the card.

    Raises:
        InputError: nothing is present, or nothing is absent.
    """
    there = np.array([sample.present for sample in samples], bool)
    if there.all() or not there.any():
        raise InputError(
            "calibration needs findings that are there and findings that are not, with phrases of "
            "one finding each; add a run with the others"
        )
    terms = [term for term, (_, absent) in counts(samples).items() if absent >= FEWEST_ABSENT]
    has = np.array([[term in sample.terms for term in terms] for sample in samples], float)
    odds = np.array([logit(sample.score) for sample in samples])
    weight = _weights(samples)
    sign = np.where(there, 1.0, -1.0)

    def loss(values: Array) -> tuple[float, Array]:
        slope, intercept, offsets = values[0], values[1], values[2:]
        margin = sign * (slope * odds + intercept + has @ offsets)
        lost = float((weight * np.logaddexp(0, -margin)).sum())
        drawn = -weight * sign * expit(-margin)
        gradient = np.concatenate(([drawn @ odds, drawn.sum()], drawn @ has))
        kept = np.concatenate(([slope, 0.0], offsets)) * PENALTY
        return lost + float((kept**2).sum()) / (2 * PENALTY), gradient + kept

    start = np.zeros(2 + len(terms))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 10_000})
    slope, intercept, *offsets = (round(float(value), 4) for value in found.x)
    if slope <= 0:
        raise InputError(
            "scores are no higher where the finding is there: nothing to calibrate; check the "
            "labels of the runs, or evaluate with other options"
        )
    return Calibration(
        slope=slope,
        intercept=intercept,
        offsets=dict(zip(terms, offsets, strict=True)),
        options=options,
        fitted_on=fitted_on,
    )


def _weights(samples: Sequence[LabelledScore]) -> Array:
    """Weights of mean 1 by which present and absent samples of each finding count the same."""
    count = Counter((sample.terms[0], sample.present) for sample in samples)
    return np.array([_weight(count, sample.terms[0], sample.present) for sample in samples])


def _weight(count: Mapping[tuple[str, bool], int], finding: str, present: bool) -> float:
    own, others = count[finding, present], count[finding, not present]
    return (own + others) / (2 * own) if others else 1.0


def counts(samples: Sequence[LabelledScore]) -> dict[str, tuple[int, int]]:
    """How many samples with each term are present, and absent."""
    there = Counter((term, sample.present) for sample in samples for term in sample.terms)
    terms = sorted({term for term, _ in there})
    return {term: (there[term, True], there[term, False]) for term in terms}


def write_calibration(calibration: Calibration, card: Path) -> None:
    """Write a calibration into a model's card, in place of a former one.

    Raises:
        InputError: the file is no card.
        WriteError: it cannot be written.
    """
    try:
        facts = json.loads(card.read_text(encoding="utf-8"))
        card_from({**facts, "presence": asdict(calibration)}, origin=str(card))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{card}: no model card ({type(error).__name__}); give a model's cxrg.json"
        ) from error
    facts["presence"] = asdict(calibration)
    with atomic_write(card) as file:
        file.write(json.dumps(facts, indent=2).encode() + b"\n")
