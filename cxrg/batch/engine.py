"""What every engine offers to the driver of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from cxrg.batch.task import Outcome, Setting, Task

Halt = Callable[[], bool]
"""Whether the user wants to stop: begun tasks are finished, no more are begun."""


class Engine(Protocol):
    """Does tasks somewhere."""

    def start(self) -> Setting:
        """Load the model in every worker; their settings must agree.

        Raises:
            CxrgError: the model, an option or a device is at fault.
        """

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield outcomes in any order; may be called again when it has ended, to do more.

        ``tasks`` is iterated in the caller's thread only, and only while few tasks are unfinished;
        `start` is called before the first of them is taken.
        A task without an outcome when this ends was not done, because the user wanted to stop.

        Raises:
            CxrgError: an error that affects every task.
        """

    def close(self) -> None:
        """Release all processes and memory at once; may be called twice."""
