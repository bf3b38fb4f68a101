"""``cxrg export``: the results of an output folder as one file that other tools read."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cxrg.batch.stored import StoredResults
from cxrg.cli.knobs import Debug, Quiet
from cxrg.cli.terminal import complain, write
from cxrg.output.coco import write_coco
from cxrg.output.table import write_table


class To(StrEnum):
    """What to write."""

    COCO = "coco"
    CSV = "csv"


_FILES = {To.COCO: "coco.json", To.CSV: "results.csv"}


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that cxrg ground wrote.")],
    to: Annotated[To, typer.Option(help="COCO's JSON of boxes, or comma-separated values.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; DIR/coco.json or DIR/results.csv."),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write all results of a folder as one file that other tools read.

    Boxes are in pixels of the original file, brought upright. Images are named by their SHA-256.

    \b
    Examples:
    cxrg export cxrg-out --to coco
    cxrg export cxrg-out --to csv --out results.csv
    """
    path = out or folder / _FILES[to]
    with StoredResults(folder) as results:
        if to is To.COCO:
            write_coco(results, path)
        else:
            write_table(((row.stem, row.record) for row in results.rows()), path)
        if results.damaged and not quiet:
            complain(
                f"{results.damaged} results are damaged and left out; run the same cxrg ground "
                "command again, which computes them"
            )
    write(str(path))
