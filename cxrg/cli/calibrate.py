"""``cxrg calibrate``: from scores to probabilities that a finding is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrg.cli.knobs import Debug, Quiet
from cxrg.cli.terminal import table, write


def calibrate(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Folders of cxrg evaluate, of one model.", show_default=False
        ),
    ],
    card: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The model's cxrg.json, which keeps the result."),
    ],
    fitted_on: Annotated[
        str, typer.Option(metavar="TEXT", help="What the images are, for the card.")
    ] = "",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Turn a model's scores into probabilities that a finding is there.

    Fits a logistic curve with offsets for findings and their zones to runs of `cxrg evaluate`:
    findings that are there, and the same ones in images without any. Writes it into the model's
    card; from then on records have presence, and absent_below is compared with it. Never
    calibrate on the images that you report results of.

    \b
    Examples:
    cxrg evaluate phantoms --seed 7 --model DIR --out phantoms7
    cxrg evaluate normals.csv --model DIR --out normals
    cxrg calibrate phantoms7 normals --card DIR/cxrg.json --fitted-on "300 phantoms"
    """
    from cxrg.evaluate.calibrate import calibrate as fit
    from cxrg.evaluate.calibrate import counts, write_calibration

    found, samples = fit(runs, fitted_on=fitted_on or ", ".join(run.name for run in runs))
    write_calibration(found, card)
    if quiet:
        return
    rows = [
        [term, *map(str, several), f"{found.offsets[term]:+.2f}", f"{found.score(0.5, [term]):.2f}"]
        for term, several in counts(samples).items()
        if term in found.offsets
    ]
    table(("finding", "present", "absent", "offset", "score of probability .5"), rows)
    odds = f"{found.slope} logit(score) {found.intercept:+} + offsets"
    write(f"{card}: presence = 1 / (1 + exp(-({odds})))")
