"""``cxrg tune``: learn vectors that lead a frozen model's attention to the anatomy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrg.cli.knobs import (
    Debug,
    Device,
    Model,
    Offline,
    Quiet,
    SetSettings,
    check_device,
    read_knobs,
)
from cxrg.cli.terminal import progress, table, write


def tune(
    config: Annotated[
        str,
        typer.Option(help="Recipe: default or a TOML file of settings that differ from it."),
    ] = "default",
    out: Annotated[
        Path, typer.Option(help="Folder for adapter.safetensors, checkpoint, log and curves.")
    ] = Path("runs/tune"),
    model: Model = "compact",
    set_knobs: SetSettings = None,
    pool: Annotated[
        Path | None,
        typer.Option(help="Folder of rendered phantoms that several runs share (OUT/pool)."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")
    ] = False,
    device: Device = "auto",
    offline: Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Tune a frozen model's attention to the anatomy that phrases name.

    Learns a short prefix and a vector for each of 20 places and 8 findings, from reports and
    anatomy masks; the model's own weights stay as they are. Data: rendered phantoms, or a CSV
    table of images and reports with a folder of masks (data.table and data.masks in the settings).
    The result is used with --adapter.

    \b
    Examples:
    cxrg tune --out runs/tune --set steps=400 --set data.phantoms=500
    cxrg tune --model DIR --config mine.toml --out runs/mine --resume
    cxrg ground image.dcm "left basal opacity" --adapter runs/tune/adapter.safetensors
    cxrg evaluate phantoms --out tuned --adapter runs/tune/adapter.safetensors
    """
    check_device(device)
    from cxrg.learn.tune.config import read_config

    settings = read_config(config, read_knobs(set_knobs or []))
    from cxrg.learn.tune.run import tune as run

    with progress(1, quiet=quiet) as reporter:
        done = run(
            settings,
            model=model,
            out=out,
            pool=pool,
            resume=resume,
            device=device,
            offline=offline,
            progress=reporter.at,
        )
    if quiet:
        return
    rows = [[name, f"{done.frozen[name]:.3f}", f"{done.tuned[name]:.3f}"] for name in done.frozen]
    table(("share of attention in the named place (held out)", "frozen", "tuned"), rows)
    write(f"{done.adapter}: step {done.step}. Research use only - not for diagnosis.")
