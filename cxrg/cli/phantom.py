"""``cxrg phantom``: a folder of synthetic chest X-rays with exact truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrg.cli.terminal import progress, write


def phantom(
    out: Annotated[
        Path, typer.Option(help="New folder for images, masks and manifest.csv.", metavar="DIR")
    ],
    count: Annotated[int, typer.Option(help="How many X-rays.", min=1)] = 100,
    seed: Annotated[
        int, typer.Option(help="Which ones; the first N are the same for any count.", min=0)
    ] = 0,
    side: Annotated[int, typer.Option(help="Height and width in pixels.", min=64, max=2048)] = 512,
    dicom: Annotated[bool, typer.Option("--dicom", help="DICOM DX objects, not PNG.")] = False,
    contact_sheet: Annotated[
        bool, typer.Option("--contact-sheet", help="Also a picture of the first 24, outlined.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
) -> None:
    """Render synthetic chest X-rays with findings, masks, phrases and boxes."""
    from cxrg.phantom.dataset import write_dataset

    with progress(count, quiet=quiet) as reporter:
        reporter.show("rendering")
        written = write_dataset(
            out,
            count=count,
            seed=seed,
            side=side,
            dicom=dicom,
            sheet=contact_sheet,
            advance=reporter.advance,
        )
    if not quiet:
        write(f"{written.manifest}: {written.images} images, {written.rows} phrases")
