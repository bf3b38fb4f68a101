"""Whether the process that claimed some work still lives.

On the machine where it runs, a process is told from a later one of the same number by its start
time; a container has processes of its own, so it counts as another machine. For what cannot be
asked, a lease: an owner says every `BEAT` seconds that it lives, and is dead after `LEASE` without.
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
        born: when it started, in the system's own words; empty where that cannot be told.
    """

    host: str
    pid: int
    born: str

    def lives(self, beat: float, now: float) -> bool:
        """Whether the owner, who last said so at ``beat`` (seconds), lives."""
        if self.born and self.host == _host():
            return _born(self.pid) == self.born
        return now - beat < LEASE


def this_process() -> Owner:
    """The process that asks."""
    return Owner(_host(), os.getpid(), _born(os.getpid()))


def _host() -> str:
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _born(pid: int) -> str:
    """When a process started; empty if it runs no longer, or if this system cannot tell."""
    if Path("/proc/self/stat").exists():
        try:
            # Linux, proc(5): after the name in brackets the state, and 19 fields on, the start.
            facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if facts[0] in "ZXx" else facts[19]
    ps = shutil.which("ps")
    if ps is None:
        return ""
    asked = [ps, "-o", "stat=,lstart=", "-p", str(pid)]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return "" if not told or told[0].startswith("Z") else " ".join(told[1:])
