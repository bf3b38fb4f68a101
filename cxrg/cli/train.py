"""``cxrg train``: train the compact model from a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrg.cli.knobs import read_knobs
from cxrg.cli.terminal import progress, write


def train(
    config: Annotated[
        str,
        typer.Option(
            help="Recipe: compact (that of the shipped model), scenes, view, or a TOML file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log and model.")] = Path(
        "runs/train"
    ),
    set_knobs: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SETTING=VALUE",
            help="One setting, such as diffusion.steps=2000; may be repeated.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> None:
    """Train a compact latent diffusion model and write it as a diffusers folder.

    \b
    Examples:
    cxrg train --config compact --out runs/compact
    cxrg train --config compact --out runs/compact --resume
    cxrg train --config compact --set diffusion.attention_weight=0
    """
    from cxrg.learn.recipe import read_recipe

    recipe = read_recipe(config, read_knobs(set_knobs or []))
    with progress(1, quiet=quiet) as reporter:
        result = recipe(out=out, resume=resume, progress=reporter.at)
    if not quiet:
        write(str(result))
