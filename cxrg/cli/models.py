"""``cxrg models``: which checkpoints there are, and under which terms."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from cxrg.card import Card, known_cards
from cxrg.cli.terminal import facts, table, write
from cxrg.errors import ModelError

app = typer.Typer(invoke_without_command=True)

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]

_WEIGHTS = {
    "shipped": "in this package",
    "download": "fetched on first use",
    "request": "from the authors, on request",
    "import": "another format: convert first",
}


@app.callback()
def list_models(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List shipped and known checkpoints with their licence; `show NAME` tells all about one."""
    if ctx.invoked_subcommand:
        return
    cards = known_cards().values()
    if as_json:
        write(json.dumps([asdict(card) for card in cards]))
        return
    rows = [
        [card.name, _WEIGHTS[card.weights], card.licence or "not stated", card.title]
        for card in cards
    ]
    table(["name", "weights", "licence", "what it is"], rows)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name from `cxrg models`.")],
    as_json: AsJson = False,
) -> None:
    """Show every fact about one checkpoint."""
    cards = known_cards()
    if name not in cards:
        raise ModelError(f"model {name!r} is not known; known are {', '.join(cards)}")
    card = cards[name]
    if as_json:
        write(json.dumps(asdict(card)))
    else:
        facts(_told(card))


def _told(card: Card) -> dict[str, str]:
    """What is known of a card, as text; what is not known is left out."""
    told = {key: value for key, value in asdict(card).items() if value not in ("", None, (), {})}
    told["weights"] = _WEIGHTS[card.weights]
    return {key: _text(value) for key, value in told.items()}


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "\n".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
