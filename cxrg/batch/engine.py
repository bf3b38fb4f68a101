"""What every engine offers to the driver of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from cxrg.batch.task import Outcome, Setting, Task

Halt = Callable[[], bool]
"""Says whether the user wants to stop: what is begun is finished, nothing more is begun."""


class Engine(Protocol):
    """Does tasks somewhere."""

    def start(self) -> Setting:
        """Load the model wherever it is needed; every worker must settle on the same.

        Raises:
            CxrgError: the model, an option or a device is at fault.
        """

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Outcomes in any order; may be called again when it has ended, to do more.

        ``tasks`` is iterated in the caller's thread only, and only while few tasks are in flight;
        whoever gives out the first of them has called `start`, perhaps a moment before.
        A task without an outcome when this ends was not done: its turn had not come when the user
        wanted to stop.

        Raises:
            CxrgError: an error that affects every task.
        """

    def close(self) -> None:
        """Give everything back, at once; may be called twice."""
