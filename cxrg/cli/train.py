"""``cxrg train``: train the compact model from a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrg.cli.terminal import progress, write


def train(
    config: Annotated[Path, typer.Option(help="Training configuration (TOML).")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log and model.")] = Path(
        "runs/train"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> None:
    """Train a compact latent diffusion model and write it as a diffusers folder."""
    from cxrg.train import run

    with progress(1, quiet=quiet) as reporter:
        model = run(config, out=out, resume=resume, progress=reporter.at)
    if not quiet:
        write(str(model))
