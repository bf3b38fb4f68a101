"""Decode the one frame of a DICOM object's Pixel Data (PS3.5 section 8 and annexes A, G).

A compressed frame states its own size and depth. Decoders allocate what the frame states, and the
header may be wrong about the depth, so the frame is looked at first: another size is refused,
another depth is taken from the frame and mentioned. Every step is bounded by the header's size,
which was checked before.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.processing import convert_color_space
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

# One decoder for each syntax, all under permissive licences. gdcm, which pydicom would prefer, ends
# the whole process on some damaged files, so it reads only what nothing else does: lossless JPEG,
# and lossy JPEG of 12 bits.
DECODERS: dict[str, str] = {
    **dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit), "pillow"),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), "pyjpegls"),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000), "pillow"),
    **dict.fromkeys((HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), "pylibjpeg"),
    **dict.fromkeys((JPEGLossless, JPEGLosslessSV1), "gdcm"),
}
_JPEG = b"\xff\xd8"
_RED_FIRST = re.compile(rb"\xff[\xc0-\xc2]\x00\x11\x08.{4}\x03R..G..B", re.DOTALL)
_LOSSY_JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit)

MAX_SCANNED = 2**31
"""Pixels that all scans of a JPEG may touch together: some seconds of work. A progressive JPEG has
about ten scans, but a small file may hold thousands, and each touches every pixel."""


class MismatchError(ValueError):
    """The compressed frame is of another size than the header says, or states none."""


class TooManyScansError(ValueError):
    """The scans of a JPEG would take too long to decode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Codestream:
    """What a compressed frame states about itself."""

    rows: int
    columns: int
    components: int
    bits: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cells:
    """Decoded pixel cells ``(Rows, Columns)`` or ``(Rows, Columns, 3)``, and where values are.

    A value takes ``bits`` bits up to ``high_bit`` of its cell.
    """

    pixels: NDArray[np.generic]
    bits: int
    high_bit: int
    notes: tuple[str, ...] = ()


_DEPTH = "the compressed picture has {} bits a pixel and its header says {}; {} were taken"


def decode(ds: pydicom.Dataset) -> Cells:
    """Decode the frame of a data set whose header was checked.

    Raises:
        MismatchError: the compressed frame is of another size than the header says.
        TooManyScansError: it is a JPEG of too many scans.
        Exception: whatever a decoder raises on damaged data.
    """
    syntax = ds.file_meta.TransferSyntaxUID
    bits, high_bit = int(ds.BitsStored), int(ds.HighBit)
    if not syntax.is_compressed:
        return Cells(pixels=_read_pixels(ds), bits=bits, high_bit=high_bit)
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    if syntax == RLELossless:
        return Cells(pixels=_run_lengths(ds, frame), bits=bits, high_bit=high_bit)
    stated = read_codestream(frame)
    header = (ds.Rows, ds.Columns, ds.SamplesPerPixel)
    if stated is None or (stated.rows, stated.columns, stated.components) != header:
        raise MismatchError
    if frame[:2] == _JPEG and takes_too_long(frame, stated.rows * stated.columns):
        raise TooManyScansError
    return _decode_codestream(ds, frame, stated)


def _decode_codestream(ds: pydicom.Dataset, frame: bytes, stated: Codestream) -> Cells:
    """JPEG, JPEG-LS or JPEG 2000 of the header's size, in the depth that it states itself."""
    syntax, bits = ds.file_meta.TransferSyntaxUID, int(ds.BitsStored)
    if stated.bits < bits or stated.bits > int(ds.BitsAllocated):
        bits = stated.bits
        if ds.PixelRepresentation and syntax in _LOSSY_JPEG:
            raise ValueError("lossy JPEG has no signed pixels of another depth")
    if syntax in _LOSSY_JPEG and stated.bits == 12:
        pixels = _twelve_bit_jpeg(ds, frame)
    elif syntax in _LOSSY_JPEG and stated.components == 3 and _states_colour_space(frame):
        with Image.open(io.BytesIO(frame), formats=["JPEG"]) as image:
            pixels = np.asarray(image.convert("RGB"))
    elif DECODERS.get(syntax) == "gdcm":
        pixels = _lossless_jpeg(ds, frame, 8 if stated.bits <= 8 else 16)
    else:
        allocated = 8 if stated.bits <= 8 else 16
        pixels = _read_pixels(ds, bits_stored=min(bits, allocated), bits_allocated=allocated)
    if not ds.PixelRepresentation and int(pixels.max()) >= 2**bits:
        bits = stated.bits
    notes = (_DEPTH.format(stated.bits, ds.BitsStored, bits),) if bits != ds.BitsStored else ()
    # JPEG codestreams have no High Bit: their decoders return the pixels right-aligned.
    return Cells(pixels=pixels, bits=bits, high_bit=bits - 1, notes=notes)


def _read_pixels(ds: pydicom.Dataset, **other: Any) -> NDArray[np.generic]:
    """The pixels by pydicom and the syntax's decoder; ``other`` replaces what the header says."""
    plugin = DECODERS.get(ds.file_meta.TransferSyntaxUID, "")
    # Left on, the correction takes High Bit for Bits Stored - 1; `stored_values` does not.
    return pixel_array(ds, decoding_plugin=plugin, correct_unused_bits=False, **other)


def _run_lengths(ds: pydicom.Dataset, frame: bytes) -> NDArray[np.generic]:
    """RLE (PS3.5 annex G): one run of PackBits for each byte of each sample, highest byte first.

    Pillow's decoder stops where the plane is full; pydicom's decodes all there is, up to 64 times
    the bytes of the file.
    """
    samples, width = int(ds.SamplesPerPixel), int(ds.BitsAllocated) // 8
    count, *starts = struct.unpack("<16L", frame[:64])
    if count != samples * width or starts[0] < 64 or starts[:count] != sorted(starts[:count]):
        raise ValueError("not one segment for each byte of a pixel")
    size = int(ds.Rows) * int(ds.Columns)
    cells = np.empty((size, samples, width), dtype=np.uint8)
    ends = [*starts[1:count], len(frame)]
    for number, (start, end) in enumerate(zip(starts, ends, strict=False)):
        # One row, because writers let runs cross the ends of rows.
        plane = Image.frombytes("L", (size, 1), frame[start:end], "packbits", "L")
        cells[:, number // width, number % width] = np.asarray(plane)[0]
    pixels = cells.view(f">u{width}").astype(f"u{width}").reshape(ds.Rows, ds.Columns, samples)
    if samples == 1:
        return pixels[..., 0]
    kind = str(ds.PhotometricInterpretation)
    return convert_color_space(pixels, kind, "RGB") if kind == "YBR_FULL" else pixels


def _lossless_jpeg(ds: pydicom.Dataset, frame: bytes, allocated: int) -> NDArray[np.generic]:
    """Lossless JPEG by gdcm, without what makes it end the process.

    Those are odd application segments, and pixels with bits beyond those stored.
    """
    ds.PixelData = encapsulate([_without_comments(frame)])
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        ds.pop(keyword, None)
    with _silent_stderr():
        return _read_pixels(ds, bits_stored=allocated, bits_allocated=allocated)


def _twelve_bit_jpeg(ds: pydicom.Dataset, frame: bytes) -> NDArray[np.generic]:
    """Lossy JPEG of 12 bits by gdcm, which pydicom does not let it read."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(_without_comments(frame))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    kind = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    syntax = gdcm.TransferSyntax.GetTSType(str(JPEGExtended12Bit))
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((int(ds.Columns), int(ds.Rows), 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    image.SetPixelFormat(gdcm.PixelFormat(1, 12, 12, 11, 0))
    with _silent_stderr():
        data = image.GetBuffer()
    if int(ds.SamplesPerPixel) != 1 or data is None:
        raise ValueError("gdcm cannot decode it")
    pixels = np.frombuffer(data.encode("utf-8", "surrogateescape"), dtype="<u2")
    return pixels.reshape(ds.Rows, ds.Columns)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """No output to file descriptor 2, where gdcm's JPEG decoder writes remarks on odd headers."""
    try:
        before = os.dup(2)
    except OSError:  # closed: nothing can be written
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _states_colour_space(jpeg: bytes) -> bool:
    """Whether a JPEG itself states if it is RGB or YCbCr: as JFIF, by Adobe, by components R, G, B.

    Then it is decoded as it states. Otherwise the header's Photometric Interpretation decides,
    which is often wrong about those that state it.
    """
    start = jpeg[: jpeg.find(b"\xff\xda")]
    return b"JFIF\0" in start or b"\xff\xee\0\x0eAdobe" in start or bool(_RED_FIRST.search(start))


def _without_comments(jpeg: bytes) -> bytes:
    """A JPEG without application segments and comments; no pixel that gdcm reads depends on them.

    `read_codestream` has followed the segments to the first scan.
    """
    kept, at = [jpeg[:2]], 2
    while jpeg[at + 1] != 0xDA:
        fill = jpeg[at + 1] == 0xFF
        end = at + (1 if fill else 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big"))
        if not fill and not 0xE0 <= jpeg[at + 1] <= 0xEF and jpeg[at + 1] != 0xFE:
            kept.append(jpeg[at:end])
        at = end
    return b"".join([*kept, jpeg[at:]])


def takes_too_long(jpeg: bytes, pixels: int) -> bool:
    """Whether the scans of JPEG data of that many pixels would be seconds of work (T.81 B.2.3).

    Coded data never has the marker of a scan in it, so it is counted without a parser.
    """
    return jpeg.count(b"\xff\xda") * pixels > MAX_SCANNED


def read_codestream(frame: bytes) -> Codestream | None:
    """What a JPEG, JPEG-LS or JPEG 2000 codestream states about itself.

    gdcm ends the process on a header that is no chain of segments: None for such, and for other
    codestreams.

    Source: ITU-T T.81 B.1.1 and B.2.2 (SOFn), T.87 C.2.2 (SOF55), T.800 A.5.1 (SIZ).
    """
    return _read_jpeg(frame) if frame[:2] == _JPEG else _read_jpeg2000(frame)


def _read_jpeg2000(frame: bytes) -> Codestream | None:
    siz = frame.find(b"\xff\x4f\xff\x51")
    if siz < 0 or len(frame) < siz + 45:
        return None
    x1, y1, x0, y0 = struct.unpack(">4I", frame[siz + 8 : siz + 24])
    components = int.from_bytes(frame[siz + 40 : siz + 42], "big")
    depths = set(frame[siz + 42 : siz + 42 + 3 * components : 3])
    if len(depths) != 1:
        return None
    bits = (depths.pop() & 0x7F) + 1  # the highest bit is the sign
    if bits > 16:
        return None
    return Codestream(rows=y1 - y0, columns=x1 - x0, components=components, bits=bits)


def _read_jpeg(frame: bytes) -> Codestream | None:
    at, stated = 2, None
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xDA:
            return stated
        # Markers that stand alone (T.81 table B.1) have no place before the first scan.
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9:
            return None
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            bits, rows, columns, components = struct.unpack(">BHHB", frame[at + 4 : at + 10])
            if stated or not 2 <= bits <= 16:
                return None
            stated = Codestream(rows=rows, columns=columns, components=components, bits=bits)
        # 0xFF may be repeated before a marker as fill (T.81 B.1.1.2).
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None
