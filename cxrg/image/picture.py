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
    several = len(picture.getbands()) > 1
    picture.load()
    samples = _deep_colour(data) if bits == 16 and several else _loaded(picture, bits)
    # Pillow and OpenCV apply the tag of a TIFF themselves.
    return samples if is_tiff else turn.array(samples), bits


def opened_samples(path: Path, picture: Image.Image) -> tuple[NDArray[Any], int, tuple[str, ...]]:
    """Upright unsigned samples of an image that Pillow has opened or made, bits, and warnings.

    Raises:
        ImageError: Pillow does not keep what the file has, or the mode has no 8 or 16 bits.
    """
    remedy = "give its path, or an array"
    is_tiff = _is_tiff(picture)
    if is_tiff:
        tiff.check_variant(path, picture, b"")  # the time of a JPEG was not bounded when it opened
    deep = picture.mode.startswith("I;16")
    bits = tiff.sample_bits(picture) if is_tiff else 16 if deep else 8
    # A transparent value is in the depth of the file, which is not known here.
    transparent = "transparency" in picture.info and picture.mode != "P"
    if (bits > 8) != deep or transparent or picture.mode not in (*_MODES, *_DEEP_MODES):
        problem = f"has mode {picture.mode}, in which Pillow does not keep all of its values"
        raise image_error(path, problem, remedy)
    try:
        turn = UPRIGHT if is_tiff else stored_layout(picture)[1]
        picture.load()
        samples = turn.array(_loaded(picture, bits))
    except FAILURES:
        raise image_error(path, "cannot be loaded by Pillow", remedy) from None
    return samples, bits, (_TURNED,) if turn != UPRIGHT else ()


def _is_tiff(picture: Image.Image) -> bool:
    return picture.format == "TIFF" and hasattr(picture, "tag_v2")


def _loaded(picture: Image.Image, bits: int) -> NDArray[Any]:
    """Samples as Pillow has loaded them, ``(H, W)`` or ``(H, W, 3 or 4)``, unsigned."""
    is_tiff = _is_tiff(picture)
    signed, inverse = (tiff.is_signed(picture), tiff.is_white_zero(picture)) if is_tiff else (0, 0)
    if picture.mode.startswith("I;16"):
        samples = np.asarray(picture).astype(np.uint16)
        # Pillow turns WhiteIsZero around for 8 bits, but not for 16.
        return 65535 - samples if inverse else samples
    if signed:
        # The lowest value becomes 0.
        values = np.asarray(picture).astype(np.int32) + (1 << (bits - 1))
        return (values % (1 << bits)).astype(np.uint8 if bits == 8 else np.uint16)
    if picture.mode in ("1", "L") and "transparency" not in picture.info:
        return np.asarray(picture.convert("L"))
    if picture.mode in ("I", "F"):
        raise ValueError("neither 8 nor 16 bits")
    alpha = "transparency" in picture.info or picture.mode in _TRANSPARENT
    return np.asarray(picture.convert("RGBA" if alpha else "RGB"))


_TRANSPARENT = ("LA", "PA", "RGBA", "La", "RGBa")
_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", *_TRANSPARENT)
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N")


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
