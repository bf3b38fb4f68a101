"""Presence scores of findings in healthy chests: data of a model's card, where it has them.

In ``cxrg.json``::

    "reference": {
      "weights": "sha256:0123456789abcdef",
      "preset": "fast",
      "images": 150,
      "of": "which healthy chests",
      "quantiles": [0.05, 0.5, 0.95],
      "scores": {"pneumothorax": [0.11, 0.23, 0.38]}
    }

``scores`` holds, by the finding's concept in `cxrg.chest`, the score at each quantile. They are of
the weights with that fingerprint, and of what one preset reads, and mean nothing for others: a
model whose weights have another fingerprint is loaded without the table.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from cxrg.errors import UsageError
from cxrg.model.calibration import score_options
from cxrg.model.model import Model
from cxrg.options import Options, resolve


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Scores of one finding in healthy chests.

    Attributes:
        finding: its concept.
        images: how many chests.
        of: which.
        quantiles: ascending, 0 to 1.
        scores: the score at each quantile.
    """

    finding: str
    images: int
    of: str
    quantiles: tuple[float, ...]
    scores: tuple[float, ...]

    def share_below(self, score: float) -> float:
        """The share of healthy chests with a lower score, between quantiles by straight lines."""
        return float(np.interp(score, self.scores, self.quantiles, left=0.0, right=1.0))


def reference_of(model: Model, options: Options, finding: str | None) -> Reference | None:
    """The scores of a finding in healthy chests; None where the model's card has none for it.

    Args:
        model: the model; one with an adapter gives other scores.
        options: all knobs; they must read what the table's preset reads.
        finding: the concept.
    """
    table = model.card.reference
    if not table or model.adapter or finding is None or finding not in table["scores"]:
        return None
    try:
        preset = resolve(table["preset"], model.card.presets)
    except UsageError:
        return None
    if score_options(asdict(options)) != score_options(asdict(preset)):
        return None
    return Reference(
        finding=finding,
        images=table["images"],
        of=table["of"],
        quantiles=tuple(table["quantiles"]),
        scores=tuple(table["scores"][finding]),
    )
