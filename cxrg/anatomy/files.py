"""Masks written for people to look at and mend; `cxrg.anatomy.folder` reads them back."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.chest.places import LOCATIONS
from cxrg.files import atomic_write
from cxrg.image.read import CxrImage

OVERVIEW = "overview.png"
_COLOURS = {  # RGB, Okabe and Ito's
    "left lung": (86, 180, 233),
    "right lung": (0, 158, 115),
    "heart": (213, 94, 0),
    "mediastinum": (230, 159, 0),
}


def folder_name(image: CxrImage) -> str:
    """The folder of an image's masks: of its content, as file names often hold a patient's."""
    return image.sha256[:16]


def write_masks(image: CxrImage, masks: NDArray[np.float32], out: Path) -> Path:
    """Write a PNG per location, 255 inside, and an overview with outlines; returns their folder.

    Args:
        image: the image.
        masks: ``(20, H, W)`` in [0, 1] in the image's pixels.
        out: where the image's own folder is made.

    Raises:
        WriteError: a file cannot be written.
    """
    folder = out / folder_name(image)
    for name, mask in zip(LOCATIONS, masks, strict=True):
        _write(np.where(mask >= 0.5, 255, 0).astype(np.uint8), folder / f"{name}.png")
    _write(_overview(image.grey, masks), folder / OVERVIEW)
    return folder


def _overview(grey: NDArray[np.float32], masks: NDArray[np.float32]) -> NDArray[np.uint8]:
    shade = np.clip(grey * 255, 0, 255).astype(np.uint8)
    canvas = np.ascontiguousarray(np.repeat(shade[..., None], 3, axis=2))
    line = max(round(max(grey.shape) / 300), 1)
    for name, colour in _COLOURS.items():
        inside = (masks[LOCATIONS.index(name)] >= 0.5).astype(np.uint8)
        rings, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, rings, -1, colour[::-1], line, cv2.LINE_AA)
    return canvas


def _write(picture: NDArray[np.uint8], path: Path) -> None:
    _, data = cv2.imencode(".png", picture)
    with atomic_write(path) as file:
        file.write(data.tobytes())
