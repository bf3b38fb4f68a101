"""``cxrg`` as processes of their own, which can be killed, interrupted and starved.

They are forked from a server that has the heavy packages imported already, so that each starts in
a fraction of a second; with ``fresh`` they are ``python -m cxrg``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEAVY = (
    *("torch", "transformers", "cv2", "pydicom", "cxrg.cli", "cxrg.model.load", "cxrg.grounding"),
    *("diffusers.models.unets.unet_2d_condition", "diffusers.models.autoencoders.autoencoder_dc"),
    *("cxrg.output.picture", "cxrg.output.arrays", "processes"),
)
PATIENCE = 300.0  # seconds for whatever is awaited, on a busy machine


@dataclass
class Running:
    """A run of ``cxrg`` that has begun."""

    process: Any
    folder: Path
    name: str
    _ended: int | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    @property
    def out(self) -> str:
        return (self.folder / f"{self.name}.stdout").read_text()

    @property
    def err(self) -> str:
        return (self.folder / f"{self.name}.stderr").read_text()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self) -> bool:
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll() is not None
        return self.process.exitcode is not None

    def wait(self) -> int:
        """The exit code; negative where a signal ended it."""
        until(self.ended)
        code = getattr(self.process, "returncode", None)
        return int(self.process.exitcode if code is None else code)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def start(
    arguments: Sequence[object],
    folder: Path,
    *,
    name: str = "run",
    fresh: bool = False,
    before: str = "",
) -> Running:
    """Begin ``cxrg`` with these arguments in a folder; ``before`` is Python to run first."""
    words = [str(each) for each in arguments]
    if fresh:
        given = os.environ.get("PYTHONPATH")
        paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), given]))
        with (
            (folder / f"{name}.stdout").open("wb") as out,
            (folder / f"{name}.stderr").open("wb") as err,
        ):
            process = subprocess.Popen(
                [sys.executable, "-m", "cxrg", *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": paths},
            )
        assert not before, "only where it is forked"
        return Running(process, folder, name)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(HEAVY))
    forked = context.Process(target=serve, args=(words, str(folder), name, before))
    forked.start()
    return Running(forked, folder, name)


def serve(words: list[str], folder: str, name: str, before: str) -> None:
    """What the forked process does."""
    os.chdir(folder)
    for stream, number, mode in (("stdout", 1, os.O_WRONLY), ("stderr", 2, os.O_WRONLY)):
        file = os.open(f"{name}.{stream}", mode | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["cxrg", *words]
    exec(before, {})
    from cxrg.cli import main

    try:
        main()
    finally:
        sys.stdout.flush()


def until(true: Any, patience: float = PATIENCE) -> None:
    """Wait until something is so."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
