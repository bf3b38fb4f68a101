"""From a score of attention to the probability that a finding is there: data of a model's card.

The score is the peak of a phrase's attention. It ranks images, but 0.5 means another thing for each
finding: the attention to words that name what a model has never learnt is high in every image. A
logistic curve (Platt, 1999) with an offset for each finding, fitted to images in which it is known
what is there, turns it into a probability. A phrase that names a zone has another offset in
addition: words such as "apical" light up wherever they are said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cxrg.errors import ModelError
from cxrg.options import Options

LEAST = 1e-6
"""Scores are kept this far from 0 and 1, of which the logarithm of the odds is infinite."""

_NO_MATTER = ("preset", "normalise", "mask", "threshold", "min_area", "absent_below")
_CHANCE = ("seed", "draws")
"""Options that do not change the score, and those that change it by chance only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The probability is ``1 / (1 + exp(-(slope * logit(score) + intercept + offsets)))``.

    Attributes:
        slope: of the logarithm of the score's odds.
        intercept: without any offset.
        offsets: by term, see `cxrg.phrase.intent.Intent.terms`; those of a phrase's terms add up.
        options: those that the score was made with; with others it is another score.
        fitted_on: the images it was fitted to.
    """

    slope: float
    intercept: float
    offsets: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    fitted_on: str = ""

    def probability(self, score: float, terms: Iterable[str]) -> float:
        """The probability that a finding is there, if before it was as likely as a healthy chest.

        Args:
            score: in [0, 1].
            terms: the phrase's.
        """
        odds = self.slope * logit(score) + self._intercept(terms)
        return _expit(odds)

    def score(self, probability: float, terms: Iterable[str]) -> float:
        """The score at which the probability is reached: 0 or 1 where every score, or none, does.

        The inverse of `probability`.
        """
        if not 0 < probability < 1:
            return probability
        odds = (math.log(probability / (1 - probability)) - self._intercept(terms)) / self.slope
        return _expit(odds) if abs(odds) < -math.log(LEAST) else float(odds > 0)

    def _intercept(self, terms: Iterable[str]) -> float:
        return self.intercept + sum(self.offsets.get(term, 0.0) for term in terms)


def logit(score: float) -> float:
    """The logarithm of a score's odds, finite for 0 and 1 too."""
    kept = min(max(score, LEAST), 1 - LEAST)
    return math.log(kept / (1 - kept))


def _expit(odds: float) -> float:
    """The inverse of `logit`; it does not overflow where the odds are extreme."""
    return (1 + math.tanh(odds / 2)) / 2


def strength(score: float, presence: float | None) -> float:
    """What status is decided by: presence, or the score where there is none."""
    return score if presence is None else presence


def score_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a score depends on, of all of them by name, as JSON has them."""
    facts = {k: v for k, v in options.items() if k not in (*_NO_MATTER, *_CHANCE)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in facts.items()}


def calibration_of(facts: Mapping[str, Any], options: Options) -> Calibration | None:
    """The calibration in a card, if it is for these options.

    Args:
        facts: the card's entry ``presence``; empty if it has none.
        options: all knobs.
    """
    if not facts or score_options(asdict(options)) != facts["options"]:
        return None
    return Calibration(**facts)


def check_calibration(facts: Mapping[str, Any], *, origin: str) -> None:
    """Check a card's entry ``presence``.

    Raises:
        ModelError: it is not valid.
    """
    if not facts:
        return
    numbers = [facts.get("slope"), facts.get("intercept"), *_values(facts.get("offsets"))]
    valid = (
        {"slope", "intercept", "offsets", "options", "fitted_on"} == set(facts)
        and isinstance(facts["offsets"], dict)
        and isinstance(facts["options"], dict)
        and isinstance(facts["fitted_on"], str)
        and facts["fitted_on"].isprintable()
        and all(_is_finite(number) for number in numbers)
        and facts["slope"] > 0
    )
    if not valid:
        raise ModelError(
            f"{origin}: presence is no calibration; make it with `cxrg calibrate`, or remove it"
        )


def _values(offsets: Any) -> list[Any]:
    return list(offsets.values()) if isinstance(offsets, dict) else []


def _is_finite(number: Any) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and abs(number) < 1e6
