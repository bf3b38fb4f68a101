"""Workers on a Ray cluster: actors that load the model once and do a few tasks at a time.

Paths travel to the workers and small rows back, never pixels, so images, model and output folder
must be at the same place on every node. Tasks do not go through Ray Data: the ledger needs outcomes
one by one, and the number of unfinished tasks stays bounded. Ray needs the package's extra ``ray``;
nothing here imports it before `RayEngine.start`.

A worker that is lost (its process was killed, its node went away) is replaced, and its unfinished
tasks are done again, each alone on a worker. A task that loses its worker even then is the cause,
and is set aside.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cxrg.batch.engine import Halt
from cxrg.batch.task import Job, Outcome, Setting, Task
from cxrg.batch.work import Worker, Writer, open_worker, poisoned
from cxrg.errors import CxrgError, UsageError

AT_ONCE = 2
"""Unfinished tasks of a worker: one is in the network, the other is read or written."""

MEMORY_EACH = 2 << 30
"""Bytes of memory that each worker is assumed to need."""

OBJECT_STORE = 80 << 20
"""Bytes of Ray's shared memory; Ray needs at least 75 MiB, and paths and rows very little."""

START_SECONDS = 600.0
"""How long to wait for the first worker; loading a large model from a slow disk takes minutes."""

CONNECT_SECONDS = 10.0
"""How long to wait for a connection to a cluster."""

LOSSES = 12
"""Most workers that may be lost in a row without a task done in between."""

_REMEDY = "see the cluster's logs, and that memory holds a model for each worker"


class Remote:
    """The worker inside an actor, with one thread for each unfinished task.

    Expected errors are returned, not raised: Ray would wrap them in the text of a traceback.
    """

    def __init__(self, job: Job, folder: str) -> None:
        self._job, self._folder = job, folder
        self._worker: Worker | None = None
        self._writer: Writer | None = None
        self._network = threading.Lock()

    def open(self) -> Setting | CxrgError:
        """Load the model; relative paths mean what they mean for the driver."""
        try:
            os.chdir(self._folder)
        except OSError:
            return CxrgError(
                f"{self._folder} is not there on every node of the cluster; "
                "start from a folder that all nodes share"
            )
        try:
            self._worker = self._worker or open_worker(self._job)
        except CxrgError as error:
            return error
        self._writer = Writer(self._worker)
        return self._worker.setting

    def do(self, task: Task) -> Outcome | CxrgError:
        """Do one task; the network has one at a time, while others are read and written."""
        assert self._worker is not None
        assert self._writer is not None
        try:
            read = self._worker.read(task)
            with self._network:
                writing = self._writer.take(task, self._worker.look(read))
            return writing.outcome()
        except CxrgError as error:
            return error


@dataclass(frozen=True, eq=False)
class PendingCall:
    """A call that has not returned; without a task it loads the model."""

    actor: Any
    task: Task | None = None
    alone: bool = False


class RayEngine:
    """An `cxrg.batch.engine.Engine` whose workers are actors of a Ray cluster."""

    def __init__(self, job: Job, *, address: str | None = None, halt: Halt = lambda: False) -> None:
        """Nothing is started yet.

        Args:
            job: what every worker needs to know.
            address: ``auto`` or HOST:PORT of a running cluster that this machine is a node of;
                without one, a cluster of this machine alone is started and ended.
            halt: whether the user wants to stop.
        """
        self._job, self._address, self._halt = job, address, halt
        self._ray: Any = None
        self._ours: TemporaryDirectory[str] | None = None
        self._class: Any = None
        self._calls: dict[Any, PendingCall] = {}
        self._idle: set[Any] = set()
        self._again: deque[Task] = deque()
        self._setting: Setting | None = None
        self._losses = 0

    def start(self) -> Setting:
        """Connect, and load the model in at least one worker; the others follow.

        Raises:
            UsageError: Ray is not installed, or the device names one of several.
            CxrgError: no cluster, no free place in it, or the model is at fault.
        """
        with ExitStack() as undo:
            undo.callback(self.close)
            if self._ray is None:
                self._connect()
                self._staff()
            while self._setting is None:
                for _ in self._land():
                    raise AssertionError("no task was given out yet")
            undo.pop_all()
        return self._setting

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """See `cxrg.batch.engine.Engine.run`."""
        waiting = iter(tasks)
        first = next(waiting, None)
        if first is None:
            return  # and no cluster is needed
        self.start()
        waiting = chain([first], waiting)
        more = self._give_out(waiting)
        while self._at_work() or ((more or self._again) and not self._halt()):
            yield from self._land()
            self._give_again()
            more = more and self._give_out(waiting)
        self._again.clear()

    def close(self) -> None:
        """End the workers, and the cluster if it was started here."""
        if self._ray is None:
            return
        for actor in {call.actor for call in self._calls.values()} | self._idle:
            self._ray.kill(actor)
        self._calls.clear()
        self._idle.clear()
        if self._ours:
            self._ray.shutdown()
            self._ours.cleanup()
        self._ray = self._ours = self._setting = None

    def _at_work(self) -> bool:
        return any(call.task for call in self._calls.values())

    def _connect(self) -> None:
        # Read when Ray is imported: send no statistics, and keep the node's visible devices.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray: Any = import_module("ray")
        except ImportError:
            raise UsageError("Ray is not installed; run: pip install 'cxrg[ray]'") from None
        # Ray reports lost workers on standard output, which is for results.
        ray._private.worker._worker_logs_enabled = False
        if not ray.is_initialized():
            self._join(ray)
        self._ray = ray

    def _join(self, ray: Any) -> None:
        call: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self._address:
            _check_address(self._address)
            call |= {"address": self._address}
        else:
            # A folder of its own, so that Ray's logs do not stay behind.
            self._ours = TemporaryDirectory(prefix="cxrg-ray-", ignore_cleanup_errors=True)
            call |= {"include_dashboard": False, "_temp_dir": self._ours.name}
            call |= {"object_store_memory": OBJECT_STORE}
        try:
            ray.init(**call)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise _no_cluster(self._address, error) from error

    def _staff(self) -> None:
        """Ask for as many workers as the cluster has room for."""
        job, count, needs = plan(self._job, self._ray.cluster_resources())
        remote = self._ray.remote(
            max_concurrency=AT_ONCE, max_restarts=0, scheduling_strategy="SPREAD", **needs
        )
        self._class = remote(Remote), job
        for _ in range(count):
            self._hire()

    def _hire(self) -> None:
        """Ask for one more worker; it is given tasks once its model is loaded."""
        remote, job = self._class
        actor = remote.remote(job, str(Path.cwd()))
        self._calls[actor.open.remote()] = PendingCall(actor)

    def _give_out(self, waiting: Iterator[Task]) -> bool:
        """Give tasks to workers with room; return whether there may be more.

        While there are tasks to be done again, none is given, so that each gets an idle worker.
        """
        actors = self._idle | {call.actor for call in self._calls.values()}
        for actor in actors if not self._again else ():
            calls = self._calls_of(actor)
            if any(call.task is None or call.alone for call in calls):
                continue  # its model is being loaded, or it is being tried
            for _ in range(AT_ONCE - len(calls)):
                if self._halt():
                    return True
                task = next(waiting, None)
                if task is None:
                    return False
                self._send(actor, task)
        return True

    def _give_again(self) -> None:
        """Give each idle worker one of the tasks whose worker was lost."""
        for actor in list(self._idle):
            if self._again and not self._halt():
                self._send(actor, self._again.popleft(), alone=True)

    def _calls_of(self, actor: Any) -> list[PendingCall]:
        return [call for call in self._calls.values() if call.actor is actor]

    def _send(self, actor: Any, task: Task, *, alone: bool = False) -> None:
        self._idle.discard(actor)
        self._calls[actor.do.remote(task)] = PendingCall(actor, task, alone)

    def _land(self) -> Iterator[Outcome]:
        """Wait for the next call to return, and take its result."""
        wait = START_SECONDS if all(f.task is None for f in self._calls.values()) else None
        done, _ = self._ray.wait(list(self._calls), timeout=wait)
        if not done:
            raise CxrgError(
                f"Ray gave no worker within {START_SECONDS:.0f} seconds; "
                "free processors or devices of the cluster, see `ray status`"
            )
        for ref in done:
            call = self._calls.get(ref)
            if call:
                yield from self._take(ref, call)

    def _take(self, ref: Any, call: PendingCall) -> Iterator[Outcome]:
        gone = self._ray.exceptions
        try:
            got = self._ray.get(ref)
        except gone.RayTaskError as error:
            raise CxrgError(f"a worker failed ({type(error.cause).__name__}); {_REMEDY}") from error
        except gone.RayError as error:
            if getattr(error, "actor_init_failed", False):
                raise CxrgError(
                    "a worker cannot begin; install the same cxrg[ray] on every node"
                ) from error
            yield from self._lose(call.actor)
            return
        del self._calls[ref]
        if isinstance(got, CxrgError):
            raise got
        if not self._calls_of(call.actor):
            self._idle.add(call.actor)
        if isinstance(got, Setting):
            self._agree(got)
        else:
            self._losses = 0
            yield got

    def _agree(self, setting: Setting) -> None:
        if self._setting not in (None, setting):
            raise CxrgError(
                "the workers do not agree on model and options; install the same model on every "
                "node, and give --device and --dtype"
            )
        self._setting = setting

    def _lose(self, actor: Any) -> Iterator[Outcome]:
        """Replace a lost worker and sort its unfinished tasks."""
        self._losses += 1
        if self._losses > LOSSES:
            raise CxrgError(f"{self._losses} workers ended before they had done a task; {_REMEDY}")
        self._ray.kill(actor)  # if only the connection was lost, it must not continue
        mine = [(ref, call) for ref, call in self._calls.items() if call.actor is actor]
        for ref, call in mine:
            del self._calls[ref]
            try:
                got = self._ray.get(ref)  # it may have returned before the end
            except self._ray.exceptions.RayError:
                got = None
            if isinstance(got, Outcome):
                yield got
            elif call.task and call.alone:
                yield poisoned(call.task, "workers")
            elif call.task:
                self._again.append(call.task)
        self._hire()


def _check_address(address: str) -> None:
    """Raise CxrgError at once if nothing listens at the address; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        return  # "auto" and the like
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str | None, error: Exception) -> CxrgError:
    where = f"at {address}" if address else "on this machine"
    remedy = "start one with `ray start --head`, or leave out --ray-address"
    return CxrgError(f"no Ray cluster {where} ({type(error).__name__}); {remedy}")


def plan(job: Job, resources: Mapping[str, float]) -> tuple[Job, int, dict[str, float]]:
    """Return the job for each worker, how many workers, and the resources that each needs.

    There is one worker for each GPU if GPUs are wanted and present. Otherwise there is one for each
    processor but one, as far as the memory allows.

    Args:
        job: as the user gave it.
        resources: of the cluster, as from ``ray.cluster_resources()``: ``CPU``, ``GPU`` and
            ``memory`` in bytes.

    Raises:
        UsageError: the device names one of several, or there is no GPU for ``cuda``.
    """
    gpus = int(resources.get("GPU", 0))
    if ":" in job.device or job.device == "mps":
        raise UsageError(f"device {job.device!r} does not work with Ray; use auto, cpu or cuda")
    if job.device == "cuda" and not gpus:
        raise UsageError("the Ray cluster has no GPU; use --device cpu")
    if gpus and job.device != "cpu":
        return replace(job, device="cuda"), gpus, {"num_cpus": 1, "num_gpus": 1}
    fit = int(resources.get("memory", MEMORY_EACH)) // MEMORY_EACH
    count = max(1, min(int(resources.get("CPU", 1)) - 1, fit))
    return replace(job, device="cpu"), count, {"num_cpus": 1}
