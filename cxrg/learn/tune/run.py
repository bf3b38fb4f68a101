"""One tuning run, from its configuration to an adapter file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxrg.about import NOTICE, __version__
from cxrg.anatomy import LOCATIONS
from cxrg.anatomy.folder import mask_folder
from cxrg.anatomy.segmenter import shipped
from cxrg.attention.layers import choose_layers
from cxrg.chest.vocabulary import FINDINGS
from cxrg.errors import InputError, UsageError
from cxrg.files import atomic_write
from cxrg.learn.log import Log, Progress
from cxrg.learn.tune.config import TuneConfig
from cxrg.learn.tune.curves import write_curves
from cxrg.learn.tune.objective import StudySampler
from cxrg.learn.tune.phantoms import render_studies
from cxrg.learn.tune.recipe import Energies, Selection, Tuning, as_vectors, new_vectors
from cxrg.learn.tune.study import Study
from cxrg.learn.tune.table import read_studies
from cxrg.model.adapters.attach import NO_PADDING
from cxrg.model.adapters.prompt_vectors import write_vectors
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import resolve

ADAPTER, RUN, CHECKPOINT, LOG, CURVES = (
    "adapter.safetensors",
    "run.json",
    "checkpoint.pt",
    "log.jsonl",
    "curves.html",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What a run left: the adapter's file, and held-out energies before and after."""

    adapter: Path
    frozen: Energies
    tuned: Energies
    step: int


def tune(
    config: TuneConfig,
    *,
    model: str,
    out: Path,
    pool: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    offline: bool = False,
    progress: Progress = lambda stage, step, steps: None,
) -> Tuned:
    """Learn vectors for a frozen model.

    Args:
        config: what is learnt, how, from what.
        model: as `cxrg.load` takes it.
        out: the run's folder: adapter, checkpoint, log, curves.
        pool: folder of rendered phantoms that several runs share; None: one in ``out``.
        resume: continue the run in the folder; without it the folder must be new or empty.
        progress: called with stage, step and steps.

    Raises:
        UsageError: the folder holds files, or another run; a setting does not fit the model.
        InputError: the data cannot be read.
        ModelError: the model is not available.
    """
    if out.exists() and any(out.iterdir()) and not resume:
        raise UsageError(f"{out}: holds files already; give --resume or another --out")
    # The vectors move by less than half precision can represent.
    base = load(model, device=device, dtype="float32", offline=offline)
    if not base.family.attends_to_padding:
        raise UsageError(f"{base.card.name}: {NO_PADDING}; tune a model with a U-Net")
    layers, times = _where(config, base)
    _claim(out, config, base)
    with (out / LOG).open("a", encoding="utf-8") as file:
        log = Log(file=file, progress=progress)
        learn, held_out = _samplers(config, base, pool or out / "pool", progress)
        tuning = Tuning(
            model=base,
            config=config,
            layers=layers,
            times=times,
            learn=learn,
            held_out=held_out,
        )

        def checked(step: int, energies: Energies) -> None:
            file.write(json.dumps({"stage": "held out", "step": step, **energies}) + "\n")
            file.flush()  # a run that is killed keeps the line of every checkpoint

        vectors = new_vectors(base, config)
        selection = tuning.run(vectors, log, checkpoint=out / CHECKPOINT, checked=checked)
    kept = as_vectors(selection.best, vectors)
    write_vectors(out / ADAPTER, kept, _card(tuning, selection))
    write_curves(out / LOG, selection.energies, out / CURVES, config)
    return Tuned(
        adapter=out / ADAPTER,
        frozen=selection.energies[0],
        tuned=selection.energies[selection.best_step],
        step=selection.best_step,
    )


def _where(config: TuneConfig, base: Model) -> tuple[tuple[str, ...], tuple[int, int]]:
    """Layers and timesteps to watch: those of preset ``fast`` unless the settings name others.

    Raises:
        UsageError: the model has no such layer or timestep.
    """
    reading = resolve("fast", base.card.presets)
    first, last = config.timesteps or (min(reading.timesteps), max(reading.timesteps))
    most = len(base.schedule) - 1
    if first < 0 or last > most:
        raise UsageError(f"timesteps {first} to {last} are out of range; use 0 to {most}")
    return choose_layers(base, config.layers or reading.layers), (first, last)


def _claim(out: Path, config: TuneConfig, base: Model) -> None:
    """Write the run's settings, or check that the folder holds the same.

    Raises:
        UsageError: the folder holds a run of other settings.
    """
    run = json.loads(json.dumps({"model": base.identity, "config": asdict(config)}))
    path = out / RUN
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != run:
            raise UsageError(f"{out}: holds a run of other settings; choose another --out")
        return
    with atomic_write(path) as file:
        file.write((json.dumps(run, indent=2) + "\n").encode())


def _samplers(
    config: TuneConfig, base: Model, pool: Path, progress: Progress
) -> tuple[StudySampler, StudySampler]:
    """Samplers of learning and of held-out studies, with no patient in both.

    Raises:
        InputError: one of the two would be empty.
    """
    studies = _studies(config, base, pool, progress)
    patients = sorted({study.patient for study in studies})
    order = np.random.default_rng([config.seed, 0]).permutation(len(patients))
    count = round(config.data.held_out * len(patients))
    kept = {patients[index] for index in order[:count]}
    learn = [study for study in studies if study.patient not in kept]
    held_out = [study for study in studies if study.patient in kept]
    if not learn or not held_out:
        raise InputError(
            f"{len(patients)} patients with a finding at a place are too few to hold out "
            f"{config.data.held_out:g} of them; give more, or set data.held_out"
        )
    return (
        _sampler(config, base, learn, lambda i, n: progress("encoding", i, n)),
        _sampler(config, base, held_out, lambda i, n: progress("encoding, held out", i, n)),
    )


def _studies(config: TuneConfig, base: Model, pool: Path, progress: Progress) -> list[Study]:
    studies: list[Study] = []
    grid = base.side // base.factor
    if config.data.phantoms:
        studies += render_studies(
            config.data.phantoms,
            seed=config.seed,
            side=base.side,
            grid=grid,
            anatomy=config.data.anatomy,
            folder=pool,
            report=lambda done, of: progress("rendering phantoms", done, of),
        )
    if config.data.table:
        studies += read_studies(
            Path(config.data.table),
            mask_folder(Path(config.data.masks)) if config.data.masks else shipped(),
            side=base.side,
            grid=grid,
            report=lambda done, of: progress("reading images", done, of),
        )
    return [study for study in studies if study.triples]


@torch.no_grad()
def _sampler(
    config: TuneConfig, base: Model, studies: list[Study], report: Callable[[int, int], None]
) -> StudySampler:
    latents = []
    for first in range(0, len(studies), config.batch):
        some = studies[first : first + config.batch]
        pixels = np.stack([study.pixels for study in some]).astype(np.float32) / np.float32(255)
        latents.append(base.encode(pixels).cpu())
        report(first + len(some), len(studies))
    return StudySampler(studies=studies, latents=torch.cat(latents), template=config.data.template)


def _card(tuning: Tuning, selection: Selection) -> dict[str, Any]:
    """The card in the adapter's file; without paths, which may hold patients' names."""
    config, base = tuning.config, tuning.model
    phantoms = f"{config.data.phantoms} phantoms" if config.data.phantoms else ""
    real = len(tuning.learn.studies) + len(tuning.held_out.studies)
    table = "images with reports and masks" if config.data.table else ""
    settings = asdict(config)
    settings["data"] = {k: v for k, v in settings["data"].items() if k not in ("table", "masks")}
    return {
        "base": {
            "name": base.card.name,
            "identity": base.identity,
            "width": int(selection.best["residuals"].shape[1]),
        },
        "vocabulary": {"locations": LOCATIONS, "findings": FINDINGS},
        "trained_on": " and ".join(filter(None, (phantoms, table))) + f"; {real} studies used",
        "layers": list(tuning.layers),
        "timesteps": list(tuning.times),
        "step": selection.best_step,
        "gain": {
            "measure": "share of attention in the place that the phrase names, held-out studies",
            "frozen": selection.energies[0],
            "tuned": selection.energies[selection.best_step],
        },
        "config": settings,
        "cxrg": __version__,
        "notice": NOTICE,
    }
