"""One process per device: results, deaths, what is set aside."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from cxrg.batch import devices as module
from cxrg.batch.devices import PerDevice
from cxrg.batch.task import Job
from cxrg.errors import CxrgError, ModelError, UsageError
from tests.batch.test_run import files, tasks
from tests.fakes.batch import SETTING, DeadlyWorker
from tests.fakes.processes import PATIENCE


def other_setting(job: Job) -> DeadlyWorker:
    worker = DeadlyWorker(job)
    if job.device == "cuda:1":
        worker.setting = replace(SETTING, precision="bfloat16")
    return worker


def no_model(job: Job) -> DeadlyWorker:
    raise ModelError(f"model {job.model!r} is not here; fetch it")


def no_memory(job: Job) -> DeadlyWorker:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def full_disk(job: Job) -> DeadlyWorker:
    worker = DeadlyWorker(job)

    def write(task: object) -> None:
        raise CxrgError("disk full; make room")

    worker.write = write  # type: ignore[assignment, method-assign]
    return worker


class Serve:
    """Serves with another worker than the real one, in the spawned process."""

    def __init__(self, worker: object) -> None:
        self.worker = worker

    def __call__(self, job: Job, pipe: object) -> None:
        setattr(module, "open_worker", self.worker)  # noqa: B010
        _serve(job, cast(Any, pipe))


_serve = module._serve


@pytest.fixture
def engine(tmp_path: Path, monkeypatch) -> Iterator[object]:
    made: list[PerDevice] = []

    def make(worker: object = DeadlyWorker, devices: str = "cpu,cpu", **more: object) -> PerDevice:
        monkeypatch.setattr(module, "_serve", Serve(worker))
        job = Job(model="tiny", preset="fast", out=tmp_path)
        made.append(PerDevice(job, devices.split(","), **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()
        each.close()
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_all_is_done_by_several_processes(engine, tmp_path: Path) -> None:
    given = tasks(files(tmp_path, *map(str, range(20))))
    one = engine()
    assert one.start() == SETTING
    assert one.start() == SETTING  # a second time it is only said
    done = list(one.run(iter(given)))
    assert sorted(each.task.index for each in done) == list(range(20))
    assert all(len(each.rows) == 1 for each in done)
    again = list(one.run(given[:3]))  # another pass, the same processes
    assert len(again) == 3


def test_the_engine_starts_with_the_first_task(engine, tmp_path: Path) -> None:
    one = engine()
    given = tasks(files(tmp_path, "a", "b"))

    def lazily():
        one.start()
        yield from given

    assert len(list(one.run(lazily()))) == 2
    assert not list(engine().run([]))  # and without one there is nothing to start


def test_few_tasks_are_in_flight(engine, tmp_path: Path) -> None:
    pulled = 0

    def given():
        nonlocal pulled
        for task in tasks(files(tmp_path, *map(str, range(20)))):
            pulled += 1
            yield task

    one = engine()
    one.start()
    for count, _ in enumerate(one.run(given())):
        assert pulled - count <= 2 * module.DEPTH + 1


def test_a_process_that_dies_once_loses_nothing(engine, tmp_path: Path) -> None:
    given = tasks(files(tmp_path, "a", "kill once", "c", "d", "e"))
    one = engine()
    one.start()
    done = {each.task.index: each for each in one.run(given)}
    assert sorted(done) == list(range(5))
    assert not any(each.failure for each in done.values())


@pytest.mark.slow
def test_what_kills_twice_is_set_aside_and_nothing_else(engine, tmp_path: Path) -> None:
    given = tasks(files(tmp_path, "a", "b", "kill", "d", "kill", "f", "g"))
    one = engine()
    one.start()
    done = {each.task.index: each for each in one.run(given)}
    assert sorted(done) == list(range(7))
    failures = {index: each.failure.kind for index, each in done.items() if each.failure}
    assert failures == {2: "poisoned", 4: "poisoned"}
    assert "ended two processes" in done[2].failure.message


def test_killed_from_outside(engine, tmp_path: Path) -> None:
    given = tasks(files(tmp_path, *map(str, range(30))))
    one = engine()
    one.start()
    done = []
    for each in one.run(given):
        done.append(each)
        if len(done) == 5:
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
    assert sorted(each.task.index for each in done) == list(range(30))
    assert not any(each.failure for each in done)


def test_a_halted_engine_finishes_what_it_has(engine, tmp_path: Path) -> None:
    done: list[object] = []
    one = engine(halt=lambda: len(done) >= 3)
    one.start()
    for each in one.run(tasks(files(tmp_path, *map(str, range(30))))):
        done.append(each)
    assert 3 <= len(done) <= 3 + 2 * module.DEPTH


@pytest.mark.parametrize(
    ("worker", "error", "words"),
    [
        (no_model, ModelError, "model 'tiny' is not here; fetch it"),
        (no_memory, ModelError, "ended while it loaded tiny; is there memory"),
        (other_setting, UsageError, "would not give the same results; set --dtype"),
    ],
)
def test_what_goes_wrong_at_the_start(engine, worker, error, words: str) -> None:
    with pytest.raises(error, match=words):
        engine(worker, "cuda:0,cuda:1").start()


def test_what_concerns_every_task_is_raised(engine, tmp_path: Path) -> None:
    one = engine(full_disk)
    one.start()
    with pytest.raises(CxrgError, match="disk full; make room"):
        list(one.run(tasks(files(tmp_path, "a", "b"))))


def test_processes_end_with_the_one_that_began_them(engine, tmp_path: Path) -> None:
    """A driver that is killed leaves none behind: they see the end of their pipe."""
    one = engine()
    one.start()
    children = multiprocessing.active_children()
    for child in one._children:
        child.pipe.close()
    until = time.monotonic() + PATIENCE
    while any(child.is_alive() for child in children):
        assert time.monotonic() < until
        time.sleep(0.05)
