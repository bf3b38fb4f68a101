"""``cxrg ground``: phrases in images, to files, a table or JSON lines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import typer

from cxrg.batch.choose import choose_engine
from cxrg.batch.ledger import Ledger
from cxrg.batch.run import Run
from cxrg.batch.sources import Entry, from_arguments, from_lines, from_manifest, tasks
from cxrg.batch.task import Job, Outcome, Task
from cxrg.batch.work import expected_setting
from cxrg.cli.inputs import (
    STDIN,
    ReportText,
    describe,
    read_phrases,
    read_report,
    split_arguments,
    statement_line,
    stdin_lines,
)
from cxrg.cli.knobs import (
    Adapter,
    AnyImage,
    Batch,
    Debug,
    Dtype,
    ForceGround,
    Mend,
    Model,
    Offline,
    OutFolder,
    Preset,
    Quiet,
    Revision,
    SetKnobs,
    Threads,
    check_adapter,
    check_device,
    read_knobs,
)
from cxrg.cli.results import ResultPrinter, error_of, summarise
from cxrg.cli.terminal import complain, progress, stopping, write
from cxrg.errors import EXIT_SOME_FAILED, PhraseError, UsageError
from cxrg.options import DEFAULT_PRESET, read_settings, resolve
from cxrg.output.formats import (
    DEFAULT_FORMATS,
    FORMATS,
    IDENTIFYING_FORMATS,
    OTHER_FORMATS,
    check_formats,
)


def ground(
    ctx: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE... PHRASE",
            help="Images, folders, patterns or -; the phrase.",
            show_default=False,
        ),
    ] = None,
    phrase: Annotated[
        list[str] | None,
        typer.Option("--phrase", "-p", metavar="TEXT", help="A phrase; repeatable."),
    ] = None,
    phrases: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Phrases, one per line; # begins a comment.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Report; its present findings are phrases."),
    ] = None,
    report_sentences: Annotated[
        bool,
        typer.Option("--report-sentences", help="Repeat its sentences that are not grounded."),
    ] = False,
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV or JSON lines: image and phrase.")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of a list's paths (the manifest's).")
    ] = None,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Allow paths outside that folder.")
    ] = False,
    preset: Preset = DEFAULT_PRESET,
    set_knobs: SetKnobs = None,
    threshold: Annotated[
        str | None, typer.Option(metavar="VALUE", help="What boxes enclose: otsu, quantile:Q, ...")
    ] = None,
    draws: Annotated[
        str | None, typer.Option(metavar="N", help="Noise draws, with spread from 3 on; --seed N.")
    ] = None,
    # Named in the line of --draws, so that the help fits two screens.
    seed: Annotated[str | None, typer.Option(metavar="N", hidden=True)] = None,
    model: Model = "compact",
    adapter: Adapter = None,
    revision: Revision = None,
    offline: Offline = False,
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="auto, cpu, cuda, mps, cuda:0 or cuda:0,cuda:1.",
            show_default=False,
        ),
    ] = "auto",
    dtype: Dtype = "auto",
    batch: Batch = "auto",
    threads: Threads = "auto",
    engine: Annotated[
        str, typer.Option(metavar="NAME", help="local, or ray for a cluster.")
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of a Ray cluster, or auto.")
    ] = None,
    out: OutFolder = Path("cxrg-out"),
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="LIST",
            help=f"{','.join(DEFAULT_FORMATS)} (default), {', '.join(OTHER_FORMATS)}, none; "
            f"with patient data: "
            f"{', '.join(IDENTIFYING_FORMATS)}.",
            show_default=False,
        ),
    ] = ",".join(DEFAULT_FORMATS),
    sheet: Annotated[
        bool, typer.Option("--sheet", help="All phrases of an image on one picture, too.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON line per image and phrase on stdout.")
    ] = False,
    any_image: AnyImage = False,
    mend: Mend = False,
    force_ground: ForceGround = False,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Results as they come, not in input order.")
    ] = False,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Hash DICOM UIDs; no patient data in DICOM files.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Compute again what is done.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find where phrases are in chest X-rays. A stopped run continues. Boxes are in pixels of the
    upright original; left and right are the patient's.

    \b
    Examples:
    cxrg ground image.dcm "left basal opacity"
    cxrg ground archive/ -p heart -p "right effusion" --json > results.jsonl
    """
    given, text = _phrases(phrase or [], phrases, report)
    listed = phrases is not None or report is not None or manifest is not None
    arguments, common = split_arguments(inputs or [], given, elsewhere=listed)
    if not (arguments or manifest):
        raise UsageError("images are missing; give files, folders, - or --manifest")
    written = _formats(formats)
    if sheet and not written:
        raise UsageError("--sheet writes a file and --format none does not; leave one out")
    devices = _devices(device)
    check_adapter(adapter)
    daily = {"threshold": threshold, "draws": draws, "seed": seed}
    knobs = read_knobs(set_knobs or [])
    knobs |= {name: value for name, value in daily.items() if value is not None}
    resolve(preset, **knobs)  # checked before anything slow is imported
    settings = read_settings(
        {
            "dtype": dtype,
            "batch": batch,
            "threads": threads,
            "any_image": any_image,
            "mend": mend,
            "force_ground": force_ground,
        }
    )
    job = Job(
        model=model,
        preset=preset,
        out=out,
        adapter=adapter,
        revision=revision,
        offline=offline,
        device=devices[0],
        dtype=settings.dtype,
        batch=settings.batch,
        threads=settings.threads,
        any_image=settings.any_image,
        mend=settings.mend,
        force_ground=settings.force_ground,
        knobs=knobs,
        formats=written,
        deidentify=deidentify,
        debug=bool(ctx.meta.get("debug")),
    )
    entries = _entries(arguments, manifest, image_root, outside=allow_outside, out=out)
    items, alone = _alone(
        tasks(entries, common), sole=len(arguments) == 1 and not (manifest or STDIN in arguments)
    )
    for warning in text.warnings:
        complain(warning)
    for statement in text.statements:
        if as_json:
            write(statement_line(statement, sentence=report_sentences))
        elif not quiet:
            complain(describe(statement, sentence=report_sentences))
    with stopping() as halt:
        where = choose_engine(job, devices, halt=halt, name=engine, address=ray_address)
        total = _total(arguments, manifest)
        with (
            Ledger(out if written else None, force=force, notice=complain) as ledger,
            progress(total, quiet=quiet) as reporter,
            closing(where),
        ):
            reporter.show(f"model {model}")
            printer = ResultPrinter(
                out, written, as_json, quiet, reporter, debug=job.debug, alone=alone
            )
            run = Run(
                items,
                engine=where,
                ledger=ledger,
                out=out,
                formats=written,
                sheets=sheet,
                report=printer,
                ordered=not unordered,
                notice=reporter.line,
                halt=halt,
                expected=lambda: expected_setting(job),
            )
            summary = run()
    printer.show()
    summarise(summary, out=out, ledger=bool(written), quiet=quiet)
    if summary.interrupted:
        raise typer.Exit(halt.exit_code)
    if summary.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _phrases(
    given: Sequence[str], file: Path | None, report: Path | None
) -> tuple[list[str], ReportText]:
    """The phrases of all images, and what else a report states."""
    found = [*given, *(read_phrases(file) if file else ())]
    if report is None:
        return found, ReportText()
    text = read_report(report)
    if not (found or text.phrases):
        raise PhraseError(
            "; ".join(text.warnings) or f"{report}: states no finding as present; give a phrase"
        )
    return [*found, *text.phrases], text


def _entries(
    arguments: Sequence[str], manifest: Path | None, root: Path | None, *, outside: bool, out: Path
) -> Iterator[Entry]:
    """Yield all named images in the order of the arguments; the manifest comes last."""
    for argument in arguments:
        if argument == STDIN:
            yield from from_lines(stdin_lines(), root=root, outside=outside)
        else:
            yield from from_arguments([argument], out=out)
    if manifest:
        yield from from_manifest(manifest, root=root, outside=outside)


def _alone(items: Iterator[Task | Outcome], *, sole: bool) -> tuple[Iterator[Task | Outcome], bool]:
    """Return the items, and whether there is one only.

    Raises:
        CxrgError: the only one cannot be grounded.
    """
    if not sole:
        return items, False
    head = list(islice(items, 2))
    if len(head) == 1 and isinstance(head[0], Outcome) and head[0].failure:
        raise error_of(head[0].failure)
    return chain(head, items), len(head) == 1


def _total(arguments: Sequence[str], manifest: Path | None) -> int | None:
    """Return the number of inputs; None where that needs a search."""
    files = all(map(os.path.isfile, arguments))
    return len(arguments) if files and not manifest else None


def _devices(text: str) -> list[str]:
    """Return the devices of a comma-separated list.

    Raises:
        UsageError: one is unknown.
    """
    devices = [part.strip() for part in text.split(",")]
    for device in devices:
        check_device(device)
    return devices


def _formats(text: str) -> tuple[str, ...]:
    """Return the formats of a comma-separated list.

    Raises:
        UsageError: a format is unknown, or a package that it needs is missing.
    """
    names = {name.strip() for name in text.split(",")} - {"", "none"}
    check_formats(sorted(names))
    return tuple(name for name in FORMATS if name in names)
