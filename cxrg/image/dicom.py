"""Read one grey frame of a DICOM file (PS3.10) as the grey that a display would show, in [0, 1].

Only the elements in ``_KEYWORDS`` are ever parsed: none of them names the patient. What pydicom
warns, logs or raises may quote the file, so none of it gets through; the messages here name
elements, never their values.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cxrg.image.file import MAX_BYTES, check_size, image_error, read_bytes
from cxrg.image.grayscale import (
    VALUE_FAILURES,
    inverted,
    items,
    modality,
    numbers,
    padding,
    pixel_aspect,
    stored_values,
    text,
    voi,
)

_KEYWORDS = [
    *("SOPClassUID", "SOPInstanceUID", "Modality", "PresentationIntentType", "ViewPosition"),
    *("ViewCodeSequence", "BurnedInAnnotation", "NumberOfFrames", "SamplesPerPixel"),
    *("PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelAspectRatio", "PixelSpacing"),
    *("ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
]
_NEEDED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
_RADIOGRAPHS = frozenset({"", "CR", "DX", "DR", "RG", "RF", "XA", "OT", "SC"})
_LATERALS = frozenset({"LL", "RL", "LATERAL", "LAT", "LLAT", "RLAT"})
# One decoder for each syntax, all under permissive licences. gdcm, which pydicom would prefer, ends
# the whole process on some damaged files, so it reads only what nothing else does: lossless JPEG.
_DECODERS: dict[str, str] = {
    **dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit), "pillow"),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), "pyjpegls"),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000), "pillow"),
    **dict.fromkeys((HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), "pylibjpeg"),
    **dict.fromkeys((JPEGLossless, JPEGLosslessSV1), "gdcm"),
}

# What pydicom and its codecs raise on damaged files.
_FAILURES = (
    *VALUE_FAILURES,
    *(InvalidDicomError, EOFError, OSError, RuntimeError, MemoryError, struct.error, zlib.error),
)
_AGAIN = "copy or export it again"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DicomPixels:
    """One DICOM frame as display grey.

    ``grey`` is float32 ``(Rows, Columns)`` in [0, 1], bright for dense; ``pixel_aspect`` the
    height of a pixel divided by its width; ``window`` says how stored values became grey.
    """

    grey: NDArray[np.float32]
    pixel_aspect: float
    uid: str | None
    window: str
    warnings: tuple[str, ...]


def read_dicom(path: Path, data: bytes | None = None) -> DicomPixels:
    """Read the one grey frame of a DICOM file in its display grey.

    Args:
        path: the file; named in messages.
        data: its bytes, where they have been read already.

    Raises:
        ImageError: not one grey frame that can be decoded; one line with the remedy.
    """
    with _quiet():
        ds = _parse(path, read_bytes(path) if data is None else data)
        _check_header(path, ds)
        pixels = _decode(path, ds)
        return _display(path, ds, pixels)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warning and no log line of the libraries: they may quote the file."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "pylibjpeg")]
    before = [logger.disabled for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.disabled = True
            yield
        finally:
            for logger, was in zip(loggers, before, strict=True):
                logger.disabled = was


def _parse(path: Path, data: bytes) -> pydicom.FileDataset:
    """The data set, with a transfer syntax even where the file has no meta information."""
    body = data[4:] if data[:4] == b"DICM" else data
    _bound_deflated(path, body)
    try:
        ds = pydicom.dcmread(io.BytesIO(body), force=True, specific_tags=_KEYWORDS)
        if "TransferSyntaxUID" not in ds.file_meta:
            implicit, little = ds.original_encoding
            plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
        known = ds.file_meta.TransferSyntaxUID.is_transfer_syntax
    except _FAILURES:
        raise image_error(path, "cannot be read as DICOM; it is damaged", _AGAIN) from None
    if not known:
        raise image_error(path, "has an unknown Transfer Syntax", "convert it: gdcmconv --raw")
    if "PixelData" in ds:
        return ds
    if any(tag in body for tag in (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")):
        raise image_error(path, "is truncated: it ends inside its pixels", _AGAIN)
    if "FloatPixelData" in ds or "DoubleFloatPixelData" in ds:
        raise image_error(path, "has floating-point pixels", "export a radiograph of 8 to 16 bits")
    raise image_error(path, "has no pixel data", "give the image object of the study")


def _bound_deflated(path: Path, body: bytes) -> None:
    """Refuse a deflated data set (PS3.5 A.5) that would grow beyond the bound."""
    syntax = b"\x02\x00\x10\x00UI\x16\x00" + DeflatedExplicitVRLittleEndian.encode()
    if syntax not in body[:1024]:
        return
    start = 144 + int.from_bytes(body[140:144], "little")
    rest, total, inflater = body[start:], 0, zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        while rest and total <= MAX_BYTES:
            total += len(inflater.decompress(rest, 2**24))
            rest = inflater.unconsumed_tail
    except zlib.error:
        raise image_error(path, "is damaged inside its deflated data", _AGAIN) from None
    if total > MAX_BYTES:
        raise image_error(path, "grows beyond all bounds when inflated", "export it uncompressed")


def _check_header(path: Path, ds: pydicom.Dataset) -> None:
    """Refuse whatever is not one frame of 8 to 16 bits, before a pixel is decoded."""
    for keyword in _NEEDED:
        if len(numbers(ds, keyword)) != 1:
            raise image_error(path, f"lacks a usable {keyword}", "export the image again")
    check_size(path, int(ds.Rows), int(ds.Columns))
    if numbers(ds, "NumberOfFrames", 1)[0] > 1:
        raise image_error(path, "has more than one frame", "export the one frame to look at")
    allocated, bits = int(ds.BitsAllocated), int(ds.BitsStored)
    high_bit = int(numbers(ds, "HighBit", bits - 1)[0])
    if allocated not in (8, 16) or not 1 <= bits <= high_bit + 1 <= allocated:
        problem = f"has {bits} bits stored in {allocated}, up to bit {high_bit}"
        raise image_error(path, problem, "export it with 8 to 16 bits a pixel")
    kind, samples = text(ds, "PhotometricInterpretation"), numbers(ds, "SamplesPerPixel", 1)[0]
    grey = kind in ("MONOCHROME1", "MONOCHROME2") and samples == 1
    if not grey and not (kind.startswith(("RGB", "YBR")) and samples == 3):
        raise image_error(path, "is neither grey nor RGB", "export it as MONOCHROME2")


def _decode(path: Path, ds: pydicom.Dataset) -> NDArray[np.generic]:
    """The pixel cells ``(Rows, Columns)``; colour only where all three channels are the same."""
    syntax = ds.file_meta.TransferSyntaxUID
    try:
        if syntax.is_compressed:
            frame = get_frame(ds.PixelData, 0, number_of_frames=1)
            header = (ds.Rows, ds.Columns, numbers(ds, "SamplesPerPixel", 1)[0])
            if syntax != RLELossless and codestream_shape(frame) != header:
                problem = "has a compressed image that does not match its header"
                raise image_error(path, problem, _AGAIN)
        # Left on, the correction takes High Bit for Bits Stored - 1; `stored_values` does not.
        plugin = _DECODERS.get(syntax, "")
        pixels = pixel_array(ds, decoding_plugin=plugin, correct_unused_bits=False)
    except _FAILURES:
        # A decoder may be missing, as for 12-bit JPEG: only GPL ones read that.
        problem = f"has pixels that cannot be decoded as {syntax.name} (truncated, or no decoder)"
        raise image_error(path, problem, "copy it again, or convert it: gdcmconv --raw") from None
    if pixels.ndim == 2:
        return pixels
    if np.all(pixels == pixels[..., :1]):
        return np.ascontiguousarray(pixels[..., 0])
    raise image_error(path, "is in colour", "export the grey radiograph (MONOCHROME2)")


def codestream_shape(frame: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) as a JPEG, JPEG-LS or JPEG 2000 codestream declares them.

    Decoders allocate the size that the codestream states, not the one in the DICOM header, and gdcm
    ends the process on a header that is no chain of segments. None for such, and for other
    codestreams.

    Source: ITU-T T.81 B.1.1 and B.2.2 (SOFn), T.87 C.2.2 (SOF55), T.800 A.5.1 (SIZ).
    """
    if frame[:2] != b"\xff\xd8":
        siz = frame.find(b"\xff\x4f\xff\x51")
        if siz < 0 or len(frame) < siz + 42:
            return None
        x1, y1, x0, y0 = struct.unpack(">4I", frame[siz + 8 : siz + 24])
        return y1 - y0, x1 - x0, int.from_bytes(frame[siz + 40 : siz + 42], "big")
    at, shape = 2, None
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xDA:
            return shape
        # Markers that stand alone (T.81 table B.1) have no place before the first scan.
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9:
            return None
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            bits, rows, columns, components = struct.unpack(">BHHB", frame[at + 4 : at + 10])
            if shape or not 2 <= bits <= 16:
                return None
            shape = rows, columns, components
        # 0xFF may be repeated before a marker as fill (T.81 B.1.1.2).
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _display(path: Path, ds: pydicom.Dataset, pixels: NDArray[np.generic]) -> DicomPixels:
    """The chain from stored values to display grey, through a table of all stored values."""
    bits, signed = int(ds.BitsStored), bool(ds.PixelRepresentation)
    # JPEG codestreams have no High Bit: their decoders hand the pixels over right-aligned.
    syntax = ds.file_meta.TransferSyntaxUID
    aligned = syntax.is_compressed and syntax != RLELossless
    high_bit = bits - 1 if aligned else int(numbers(ds, "HighBit", bits - 1)[0])
    stored, extra = stored_values(pixels, bits, high_bit, signed)
    low = -(2 ** (bits - 1)) if signed else 0
    index = stored - low
    counts = np.bincount(index.ravel(), minlength=2**bits)
    background = padding(ds, low, int(ds.BitsAllocated))
    counts[background] = 0
    if np.count_nonzero(counts) < 2:
        raise image_error(path, "every pixel has the same value", "export the image again")
    values, full = modality(np.arange(low, low + 2**bits, dtype=np.float64), ds)
    table, window, notes = voi(values, counts, full, bits, ds)
    if np.ptp(table[counts > 0]) == 0:
        raise image_error(path, "its modality LUT maps all pixels to one value", "export it again")
    uid = UID(text(ds, "SOPInstanceUID"))
    flip, contradiction = inverted(ds)
    if flip:
        table = 1.0 - table
    table[background] = 0.0
    return DicomPixels(
        grey=table.astype(np.float32)[index],
        pixel_aspect=pixel_aspect(ds),
        uid=uid if uid.is_valid else None,
        window=window,
        warnings=(*cautions(ds), *extra, *notes, *contradiction),
    )


def cautions(ds: pydicom.Dataset) -> tuple[str, ...]:
    """Warnings about what the picture is, without repeating values that could name a patient."""
    found = []
    if text(ds, "ViewPosition") in _LATERALS or _says_lateral(ds):
        found.append("this is a lateral view; the model knows frontal views only")
    if text(ds, "BurnedInAnnotation") == "YES":
        found.append("text is burned into the picture and may identify the patient")
    if text(ds, "PresentationIntentType") == "FOR PROCESSING":
        found.append("raw picture (FOR PROCESSING); the one FOR PRESENTATION is meant for reading")
    if text(ds, "Modality") not in _RADIOGRAPHS:
        found.append("the Modality is not that of a plain radiograph")
    return tuple(found)


def _says_lateral(ds: pydicom.Dataset) -> bool:
    """Whether the coded view (PS3.16 CID 4010) is a lateral one."""
    codes = items(ds, "ViewCodeSequence")
    return bool(codes) and "LATERAL" in text(codes[0], "CodeMeaning")
