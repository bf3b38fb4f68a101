"""``cxrg bench``: how fast a model runs on this machine, and how fast it could."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from cxrg.cli.knobs import (
    AsJson,
    Batch,
    Debug,
    Device,
    Dtype,
    Model,
    Preset,
    Quiet,
    SetKnobs,
    Threads,
    check_device,
    read_knobs,
)
from cxrg.cli.terminal import facts, progress, table, write
from cxrg.options import DEFAULT_PRESET, read_settings, resolve

if TYPE_CHECKING:
    from cxrg.bench.measure import Bench
    from cxrg.model.model import Model as LoadedModel

PHRASE = "left basal opacity"
SIDE = 1024  # of the synthetic X-ray, in pixels


def bench(
    image: Annotated[
        Path | None, typer.Argument(help="An image; without one, a synthetic X-ray.")
    ] = None,
    phrase: Annotated[
        list[str] | None, typer.Option("--phrase", "-p", help="A phrase; repeatable.")
    ] = None,
    model: Model = "compact",
    random: Annotated[
        str | None,
        typer.Option(help="Instead of a model: random weights of a known size, such as sd15."),
    ] = None,
    preset: Preset = DEFAULT_PRESET,
    set_knobs: SetKnobs = None,
    repeat: Annotated[
        int | None,
        typer.Option(help="Images; the median counts. Default 5, with --random 1.", min=1),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch: Batch = "auto",
    threads: Threads = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Time grounding stage by stage, and the network against this machine's own peak.

    The peak is measured: every convolution, matrix product and attention of one network evaluation
    alone, with the same shapes. Times are of this machine as busy as it is.
    """
    check_device(device)
    knobs = read_knobs(set_knobs or [])
    resolve(preset, **knobs)  # checked before anything slow is imported
    # One row of a random model takes seconds on a CPU.
    rows = "1" if random and batch == "auto" else batch
    settings = read_settings({"batch": rows, "threads": threads})
    with progress(1, quiet=quiet) as reporter:
        reporter.show(f"loading model {random or model}")
        loaded = _load(model, random, device, dtype)
        from cxrg.bench.measure import bench as measure

        with _picture(image) as path:
            found = measure(
                loaded,
                path,
                phrase or [PHRASE],
                resolve(preset, loaded.card.presets, **knobs),
                settings=settings,
                repeats=repeat or (1 if random else 5),
                warm=not random,
                report=reporter.show,
            )
    if as_json:
        write(json.dumps(found.as_json()))
    else:
        _show(found)


def _load(model: str, random: str | None, device: str, dtype: str) -> LoadedModel:
    if random:
        from cxrg.bench.random_model import random_model

        return random_model(random, device=device, dtype=dtype)
    from cxrg.model.load import load

    return load(model, device=device, dtype=dtype)


@contextmanager
def _picture(image: Path | None) -> Iterator[Path]:
    """The file to read; a synthetic X-ray where none was given."""
    if image is not None:
        yield image
        return
    import cv2
    import numpy as np

    from cxrg.phantom.sample import render

    with TemporaryDirectory() as folder:
        path = Path(folder, "phantom.png")
        grey = np.rint(render(0, side=SIDE).image * 255).astype(np.uint8)
        cv2.imwrite(str(path), grey)
        yield path


def _show(found: Bench) -> None:
    one, note = found.evaluation, f" ({found.note})" if found.note else ""
    facts(
        {
            "model": found.model + note,
            "ran on": f"{found.device}, {found.dtype}, CPU threads: {found.threads}",
            "preset": f"{found.preset}, phrases: {found.phrases}, evaluations per image: "
            f"{found.evaluations}, median of {found.repeats}",
        }
    )
    lines = {
        **found.seconds,
        "all": found.total,
        "denoiser": found.denoiser,
        "denoiser and autoencoder": found.denoiser + found.seconds["encode"],
    }
    rows = [
        [stage, f"{seconds:.4f}", f"{100 * seconds / found.total:.1f} %"]
        for stage, seconds in lines.items()
    ]
    table(["stage", "s per image", "share"], rows)
    values = {
        "one evaluation": f"{one.rows} rows, {one.flops / 1e9:.1f} GFLOP, {one.seconds:.4f} s",
        "reached": f"{one.achieved / 1e9:.1f} GFLOP/s",
        "machine's peak": f"{one.peak / 1e9:.1f} GFLOP/s for the same operations alone",
        "share of the peak": f"{100 * one.achieved / one.peak:.0f} %",
        "watching attention": f"{100 * one.watching:+.1f} % of an evaluation",
    }
    for name, size in (
        ("peak memory", found.peak_memory),
        ("peak memory, device", found.peak_device_memory),
    ):
        if size is not None:
            values[name] = f"{size / 2**20:.0f} MiB"
    facts(values)
    for caveat in found.caveats:
        write(f"caveat: {caveat}")
