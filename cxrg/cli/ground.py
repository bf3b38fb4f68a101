"""``cxrg ground``: phrases in images, to files, a table or JSON lines."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrg.artefacts.files import stem
from cxrg.artefacts.record import record_line, write_record
from cxrg.artefacts.words import whereabouts
from cxrg.cli.debug import Debug
from cxrg.cli.inputs import find_images, split_arguments
from cxrg.cli.terminal import Reporter, complain, progress, table, write
from cxrg.errors import EXIT_SOME_FAILED, ImageError, UsageError
from cxrg.options import DEFAULT_PRESET, KNOBS, PRESETS, resolve

if TYPE_CHECKING:
    from cxrg.ground import Grounding
    from cxrg.image import CxrImage
    from cxrg.model import Model
    from cxrg.options import Options

FORMATS = ("json", "png", "npz")


def _option(*names: str, text: str, panel: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=panel)


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
        list[str],
        typer.Argument(
            metavar="IMAGE... PHRASE",
            help="Images or folders of them, then the phrase in quotes.",
            show_default=False,
        ),
    ],
    phrase: Annotated[
        list[str] | None,
        typer.Option("--phrase", "-p", help="A phrase; repeatable. All arguments are then images."),
    ] = None,
    preset: Annotated[
        str, typer.Option(help=f"A named set of knobs: {', '.join(PRESETS)}.")
    ] = DEFAULT_PRESET,
    model: Annotated[
        str, _model(text="A name from `cxrg models`, a diffusers folder, or a hub id OWNER/NAME.")
    ] = "compact",
    revision: Annotated[str | None, _model(text="Branch, tag or commit on the hub.")] = None,
    offline: Annotated[bool, _model("--offline", text="Never touch the network.")] = False,
    device: Annotated[str, _model(text="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, _model(text="auto, float32, bfloat16 or float16.")] = "auto",
    out: Annotated[Path, _output(text="Folder for the files.")] = Path("cxrg-out"),
    formats: Annotated[
        str, _output("--format", text="Files to write: some of json,png,npz, or none.")
    ] = ",".join(FORMATS),
    as_json: Annotated[
        bool, _output("--json", text="One JSON line per image and phrase on standard output.")
    ] = False,
    quiet: Annotated[
        bool, _output("--quiet", "-q", text="No progress, table or warnings.")
    ] = False,
    debug: Debug = False,
    path: Annotated[str | None, _knob("WAY", "Way to a timestep: ddim or noise.")] = None,
    steps: Annotated[str | None, _knob("N", "DDIM steps asked for (ddim).")] = None,
    window: Annotated[
        str | None, _knob("A:B", "Steps that are read, such as 120:180 or 0.4:0.6 (ddim).")
    ] = None,
    timesteps: Annotated[
        str | None, _knob("T,T...", "Timesteps that are read, such as 360,450 (noise).")
    ] = None,
    draws: Annotated[str | None, _knob("N", "Noise draws per timestep (noise).")] = None,
    seed: Annotated[str | None, _knob("N", "Seed of the noise (noise).")] = None,
    layers: Annotated[
        str | None, _knob("LAYERS", "card, paper, a map side such as 16, or module names.")
    ] = None,
    tokens: Annotated[
        str | None, _knob("TOKENS", "all, content, word:WORD, or indices such as 0,2.")
    ] = None,
    reduce: Annotated[str | None, _knob("HOW", "Tokens together: mean or sum.")] = None,
    normalise: Annotated[
        str | None, _knob("HOW", "minmax, final, or none to keep probabilities.")
    ] = None,
    sigma: Annotated[str | None, _knob("X", "Smoothing, a fraction of the side.")] = None,
    mask: Annotated[str | None, _knob("HOW", "Background of the heatmap: otsu or none.")] = None,
    threshold: Annotated[
        str | None, _knob("HOW", "Of boxes: otsu, a number, or quantile:Q.")
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

    Boxes are in the pixels of the original file. Left and right are the patient's.
    """
    asked, phrases = split_arguments(inputs, phrase or [])
    kinds = _formats(formats)
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UsageError(f"device {device!r} is not known; use auto, cpu, cuda, cuda:N or mps")
    knobs = {knob: ctx.params[knob] for knob in KNOBS if ctx.params.get(knob) is not None}
    resolve(preset, **knobs)  # complains before anything slow is imported
    images, missing = find_images(asked)
    total = len(images) + len(missing)
    if missing and total == 1:
        raise missing[0]
    rows: list[list[str]] = []
    failed = len(missing)
    with progress(len(images), quiet=quiet) as reporter:
        for error in missing:
            reporter.line(str(error))
        if images:
            from cxrg.model import load

            reporter.say(f"loading model {model}")
            loaded = load(model, device=device, dtype=dtype, revision=revision, offline=offline)
            options = resolve(preset, loaded.card, **knobs)
            job = _Job(phrases, loaded, options, kinds, out, as_json, quiet)
            rows, unread = _run(job, images, reporter, alone=total == 1)
            failed += unread
    if rows and not as_json and not quiet:
        _show(rows)
    if failed:
        complain(f"{failed} of {total} inputs failed")
        raise typer.Exit(EXIT_SOME_FAILED)


def _formats(text: str) -> tuple[str, ...]:
    """The kinds of files to write.

    Raises:
        UsageError: a kind is not known.
    """
    asked = {kind.strip() for kind in text.split(",")} - {"", "none"}
    strange = sorted(asked - set(FORMATS))
    if strange:
        raise UsageError(f"format {strange[0]!r} is not known; use {', '.join(FORMATS)} or none")
    return tuple(kind for kind in FORMATS if kind in asked)


@dataclass(frozen=True)
class _Job:
    """What is to be done with every image."""

    phrases: list[str]
    model: Model
    options: Options
    kinds: tuple[str, ...]
    out: Path
    as_json: bool
    quiet: bool


def _run(
    job: _Job, images: Sequence[Path], reporter: Reporter, *, alone: bool
) -> tuple[list[list[str]], int]:
    """Do the job on every image; rows for the table, and how many images failed.

    Raises:
        ImageError: the image cannot be read and is the only one asked for.
    """
    rows: list[list[str]] = []
    failed = 0
    for file in images:
        reporter.say(file.name)
        try:
            rows += _ground_one(job, file, reporter)
        except ImageError as error:
            if alone:
                raise
            reporter.line(str(error))
            failed += 1
        reporter.advance()
    return rows, failed


def _ground_one(job: _Job, file: Path, reporter: Reporter) -> list[list[str]]:
    """Ground all phrases in one image, write the files, and tell."""
    from cxrg.ground import ground as ground_phrases
    from cxrg.image import read_image

    image = read_image(file, side=job.model.side, fit=job.options.fit)
    results = ground_phrases(image, job.phrases, model=job.model, options=job.options)
    rows = []
    for result in results:
        files = _write_files(result, image, job)
        if job.as_json:
            write(record_line(result, path=str(file), files=files))
        rows.append(_row(result, file, files))
    if not job.quiet:
        for warning in dict.fromkeys(text for result in results for text in result.warnings):
            reporter.line(f"warning: {file}: {warning}")
    return rows


def _write_files(result: Grounding, image: CxrImage, job: _Job) -> dict[str, Path]:
    """Write the kinds of files asked for; their paths by kind."""
    from cxrg.artefacts.arrays import write_arrays
    from cxrg.artefacts.picture import write_picture

    facts = json.dumps(asdict(result.options), sort_keys=True)
    name = stem(result.image.sha256, result.phrase, result.model.identity, facts)
    files = {kind: job.out / f"{name}.{kind}" for kind in job.kinds}
    if "json" in files:
        write_record(result, files["json"])
    if "png" in files:
        write_picture(result, image, files["png"])
    if "npz" in files:
        write_arrays(result, files["npz"])
    return files


def _row(result: Grounding, file: Path, files: Mapping[str, Path]) -> list[str]:
    """The cells of one result; the last is where its picture is."""
    boxes = [f"{box.x0:.0f} {box.y0:.0f} {box.x1:.0f} {box.y1:.0f}" for box in result.boxes]
    words = [whereabouts(box, result.image.frame.source) for box in result.boxes]
    picture = files.get("png") or next(iter(files.values()), "")
    cells = [result.phrase, result.status, f"{result.score:.2f}"]
    return [file.name, *cells, "\n".join(boxes), "\n".join(words), str(picture)]


def _show(rows: Sequence[Sequence[str]]) -> None:
    """The table, then the paths, which are too long for a column and are there to be copied."""
    head = ["", "image", "phrase", "status", "score", "x0 y0 x1 y1", "where"]
    numbered = [[str(number), *row[:-1]] for number, row in enumerate(rows, 1)]
    if len({row[0] for row in rows}) == 1:
        head, numbered = [head[0], *head[2:]], [[row[0], *row[2:]] for row in numbered]
    if len(rows) == 1:
        head, numbered = head[1:], [row[1:] for row in numbered]
    table(head, numbered, firm=("status", "score", "x0 y0 x1 y1", "where"))
    for number, row in enumerate(rows, 1):
        if row[-1]:
            write(f"{number}  {row[-1]}" if len(rows) > 1 else row[-1])
