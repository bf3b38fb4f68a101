"""How many rows go into one network evaluation, and what happens when that was too many.

A row is one latent with one prompt. More rows keep the machine busier until its arithmetic or its
memory is full, so the number is chosen from the memory that is free, up to where more did not pay
in measurement. The guess may be wrong, or another program may take the memory: then the rows are
halved and tried again, so that nothing but time is lost.
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
SHARE = 0.5  # of the free memory; the rest is for what the estimate does not know
# What allocators of CPU, CUDA and MPS say; a RuntimeError says anything else, too.
SIGNS = ("not enough memory", "can't allocate memory", "out of memory")


@dataclass(slots=True)
class Microbatch:
    """Rows per network evaluation: as many as ``size``, which memory may lower."""

    size: int

    @classmethod
    def of(cls, model: Model, batch: int | Literal["auto"]) -> Microbatch:
        """The number asked for, or for ``auto`` what fits the device's free memory."""
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
                continue  # and not here: the error's traceback would keep the tensors alive
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
    """Whether an error says that memory did not suffice, on whatever device."""
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
    """Free bytes on a device; None where the system does not say."""
    if device.type == "cuda":
        # What torch holds and does not use is free for torch.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + idle
    told = Path("/proc/meminfo")  # Linux; SC_AVPHYS_PAGES leaves out what caches would give back
    if not told.is_file():
        return None
    lines = dict(line.split(":") for line in told.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024
