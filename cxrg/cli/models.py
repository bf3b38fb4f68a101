"""``cxrg models``: which checkpoints there are, what a folder holds, and imports."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrg.cli.terminal import complain, facts, table, write
from cxrg.errors import ModelError
from cxrg.model.card import Card, known_cards, read_card
from cxrg.options import PRESETS, as_text, resolve

if TYPE_CHECKING:
    from cxrg.plan import FolderReport

app = typer.Typer(invoke_without_command=True)
imports = typer.Typer(no_args_is_help=True)
app.add_typer(
    imports, name="import", help="Write another package's weights as a folder that cxrg reads."
)

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]

_WEIGHTS = {
    "shipped": "in this package",
    "download": "fetched on first use",
    "request": "from the authors, on request",
    "import": "another format: convert first",
    "trained": "trained with cxrg train",
}
# Shown as "unknown" if a card lacks it.
_EXPECTED = ("licence", "access", "hub_id", "revision", "trained_on", "text_encoder")


@app.callback()
def list_models(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List shipped and known checkpoints with their licence; see also `show` and `check`."""
    if ctx.invoked_subcommand:
        return
    cards = known_cards().values()
    if as_json:
        write(json.dumps([asdict(card) for card in cards]))
        return
    rows = [
        [card.name, _WEIGHTS[card.weights], card.licence or "unknown", card.title] for card in cards
    ]
    table(["name", "weights", "licence", "what it is"], rows)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME|DIR", help="A name from `cxrg models`, or a folder.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show every fact about one checkpoint, and the knobs that it sets in presets.

    For example `cxrg models show roentgen`, or `cxrg models show ./cxr --json`.
    """
    card = _card(name)
    if as_json:
        write(json.dumps(asdict(card)))
    else:
        facts(_card_facts(card))


def _card(name: str) -> Card:
    cards = known_cards()
    if name in cards:
        return cards[name]
    if Path(name).is_dir():
        card = read_card(Path(name))
        if card is None:
            raise ModelError(f"{name}: no cxrg.json; `cxrg models check {name}` reads the rest")
        return card
    raise ModelError(f"model {name!r} is not known; known are {', '.join(cards)}, or give a folder")


def _card_facts(card: Card) -> dict[str, str]:
    """Return the facts of a card as text; those in `_EXPECTED` may be unknown."""
    values = {}
    for key, value in asdict(card).items():
        if value not in ("", None, (), {}):
            values[key] = _text(value)
        elif key in _EXPECTED and not card.shipped:
            values[key] = "unknown"
    values["weights"] = _WEIGHTS[card.weights]
    if card.presence:
        values["presence"] = f"calibrated on {card.presence['fitted_on']}"
    if card.reference:
        table = card.reference
        findings = ", ".join(table["scores"])
        values["reference"] = (
            f"scores in {table['images']} healthy chests ({table['of']}): {findings}"
        )
    values["presets"] = "\n".join(f"{name}: {_preset(name, card)}" for name in PRESETS)
    return values


def _preset(name: str, card: Card) -> str:
    """The knobs that a model's card sets in a preset, as ``--set`` takes them."""
    options = resolve(name, card.presets)
    changed = card.presets.get(name, ())
    knobs = "; ".join(f"{knob}={as_text(knob, getattr(options, knob))}" for knob in changed)
    return knobs or "the defaults of `cxrg options`"


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "\n".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A model's folder.")],
    as_json: AsJson = False,
) -> None:
    """Report what a folder is, whether it is complete, and what cxrg will do with it.

    Nothing is loaded: configurations and the weight files' headers are compared. The exit code is
    0 where `cxrg ground --model DIR` can use the folder, and 4 where it cannot.
    """
    from cxrg.plan import check_folder

    report = check_folder(folder)
    if as_json:
        write(json.dumps(_as_facts(report)))
    else:
        _show_report(report)
    if not report.usable:
        for problem in report.problems:
            complain(problem)
        raise typer.Exit(ModelError.exit_code)


def _as_facts(report: FolderReport) -> dict[str, Any]:
    return asdict(report) | {"folder": str(report.folder), "usable": report.usable}


def _show_report(report: FolderReport) -> None:
    rows = [
        [
            part.name,
            part.kind,
            "" if part.parameters is None else _amount(part.parameters),
            f"{_amount(part.size)}B" if part.size else "",
            part.precision,
            "\n".join(part.notes),
        ]
        for part in report.parts
    ]
    if rows:
        table(["part", "class", "parameters", "size", "precision", "note"], rows)
    values = {"family": report.family, "usable": "yes" if report.usable else "no"}
    if report.card:
        values["card"] = f"{report.card.name}: {report.card.title or 'no title'}"
        values["licence"] = report.card.licence or "unknown"
    plan = report.plan
    if plan:
        read = [f"{layer.name}: {layer.side} x {layer.side}" for layer in plan.layers]
        values |= {
            "image": f"{plan.side} x {plan.side} pixels in {plan.image_range}",
            "latent": " x ".join(map(str, plan.latent)),
            "prompt": f"{plan.text_length} tokens",
            "prediction": plan.prediction_type,
            "precision": f"{plan.dtype} on this machine",
            f"layers ({len(read)} of {plan.all_layers})": _text(read),
            **{f"preset {name}": text for name, text in plan.presets.items()},
        }
    facts(values)


def _amount(number: float) -> str:
    """Three digits and a decimal prefix, such as `866 M`."""
    for prefix in ("", "k", "M"):
        if number < 999.5:
            return f"{number:.3g} {prefix}"
        number /= 1000
    return f"{number:.3g} G"


@imports.command()
def monai(
    autoencoder: Annotated[
        Path, typer.Option(help="State dict of the AutoencoderKL (.pth).", metavar="FILE")
    ],
    diffusion: Annotated[
        Path, typer.Option(help="State dict of the DiffusionModelUNet (.pth).", metavar="FILE")
    ],
    text_encoder: Annotated[
        Path,
        typer.Option(
            help="Folder with text_encoder/ and tokenizer/: Stable Diffusion 2.1 base's.",
            metavar="DIR",
        ),
    ],
    out: Annotated[Path, typer.Option(help="New folder for the model.", metavar="DIR")],
) -> None:
    """Import MONAI's chest X-ray latent diffusion model, as published or saved by MONAI >= 1.4.

    For example `cxrg models import monai --autoencoder autoencoder.pth --diffusion
    diffusion_model.pth --text-encoder stable-diffusion-2-1-base --out cxr`, and then
    `cxrg ground IMAGE PHRASE --model cxr --preset paper`.
    """
    from cxrg.model.convert.monai import import_monai

    done = import_monai(
        autoencoder=autoencoder, diffusion=diffusion, text_encoder=text_encoder, out=out
    )
    if not done.published:
        complain(
            "warning: not of the published sizes; taken for granted are one attention head per "
            "level, 32 groups in normalisations and the published noise schedule"
        )
    write(f"{done.folder}: {_amount(done.parameters)} parameters, from files of {done.writer}")
