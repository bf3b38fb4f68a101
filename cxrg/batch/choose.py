"""Which engine does the work: this process, one process per device, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cxrg.batch.engine import Engine, Halt
from cxrg.batch.local import InProcess
from cxrg.batch.task import Job
from cxrg.errors import UsageError

ENGINES = ("local", "ray")


def choose_engine(
    job: Job,
    devices: Sequence[str],
    *,
    halt: Halt,
    name: str = "local",
    address: str | None = None,
) -> Engine:
    """The engine of that name; ``local`` is this process for one device, else a process for each.

    Args:
        job: what every worker needs to know.
        devices: where to work.
        halt: whether the user wants to stop.
        name: one of `ENGINES`.
        address: of a Ray cluster.

    Raises:
        UsageError: the name is not known, or these things do not go together.
    """
    if name not in ENGINES:
        raise UsageError(f"engine {name!r} is not known; use {' or '.join(ENGINES)}")
    if address and name != "ray":
        raise UsageError("--ray-address is for --engine ray; give both")
    if name == "ray":
        from cxrg.batch.ray_engine import RayEngine

        if len(devices) > 1:
            raise UsageError("with --engine ray give one --device; the cluster has the others")
        return RayEngine(job, address=address, halt=halt)
    if len(devices) == 1:
        return InProcess(replace(job, device=devices[0]), halt=halt)
    from cxrg.batch.devices import PerDevice

    return PerDevice(job, devices, halt=halt)
