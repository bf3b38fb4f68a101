"""The engine in this process: one worker, and threads that read ahead and write behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

from cxrg.batch.engine import Halt
from cxrg.batch.task import Job, Outcome, Setting, Task
from cxrg.batch.work import ReadTask, Worker, Writer, Writing, open_worker

AHEAD, BEHIND = 2, 2
"""Images that are read before the network needs them, and images not yet completely written."""


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


def pipeline(
    worker: Worker, tasks: Iterable[Task], *, halt: Halt = lambda: False
) -> Iterator[Outcome]:
    """Yield outcomes in the order of the tasks; reading and writing overlap the network."""
    waiting = iter(tasks)
    reading: deque[Future[ReadTask]] = deque()
    writing: deque[Writing] = deque()
    reader, writer = ThreadPoolExecutor(1, "cxrg-read"), Writer(worker)
    patient = True

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
            writing.append(writer.take(read.task, worker.look(read)))
            while writing and (writing[0].done() or len(writing) > BEHIND):
                yield writing.popleft().outcome()
            fill()
        while writing:
            yield writing.popleft().outcome()
    except (KeyboardInterrupt, GeneratorExit):
        patient = False  # a second Ctrl-C must not wait for an image that is being decoded
        raise
    finally:
        reader.shutdown(wait=patient, cancel_futures=True)
        writer.close(wait=patient)
