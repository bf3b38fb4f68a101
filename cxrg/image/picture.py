"""Read PNG, JPEG and TIFF as upright samples in their full depth, then as display grey.

Pillow reads them, but for colour of 16 bits, which it would cut to 8; OpenCV reads that.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxrg.image import tiff
from cxrg.image.codec import takes_too_long
from cxrg.image.dicom import DisplayGrey
from cxrg.image.file import MAX_PIXELS, check_size, image_error
from cxrg.image.orientation import UPRIGHT, Turn, from_tag
from cxrg.image.samples import default_grey

# What Pillow raises on damaged files.
FAILURES = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(EOFError, RuntimeError, OverflowError, MemoryError, struct.error, zlib.error, cv2.error),
)
_ORIENTATION = 274
_TURNED = "an orientation tag was applied; boxes are in pixels of the upright picture"


def read_picture(path: Path, data: bytes, kind: Literal["png", "jpeg", "tiff"]) -> DisplayGrey:
    """Read PNG, JPEG or TIFF as display grey.

    Raises:
        ImageError: not one picture of a variant that is read; one line with the remedy.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=[kind.upper()]) as picture:
                _check(path, picture, data, kind)
                turn = stored_layout(picture)[1]
                samples, bits = _samples(picture, data)
    except Image.DecompressionBombError:
        remedy = f"scale it below {MAX_PIXELS} pixels"
        raise image_error(path, "is too large to be decompressed", remedy) from None
    except FAILURES:
        problem = f"is a {kind.upper()} file that cannot be decoded (damaged, or a rare variant)"
        raise image_error(path, problem, "copy it again, or save it as grey PNG") from None
    grey, window, notes = default_grey(path, samples, bits)
    if turn != UPRIGHT:
        notes = (_TURNED, *notes)
    return DisplayGrey(grey=grey, pixel_aspect=1.0, uid=None, window=window, warnings=notes)


def stored_layout(picture: Image.Image) -> tuple[tuple[int, int], Turn]:
    """Height and width of an opened picture as stored, and the turn that its tag asks for."""
    turn = from_tag(picture.getexif().get(_ORIENTATION, 1))
    size = (
        tiff.stored_size(picture) if picture.format == "TIFF" else (picture.height, picture.width)
    )
    return size, turn


def _check(path: Path, picture: Any, data: bytes, kind: str) -> None:
    """Refuse what is not one picture that is decoded right in bounded time and memory."""
    if kind == "tiff":
        tiff.select_page(path, picture)
    # A second frame in a JPEG is only ever a preview.
    elif kind == "png" and getattr(picture, "n_frames", 1) > 1:
        raise image_error(path, "has more than one page or frame", "save the one to look at")
    check_size(path, picture.height, picture.width)
    if kind == "tiff":
        tiff.check_variant(path, picture, data)
    if kind == "jpeg" and takes_too_long(data, picture.height * picture.width):
        raise image_error(path, "has too many JPEG scans to be decoded", "save it as grey PNG")


def _samples(picture: Image.Image, data: bytes) -> tuple[NDArray[Any], int]:
    """Upright samples ``(H, W)`` or ``(H, W, 3 or 4)``, unsigned, and their bits."""
    is_tiff, turn = picture.format == "TIFF", stored_layout(picture)[1]
    bits = tiff.sample_bits(picture) if is_tiff else _png_bits(picture, data)
    signed, inverse = (tiff.is_signed(picture), tiff.is_white_zero(picture)) if is_tiff else (0, 0)
    several = len(picture.getbands()) > 1
    picture.load()
    if bits == 16 and several:
        samples = _deep_colour(data)
    elif picture.mode.startswith("I;16"):
        samples = np.asarray(picture).astype(np.uint16)
        # Pillow turns WhiteIsZero around for 8 bits, but not for 16.
        samples = 65535 - samples if inverse else samples
    elif signed:
        # The lowest value becomes 0.
        values = np.asarray(picture).astype(np.int32) + (1 << (bits - 1))
        samples = (values % (1 << bits)).astype(np.uint8 if bits == 8 else np.uint16)
    elif picture.mode in ("1", "L") and "transparency" not in picture.info:
        samples = np.asarray(picture.convert("L"))
    elif picture.mode in ("I", "F"):
        raise ValueError("neither 8 nor 16 bits")
    else:
        alpha = "transparency" in picture.info or picture.mode in _TRANSPARENT
        samples = np.asarray(picture.convert("RGBA" if alpha else "RGB"))
    # Pillow and OpenCV apply the tag of a TIFF themselves.
    return samples if is_tiff else turn.array(samples), bits


_TRANSPARENT = ("LA", "PA", "RGBA", "La", "RGBa")


def _png_bits(picture: Image.Image, data: bytes) -> int:
    """8 or 16 bits, after the bit depth in a PNG's first chunk.

    Raises:
        ValueError: one value is transparent, in a depth where Pillow mistakes it for another.
    """
    if picture.format != "PNG":
        return 8
    depth, is_palette = data[24], data[25] == 3
    if depth != 8 and not is_palette and "transparency" in picture.info:
        raise ValueError("a transparent value that is not of 8 bits")
    return 16 if depth == 16 else 8


def _deep_colour(data: bytes) -> NDArray[Any]:
    """16-bit samples of more than one channel, RGB(A)."""
    level = cv2.utils.logging.getLogLevel()
    try:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        samples = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if samples is None or samples.ndim != 3 or samples.shape[-1] not in (3, 4):
        raise ValueError("OpenCV cannot decode it")
    return np.asarray(samples)[..., [2, 1, 0, 3][: samples.shape[-1]]]
