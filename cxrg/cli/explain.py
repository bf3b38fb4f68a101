"""``cxrg explain``: why a phrase was found in an image, or not, as a page and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrg.cli.inputs import check_phrases
from cxrg.cli.knobs import (
    Adapter,
    AnyImage,
    Batch,
    Debug,
    Device,
    Dtype,
    ForceGround,
    Mend,
    Model,
    Offline,
    OutFolder,
    Preset,
    Revision,
    SetKnobs,
    Threads,
    check_adapter,
    check_device,
    read_knobs,
)
from cxrg.cli.terminal import write
from cxrg.errors import InputError
from cxrg.options import DEFAULT_PRESET, read_settings, resolve


def explain(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="Frontal X-ray.", show_default=False)
    ],
    phrase: Annotated[
        str, typer.Argument(metavar="PHRASE", help="What to look for.", show_default=False)
    ],
    controls: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Other chests to read the phrase in, at most 20; else synthetic healthy ones.",
        ),
    ] = None,
    preset: Preset = DEFAULT_PRESET,
    set_knobs: SetKnobs = None,
    model: Model = "compact",
    adapter: Adapter = None,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch: Batch = "auto",
    threads: Threads = "auto",
    out: OutFolder = Path("cxrg-out"),
    any_image: AnyImage = False,
    mend: Mend = False,
    force_ground: ForceGround = False,
    debug: Debug = False,
) -> None:
    """Explain why a phrase was found in an image, or not: a page (HTML) and a picture (PNG).

    They show the attention of each token, layer and timestep, the same phrase in other chests,
    other phrases in this image, the score beside those of healthy chests, and what the model saw.
    Research use only - not for diagnosis.

    \b
    Examples:
    cxrg explain chest.dcm "left basal opacity"
    cxrg explain chest.dcm "pneumothorax" --controls normals/ --set draws=8
    """
    check_device(device)
    check_adapter(adapter)
    knobs = read_knobs(set_knobs or [])
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
    check_phrases([phrase])
    others = _images(controls) if controls else []
    from cxrg import explanation
    from cxrg.model.load import load
    from cxrg.output.explanation import sentences, write_explanation

    loaded = load(
        model, device=device, dtype=dtype, revision=revision, offline=offline, adapter=adapter
    )
    made = explanation.explain(
        image,
        phrase,
        model=loaded,
        options=resolve(preset, loaded.card.presets, **knobs),
        settings=settings,
        controls=others,
    )
    files = write_explanation(made, out, force_ground=settings.force_ground)
    for sentence in sentences(made):
        write(sentence)
    for file in files.values():
        write(str(file))


def _images(folder: Path) -> list[Path]:
    """The images of a folder by name.

    Raises:
        InputError: there is none.
    """
    from cxrg.image.read import is_image

    found = [path for path in sorted(folder.iterdir()) if is_image(path)] if folder.is_dir() else []
    if not found:
        raise InputError(f"{folder}: no folder with images; give one to --controls, or omit it")
    return found
