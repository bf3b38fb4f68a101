"""Stand-ins for workers and networks, for tests of what goes on around them.

`SlowWorker` is used with real processes, so everything here can be imported by a spawned one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.batch.task import Failure, Job, Outcome, Row, Setting, Task
from cxrg.batch.work import ReadTask
from cxrg.options import Options
from cxrg.phantom.sample import render

SETTING = Setting(identity="sha256:0123", options=Options())


@cache
def _chest() -> NDArray[np.float32]:
    return np.asarray(render(0, side=128).image, np.float32)


def chest(seed: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A synthetic chest under noise of its own, which passes for a frontal chest X-ray."""
    height, width = size
    smooth = cv2.resize(_chest(), (width, height), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(seed).normal(0, 6, size)
    return np.asarray((smooth * 235 + 10 + noise).clip(0, 255).astype(np.uint8))


def draw(path: Path, seed: int = 1, size: tuple[int, int] = (96, 80)) -> Path:
    """A PNG of a `chest`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", chest(seed, size))[1].tobytes())
    return path


def row(image: str, phrase: str) -> Row:
    """A result, small."""
    record: dict[str, Any] = {"image": {"sha256": image}, "phrase": phrase, "warnings": []}
    return Row(phrase=phrase, stem=f"{image[:16]}-{phrase}", record=record)


def outcome(task: Task, out: Path | None = None) -> Outcome:
    """What a worker makes of a task: a row and a file for each phrase."""
    try:
        image = sha256(task.path.read_bytes()).hexdigest()
    except OSError:
        return Outcome(task=task, failure=failure(task.path, "missing"))
    if task.path.read_bytes().startswith(b"bad"):
        return Outcome(task=task, failure=failure(task.path, "image"))
    rows = tuple(row(image, phrase) for phrase in task.phrases)
    if out:
        out.mkdir(exist_ok=True)
        for each in rows:
            (out / f"{each.stem}.json").write_text(each.phrase)
        if task.sheet:
            task.sheet.write_text(" ".join(task.phrases))
    return Outcome(task=task, rows=rows)


def failure(path: Path, kind: Any = "image") -> Failure:
    return Failure(path=path, kind=kind, message=f"{path}: is damaged; copy it again")


class FakeEngine:
    """Does tasks at once in this process, up to `most` in hand, the last given first."""

    def __init__(self, out: Path | None = None, *, most: int = 1) -> None:
        self.out, self.most = out, most
        self.started = 0
        self.seen: list[Task] = []

    def start(self) -> Setting:
        self.started += 1
        return SETTING

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        held: list[Task] = []
        for task in tasks:
            assert self.started
            held.append(task)
            if len(held) == self.most:
                yield self._do(held.pop())
        while held:
            yield self._do(held.pop())

    def close(self) -> None:
        pass

    def _do(self, task: Task) -> Outcome:
        self.seen.append(task)
        return outcome(task, self.out)


class DeadlyWorker:
    """A worker whose process is killed by files that begin with ``kill``, once or always.

    ``kill once`` kills the first process that meets it, ``kill`` every one.
    """

    def __init__(self, job: Job) -> None:
        self._out = job.out
        self.setting = SETTING

    def read(self, task: Task) -> ReadTask:
        return ReadTask(task)

    def look(self, read: ReadTask) -> Iterator[Any]:
        data = read.task.path.read_bytes()
        once = self._out / "killed"
        if data.startswith(b"kill once"):
            if not once.exists():
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        elif data.startswith(b"kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        made = outcome(read.task)
        yield from ([made.failure] if made.failure else made.rows)

    def write(self, row: Row) -> Row:
        return row
