"""``cxrg anatomy``: where the named parts of a chest are, as masks to look at and to mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrg.cli.knobs import Debug, check_masks
from cxrg.cli.terminal import complain, progress, write
from cxrg.errors import EXIT_SOME_FAILED, InputError

if TYPE_CHECKING:
    from cxrg.anatomy import Source

_SIDE = 512


def anatomy(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Frontal X-rays.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder; each image's masks get one of their own.")],
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Own masks instead of the segmenter's: DIR/IMAGE/NAME.png, or DIR/IMAGE.png and "
            "names.json; what they lack follows by geometry."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    debug: Debug = False,
) -> None:
    """Outline lungs, their zones, hila, angles, heart and mediastinum: twenty masks per image.

    Masks are PNG in the image's own pixels, in a folder named by the image's content, with an
    overview; a line of JSON per image has each location's share of the picture. Mended masks
    are read back with --masks, here and in cxrg evaluate. Research use only - not for diagnosis.

    \b
    Examples:
    cxrg anatomy chest.dcm --out masks/
    cxrg evaluate labels.csv --measure leakage --masks masks/
    """
    check_masks(masks)
    from cxrg.anatomy.folder import mask_folder
    from cxrg.anatomy.segmenter import shipped

    source = mask_folder(masks) if masks is not None else shipped()
    failed = 0
    with progress(len(images), quiet=quiet) as reporter:
        for path in images:
            try:
                write(json.dumps(_outline(path, source, out)))
            except InputError as error:
                if len(images) == 1:
                    raise
                complain(str(error))
                failed += 1
            reporter.advance()
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _outline(path: Path, source: Source, out: Path) -> dict[str, object]:
    from cxrg.about import NOTICE
    from cxrg.anatomy import LOCATIONS, locate
    from cxrg.anatomy.files import write_masks
    from cxrg.image.read import read_image

    image = read_image(path, side=_SIDE)
    found = locate(source(image))
    folder = write_masks(image, found, out)
    shares = found.mean(axis=(1, 2))
    return {
        "schema": "cxrg.anatomy/1",
        "image": {"path": str(path), "sha256": image.sha256, "uid": image.uid},
        "share": {n: round(float(s), 5) for n, s in zip(LOCATIONS, shares, strict=True)},
        "folder": str(folder),
        "notice": NOTICE,
    }
