"""``--debug``, which commands share with the group that catches their errors."""

from __future__ import annotations

from typing import Annotated

import typer


def _remember(ctx: typer.Context, wanted: bool) -> bool:
    if wanted:
        ctx.meta["debug"] = True
    return wanted


Debug = Annotated[
    bool,
    typer.Option(
        "--debug", callback=_remember, help="Traceback on errors.", rich_help_panel="Output"
    ),
]
