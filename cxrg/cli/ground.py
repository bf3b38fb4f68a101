"""``cxrg ground``: phrases in images, to files, a table or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrg.batch.choose import choose_engine
from cxrg.batch.ledger import Ledger
from cxrg.batch.run import Run
from cxrg.batch.sources import Entry, from_arguments, from_lines, from_manifest, tasks
from cxrg.batch.task import Job, Outcome, Task
from cxrg.cli.debug import Debug
from cxrg.cli.inputs import (
    STDIN,
    read_phrases,
    read_report,
    split_arguments,
    stdin_lines,
    told,
)
from cxrg.cli.knobs import check_adapter, check_device
from cxrg.cli.results import ResultPrinter, error_of, summarise
from cxrg.cli.terminal import complain, progress, stopping, write
from cxrg.errors import EXIT_INTERRUPTED, EXIT_SOME_FAILED, PhraseError, UsageError
from cxrg.options import DEFAULT_PRESET, KNOBS, PRESETS, resolve
from cxrg.output.formats import FORMATS

if TYPE_CHECKING:
    from cxrg.reports import Statement


def _option(*names: str, text: str, panel: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=panel)


def _input(*names: str, text: str) -> Any:
    return _option(*names, text=text, panel="Input")


def _model(*names: str, text: str) -> Any:
    return _option(*names, text=text, panel="Model")


def _output(*names: str, text: str) -> Any:
    return _option(*names, text=text, panel="Output")


def _knob(metavar: str, text: str) -> Any:
    panel = "Knobs (default: the preset's, as adapted by the model's card)"
    return _option(text=text, metavar=metavar, panel=panel)


def ground(
    ctx: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE... PHRASE",
            help="Images, folders of them, patterns, or - for a list on standard input; "
            "then the phrase in quotes.",
            show_default=False,
        ),
    ] = None,
    phrase: Annotated[
        list[str] | None,
        typer.Option("--phrase", "-p", help="A phrase; repeatable. All arguments are then images."),
    ] = None,
    phrases: Annotated[
        Path | None, _input(text="File of phrases, one per line; # begins a comment.")
    ] = None,
    report: Annotated[
        Path | None, _input(text="Report as text; what it says is present is grounded.")
    ] = None,
    manifest: Annotated[
        Path | None, _input(text="CSV or JSON lines with columns image and phrase.")
    ] = None,
    image_root: Annotated[
        Path | None, _input(text="Folder that the paths of a list start from (the manifest's).")
    ] = None,
    allow_outside: Annotated[
        bool, _input("--allow-outside", text="Let paths of a list leave that folder.")
    ] = False,
    preset: Annotated[
        str, typer.Option(help=f"A named set of knobs: {', '.join(PRESETS)}.")
    ] = DEFAULT_PRESET,
    model: Annotated[
        str, _model(text="A name from `cxrg models`, a diffusers folder, or a hub id OWNER/NAME.")
    ] = "compact",
    adapter: Annotated[
        Path | None,
        _model(text="Adapter of the model: from `cxrg tune`, LoRA or textual inversion."),
    ] = None,
    revision: Annotated[str | None, _model(text="Branch, tag or commit on the hub.")] = None,
    offline: Annotated[bool, _model("--offline", text="Never touch the network.")] = False,
    device: Annotated[
        str, _model(text="auto, cpu, cuda, cuda:N or mps; several as cuda:0,cuda:1.")
    ] = "auto",
    dtype: Annotated[str, _model(text="auto, float32, bfloat16 or float16.")] = "auto",
    engine: Annotated[
        str, _model(text="local (here, a process for each of several devices) or ray (a cluster).")
    ] = "local",
    ray_address: Annotated[
        str | None, _model(text="auto or HOST:PORT of a Ray cluster; without it, this machine.")
    ] = None,
    out: Annotated[Path, _output(text="Folder for the files.")] = Path("cxrg-out"),
    formats: Annotated[
        str, _output("--format", text=f"Files to write: some of {','.join(FORMATS)}, or none.")
    ] = ",".join(FORMATS),
    as_json: Annotated[
        bool, _output("--json", text="One JSON line per image and phrase on standard output.")
    ] = False,
    unordered: Annotated[
        bool, _output("--unordered", text="Tell results as they come, not in input order.")
    ] = False,
    force: Annotated[bool, _output("--force", text="Compute again what is done already.")] = False,
    quiet: Annotated[
        bool, _output("--quiet", "-q", text="No progress, table or warnings.")
    ] = False,
    debug: Debug = False,
    path: Annotated[str | None, _knob("WAY", "Way to a timestep: ddim, noise or redraw.")] = None,
    steps: Annotated[str | None, _knob("N", "DDIM steps asked for (ddim, redraw).")] = None,
    window: Annotated[
        str | None, _knob("A:B", "Steps read, such as 120:180 or 0.4:0.6 (ddim, redraw).")
    ] = None,
    timesteps: Annotated[
        str | None, _knob("T,T...", "Timesteps that are read, such as 360,450 (noise).")
    ] = None,
    draws: Annotated[str | None, _knob("N", "Noise draws per timestep (noise).")] = None,
    seed: Annotated[str | None, _knob("N", "Seed of the noise (noise, redraw).")] = None,
    layers: Annotated[
        str | None, _knob("LAYERS", "card, paper, all, a map side such as 16, or module names.")
    ] = None,
    tokens: Annotated[
        str | None,
        _knob("TOKENS", "all, content, tagged, disease, word:WORD, or indices such as 0,2."),
    ] = None,
    evidence: Annotated[
        str | None,
        _knob("HOW", "phrase, or template: maps of finding and location, geometric mean."),
    ] = None,
    alpha: Annotated[
        str | None, _knob("X", "Weight of the finding, the location has the rest (template).")
    ] = None,
    reduce: Annotated[str | None, _knob("HOW", "Tokens together: mean or sum.")] = None,
    readout: Annotated[
        str | None, _knob("HOW", "Probabilities: softmax, or sparse: entmax15 or sparsemax.")
    ] = None,
    completion: Annotated[
        str | None,
        _knob("HOW", "Spread maps over alike positions: self-attention, iterated or off."),
    ] = None,
    normalise: Annotated[
        str | None,
        _knob("HOW", "minmax, final, competition of tokens, or none to keep probabilities."),
    ] = None,
    enlarge: Annotated[str | None, _knob("HOW", "Maps to image size: bilinear or nearest.")] = None,
    bbm: Annotated[
        str | None, _knob("HOW", "Bimodal Bias Merging: paper, elementwise or off (redraw).")
    ] = None,
    sigma: Annotated[str | None, _knob("X", "Smoothing, a fraction of the side.")] = None,
    mask: Annotated[
        str | None, _knob("HOW", "Background of the heatmap: otsu, soft, mixture or none.")
    ] = None,
    threshold: Annotated[
        str | None, _knob("HOW", "Of boxes: otsu, mixture, a number, or quantile:Q.")
    ] = None,
    min_area: Annotated[
        str | None, _knob("X", "Smallest region of a box, a fraction of the area.")
    ] = None,
    absent_below: Annotated[
        str | None, _knob("X", "Score under which a phrase is not found, or none.")
    ] = None,
    fit: Annotated[str | None, _knob("HOW", "pad (whole image) or crop (middle).")] = None,
    batch: Annotated[str | None, _knob("N", "Most latents per network evaluation.")] = None,
) -> None:
    """Find where phrases are in chest X-rays: heatmap, boxes, picture.

    Boxes are in the pixels of the original file. Left and right are the patient's. A run that was
    stopped goes on when it is started again; what is done already is told from the ledger.

    Examples:

    cxrg ground image.dcm "left basal opacity"

    cxrg ground archive/ -p heart -p "right effusion" --json > results.jsonl

    find . -name "*.dcm" | cxrg ground - "cardiomegaly"

    cxrg ground --manifest pairs.csv --image-root images/ --device cuda:0,cuda:1

    cxrg ground /shared/archive "cardiomegaly" --out /shared/out --engine ray --ray-address auto
    """
    given, statements = _phrases(phrase or [], phrases, report)
    listed = phrases is not None or report is not None or manifest is not None
    arguments, asked = split_arguments(inputs or [], given, elsewhere=listed)
    if not (arguments or manifest):
        raise UsageError("images are missing; give files, folders, - or --manifest")
    kinds = _formats(formats)
    devices = _devices(device)
    check_adapter(adapter)
    knobs = {knob: ctx.params[knob] for knob in KNOBS if ctx.params.get(knob) is not None}
    del knobs["device"]
    resolve(preset, **knobs)  # complains before anything slow is imported
    job = Job(
        model=model,
        preset=preset,
        out=out,
        adapter=adapter,
        revision=revision,
        offline=offline,
        device=devices[0],
        dtype=knobs.pop("dtype"),
        knobs=knobs,
        kinds=kinds,
        debug=bool(ctx.meta.get("debug")),
    )
    entries = _entries(arguments, manifest, image_root, outside=allow_outside, out=out)
    items, alone = _alone(
        tasks(entries, asked), sole=len(arguments) == 1 and not (manifest or STDIN in arguments)
    )
    for statement in statements:
        if as_json:
            write(told(statement))
        elif not quiet:
            complain(f"report: {statement.sentence!r}: {statement.certainty}, not grounded")
    with stopping() as halt:
        where = choose_engine(job, devices, halt=halt, name=engine, address=ray_address)
        total = _total(arguments, manifest)
        with (
            Ledger(out if kinds else None, force=force) as ledger,
            progress(total, quiet=quiet) as reporter,
            closing(where),
        ):
            reporter.say(f"model {model}")
            teller = ResultPrinter(
                out, kinds, as_json, quiet, reporter, debug=job.debug, alone=alone
            )
            run = Run(
                items,
                engine=where,
                ledger=ledger,
                out=out,
                kinds=kinds,
                tell=teller,
                ordered=not unordered,
                halt=halt,
            )
            tally = run()
    teller.show()
    summarise(tally, out=out, ledger=bool(kinds), quiet=quiet)
    if tally.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if tally.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _phrases(
    given: Sequence[str], file: Path | None, report: Path | None
) -> tuple[list[str], list[Statement]]:
    """The phrases of all images, and what a report says that cannot be grounded."""
    found = [*given, *(read_phrases(file) if file else ())]
    if report is None:
        return found, []
    groundable, others = read_report(report)
    if not (found or groundable):
        raise PhraseError(f"{report}: says of nothing that it is present; give a phrase")
    return [*found, *groundable], others


def _entries(
    arguments: Sequence[str], manifest: Path | None, root: Path | None, *, outside: bool, out: Path
) -> Iterator[Entry]:
    """All that is named, in the order of the arguments; the manifest comes last."""
    for argument in arguments:
        if argument == STDIN:
            yield from from_lines(stdin_lines(), root=root, outside=outside)
        else:
            yield from from_arguments([argument], out=out)
    if manifest:
        yield from from_manifest(manifest, root=root, outside=outside)


def _alone(items: Iterator[Task | Outcome], *, sole: bool) -> tuple[Iterator[Task | Outcome], bool]:
    """The items, and whether there is one only; it is refused here if nothing can come of it.

    Raises:
        CxrgError: the only one is no task.
    """
    if not sole:
        return items, False
    head = list(islice(items, 2))
    if len(head) == 1 and isinstance(head[0], Outcome) and head[0].failure:
        raise error_of(head[0].failure)
    return chain(head, items), len(head) == 1


def _total(arguments: Sequence[str], manifest: Path | None) -> int | None:
    """How many inputs there are, where that needs no search."""
    files = all(Path(argument).is_file() for argument in arguments)
    return len(arguments) if files and not manifest else None


def _devices(text: str) -> list[str]:
    """The devices asked for.

    Raises:
        UsageError: one is not known.
    """
    devices = [part.strip() for part in text.split(",")]
    for device in devices:
        check_device(device)
    return devices


def _formats(text: str) -> tuple[str, ...]:
    """The formats to write.

    Raises:
        UsageError: a format is unknown.
    """
    names = {name.strip() for name in text.split(",")} - {"", "none"}
    unknown = sorted(names - set(FORMATS))
    if unknown:
        raise UsageError(f"format {unknown[0]!r} is unknown; use {', '.join(FORMATS)} or none")
    return tuple(name for name in FORMATS if name in names)
