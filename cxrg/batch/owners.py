"""Whether the process that claimed some work is still alive.

On the machine where it runs, a process is identified by its number and start time; a container has
processes of its own, so it counts as another machine. An owner on another machine cannot be looked
up: it updates its entry every `BEAT` seconds, and counts as dead `LEASE` seconds after the last
update. So does a process on this machine that is stopped (SIGSTOP, Ctrl-Z).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BEAT, LEASE = 20.0, 120.0


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that does work.

    Attributes:
        host: the machine, since its last start, and the set of processes that it belongs to.
        pid: its number there.
        born: its start time as the system writes it; empty where that is unknown.
    """

    host: str
    pid: int
    born: str

    def lives(self, beat: float, now: float) -> bool:
        """Return whether the owner is alive.

        Args:
            beat: when it last updated its entry, in seconds.
            now: the time, in seconds.
        """
        if not (self.born and self.host == _host()):
            return now - beat < LEASE
        born, stopped = _status(self.pid)
        return born == self.born and (not stopped or now - beat < LEASE)

    @property
    def stopped(self) -> bool:
        """Whether the owner is a stopped process of this machine."""
        return self.host == _host() and _status(self.pid) == (self.born, True)

    def __str__(self) -> str:
        return f"process {self.pid}" + ("" if self.host == _host() else " of another machine")


def this_process() -> Owner:
    """Return the calling process as an owner."""
    return Owner(_host(), os.getpid(), _status(os.getpid())[0])


def _host() -> str:
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _status(pid: int) -> tuple[str, bool]:
    """Return the start time of a process, empty if it does not run, and whether it is stopped."""
    if Path("/proc/self/stat").exists():
        try:
            # Linux, proc(5): after the name in brackets the state, and 19 fields on, the start.
            facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return "", False
        state, born = facts[0], facts[19]
    else:
        ps = shutil.which("ps")
        if ps is None:
            return "", False
        command = [ps, "-o", "stat=,lstart=", "-p", str(pid)]
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        state, *start = output.split() or ["Z"]
        born = " ".join(start)
    return ("", False) if state[0] in "ZXx" else (born, state[0] in "Tt")
