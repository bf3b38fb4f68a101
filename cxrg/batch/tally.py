"""What is told of one input, and the count of all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cxrg.batch.task import Failure, Reason, Row, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What is told of one input.

    Attributes:
        task: the input.
        rows: its results, in the order of its phrases.
        old: how many of them a former run, or another process, had made.
        failure: why other phrases, or all, have no result.
    """

    task: Task
    rows: tuple[Row, ...] = ()
    old: int = 0
    failure: Failure | None = None


@dataclass(slots=True)
class Tally:
    """Inputs by what became of them; `interrupted` where the user stopped the run before its end.

    An input counts as done if anything was computed for it, as skipped if nothing had to be.
    """

    done: int = 0
    skipped: int = 0
    failed: Counter[Reason] = field(default_factory=Counter)
    interrupted: bool = False

    @property
    def total(self) -> int:
        return self.done + self.skipped + sum(self.failed.values())

    def add(self, told: Told) -> None:
        if told.failure:
            self.failed[told.failure.kind] += 1
        elif told.old == len(told.rows):
            self.skipped += 1
        else:
            self.done += 1
