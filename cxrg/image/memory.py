"""Read an image that is in memory: a NumPy array, a Pillow image or a pydicom data set.

The grey is that of a file with the same content: a data set goes through `cxrg.image.dicom` as its
file would, whole numbers through `cxrg.image.samples`. Floats are display grey already. Arrays and
Pillow images are upright, and bright where the body is dense.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image

from cxrg.errors import UsageError
from cxrg.image import dicom, picture
from cxrg.image.dicom import DisplayGrey
from cxrg.image.file import MAX_BYTES, Kind, check_size, image_error
from cxrg.image.samples import default_grey

ImageInMemory: TypeAlias = NDArray[Any] | Image.Image | pydicom.Dataset


def name_of(source: ImageInMemory) -> Path:
    """Return the file that the image was opened from, else what it is."""
    if isinstance(source, np.ndarray):
        return Path("array")
    file = getattr(source, "filename", None)
    if isinstance(file, (str, os.PathLike)) and os.fspath(file):
        return Path(file)
    return Path("data set" if isinstance(source, pydicom.Dataset) else "picture")


def read_memory(source: ImageInMemory) -> tuple[Kind | Literal["memory"], str, DisplayGrey]:
    """Return the kind of an image, the SHA-256 of its content, and its display grey.

    Raises:
        ImageError: not one grey image that can be read; one line with the remedy.
        UsageError: it is none of the three.
    """
    path = name_of(source)
    if isinstance(source, pydicom.Dataset):
        data = dicom.as_file(path, source)
        if len(data) > MAX_BYTES:
            raise image_error(path, f"is larger than {MAX_BYTES >> 20} MiB", "export one image")
        return "dicom", hashlib.sha256(data).hexdigest(), dicom.read_dicom(path, data)
    if isinstance(source, Image.Image):
        check_size(path, source.height, source.width)
        samples, bits, notes = picture.opened_samples(path, source)
        return "memory", _digest(samples), _show(path, samples, bits, notes)
    if isinstance(source, np.ndarray):
        return "memory", _digest(source), _read_array(path, source)
    raise UsageError(
        f"{type(source).__name__} is no image; give a path, a NumPy array, a Pillow image or a "
        "pydicom data set"
    )


def _digest(array: NDArray[Any]) -> str:
    """SHA-256 of an array's type, shape and values, in any byte order and layout."""
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    head = f"{plain.dtype.str} {plain.shape} "
    return hashlib.sha256(head.encode() + plain.tobytes()).hexdigest()


def _read_array(path: Path, array: NDArray[Any]) -> DisplayGrey:
    """Read unsigned samples ``(H, W)`` or ``(H, W, 3 or 4)``, or grey floats ``(H, W)``."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        shape = " x ".join(map(str, array.shape)) or "no axis"
        raise image_error(path, f"has the shape {shape}", "give (H, W), or (H, W, 3) for RGB")
    check_size(path, *array.shape[:2])
    if array.dtype.kind == "f" and array.ndim == 2:
        return _read_floats(path, array)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        samples = array.astype(array.dtype.newbyteorder("="))
        return _show(path, samples, samples.dtype.itemsize * 8, ())
    remedy = "give uint8, uint16, or grey floats in [0, 1]"
    raise image_error(path, f"has values of type {array.dtype}, {array.ndim} axes", remedy)


def _read_floats(path: Path, array: NDArray[Any]) -> DisplayGrey:
    """Take floats in [0, 1] as the grey that they are."""
    grey = array.astype(np.float32)
    low, high = float(grey.min()), float(grey.max())
    if not (low >= 0 and high <= 1):  # NaN included
        problem = f"has floats from {low:g} to {high:g}"
        raise image_error(path, problem, "scale them to [0, 1], 0 black and 1 white")
    if low == high:
        raise image_error(path, "every pixel has the same value", "give the image itself")
    return _display(grey, "as given", ())


def _show(path: Path, samples: NDArray[Any], bits: int, notes: tuple[str, ...]) -> DisplayGrey:
    """Return the grey of samples that come without any instruction how to show them."""
    grey, window, more = default_grey(path, samples, bits)
    return _display(grey, window, (*notes, *more))


def _display(grey: NDArray[np.float32], window: str, notes: tuple[str, ...]) -> DisplayGrey:
    return DisplayGrey(grey=grey, pixel_aspect=1.0, uid=None, window=window, warnings=notes)
