"""Where the work is done: the interface of an engine, and the one that needs no other process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import Protocol

from cxrg.batch.task import Job, Outcome, Setting, Task
from cxrg.batch.work import Done, Worker, open_worker
from cxrg.errors import UsageError

AHEAD, BEHIND = 2, 2
"""Images that are read before the network wants them, and results not yet written."""

ENGINES = ("local", "ray")

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
            CxrgError: of what would befall every task.
        """

    def close(self) -> None:
        """Give everything back, at once; may be called twice."""


class InProcess:
    """One worker here; one thread reads the next images and one writes while the network runs."""

    def __init__(self, job: Job, *, halt: Halt = lambda: False) -> None:
        self._job, self._halt = job, halt
        self._worker: Worker | None = None

    def start(self) -> Setting:
        self._worker = self._worker or open_worker(self._job)
        return self._worker.setting

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        waiting = iter(tasks)
        first = next(waiting, None)
        if first is not None:
            assert self._worker is not None  # the task is there, so `start` was called
            yield from pipeline(self._worker, chain([first], waiting), halt=self._halt)

    def close(self) -> None:
        self._worker = None


def choose_engine(
    job: Job,
    devices: Sequence[str],
    *,
    halt: Halt,
    name: str = "local",
    address: str | None = None,
) -> Engine:
    """The engine of that name; ``local`` is this process for one device, else a process for each.

    Args:
        job: what every worker needs to know.
        devices: where to work.
        halt: whether the user wants to stop.
        name: one of `ENGINES`.
        address: of a Ray cluster.

    Raises:
        UsageError: the name is not known, or these things do not go together.
    """
    if name not in ENGINES:
        raise UsageError(f"engine {name!r} is not known; use {' or '.join(ENGINES)}")
    if address and name != "ray":
        raise UsageError("--ray-address is for --engine ray; give both")
    if name == "ray":
        from cxrg.batch.ray_engine import RayEngine

        if len(devices) > 1:
            raise UsageError("with --engine ray give one --device; the cluster has the others")
        return RayEngine(job, address=address, halt=halt)
    if len(devices) == 1:
        return InProcess(replace(job, device=devices[0]), halt=halt)
    from cxrg.batch.devices import PerDevice

    return PerDevice(job, devices, halt=halt)


def pipeline(
    worker: Worker, tasks: Iterable[Task], *, halt: Halt = lambda: False
) -> Iterator[Outcome]:
    """Outcomes in the order of the tasks; reading and writing overlap the network."""
    waiting = iter(tasks)
    reading: deque[Future[Done]] = deque()
    writing: deque[Future[Outcome]] = deque()
    reader, writer = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")

    def fill() -> None:
        while len(reading) < AHEAD and not halt():
            task = next(waiting, None)
            if task is None:
                return
            reading.append(reader.submit(worker.read, task))

    try:
        fill()
        while reading and not halt():
            read = reading.popleft().result()
            fill()
            writing.append(writer.submit(worker.write, worker.look(read)))
            while writing and (writing[0].done() or len(writing) > BEHIND):
                yield writing.popleft().result()
            fill()
        while writing:
            yield writing.popleft().result()
    finally:
        reader.shutdown(cancel_futures=True)
        writer.shutdown()
