"""``cxrg evaluate`` and ``cxrg compare``: honest numbers, with controls beside them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrg.cli.knobs import (
    Adapter,
    Batch,
    Debug,
    Device,
    Dtype,
    Model,
    Offline,
    Preset,
    Quiet,
    Revision,
    SetKnobs,
    Threads,
    check_adapter,
    check_device,
    read_knobs,
)
from cxrg.cli.measures import GROUNDING, MEASURES, MeasureRequest, check_measure, run_measure, show
from cxrg.cli.terminal import Reporter, complain, progress, table, write
from cxrg.errors import EXIT_SOME_FAILED, UsageError
from cxrg.options import DEFAULT_PRESET, read_settings, resolve

if TYPE_CHECKING:
    from cxrg.evaluate.datasets import Dataset
    from cxrg.evaluate.method import LatentDiffusion
    from cxrg.evaluate.metrics.bootstrap import Mean
    from cxrg.evaluate.report.summary import Part
    from cxrg.evaluate.run import Open, Settings

PHANTOMS = "phantoms"
FORMATS = "auto, manifest, ms-cxr, vindr-cxr, nih, rsna, chexlocalize, padchest-gr, chestx-det"
_CASES = 12


def evaluate(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET", help="A label file, or the word phantoms.", show_default=False
        ),
    ],
    format: Annotated[str, typer.Option(metavar="NAME", help=f"{FORMATS}.", show_default=False)] = (
        "auto"
    ),
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The images (else the label file's folder).")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Of the run; a second time continues it.")
    ] = Path("cxrg-evaluation"),
    measure: Annotated[
        str, typer.Option(metavar="NAME", help=f"{', '.join(MEASURES)}.", show_default=False)
    ] = GROUNDING,
    masks: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Masks: IMAGE/NAME.png, or IMAGE.png and names.json."),
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Images that show no chest, for gate."),
    ] = None,
    template: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Phrase made of {location}, {finding}, {side}, {zone}.",
            show_default=False,
        ),
    ] = "{location} {finding}",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first problem in the data.")
    ] = False,
    count: Annotated[int | None, typer.Option(metavar="N", help="How many phantoms (300).")] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", help="Most samples, drawn with --seed; 0: all.")
    ] = 0,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Of all draws and intervals.", show_default=False)
    ] = 0,
    no_controls: Annotated[bool, typer.Option("--no-controls", help="Score no controls.")] = False,
    outside: Annotated[
        str,
        typer.Option(
            metavar="HOW", help="Unseen pixels: exclude (default) or zero.", show_default=False
        ),
    ] = "exclude",
    longest: Annotated[
        int,
        typer.Option(
            metavar="N", help="Score at most this many pixels across; 0: all.", show_default=False
        ),
    ] = 0,
    preset: Preset = DEFAULT_PRESET,
    set_knobs: SetKnobs = None,
    threshold: Annotated[
        str | None, typer.Option(metavar="VALUE", help="What boxes enclose: otsu, quantile:Q, ...")
    ] = None,
    model: Model = "compact",
    adapter: Adapter = None,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch: Batch = "auto",
    threads: Threads = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score a model on a data set with boxes or masks, beside controls that know no phrase.

    Measures: grounding scores heatmaps and boxes; leakage finds attention outside the named
    anatomy; classification tells findings by attention in their anatomy; anatomy scores outlines;
    gate counts images that would be refused as no upright chest X-ray, as they are and changed.
    Grounding writes report.json, report.csv, report.html and samples.jsonl; another measure
    writes MEASURE.json, MEASURE.jsonl and MEASURE.html.

    \b
    Examples:
    cxrg evaluate phantoms --count 100
    cxrg evaluate labels.csv --measure leakage
    cxrg evaluate labels.csv --measure classification --masks masks/
    cxrg evaluate labels.csv --measure gate --other photographs/
    """
    check_device(device)
    check_adapter(adapter)
    check_measure(measure, masks, other)
    knobs = read_knobs(set_knobs or [])
    if threshold is not None:
        knobs["threshold"] = threshold
    resolve(preset, **knobs)  # checked before anything slow is imported
    # Every sample counts, so none is refused for how it looks.
    run_settings = read_settings(
        {"batch": batch, "threads": threads, "any_image": True, "force_ground": True}
    )
    if count is not None and dataset != PHANTOMS:
        raise UsageError("--count is for phantoms; use --limit for a data set")
    from cxrg.evaluate.run import Settings, choose

    settings = Settings(
        outside=outside,  # type: ignore[arg-type]  # checked by Settings
        longest=longest,
        controls=not no_controls,
        limit=limit,
        seed=seed,
    )
    data = _read(dataset, format, images, strict, template, count, seed)
    loading = {"device": device, "dtype": dtype, "revision": revision, "offline": offline}
    if measure != GROUNDING:
        request = MeasureRequest(
            measure=measure,
            model=model,
            adapter=adapter,
            masks=masks,
            other=other,
            preset=preset,
            knobs=knobs,
            settings=run_settings,
            loading=loading,
        )
        with progress(len(choose(data.samples, settings)), quiet=quiet) as reporter:
            measured = run_measure(request, data, settings, out, reporter)
        if not quiet:
            show(measured, out)
        _print_problems(data)
        return
    with progress(len(choose(data.samples, settings)), quiet=quiet) as reporter:
        reporter.show(f"loading model {model}")
        from cxrg.evaluate.method import LatentDiffusion
        from cxrg.model.load import load

        loaded = load(
            model,
            device=device,
            dtype=dtype,
            revision=revision,
            offline=offline,
            adapter=adapter,
        )
        options = resolve(preset, loaded.card.presets, **knobs)
        method = LatentDiffusion(model=loaded, options=options, settings=run_settings)
        parts = _run(data, method, settings, out, reporter)
    if not quiet:
        _show(parts)
        write(f"{out / 'report.html'}")
    _print_problems(data)


def _read(
    dataset: str,
    format: str,
    images: Path | None,
    strict: bool,
    template: str,
    count: int | None,
    seed: int,
) -> Dataset:
    if dataset == PHANTOMS:
        from cxrg.evaluate.phantoms import phantoms

        return phantoms(300 if count is None else count, seed)
    from cxrg.evaluate.datasets import check_usable, read_dataset

    path = Path(dataset)
    data = read_dataset(path, format=format, images=images, strict=strict, template=template)
    check_usable(data, path, images)
    return data


def _run(
    data: Dataset, method: LatentDiffusion, settings: Settings, out: Path, reporter: Reporter
) -> dict[str, Part]:
    """Score the samples and write the three reports."""
    from cxrg.evaluate.phantoms import opener
    from cxrg.evaluate.report.write import finish
    from cxrg.evaluate.run import open_file, run

    opened: Open = open_file
    if data.format == PHANTOMS:
        opened = opener(settings.seed, method.model.side)

    def advance(name: str, done: int) -> None:
        reporter.show(name)
        for _ in range(done):
            reporter.advance()

    records = run(data, method, settings, out, open_image=opened, advance=advance)
    reporter.show("writing the report")
    return finish(records, data, method, settings, out, open_image=opened, cases=_CASES)


def _show(parts: dict[str, Part]) -> None:
    """Print maps by metric for every part, the method and statuses by category, and the verdict."""
    from cxrg.evaluate.record import METHOD
    from cxrg.evaluate.report.glossary import glossary
    from cxrg.evaluate.report.presence import presence_rows
    from cxrg.evaluate.report.summary import HEADLINE, verdict
    from cxrg.evaluate.report.verdict import sentence

    for name, part in parts.items():
        shown = [metric for metric in (*HEADLINE, "iou_fg_bg", "dice", "box_iou") if part.maps]
        if shown:
            rows = [
                [map_name, *(_one(by_metric[m].micro) for m in shown)]
                for map_name, by_metric in part.maps.items()
            ]
            table((f"{name}: micro mean, n={part.positives}", *shown), rows)
    ours = parts["all"].maps.get(METHOD)
    if ours:
        rows = [
            [category, str(mean.n), *(_pair(ours[m].categories[category]) for m in HEADLINE)]
            for category, mean in ours["miou"].categories.items()
        ]
        macro = [f"{ours[m].macro.value:.3f} ± {ours[m].macro_sd:.3f}" for m in HEADLINE]
        rows.append(["macro mean ± sd over categories", str(ours["miou"].macro.n), *macro])
        table(("category", "n", *HEADLINE), rows)
    sets = {k: m for k, m in parts["all"].sets.items() if math.isfinite(m.value)}
    table(
        ("boxes, presence, laterality", "value", "n"),
        [[k, _pair(m), str(m.n)] for k, m in sets.items()],
    )
    table(
        ("category", *(term.title for term in glossary("presence").values())),
        presence_rows(parts["all"].presence),
    )
    for name, part in parts.items():
        for metric, beats in verdict(part).items() if part.beaten else ():
            lost = [control for control, better in beats.items() if not better]
            if lost:
                write(f"NOT BETTER ({name}, {metric}): does not beat {', '.join(lost)}")
    for name, part in parts.items():
        if part.maps:
            write(f"{name}: {sentence(part)}.")


def _one(mean: Mean) -> str:
    return f"{mean.value:.3f}" if math.isfinite(mean.value) else "-"


def _pair(mean: Mean) -> str:
    if not math.isfinite(mean.value):
        return "-"
    between = f" [{mean.low:.2f}, {mean.high:.2f}]" if math.isfinite(mean.low) else ""
    return f"{mean.value:.3f}{between}"


def _print_problems(data: Dataset) -> None:
    """Print the problems, and exit with the code for samples that were left out."""
    if not data.problems.found:
        return
    for kind, number in data.problems.counts().items():
        first = next(problem for problem in data.problems.found if problem.kind == kind)
        complain(f"{number} x {kind}, such as {first.where}: {first.detail}")
    raise typer.Exit(EXIT_SOME_FAILED)


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The --out folder of a run.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The --out folder of another.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    debug: Debug = False,
) -> None:
    """Compare two runs on the same samples: paired differences A - B with 95 % intervals."""
    from cxrg.evaluate.report import compare as comparing

    result = comparing.compare(a, b, seed=seed)
    for text in result.warnings:
        complain(text)
    if as_json:
        write(comparing.as_json(result))
        return
    if result.methods:
        rows: list[list[Any]] = [[name, *pair] for name, pair in result.methods.items()]
        table(("what differs", f"A: {a}", f"B: {b}"), rows)
    else:
        write(f"A ({a}) and B ({b}): the same model and options")
    for name, by_metric in result.parts.items():
        rows = [
            [metric, _pair(summary.micro), _pair(summary.macro), str(summary.micro.n)]
            for metric, summary in by_metric.items()
            if math.isfinite(summary.micro.value)
        ]
        table((f"{name}: A - B", "micro", "macro", "n"), rows)
    write(f"{result.shared} phrases in both, {result.only_a} only in A, {result.only_b} only in B")
