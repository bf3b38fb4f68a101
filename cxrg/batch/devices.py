"""One process per device, for a machine with several of them.

Each process loads the model on its device and does the tasks that come through its pipe; outcomes
come back the same way. A process that dies (killed, out of memory, crashed in a driver) is replaced
and what it had in hand is tried again, one at a time, each with a process to itself: what ends that
one too is certainly to blame and is set aside.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from cxrg.batch.engine import Halt
from cxrg.batch.local import pipeline
from cxrg.batch.task import Job, Outcome, Setting, Task
from cxrg.batch.work import open_worker, poisoned
from cxrg.errors import CxrgError, ModelError, UsageError

DEPTH = 2  # tasks in one process: one with the network, one being read
_PATIENCE = 0.01  # seconds that a process with work in hand waits for more
_TICK = 0.25  # seconds between two looks at whether the user wants to stop
_FAREWELL = 2.0  # seconds that an idle process gets to end by itself


@dataclass(slots=True)
class DeviceProcess:
    """One process, and what it has been given and not given back."""

    job: Job
    process: SpawnProcess
    pipe: Connection[Task, Setting | Outcome | CxrgError]
    tasks: list[Task] = field(default_factory=list)
    alone: bool = False

    def give(self, task: Task, *, alone: bool = False) -> None:
        self.tasks.append(task)
        self.alone = alone
        with suppress(OSError):  # it died; that is noticed where its answer is awaited
            self.pipe.send(task)


class PerDevice:
    """An engine with one spawned process per device; a device may be named more than once."""

    def __init__(self, job: Job, devices: Sequence[str], *, halt: Halt = lambda: False) -> None:
        self._jobs = [replace(job, device=device) for device in devices]
        self._halt = halt
        self._hands: list[DeviceProcess] = []
        self._setting: Setting | None = None
        self._suspects: deque[Task] = deque()

    def start(self) -> Setting:
        if self._setting:
            return self._setting
        # All are begun before the first is waited for: loading takes seconds.
        self._hands = [_begin(job) for job in self._jobs]
        settings = [_greet(hand) for hand in self._hands]
        if any(setting != settings[0] for setting in settings):
            names = ", ".join(job.device for job in self._jobs)
            raise UsageError(
                f"devices {names} would not give the same results; set --dtype, or use equal ones"
            )
        self._setting = settings[0]
        return self._setting

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        waiting = iter(tasks)
        # Before there is a first task, `start` may not have been called.
        first = next(waiting, None)
        if first is None:
            return
        waiting, more = chain([first], waiting), True
        while True:
            if not self._halt():
                more = self._hand_out(waiting, more)
            busy = [hand for hand in self._hands if hand.tasks]
            if not busy and (self._halt() or not (more or self._suspects)):
                self._suspects.clear()
                return
            for ready in connection.wait([hand.pipe for hand in busy], _TICK):
                hand = next(each for each in self._hands if each.pipe is ready)
                yield from self._receive(hand)

    def close(self) -> None:
        for hand in self._hands:
            hand.pipe.close()
        for hand in self._hands:
            hand.process.join(_FAREWELL)
            hand.process.kill()
            hand.process.join()
        self._hands.clear()

    def _hand_out(self, waiting: Iterator[Task], more: bool) -> bool:
        """Give work to whoever has room, evenly; says whether there is more."""
        for level in range(DEPTH):
            for hand in self._hands:
                if self._suspects:
                    if not hand.tasks:
                        hand.give(self._suspects.popleft(), alone=True)
                elif more and len(hand.tasks) <= level and not (hand.tasks and hand.alone):
                    task = next(waiting, None)
                    if task is None:
                        more = False
                    else:
                        hand.give(task)
        return more

    def _receive(self, hand: DeviceProcess) -> Iterator[Outcome]:
        try:
            told = hand.pipe.recv()
        except (EOFError, OSError):
            yield from self._bury(hand)
            return
        if isinstance(told, CxrgError):
            raise told
        assert isinstance(told, Outcome)
        hand.tasks = [task for task in hand.tasks if task.index != told.task.index]
        yield told

    def _bury(self, hand: DeviceProcess) -> Iterator[Outcome]:
        """Replace a process that died, and have another look at what it had in hand."""
        hand.pipe.close()
        hand.process.join()
        if hand.alone:
            yield from (poisoned(task, "processes") for task in hand.tasks)
        else:
            self._suspects += hand.tasks
        new = _begin(hand.job)
        hand.process, hand.pipe, hand.tasks, hand.alone = new.process, new.pipe, [], False
        _greet(hand)


def _begin(job: Job) -> DeviceProcess:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(job, theirs), daemon=True)
    process.start()
    theirs.close()  # so that our end tells when the process, which has the only other, is gone
    return DeviceProcess(job, process, ours)


def _greet(hand: DeviceProcess) -> Setting:
    """Wait until a process has loaded the model.

    Raises:
        CxrgError: it cannot.
    """
    try:
        told = hand.pipe.recv()
    except (EOFError, OSError) as error:
        raise ModelError(
            f"the process for {hand.job.device} ended while it loaded {hand.job.model}; "
            "is there memory for it?"
        ) from error
    if isinstance(told, CxrgError):
        raise told
    assert isinstance(told, Setting)
    return told


def _serve(job: Job, pipe: Connection[Setting | Outcome | CxrgError, Task]) -> None:
    """What a process does until the other end of its pipe is closed."""
    # Ctrl-C reaches every process of the terminal; the one that gives out the work handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begun = 0

    def received() -> Iterator[Task]:
        nonlocal begun
        # With work in hand it must not wait long: the results at hand are to be sent.
        while not begun or pipe.poll(_PATIENCE):
            task = pipe.recv()
            begun += 1
            yield task

    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            worker = open_worker(job)
            pipe.send(worker.setting)
            while True:
                for outcome in pipeline(worker, received()):
                    begun -= 1
                    pipe.send(outcome)
        except CxrgError as error:
            pipe.send(error)
