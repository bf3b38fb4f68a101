"""Progress of a training run: steps to the caller, mean losses to a file of JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

import numpy as np

Progress = Callable[[str, int, int], None]
"""Called with stage, step and steps."""

Report = Callable[[str, int, int, float], None]
"""Called with stage, step, steps and loss; a `Log` is one."""

LOG_EVERY = 20


@dataclass(kw_only=True, slots=True)
class Log:
    """Writes one JSON line every few steps and passes progress on."""

    file: TextIO
    progress: Progress
    began: float = field(default_factory=time.monotonic)
    losses: dict[str, list[float]] = field(default_factory=dict)

    def __call__(self, stage: str, step: int, steps: int, loss: float) -> None:
        self.losses.setdefault(stage, []).append(loss)
        self.progress(stage, step, steps)
        if step % LOG_EVERY == 0 or step == steps:
            mean = float(np.mean(self.losses.pop(stage)))
            seconds = round(time.monotonic() - self.began, 1)
            line = {"stage": stage, "step": step, "of": steps, "loss": round(mean, 5)}
            self.file.write(json.dumps({**line, "seconds": seconds}) + "\n")
            self.file.flush()
