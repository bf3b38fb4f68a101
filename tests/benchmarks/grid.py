"""Quality against cost: score a model with many sets of options, as a Markdown table.

``python -m tests.benchmarks.grid phantoms ../shared/data/realval/manifest.csv --out grid``

Every line of the grid is a preset with knobs, scored like ``cxrg evaluate`` without controls. Runs
are kept under ``--out`` and resume where they stopped. Lines of your own: ``--line "fast draws=1
timesteps=100,300"``, repeated; or ``--lines refinements``, sparse attention, masks and merging.
``--group finding`` counts the findings only, ``--longest 128`` scores at that size, which is
quicker. The last column is the mIoU's distance below that of the first line, with the 95 %
interval of the paired difference; ``cxrg compare`` prints the other metrics' from the same folders.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cxrg.chest.categories import GROUPS
from cxrg.evaluate.datasets import Dataset
from cxrg.evaluate.method import LatentDiffusion
from cxrg.evaluate.phantoms import opener
from cxrg.evaluate.record import METHOD, Record
from cxrg.evaluate.report.compare import compare
from cxrg.evaluate.report.summary import part_of
from cxrg.evaluate.run import Settings, open_file, run
from cxrg.latents.route import route_of
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import Options, resolve
from tests.benchmarks.common import markdown, read_data, signed

METRICS = {"miou": "mIoU", "pointing_game": "pointing", "auc_roc": "AUC", "cnr": "CNR"}
LINES = (
    "paper",
    *(f"paper steps={steps} window=0.36:0.54" for steps in (200, 100, 50, 25, 10)),
    "paper window=120:121",
    "paper window=150:151",
    "paper window=30:60",
    "paper window=240:270",
    "fast",
    *(f"fast draws={draws}" for draws in (1, 4)),
    *(f"fast timesteps={t} draws=2" for t in (50, 150, 300, 450, 600)),
    "fast timesteps=100,300 draws=1",
    "fast timesteps=50,150,250 draws=1",
    "fast layers=paper",
)
REFINEMENTS = (
    "fast",
    "fast sparse=entmax15",
    "fast sparse=sparsemax",
    "fast normalise=minmax",
    "fast mask=none",
    "fast mask=otsu",
    "gen2ground",
    "gen2ground bbm=off",
)


def read_line(line: str, model: Model) -> Options:
    """Options of a line: a preset's name, then knobs."""
    preset, *knobs = line.split()
    return resolve(preset, model.card.presets, **dict(knob.split("=", 1) for knob in knobs))


def score(
    model: Model, options: Options, data: Dataset, settings: Settings, out: Path
) -> list[Record]:
    """The records of one line on one data set, resumed where they are there already."""
    out.mkdir(parents=True, exist_ok=True)
    method = LatentDiffusion(model=model, options=options)
    opened = opener(settings.seed, model.side) if data.format == "phantoms" else open_file
    return run(data, method, settings, out, open_image=opened)


def row(records: Sequence[Record]) -> list[str]:
    """The metrics over all samples, with intervals."""
    summaries = part_of(records).maps[METHOD]
    means = [summaries[metric].micro for metric in METRICS]
    return [f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})" for mean in means]


def below(first: Path, other: Path, group: str) -> str:
    """The paired difference in mIoU, first less other."""
    return signed(compare(first, other).parts[group]["miou"].micro)


def evaluations(model: Model, options: Options) -> int:
    """Network evaluations for one image and phrase."""
    route = route_of(options, model.schedule)
    # A free run evaluates every step without and with the phrase.
    free = 0 if options.bbm == "off" else 2 * options.steps
    return route.evaluations + len(route.timesteps) + free


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", help="phantoms, or a manifest.csv")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--line", action="append", help='"PRESET KNOB=VALUE ..."; repeatable')
    parser.add_argument("--lines", choices=("cost", "refinements"), default="cost")
    parser.add_argument("--group", choices=("all", *GROUPS), default="all")
    parser.add_argument("--longest", type=int, default=0, help="score at this size; 0: own size")
    parser.add_argument("--count", type=int, default=100, help="phantoms")
    parser.add_argument("--limit", type=int, default=0, help="samples of a data set; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("grid"))
    given = parser.parse_args(arguments)
    model = load(given.model)
    settings = Settings(controls=False, limit=given.limit, seed=given.seed, longest=given.longest)
    lines = given.line or (REFINEMENTS if given.lines == "refinements" else LINES)
    for name in given.datasets:
        data = read_data(name, given.count, given.seed)
        print(f"\n{data.name}, {model.card.name}\n", flush=True)
        head = ["options", "evaluations", *METRICS.values(), "mIoU below the first line"]
        print(markdown(head, []), flush=True)
        folders: list[Path] = []
        for line in lines:
            options = read_line(line, model)
            folder = given.out / data.name / line.replace(" ", "_").replace(":", "-")
            records = score(model, options, data, settings, folder)
            shown = [r for r in records if given.group in ("all", r.group)]
            folders.append(folder)
            cost = str(evaluations(model, options))
            gap = below(folders[0], folder, given.group) if len(folders) > 1 else ""
            print(f"| {' | '.join([line, cost, *row(shown), gap])} |", flush=True)


if __name__ == "__main__":
    main()
