"""A chest X-ray file as the model sees it: float32 grey in a square, and the way back.

DICOM goes through `cxrg.image.dicom`; PNG, JPEG and TIFF come without any instruction how to show
them, so their grey is `cxrg.image.file.default_range`. Whatever the file, ``grey`` is bright where
the body is dense.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cxrg.geometry import Fit, Frame
from cxrg.image.dicom import DisplayGrey, read_dicom, states_other_class
from cxrg.image.file import (
    HEAD,
    MAX_PIXELS,
    Kind,
    check_size,
    image_error,
    kind_of,
    open_file,
    read_bytes,
)
from cxrg.image.samples import default_grey

# What Pillow raises on damaged files.
_FAILURES = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(EOFError, RuntimeError, OverflowError, MemoryError, struct.error, zlib.error, cv2.error),
)
_WHITE_IS_ZERO, _PHOTOMETRIC, _BITS_PER_SAMPLE = 0, 262, 258
_ORIENTATION = 274


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CxrImage:
    """One chest X-ray.

    Attributes:
        pixels: float32 ``(S, S)`` in [0, 1], what the model sees; 0 beyond the picture.
        frame: leads from the square to the pixels of the file and back.
        grey: float32 ``(H, W)`` in [0, 1], the picture in its own display grey.
        path: the file as named.
        sha256: of the file's bytes, hexadecimal.
        kind: ``dicom``, ``png``, ``jpeg`` or ``tiff``.
        uid: SOP Instance UID of a DICOM object.
        window: how the grey came about, e.g. ``VOI LUT``, ``window LINEAR 2048/4096``,
            ``full range``, ``percentile 0.5-99.5``.
        warnings: what to know about the file, one sentence each.
    """

    pixels: NDArray[np.float32]
    frame: Frame
    grey: NDArray[np.float32]
    path: Path
    sha256: str
    kind: Kind
    uid: str | None
    window: str
    warnings: tuple[str, ...]


def read_image(path: Path | str, *, side: int, fit: Fit = "pad") -> CxrImage:
    """Read a chest X-ray of any of the four kinds.

    Args:
        path: DICOM, PNG, JPEG or TIFF; the suffix does not matter.
        side: side of the model's square in pixels.
        fit: ``pad`` shows the whole image with margins, ``crop`` the middle of it.

    Raises:
        ImageError: not one grey image that can be read; one line with the remedy.
        UsageError: ``fit`` is neither of the two.
    """
    path = Path(path)
    data = read_bytes(path)
    kind = kind_of(data[:HEAD])
    if kind is None:
        raise image_error(path, "is no image known here", "give DICOM, PNG, JPEG or TIFF")
    read = read_dicom(path, data) if kind == "dicom" else _read_picture(path, data, kind)
    height, width = read.grey.shape
    frame = Frame.fit((height, width), side, fit, read.pixel_aspect)
    return CxrImage(
        pixels=np.clip(frame.sample(read.grey), 0.0, 1.0),
        frame=frame,
        grey=read.grey,
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        kind=kind,
        uid=read.uid,
        window=read.window,
        warnings=read.warnings,
    )


def is_image(path: Path | str) -> bool:
    """Whether a file starts like one of the four kinds; False where it cannot be read."""
    return _kind(Path(path)) is not None


def is_other_object(path: Path | str) -> bool:
    """Whether a file is DICOM, but states that it is no image: a directory, a report."""
    path = Path(path)
    return _kind(path) == "dicom" and states_other_class(path)


def _kind(path: Path) -> Kind | None:
    """The kind of a file, None where it is none of the four or cannot be read."""
    try:
        if not path.is_file():
            return None
        with open_file(path) as file:
            return kind_of(file.read(HEAD))
    except (OSError, ValueError):
        return None


def _read_picture(path: Path, data: bytes, kind: Kind) -> DisplayGrey:
    """PNG, JPEG or TIFF as display grey."""
    notes: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=[kind.upper()]) as picture:
                check_size(path, picture.height, picture.width)
                _refuse_pages(path, picture, kind)
                samples = _samples(picture, data, notes)
    except Image.DecompressionBombError:
        remedy = f"scale it below {MAX_PIXELS} pixels"
        raise image_error(path, "is too large to be decompressed", remedy) from None
    except _FAILURES:
        problem = f"is a {kind.upper()} file that cannot be decoded (damaged, or a rare variant)"
        raise image_error(path, problem, "copy it again, or save it as grey PNG") from None
    if samples.dtype not in (np.uint8, np.uint16):
        raise image_error(path, "has neither 8 nor 16 bits a pixel", "save it as 16-bit grey PNG")
    grey, window, colour = default_grey(path, samples, 8 * samples.dtype.itemsize)
    warned = (*notes, *colour)
    return DisplayGrey(grey=grey, pixel_aspect=1.0, uid=None, window=window, warnings=warned)


def _refuse_pages(path: Path, picture: Image.Image, kind: Kind) -> None:
    """One file, one picture; a second frame in a JPEG is only ever a preview."""
    if kind != "jpeg" and getattr(picture, "n_frames", 1) > 1:
        raise image_error(path, "has more than one page or frame", "save the one to look at")


def _samples(picture: Image.Image, data: bytes, notes: list[str]) -> NDArray[Any]:
    """The decoded samples ``(H, W)`` or ``(H, W, 3 or 4)``, upright, in their full depth."""
    orientation = picture.getexif().get(_ORIENTATION, 1)
    tags = getattr(picture, "tag_v2", {})
    white_is_zero = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    deep = 16 in tags.get(_BITS_PER_SAMPLE, ()) or (picture.format == "PNG" and data[24] == 16)
    picture.load()
    if orientation != 1:
        notes.append("an orientation tag was applied; boxes are in pixels of the upright picture")
    if deep and len(picture.getbands()) > 1 and orientation == 1:
        return _deep_colour(data)
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I;16"):
        samples = np.asarray(upright).astype(np.uint16)
        # Pillow turns WhiteIsZero around for 8 bits, but not for 16.
        return 65535 - samples if white_is_zero else samples
    if upright.mode in ("1", "L"):
        return np.asarray(upright.convert("L"))
    if upright.mode in ("I", "F"):
        return np.asarray(upright)
    alpha = "transparency" in upright.info or upright.mode in ("LA", "PA", "RGBA", "La", "RGBa")
    return np.asarray(upright.convert("RGBA" if alpha else "RGB"))


def _deep_colour(data: bytes) -> NDArray[Any]:
    """16-bit samples of more than one channel, RGB(A); Pillow would cut them to 8 bits."""
    samples = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.ndim != 3 or samples.shape[-1] not in (3, 4):
        raise ValueError("OpenCV cannot decode it")
    return np.asarray(samples)[..., [2, 1, 0, 3][: samples.shape[-1]]]
