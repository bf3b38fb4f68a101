"""Declarations and checks of the options that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cxrg.errors import ModelError, UsageError
from cxrg.options import PRESETS


def _presets(incomplete: str) -> list[str]:
    return [name for name in PRESETS if name.startswith(incomplete)]


def _note_debug(ctx: typer.Context, wanted: bool) -> bool:
    if wanted:
        ctx.meta["debug"] = True
    return wanted


def _hide_downloads(wanted: bool) -> bool:
    """Keep the hub's progress bars off standard error; its library reads this when imported."""
    if wanted:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return wanted


Preset = Annotated[
    str,
    typer.Option(metavar="NAME", help=", ".join(PRESETS) + ".", autocompletion=_presets),
]
SetKnobs = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KNOB=VALUE",
        help="A knob of `cxrg options`; repeatable.",
        show_default=False,
    ),
]
SetSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SETTING=VALUE",
        help="A setting of the configuration, such as steps=400; repeatable.",
        show_default=False,
    ),
]
Model = Annotated[str, typer.Option(metavar="MODEL", help="Name, folder or hub id.")]
Adapter = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Adapter: tuned vectors, LoRA, textual inversion."),
]
Revision = Annotated[
    str | None, typer.Option(metavar="NAME", help="Branch, tag or commit on the hub.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.", show_default=False)
]
Dtype = Annotated[
    str,
    typer.Option(metavar="NAME", help="auto, float32, bfloat16 or float16.", show_default=False),
]
Batch = Annotated[
    str, typer.Option(metavar="N", help="Most latents per evaluation, or auto.", show_default=False)
]
Threads = Annotated[
    str,
    typer.Option(metavar="N", help="CPU threads of one operation, or auto.", show_default=False),
]
AnyImage = Annotated[
    bool, typer.Option("--any-image", help="Warn of images that are no chest X-ray.")
]
Mend = Annotated[bool, typer.Option("--mend", help="Turn or invert images first that look so.")]
ForceGround = Annotated[
    bool, typer.Option("--force-ground", help="Ground phrases as written, whatever they mean.")
]
OutFolder = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files.")]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", callback=_hide_downloads, help="No progress, tables or warnings."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_note_debug, help="Show a traceback on errors.")
]


def read_knobs(given: Sequence[str]) -> dict[str, Any]:
    """Names and values of knobs, as text.

    Raises:
        UsageError: one is not of that form.
    """
    pairs = [text.partition("=") for text in given]
    bad = [text for text, (name, mark, _) in zip(given, pairs, strict=True) if not (name and mark)]
    if bad:
        raise UsageError(f"--set {bad[0]!r} is not KNOB=VALUE; write it such as mask=none")
    return {name.strip(): value.strip() for name, _, value in pairs}


def check_device(device: str) -> None:
    """Check the name of a device, before anything slow is imported.

    Raises:
        UsageError: the name is unknown.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UsageError(f"device {device!r} is unknown; use auto, cpu, cuda, cuda:N or mps")


def check_adapter(adapter: Path | None) -> None:
    """Check that the adapter exists, before anything slow is imported.

    Raises:
        ModelError: there is no such file.
    """
    if adapter is not None and not adapter.expanduser().exists():
        raise ModelError(f"{adapter}: no such adapter; give a .safetensors file")


def check_masks(masks: Path | None) -> None:
    """Check that the folder of masks exists, before anything slow is imported.

    Raises:
        UsageError: there is no such folder.
    """
    if masks is not None and not masks.is_dir():
        raise UsageError(f"no folder {masks}; --masks names the folder of the masks")
