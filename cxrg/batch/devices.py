"""One process per device, for a machine with several of them.

Each process loads the model on its device and does the tasks that come through its pipe; outcomes
come back the same way. A process that dies (killed, out of memory, crashed in a driver) is replaced
and its unfinished tasks are tried again, each alone in a process: a task that ends that one too is
the cause and is set aside.
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
_PATIENCE = 0.01  # seconds that a process with unfinished tasks waits for more
_TICK = 0.25  # seconds between two looks at whether the user wants to stop
_GRACE = 2.0  # seconds that an idle process gets to end by itself


@dataclass(slots=True)
class DeviceProcess:
    """One process and its unfinished tasks."""

    job: Job
    process: SpawnProcess
    pipe: Connection[Task, Setting | Outcome | CxrgError]
    tasks: list[Task] = field(default_factory=list)
    alone: bool = False

    def give(self, task: Task, *, alone: bool = False) -> None:
        self.tasks.append(task)
        self.alone = alone
        with suppress(OSError):  # it died, which `_receive` notices
            self.pipe.send(task)


class PerDevice:
    """An engine with one spawned process per device; a device may be named more than once."""

    def __init__(self, job: Job, devices: Sequence[str], *, halt: Halt = lambda: False) -> None:
        self._jobs = [replace(job, device=device) for device in devices]
        self._halt = halt
        self._children: list[DeviceProcess] = []
        self._setting: Setting | None = None
        self._suspects: deque[Task] = deque()

    def start(self) -> Setting:
        if self._setting:
            return self._setting
        # Start all before waiting for the first: loading takes seconds.
        self._children = [_begin(job) for job in self._jobs]
        settings = [_await_setting(child) for child in self._children]
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
                more = self._give_out(waiting, more)
            busy = [child for child in self._children if child.tasks]
            if not busy and (self._halt() or not (more or self._suspects)):
                self._suspects.clear()
                return
            for ready in connection.wait([child.pipe for child in busy], _TICK):
                child = next(each for each in self._children if each.pipe is ready)
                yield from self._receive(child)

    def close(self) -> None:
        for child in self._children:
            child.pipe.close()
        for child in self._children:
            child.process.join(_GRACE)
            child.process.kill()
            child.process.join()
        self._children.clear()

    def _give_out(self, waiting: Iterator[Task], more: bool) -> bool:
        """Give tasks to processes with room, evenly; return whether there may be more."""
        for level in range(DEPTH):
            for child in self._children:
                if self._suspects:
                    if not child.tasks:
                        child.give(self._suspects.popleft(), alone=True)
                elif more and len(child.tasks) <= level and not (child.tasks and child.alone):
                    task = next(waiting, None)
                    if task is None:
                        more = False
                    else:
                        child.give(task)
        return more

    def _receive(self, child: DeviceProcess) -> Iterator[Outcome]:
        try:
            outcome = child.pipe.recv()
        except (EOFError, OSError):
            yield from self._replace(child)
            return
        if isinstance(outcome, CxrgError):
            raise outcome
        assert isinstance(outcome, Outcome)
        child.tasks = [task for task in child.tasks if task.index != outcome.task.index]
        yield outcome

    def _replace(self, child: DeviceProcess) -> Iterator[Outcome]:
        """Replace a process that died, and queue its unfinished tasks again."""
        child.pipe.close()
        child.process.join()
        if child.alone:
            yield from (poisoned(task, "processes") for task in child.tasks)
        else:
            self._suspects += child.tasks
        new = _begin(child.job)
        child.process, child.pipe, child.tasks, child.alone = new.process, new.pipe, [], False
        _await_setting(child)


def _begin(job: Job) -> DeviceProcess:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(job, theirs), daemon=True)
    process.start()
    theirs.close()  # so that our end reports EOF when the process is gone
    return DeviceProcess(job, process, ours)


def _await_setting(child: DeviceProcess) -> Setting:
    """Wait until a process has loaded the model, and return its setting.

    Raises:
        CxrgError: the model cannot be loaded.
    """
    try:
        setting = child.pipe.recv()
    except (EOFError, OSError) as error:
        raise ModelError(
            f"the process for {child.job.device} ended while it loaded {child.job.model}; "
            "is there memory for it?"
        ) from error
    if isinstance(setting, CxrgError):
        raise setting
    assert isinstance(setting, Setting)
    return setting


def _serve(job: Job, pipe: Connection[Setting | Outcome | CxrgError, Task]) -> None:
    """Do the tasks that come through the pipe until its other end is closed."""
    # Ctrl-C reaches every process of the terminal, and the SIGTERM of a batch system every one of
    # the job; the one that gives out the work handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begun = 0

    def received() -> Iterator[Task]:
        nonlocal begun
        # With unfinished tasks it must not wait long: their results are to be sent.
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
