"""What every kind of image file shares: its bytes, its kind by magic, its limits.

The kind of a file is recognised by its first bytes, never by its suffix: the DICOM prefix after a
128-byte preamble (DICOM PS3.10 section 7.1), or a first element of group 0002 or 0008 where the
preamble was stripped; the PNG, JPEG and TIFF signatures.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import BinaryIO, Literal

from cxrg.errors import ImageError

Kind = Literal["dicom", "png", "jpeg", "tiff"]

# A chest X-ray has 4 to 20 million pixels; a file beyond these limits is a mistake or an attack.
MAX_BYTES = 2**30
MAX_PIXELS = 100_000_000
MAX_SIDE = 32_000
MIN_SIDE = 16
MAX_RATIO = 8

_NO_WAITING = getattr(
    os, "O_NONBLOCK", 0
)  # Windows has neither this flag nor named pipes in folders

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff")
"""Usual suffixes of image files; the kind of a file is decided by its content."""

HEAD = 256
"""How many first bytes `kind_of` needs."""

_SIGNATURES: tuple[tuple[bytes, Kind], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OW PN SH SL SQ SS ST TM UI UL UN US UT".split()
)


def image_error(path: Path, problem: str, remedy: str) -> ImageError:
    """The error for a file that cannot be used, in one line: name, problem, remedy."""
    name = "".join(c if c.isprintable() else "?" for c in str(path))
    return ImageError(f"{name}: {problem}; {remedy}")


def read_bytes(path: Path) -> bytes:
    """All bytes of a regular, non-empty file of bounded size.

    Raises:
        ImageError: there is no such file, it is a folder or a device, empty, too large, or may
            not be read.
    """
    try:
        with open_file(path) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                remedy = "save the image to a file first"
                raise image_error(path, "is not a regular file", remedy)
            if status.st_size > MAX_BYTES:
                raise image_error(path, f"is larger than {MAX_BYTES >> 20} MiB", "export one image")
            data = file.read(status.st_size + 1)
    except IsADirectoryError:
        raise image_error(path, "is a folder", "name the images in it") from None
    except FileNotFoundError:
        raise image_error(path, "does not exist", "check the name") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name is not valid"
        raise image_error(path, f"cannot be read ({reason})", "check name and rights") from None
    if len(data) > status.st_size:
        raise image_error(path, "grew while it was read", "wait until it is copied, and try again")
    if not data:
        raise image_error(path, "is empty (0 bytes)", "copy or export it again")
    return data


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading; unlike `Path.open` it never waits for a pipe's other end."""
    return open(path, "rb", opener=lambda name, how: os.open(name, how | _NO_WAITING))


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file whose first `HEAD` bytes are given, None where it is none of the four."""
    if head[128:132] == b"DICM" or head[:4] == b"DICM":
        return "dicom"
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    return "dicom" if _starts_with_element(head) else None


def _starts_with_element(head: bytes) -> bool:
    """Whether a data set without preamble starts here: group 0002 or 0008, then a VR or length."""
    if len(head) < 16:
        return False
    for order in "<>":
        group, element = struct.unpack(order + "HH", head[:4])
        if group not in (0x0002, 0x0008) or element > 0x0100:
            continue
        if head[4:6] in _VRS:
            return True
        (length,) = struct.unpack(order + "I", head[4:8])
        # An implicit-VR first element is a group length, a character set or a UID: short, even.
        if length % 2 == 0 and length <= 128:
            return True
    return False


def check_size(path: Path, height: int, width: int) -> None:
    """Refuse sizes that no chest X-ray has, before anything is decompressed.

    Raises:
        ImageError: zero-sized, tiny, huge, or a strip.
    """
    shape = f"{height} rows x {width} columns"
    if min(height, width) < 1:
        raise image_error(path, f"is zero-sized ({shape})", "export the image again")
    if min(height, width) < MIN_SIDE:
        remedy = f"give {MIN_SIDE} pixels a side or more"
        raise image_error(path, f"is too small ({shape})", remedy)
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise image_error(path, f"is too large ({shape})", f"scale it below {MAX_PIXELS} pixels")
    if max(height, width) > MAX_RATIO * min(height, width):
        raise image_error(path, f"is a strip ({shape})", "give a whole chest X-ray")
