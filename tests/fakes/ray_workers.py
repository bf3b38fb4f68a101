"""Workers for tests of the Ray engine, in a module that imports nothing heavy: actors import it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from cxrg.batch.ray_engine import Remote
from cxrg.batch.task import Outcome, Row, Setting, Task
from cxrg.errors import CxrgError
from cxrg.options import Options

SETTING = Setting(identity="sha256:0", options=Options())


class Quick(Remote):
    """A worker without a network, so that what is seen is the engine.

    It does what the name of the task's file says: ``deadly`` ends the worker, ``once`` ends it the
    first time, ``slow`` takes a while, ``full`` is an error that concerns every task, and ``three``
    waits until three workers have begun one, so that none does all before the others have started.
    """

    def open(self) -> Setting:
        os.chdir(self._folder)
        return SETTING

    def do(self, task: Task) -> Outcome | CxrgError:
        note(f"{task.path.name} {os.getpid()}\n")
        first = not Path(f"{task.path.name}.begun").exists()
        Path(f"{task.path.name}.begun").touch()
        if task.path.name.startswith("deadly") or (task.path.name.startswith("once") and first):
            time.sleep(0.5)  # so that it has company in the worker's hands
            os.kill(os.getpid(), signal.SIGKILL)
        if task.path.name.startswith("full"):
            return CxrgError("disk full; make room")
        until = time.monotonic() + 120
        while task.path.name.startswith("three") and len(workers()) < 3:
            if time.monotonic() > until:
                return CxrgError("no three workers after two minutes; look at the cluster")
            time.sleep(0.05)
        time.sleep(0.3 if task.path.name.startswith("slow") else 0.02)
        return Outcome(task=task, rows=(Row(phrase="x", stem=task.path.name, record={}),))


def workers() -> set[str]:
    """Process ids of the workers that have begun a task."""
    return {line.split()[1] for line in Path("log").read_text().splitlines()}


def note(text: str) -> None:
    with Path("log").open("a") as file:
        file.write(text)


class Falling(Quick):
    def do(self, task: Task) -> Outcome | CxrgError:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it is dead")
