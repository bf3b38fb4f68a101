"""The user's own masks, in a folder, for each image by the stem of its file name.

Those that ``cxrg anatomy`` wrote go by the image's content instead, whatever its name.

Two forms, recognised by what exists for an image ``chest.dcm``:

* ``DIR/chest/right lung.png``: one picture per structure, white where it is (as
  ``cxas_segment -ot png`` exports them);
* ``DIR/chest.png``: one label map, whose grey values are named in ``DIR/names.json``, such as
  ``{"1": "right lung", "2": "left lung"}``.

Masks have the upright image's own pixels, or its proportions. ``places.toml`` of :mod:`cxrg.chest`
lists the known names; others are left alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy.files import folder_name
from cxrg.chest.names import plain
from cxrg.chest.places import Structures, mask_names
from cxrg.errors import InputError, UsageError
from cxrg.image.read import CxrImage

NAMES = "names.json"
_SHAPE_TOLERANCE = 0.02


def mask_folder(folder: Path) -> Callable[[CxrImage], Structures]:
    """A source of structures from a folder of masks.

    Raises:
        UsageError: there is no such folder.
        InputError: its ``names.json`` cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"no folder {folder}; --masks names the folder of the masks")
    labels = _labels(folder / NAMES)

    def find(image: CxrImage) -> Structures:
        stem = image.path.stem
        parts = _parts(folder / folder_name(image)) or _parts(folder / stem)
        if parts:
            return {n: _fit(_read(path), image, path) > 0 for n, path in parts.items()}
        path = folder / f"{stem}.png"
        if not path.is_file():
            raise InputError(
                f"no masks of {image.path.name} in {folder}; give {stem}/NAME.png or {stem}.png"
            )
        if not labels:
            raise InputError(f"{folder / NAMES} is missing; it names the grey values of {path}")
        values = _fit(_read(path), image, path)
        return {name: np.isin(values, numbers) for name, numbers in labels.items()}

    return find


def fingerprint(folder: Path) -> str:
    """A digest of a folder's file names and sizes, which identifies a set of masks."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()


def _parts(folder: Path) -> dict[str, Path]:
    """The masks of known structures in an image's own folder, if there is one."""
    paths = sorted(folder.glob("*.png")) if folder.is_dir() else []
    return {known: path for path in paths if (known := canonical(path.stem))}


def canonical(name: str) -> str | None:
    """A structure by the name that cxrg uses; None where it uses no such structure."""
    return mask_names().get(plain(name))


def _labels(path: Path) -> dict[str, list[int]]:
    """The grey values of each known structure; empty where there is no file of names."""
    if not path.is_file():
        return {}
    try:
        named = {int(value): str(name) for value, name in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f'{path}: no names of grey values; write {{"1": "right lung"}}') from error
    found: dict[str, list[int]] = {}
    for value, name in named.items():
        if known := canonical(name):
            found.setdefault(known, []).append(value)
    return found


def _read(path: Path) -> NDArray[np.uint16]:
    """The grey values of a PNG, 8 or 16 bits."""
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 2:
        raise InputError(f"{path}: no grey PNG that can be read; export the mask again")
    return values.astype(np.uint16)


def _fit(values: NDArray[np.uint16], image: CxrImage, path: Path) -> NDArray[np.uint16]:
    """Values brought to the image's (H, W) by nearest neighbour."""
    height, width = image.grey.shape
    tall, wide = values.shape
    if abs(tall / height / (wide / width) - 1) > _SHAPE_TOLERANCE:
        raise InputError(
            f"{path}: {wide} x {tall} pixels for an image of {width} x {height}; "
            "export the mask in the image's own pixels"
        )
    return np.asarray(
        cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST), np.uint16
    )
