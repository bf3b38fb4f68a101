"""Where the time of one image goes, stage by stage, and what the network makes of the machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from cxrg.attention.layers import choose_layers
from cxrg.attention.watch import watch
from cxrg.bench.machine import least_seconds, operations, total_flops
from cxrg.errors import UsageError
from cxrg.grounding import ground
from cxrg.image.read import read_image
from cxrg.latents.route import route_of
from cxrg.model.microbatch import Microbatch
from cxrg.model.model import Model
from cxrg.options import Options, RunSettings
from cxrg.output import formats
from cxrg.output.formats import DEFAULT_FORMATS

STAGES = ("read", "encode", "invert", "attend", "post-process", "write")
Report = Callable[[str], None]
BUSY = 0.5
"""Load of other programs, per processor, from which times carry a caveat."""
DOUBTFUL = 0.05
"""How far a figure may be on the impossible side of its limit before it carries a caveat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One whole evaluation of the denoiser, with as many rows as a reading pass has.

    Attributes:
        rows: latents in it.
        flops: floating-point operations.
        seconds: its time.
        least_seconds: the time of its convolutions, matrix products and attention, each alone.
        watching: what watching the layers adds, as a fraction of ``seconds``.
    """

    rows: int
    flops: int
    seconds: float
    least_seconds: float
    watching: float

    @property
    def achieved(self) -> float:
        """Floating-point operations per second."""
        return self.flops / self.seconds

    @property
    def peak(self) -> float:
        """Floating-point operations per second of the same operations alone."""
        return self.flops / self.least_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What was measured.

    Attributes:
        model: name of the model.
        note: what to know of it, such as that its weights are random.
        device: where it ran.
        dtype: the denoiser's precision.
        threads: threads of the CPU's kernels.
        preset: the preset.
        phrases: phrases per image.
        repeats: how many times the image was grounded; seconds are medians over them.
        evaluations: latents that the denoiser evaluated per image, whole or in part.
        seconds: by stage, per image with all its phrases.
        denoiser: of these seconds, those within the denoiser.
        evaluation: one whole evaluation.
        peak_memory: highest resident memory of this process in bytes; None where not known.
        peak_device_memory: highest memory on the GPU in bytes; None without one.
        load: processes that wanted a processor before the first image; None where not known.
        processors: of this machine.
    """

    model: str
    note: str
    device: str
    dtype: str
    threads: int
    preset: str
    phrases: int
    repeats: int
    evaluations: int
    seconds: dict[str, float]
    denoiser: float
    evaluation: Evaluation
    peak_memory: int | None
    peak_device_memory: int | None
    load: float | None = None
    processors: int = 1

    @property
    def caveats(self) -> tuple[str, ...]:
        """Why figures are not of this machine alone, or contradict each other."""
        one, found = self.evaluation, []
        if self.load is not None and self.load > BUSY * self.processors:
            found.append(
                f"other programs were running (load {self.load:.1f} of {self.processors} "
                "processors): times are longer than on an idle machine"
            )
        if one.least_seconds > (1 + DOUBTFUL) * one.seconds:
            found.append(
                "the network was faster than its operations alone, so the machine's speed changed "
                "in between: the peak and the share of it do not count"
            )
        if one.watching < -DOUBTFUL:
            found.append(
                "watching attention seems to save time, so the machine's speed changed in between: "
                "its cost is not known"
            )
        return tuple(found)

    @property
    def total(self) -> float:
        """Seconds per image."""
        return sum(self.seconds.values())

    def as_json(self) -> dict[str, Any]:
        """All figures, with those that follow from others."""
        caveats = list(self.caveats)
        derived = {"achieved": self.evaluation.achieved, "peak": self.evaluation.peak}
        return {
            **asdict(self),
            "total": self.total,
            "caveats": caveats,
            "evaluation": {**asdict(self.evaluation), **derived},
        }


class Timed:
    """A network with a stopwatch: seconds and rows of all its evaluations, ended early or not."""

    def __init__(self, network: Any, device: torch.device) -> None:
        self.network = network
        self.device = device
        self.seconds = 0.0
        self.rows = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        _wait(self.device)
        start = perf_counter()
        try:
            return self.network(latents, *args, **kwargs)
        finally:
            _wait(self.device)
            self.seconds += perf_counter() - start
            self.rows += len(latents)


def bench(
    model: Model,
    image: Path,
    phrases: Sequence[str],
    options: Options,
    *,
    settings: RunSettings | None = None,
    repeats: int = 5,
    warm: bool = True,
    report: Report = lambda stage: None,
) -> Bench:
    """Ground phrases in an image some times over, and time one evaluation of the denoiser.

    Args:
        model: the model.
        image: a file.
        phrases: what to look for.
        options: all knobs.
        settings: how many latents share an evaluation.
        repeats: how many times.
        warm: ground once before it counts.
        report: called with the name of each stage.

    Raises:
        UsageError: ``repeats`` is less than 1.
    """
    if repeats < 1:
        raise UsageError(f"repeat {repeats} is invalid; use a whole number from 1")
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    load = _load()
    watched = Timed(model.denoiser, model.device)
    timed = replace(model, denoiser=watched)
    runs = []
    for number in range(-1 if warm else 0, repeats):
        report("warming up" if number < 0 else f"grounding, {number + 1} of {repeats}")
        watched.seconds, watched.rows = 0.0, 0
        seconds = _once(replace(timed), image, phrases, options, settings)
        if number >= 0:
            runs.append({**seconds, "denoiser": watched.seconds})
    middle = {stage: median(run[stage] for run in runs) for stage in (*STAGES, "denoiser")}
    memory = _peak_memory()  # before the operations alone, which are not part of a run
    on_device = torch.cuda.max_memory_allocated(model.device) if _on_cuda(model.device) else None
    report("timing the network's operations")
    return Bench(
        model=model.card.name,
        note=model.card.note,
        device=str(model.device),
        dtype=model.precision,
        threads=torch.get_num_threads(),
        preset=options.preset,
        phrases=len(phrases),
        repeats=repeats,
        evaluations=watched.rows,
        seconds={stage: middle[stage] for stage in STAGES},
        denoiser=middle["denoiser"],
        evaluation=evaluate_once(model, options, settings, repeats),
        peak_memory=memory,
        peak_device_memory=on_device,
        load=load,
        processors=os.cpu_count() or 1,
    )


def _once(
    model: Model,
    path: Path,
    phrases: Sequence[str],
    options: Options,
    settings: RunSettings | None,
) -> dict[str, float]:
    """Seconds by stage for one image, from its file to the files of its results."""
    start = perf_counter()
    image = read_image(path, side=model.side, fit=options.fit)
    read = perf_counter() - start
    results = ground(image, list(phrases), model=model, options=options, settings=settings)
    start = perf_counter()
    with TemporaryDirectory() as folder:
        for number, result in enumerate(results):
            formats.write(result, image, formats.paths(Path(folder), str(number), DEFAULT_FORMATS))
    write = perf_counter() - start
    inner = dict(results[-1].timings)
    # Phrases are checked before the image is touched; embedding them belongs to attending.
    inner["attend"] += inner.pop("prepare")
    return {**inner, "read": read, "write": write}


def evaluate_once(
    model: Model, options: Options, settings: RunSettings | None = None, repeats: int = 1
) -> Evaluation:
    """Time one whole evaluation of the denoiser, also watched, and its operations alone."""
    reads = route_of(options, model.schedule).timesteps
    rows = min(Microbatch.of(model, (settings or RunSettings()).batch).size, len(reads))
    side = model.side // model.factor
    z = torch.randn(rows, model.denoiser.config.in_channels, side, side, device=model.device)
    conditioning = model.embedding("").repeat(rows)
    layers = choose_layers(model, options.layers)
    weights = torch.ones(conditioning.embeds.shape[:2], device=model.device)

    def plain() -> float:
        return _seconds(lambda: model.denoise(z, 500, conditioning), model.device)

    def watched() -> float:
        with watch(model.denoiser, layers, weights):
            return plain()

    found = operations(plain)
    with torch.inference_mode():
        pairs = [(plain(), watched()) for _ in range(repeats)]
    return Evaluation(
        rows=rows,
        flops=total_flops(found),
        seconds=median(seconds for seconds, _ in pairs),
        least_seconds=least_seconds(found),
        watching=median(slow / quick for quick, slow in pairs) - 1,
    )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = perf_counter()
    work()
    _wait(device)
    return perf_counter() - start


def _on_cuda(device: torch.device) -> bool:
    return device.type == "cuda"


def _wait(device: torch.device) -> None:
    if _on_cuda(device):
        torch.cuda.synchronize(device)


def _load() -> float | None:
    """Processes that ran or waited for a processor in the last minute, less this one."""
    if not hasattr(os, "getloadavg"):  # Windows
        return None
    used = min(time.process_time() / 60, 1.0)
    return max(os.getloadavg()[0] - used, 0.0)


def _peak_memory() -> int | None:
    if sys.platform == "win32":  # has no such counter in the standard library
        return None
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024
