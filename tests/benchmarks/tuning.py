"""What prompt tuning does, and which of its parts: a Markdown table of ablations.

``python -m tests.benchmarks.tuning phantoms ../shared/data/realval/manifest.csv --model DIR``

Each line is a tuning run with settings of its own (``cxrg tune --set``), scored on the findings
whose phrase names a place, beside the frozen model: the held-out share of attention in the named
place for the words of place and of finding, then for each data set metrics and, below them, the
paired difference tuned less frozen with its 95 % interval over patients. Lines of your own:
``--line "prefix=4 loss.nce=0"``, repeated. Runs stay under ``--out`` and go on where they stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cxrg.chest.categories import group_of
from cxrg.chest.vocabulary import matcher
from cxrg.cli.knobs import read_knobs
from cxrg.evaluate.datasets import Dataset
from cxrg.evaluate.record import METHOD
from cxrg.evaluate.report.compare import compare
from cxrg.evaluate.report.summary import part_of
from cxrg.evaluate.run import Settings
from cxrg.learn.tune.config import read_config
from cxrg.learn.tune.run import Tuned, tune
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import resolve
from tests.benchmarks.common import markdown, read_data, signed
from tests.benchmarks.grid import METRICS, score

FROZEN = "frozen"
LINES = (
    "",
    "prefix=0",
    *(f"prefix={count}" for count in (1, 4, 16)),
    "residuals=false",
    *(f"loss.{name}=0" for name in ("inside", "outside", "dice", "nce", "diffusion", "residual")),
    "data.anatomy=geometric",
    "prefix=0 loss.residual=0",
)


def placed(data: Dataset) -> Dataset:
    """The findings of a data set whose phrase names one of the twenty places."""
    names = matcher("locations")
    return replace(
        data,
        samples=tuple(
            sample
            for sample in data.samples
            if sample.present and group_of(sample.category) == "finding" and names(sample.phrase)
        ),
    )


def folder_of(line: str) -> str:
    """The name of a line's folder."""
    return line.replace(" ", "_") or "default"


def tuned(line: str, model: str, shared: Sequence[str], out: Path) -> Tuned:
    """The run of one line, made or gone on with."""
    config = read_config(None, read_knobs((*shared, *line.split())))
    return tune(config, model=model, out=out / folder_of(line), pool=out / "pool", resume=True)


def cells(
    folder: Path, frozen: Path, data: Dataset, model: Model, settings: Settings
) -> Iterator[str]:
    """Each metric's mean, and its difference from the frozen model's."""
    records = score(model, resolve("fast", model.card.presets), data, settings, folder)
    means = part_of(records).maps[METHOD]
    gaps = None if folder == frozen else compare(folder, frozen).parts["all"]
    for metric in METRICS:
        gap = "" if gaps is None else f"<br>{signed(gaps[metric].micro)}"
        yield f"{means[metric].micro.value:.3f}{gap}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", help="phantoms, or a manifest.csv")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--line", action="append", help='"SETTING=VALUE ..."; repeatable')
    parser.add_argument("--set", action="append", default=[], help="SETTING=VALUE of every line")
    parser.add_argument("--count", type=int, default=80, help="phantoms")
    parser.add_argument("--limit", type=int, default=0, help="samples of a data set; 0: all")
    parser.add_argument("--longest", type=int, default=256, help="score at this size; 0: own size")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("tuning"))
    given = parser.parse_args(arguments)
    settings = Settings(controls=False, limit=given.limit, seed=given.seed, longest=given.longest)
    sets = [placed(read_data(name, given.count, given.seed)) for name in given.datasets]
    head = ["tuned with", "place words inside", "finding words inside"]
    head += [f"{data.name} {metric}" for data in sets for metric in METRICS.values()]
    print(markdown(head, []), flush=True)
    for line in (FROZEN, *(LINES if given.line is None else given.line)):
        shares = ["", ""]
        adapter = None
        if line != FROZEN:
            run = tuned(line, given.model, given.set, given.out / "runs")
            shares = [
                f"{run.frozen[name]:.3f} to {run.tuned[name]:.3f}"
                for name in ("location", "finding")
            ]
            adapter = run.adapter
        row = [line or "all as in default.toml", *shares]
        model = load(given.model, adapter=adapter)
        for data in sets:
            folder = given.out / data.name
            row += cells(folder / folder_of(line), folder / FROZEN, data, model, settings)
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
