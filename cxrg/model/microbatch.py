"""Microbatches: as many rows per network evaluation as fit the memory.

A row is one latent with one prompt. More rows use the machine better until its arithmetic or its
memory is exhausted, so the number is chosen from the free memory, up to a limit beyond which more
rows gained nothing in measurement. The estimate may be wrong, or another program may take the
memory: then the rows are halved and tried again, which costs time only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import torch

from cxrg.errors import ModelError
from cxrg.model.model import Model

Row = TypeVar("Row")
Result = TypeVar("Result")

# Beyond these, rows cost memory and gain nothing: a CPU's cores are busy with a few.
MOST = {"cuda": 64, "mps": 16, "cpu": 8}
SHARE = 0.5  # of the free memory; the rest is a reserve for what the estimate leaves out
# In messages of allocators of CPU, CUDA and MPS, whose errors are of a general class.
SIGNS = ("not enough memory", "can't allocate memory", "out of memory")


@dataclass(slots=True)
class Microbatch:
    """Rows per network evaluation: as many as ``size``, which memory may lower."""

    size: int

    @classmethod
    def of(cls, model: Model, batch: int | Literal["auto"]) -> Microbatch:
        """The requested size, or for ``auto`` what fits the device's free memory."""
        return cls(fitting_rows(model) if batch == "auto" else batch)

    def run(self, rows: Iterable[Row], work: Callable[[list[Row]], Result]) -> Iterator[Result]:
        """Work on the rows in order, several at a time, and yield each part's result.

        Lazy: rows are taken when they are worked on.

        Raises:
            ModelError: memory does not even suffice for one row.
        """
        source = iter(rows)
        waiting: list[Row] = []
        while True:
            waiting += islice(source, max(self.size - len(waiting), 0))
            if not waiting:
                return
            part = waiting[: self.size]
            try:
                result = work(part)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._lower(len(part), error)
                continue  # retried outside this block: the error's traceback keeps tensors alive
            waiting = waiting[len(part) :]
            yield result

    def _lower(self, tried: int, error: Exception) -> None:
        if tried == 1:
            raise ModelError(
                "memory does not suffice for one latent; free some, use --dtype bfloat16 "
                "or another --device, or a smaller model"
            ) from error
        self.size = tried // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory did not suffice, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(sign in str(error).lower() for sign in SIGNS)


def fitting_rows(model: Model) -> int:
    """Rows that fit half of the device's free memory, at least one."""
    most = MOST[model.device.type]
    free = free_memory(model.device)
    return most if free is None else max(1, min(most, int(free * SHARE) // row_bytes(model)))


def row_bytes(model: Model) -> int:
    """About how many bytes of memory one row takes in a network evaluation."""
    area = (model.side // model.factor) ** 2
    size = model.family.map_size(model.denoiser.config, area)
    return size * model.dtype.itemsize * model.family.maps_per_row


def free_memory(device: torch.device) -> int | None:
    """Free bytes on a device; None where the system does not report them."""
    if device.type == "cuda":
        # What torch holds and does not use is free for torch.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + idle
    report = Path("/proc/meminfo")  # Linux; SC_AVPHYS_PAGES leaves out what caches would give back
    if not report.is_file():
        return None
    lines = dict(line.split(":") for line in report.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024
