"""The verdict on a method: what the controls show, as answers to three questions and a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cxrg.evaluate.controls import OTHER_IMAGE
from cxrg.evaluate.metrics.bootstrap import Mean
from cxrg.evaluate.record import METHOD
from cxrg.evaluate.report.glossary import glossary
from cxrg.evaluate.report.summary import HEADLINE, Part, verdict

_QUESTIONS = (
    ("read the phrase", "reads the phrase", ("shuffled", "image_only")),
    ("see the image", "sees the image", (OTHER_IMAGE,)),
    ("beat the usual place", "beats the usual place", ("mean_box", "mean_box_side")),
)
"""What a method may do, the same of *the model*, and the controls that show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Whether a method is better than the controls of one question.

    Attributes:
        question: as a sentence.
        answer: ``yes`` if all comparisons are won, ``no`` if none is, else ``partly``.
        clause: the answer as a part of a sentence about the model.
        detail: each control, with how many of the metrics are won.
    """

    question: str
    answer: Literal["yes", "partly", "no"]
    clause: str
    detail: str


def answers(part: Part) -> list[Answer]:
    """The answers for one group of samples, as far as the controls were run."""
    if not part.beaten:
        return []
    beats = verdict(part)
    found = []
    for verb, finite, controls in _QUESTIONS:
        won = {
            name: [beats[metric][name] for metric in HEADLINE]
            for name in controls
            if name in part.beaten
        }
        if won:
            found.append(_answer(verb, finite, won))
    return found


def _answer(verb: str, finite: str, won: dict[str, list[bool]]) -> Answer:
    flat = [better for several in won.values() for better in several]
    detail = "; ".join(
        f"{glossary('maps')[name].title}: better by {sum(several)} of {len(several)} metrics"
        for name, several in won.items()
    )
    answer: Literal["yes", "partly", "no"]
    if all(flat):
        answer, clause = "yes", finite
    elif any(flat):
        answer, clause = "partly", f"partly {finite}"
    else:
        answer, clause = "no", f"is not shown to {verb}"
    return Answer(question=f"Does it {verb}?", answer=answer, clause=clause, detail=detail)


def sentence(part: Part) -> str:
    """The verdict in one sentence, without its full stop; empty if nothing is present."""
    if not part.maps:
        return ""
    point, overlap = (part.maps[METHOD][name].micro for name in ("pointing_game", "miou"))
    result = (
        f"its map points into the true region for {_percent(point)} of {phrases(part.positives)}, "
        f"with a mean overlap of {overlap.value:.2f}"
    )
    clauses = [each.clause for each in answers(part)]
    if not clauses:
        return capitalised(result)
    *first, last = clauses
    return f"The model {', '.join(first)}{' and ' if first else ''}{last}: {result}"


def phrases(count: int) -> str:
    """A number of phrases in words."""
    return f"{count} phrase{'' if count == 1 else 's'}"


def capitalised(text: str) -> str:
    """A text with a capital first letter; the rest stays."""
    return text[:1].upper() + text[1:]


def _percent(mean: Mean) -> str:
    between = f" ({mean.low:.0%} to {mean.high:.0%})" if math.isfinite(mean.low) else ""
    return f"{mean.value:.0%}{between}"
