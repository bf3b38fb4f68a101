"""Read one grey frame of a DICOM file (PS3.10) as the grey that a display would show, in [0, 1].

Only the elements in ``KEYWORDS`` are parsed: none of them names the patient. (`read_header` parses
the others too, for DICOM objects derived from the image.) What pydicom warns, logs or raises may
quote the file, so none of it gets through; the messages here name elements, never their values.
"""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from cxrg.image.codec import Cells, MismatchError, TooManyScansError, decode
from cxrg.image.file import MAX_BYTES, check_size, image_error, open_file, read_bytes
from cxrg.image.grayscale import (
    MAX_RESCALE,
    VALUE_FAILURES,
    inverted,
    items,
    modality,
    numbers,
    padding,
    palette,
    pixel_aspect,
    pixel_spacing,
    stored_values,
    text,
    voi,
)
from cxrg.image.orientation import UPRIGHT, Turn, from_patient, is_lateral
from cxrg.image.samples import COLOURED, default_grey, refuse_constant

KEYWORDS = [
    *("SOPClassUID", "SOPInstanceUID", "Modality", "PresentationIntentType", "ViewPosition"),
    "BodyPartExamined",
    *("ViewCodeSequence", "BurnedInAnnotation", "NumberOfFrames", "SamplesPerPixel"),
    *("PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelAspectRatio", "PixelSpacing"),
    *("ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "PatientOrientation"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
]
"""The elements that reading needs: none of them names the patient."""
_NEEDED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
_RADIOGRAPHS = frozenset({"", "CR", "DX", "DR", "RG", "RF", "XA", "OT", "SC"})
# Parts of the body of PS3.16 Annex L whose radiographs show no whole chest.
_OTHER_PARTS = frozenset(
    (
        *(
            "ABDOMEN",
            "ANKLE",
            "ARM",
            "BREAST",
            "CALCANEUS",
            "CSPINE",
            "ELBOW",
            "EXTREMITY",
            "FEMUR",
        ),
        *("FINGER", "FOOT", "FOREARM", "HAND", "HEAD", "HIP", "HUMERUS", "JAW", "KNEE", "LEG"),
        *("LSPINE", "MANDIBLE", "NECK", "PELVIS", "SHOULDER", "SKULL", "SSPINE", "THIGH", "THUMB"),
        *("TOE", "WRIST", "ZYGOMA"),
    )
)
_LATERALS = frozenset({"LL", "RL", "LATERAL", "LAT", "LLAT", "RLAT"})
# What pydicom and its codecs raise on damaged files.
_FAILURES = (
    *VALUE_FAILURES,
    *(InvalidDicomError, EOFError, OSError, RuntimeError, MemoryError, struct.error, zlib.error),
)
_AGAIN = "copy or export it again"
_PHOTOMETRICS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR")
_TURNED = (
    "the picture is stored mirrored or turned (Patient Orientation); it was brought upright, and "
    "boxes are in pixels of the upright picture"
)

_CLASS_WITHIN, _LAYOUT_WITHIN = 2**16, 2**20  # first bytes that usually have these elements

MAX_INFLATED = 2**29
"""Bytes that a deflated data set may have; the largest picture let in has 300 million."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DisplayGrey:
    """One picture as display grey, upright.

    ``grey`` is float32 ``(H, W)`` in [0, 1], bright for dense; ``pixel_aspect`` the height of a
    pixel divided by its width; ``window`` says how stored values became grey. ``stated`` is what
    the header says that it is instead of a frontal chest X-ray, None where it does not;
    ``spacing`` height and width of a pixel in millimetres, None where they are not known.
    """

    grey: NDArray[np.float32]
    pixel_aspect: float
    uid: str | None
    window: str
    warnings: tuple[str, ...]
    stated: str | None = None
    spacing: tuple[float, float] | None = None


def read_dicom(path: Path, data: bytes | None = None) -> DisplayGrey:
    """Read the one grey frame of a DICOM file in its display grey.

    Args:
        path: the file; named in messages.
        data: its bytes, where they have been read already.

    Raises:
        ImageError: not one grey frame that can be decoded; one line with the remedy.
    """
    with quiet():
        ds = _parse(path, read_bytes(path) if data is None else data)
        _check_header(path, ds)
        cells = _decode(path, ds)
        return _display(path, ds, cells)


def as_file(path: Path, ds: pydicom.Dataset) -> bytes:
    """Return a file of a data set's elements that reading needs.

    Raises:
        ImageError: they cannot be written.
    """
    with quiet():
        try:
            kept = pydicom.Dataset()
            for keyword in KEYWORDS:
                if keyword in ds:
                    kept[keyword] = ds[keyword]
            meta = pydicom.dataset.FileMetaDataset()
            given = getattr(ds, "file_meta", None) or {}
            for keyword in ("MediaStorageSOPClassUID", "TransferSyntaxUID"):
                if keyword in given:
                    setattr(meta, keyword, given[keyword].value)
            if "TransferSyntaxUID" not in meta:
                implicit, little = ds.original_encoding
                meta.TransferSyntaxUID = _plain_syntax(implicit is not False, little is not False)
            kept.file_meta = meta
            file = io.BytesIO()
            pydicom.dcmwrite(file, kept, enforce_file_format=False)
            return file.getvalue()
        except _FAILURES:
            problem = "is a data set that cannot be written as DICOM, it is damaged"
            raise image_error(path, problem, "read it again") from None


def _plain_syntax(implicit: bool, little: bool) -> UID:
    """The uncompressed transfer syntax of an encoding."""
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else explicit


@contextmanager
def quiet() -> Iterator[None]:
    """No warning and no log line of the libraries: they may quote the file.

    Warnings are settings of the process, and one thread reads while another writes: the first to
    enter silences them, the last to leave restores them.
    """
    with _lock:
        if not _silenced:
            _silenced.append(_silence())
            _silenced[0].__enter__()
        _silenced.append(_silenced[0])
    try:
        yield
    finally:
        with _lock:
            _silenced.pop()
            if len(_silenced) == 1:
                _silenced.pop().__exit__(None, None, None)


_lock = threading.Lock()
_silenced: list[AbstractContextManager[None]] = []
"""The one that silences the libraries, once, and once more for each thread that is inside."""


@contextmanager
def _silence() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("pydicom", "pylibjpeg", "highdicom")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:  # by level, which loggers of their modules inherit
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


class _BoundedInflation(io.BytesIO):
    """The bytes of a file, refused as a deflated data set (PS3.5 A.5) that would grow too large.

    pydicom reads a data set by sizes, but a deflated one all at once, and then inflates it without
    a bound. It alone knows where that one starts: meta headers are written in many forms.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is None or size < 0:
            rest, total, inflater = data, 0, zlib.decompressobj(-zlib.MAX_WBITS)
            while rest and not inflater.eof:
                total += len(inflater.decompress(rest, 2**24))
                rest = inflater.unconsumed_tail
                if total > MAX_INFLATED:
                    raise _TooLargeError
        return data


class _TooLargeError(ValueError):
    pass


def read_elements(data: bytes, keywords: list[str] | None) -> pydicom.FileDataset:
    """The named elements of a DICOM file, with or without its preamble, in bounded memory.

    Args:
        data: the bytes of the file, or its first ones.
        keywords: the elements; None for all before Pixel Data.

    Raises:
        Exception: whatever pydicom raises on damaged data.
    """
    body = data[4:] if data[:4] == b"DICM" else data
    return pydicom.dcmread(
        _BoundedInflation(body),
        force=True,
        specific_tags=keywords and list(keywords),
        stop_before_pixels=keywords is None,
    )


def read_header(path: Path, data: bytes) -> pydicom.FileDataset:
    """Read all elements but the pixels, the patient's among them.

    Only for DICOM objects that are derived from this one: nothing else may hold what it returns.

    Raises:
        ImageError: the header is damaged.
    """
    with quiet():
        try:
            return read_elements(data, None)
        except _FAILURES:
            raise image_error(path, "cannot be read as DICOM, it is damaged", _AGAIN) from None


def hashed_uid(uid: str) -> str:
    """Return a valid UID, after DICOM PS3.5 section B.2, made of the SHA-256 of another."""
    return f"2.25.{int.from_bytes(sha256(uid.encode()).digest()[:16])}"


def _parse(path: Path, data: bytes) -> pydicom.FileDataset:
    """The data set, with a transfer syntax even where the file has no meta information."""
    try:
        ds = read_elements(data, KEYWORDS)
        if "TransferSyntaxUID" not in ds.file_meta:
            implicit, little = ds.original_encoding
            ds.file_meta.TransferSyntaxUID = _plain_syntax(bool(implicit), bool(little))
        known = ds.file_meta.TransferSyntaxUID.is_transfer_syntax
    except _TooLargeError:
        problem = f"inflates to more than {MAX_INFLATED >> 20} MiB"
        raise image_error(path, problem, "export it uncompressed") from None
    except _FAILURES:
        raise image_error(path, "cannot be read as DICOM, it is damaged", _AGAIN) from None
    if not known:
        raise image_error(path, "has an unknown Transfer Syntax", "convert it: gdcmconv --raw")
    if "PixelData" in ds:
        return ds
    if _ends_in_pixels(data):
        raise image_error(path, "is truncated: it ends inside its pixels", _AGAIN)
    if "FloatPixelData" in ds or "DoubleFloatPixelData" in ds:
        raise image_error(path, "has floating-point pixels", "export a radiograph of 8 to 16 bits")
    if text(ds.file_meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        raise image_error(path, "is a DICOM directory, no image", "name the images beside it")
    raise image_error(path, "has no pixel data", "give the image object of the study")


def _ends_in_pixels(data: bytes) -> bool:
    """Whether the value of some Pixel Data, which the parser did not find, is longer than the file.

    Icons and other sequences have a Pixel Data of their own, which is complete.
    """
    for order, tag in (("<", b"\xe0\x7f\x10\x00"), (">", b"\x7f\xe0\x00\x10")):
        at = data.find(tag)
        while at >= 0:
            start = 12 if data[at + 4 : at + 6] in (b"OB", b"OW") else 8
            field = data[at + start - 4 : at + start].ljust(4, b"\xff")
            if at + start + struct.unpack(order + "I", field)[0] > len(data):
                return True
            at = data.find(tag, at + 4)
    return False


def read_layout(path: Path) -> tuple[tuple[int, int], Turn] | None:
    """Rows and Columns, and the turn that Patient Orientation asks for; None without a size."""
    for most in (_LAYOUT_WITHIN, MAX_BYTES):  # the whole file only where it has to be
        try:
            with quiet(), open_file(path) as file:
                ds = read_elements(file.read(most), ["Rows", "Columns", "PatientOrientation"])
                rows, columns = (int(numbers(ds, keyword)[0]) for keyword in ("Rows", "Columns"))
                return (rows, columns), from_patient(directions(ds))
        except _FAILURES:
            continue
    return None


def states_other_class(path: Path) -> bool:
    """Whether the SOP class of a DICOM file is known and is not that of an image.

    Not decided by its elements, so that a damaged image still counts as one.
    """
    try:
        with quiet(), open_file(path) as file:
            ds = read_elements(file.read(_CLASS_WITHIN), ["SOPClassUID"])
            given = ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID")
            sop_class = UID(given or "")
            return sop_class.type == "SOP Class" and "Image" not in sop_class.name
    except _FAILURES:
        return False


def _check_header(path: Path, ds: pydicom.Dataset) -> None:
    """Refuse whatever is not one frame of 8 to 16 bits, before a pixel is decoded.

    Elements without which the picture is still clear are filled in, for the decoders too.
    """
    for keyword in _NEEDED:
        if len(numbers(ds, keyword)) != 1:
            raise image_error(path, f"lacks a usable {keyword}", "export the image again")
    check_size(path, int(ds.Rows), int(ds.Columns))
    if numbers(ds, "NumberOfFrames", 1)[0] > 1:
        raise image_error(path, "has more than one frame", "export the one frame to look at")
    kind = text(ds, "PhotometricInterpretation")
    if not kind:
        problem = "lacks a usable PhotometricInterpretation"
        raise image_error(path, problem, "export the image again")
    expected = 3 if kind.startswith(("RGB", "YBR")) else 1
    allocated, bits = int(ds.BitsAllocated), int(ds.BitsStored)
    for keyword, usual in (("SamplesPerPixel", expected), ("HighBit", bits - 1)):
        ds.add_new(keyword, "US", int(numbers(ds, keyword, usual)[0]))
    if allocated not in (8, 16) or not 1 <= bits <= ds.HighBit + 1 <= allocated:
        problem = f"has {bits} bits stored in {allocated}, up to bit {ds.HighBit}"
        raise image_error(path, problem, "export it with 8 to 16 bits a pixel")
    if ds.SamplesPerPixel != expected or not kind.startswith(_PHOTOMETRICS):
        raise image_error(path, "is neither grey nor RGB", "export it as MONOCHROME2")
    if expected == 3 and ds.PixelRepresentation:
        raise image_error(path, "is in colour with signed pixels", "export it as MONOCHROME2")


def _decode(path: Path, ds: pydicom.Dataset) -> Cells:
    """The pixel cells as the file has them."""
    try:
        return decode(ds)
    except MismatchError:
        problem = "has a compressed image that does not match its header"
        raise image_error(path, problem, _AGAIN) from None
    except TooManyScansError:
        problem = "has too many JPEG scans to be decoded"
        raise image_error(path, problem, "export it uncompressed") from None
    except _FAILURES:
        name = ds.file_meta.TransferSyntaxUID.name
        problem = f"has pixels that cannot be decoded as {name} (truncated, or no decoder)"
        raise image_error(path, problem, "copy it again, or convert it: gdcmconv --raw") from None


def _display(path: Path, ds: pydicom.Dataset, cells: Cells) -> DisplayGrey:
    """Stored values as upright display grey."""
    stored, unused = stored_values(
        cells.pixels, cells.bits, cells.high_bit, bool(ds.PixelRepresentation)
    )
    if stored.ndim == 3:
        samples = stored.astype(np.uint8 if cells.bits <= 8 else np.uint16)
        grey, window, notes = default_grey(path, samples, cells.bits)
    elif text(ds, "PhotometricInterpretation") == "PALETTE COLOR":
        grey, window, notes = _through_palette(path, ds, stored, cells.bits)
    else:
        _drop_window_of_other_depth(ds, cells.bits)
        grey, window, notes = _through_luts(path, ds, stored, cells.bits)
    turn = from_patient(directions(ds))
    aspect, spacing = pixel_aspect(ds), pixel_spacing(ds)
    uid = UID(text(ds, "SOPInstanceUID"))
    return DisplayGrey(
        grey=turn.array(grey),
        pixel_aspect=1 / aspect if turn.transpose else aspect,
        uid=uid if uid.is_valid else None,
        window=window,
        warnings=(*cautions(ds), *cells.notes, *unused, *notes),
        stated=stated_kind(ds),
        spacing=spacing[::-1] if spacing and turn.transpose else spacing,
    )


def _through_palette(
    path: Path, ds: pydicom.Dataset, stored: NDArray[np.int32], bits: int
) -> tuple[NDArray[np.float32], str, tuple[str, ...]]:
    """Grey by the file's own palette; windows and LUTs mean nothing here (PS3.3 C.11.1, C.11.2)."""
    low, levels = _levels(ds, bits)
    try:
        table, coloured = palette(levels, ds)
    except VALUE_FAILURES:
        problem = "has no usable palette"
        raise image_error(path, problem, "export it as MONOCHROME2") from None
    grey = table.astype(np.float32)[stored - low]
    if np.ptp(grey) == 0:
        raise image_error(path, "every pixel has the same value", "export the image again")
    return grey, "palette", (COLOURED,) if coloured else ()


def _through_luts(
    path: Path, ds: pydicom.Dataset, stored: NDArray[np.int32], bits: int
) -> tuple[NDArray[np.float32], str, tuple[str, ...]]:
    """Grey by modality LUT, VOI and presentation, through a table of all values that can be stored.

    Returns:
        grey ``(Rows, Columns)``, the words for its range, warnings.
    """
    low, levels = _levels(ds, bits)
    index = stored - low
    counts = np.bincount(index.ravel(), minlength=2**bits)
    background = padding(ds, low, int(ds.BitsAllocated))
    counts[background] = 0
    refuse_constant(path, counts)
    try:
        values, full = modality(levels, ds)
    except ValueError:
        problem = f"has a Rescale Slope or Rescale Intercept above {MAX_RESCALE:g}"
        raise image_error(path, problem, "export it again") from None
    table, window, notes = voi(values, counts, full, bits, ds)
    if np.ptp(table[counts > 0]) == 0:
        raise image_error(path, "its modality LUT maps all pixels to one value", "export it again")
    flip, contradiction = inverted(ds)
    if flip:
        table = 1.0 - table
    table[background] = 0.0
    return table.astype(np.float32)[index], window, (*notes, *contradiction)


def _drop_window_of_other_depth(ds: pydicom.Dataset, bits: int) -> None:
    """Take a window away that is as wide as the header's depth where the picture has a lower one.

    It would show the picture near black. A window made for the picture itself is kept.
    """
    slope = abs(numbers(ds, "RescaleSlope", 1.0)[0])
    widest = max(numbers(ds, "WindowWidth", 0.0))
    if bits < int(ds.BitsStored) and widest > 2 * slope * 2**bits:
        del ds.WindowWidth


def _levels(ds: pydicom.Dataset, bits: int) -> tuple[int, NDArray[np.float64]]:
    """The lowest value that can be stored, and all of them."""
    low = -(2 ** (bits - 1)) if ds.PixelRepresentation else 0
    return low, np.arange(low, low + 2**bits, dtype=np.float64)


def cautions(ds: pydicom.Dataset) -> tuple[str, ...]:
    """Warnings about what the picture is, without repeating values that could name a patient."""
    found = []
    if text(ds, "BurnedInAnnotation") == "YES":
        found.append("text is burned into the picture and may identify the patient")
    if text(ds, "PresentationIntentType") == "FOR PROCESSING":
        found.append("raw picture (FOR PROCESSING); the one FOR PRESENTATION is meant for reading")
    if from_patient(directions(ds)) != UPRIGHT:
        found.append(_TURNED)
    return tuple(found)


def stated_kind(ds: pydicom.Dataset) -> str | None:
    """What the header says that the picture is, where that is no frontal chest X-ray."""
    if text(ds, "Modality") not in _RADIOGRAPHS:
        return "no plain radiograph (Modality)"
    if text(ds, "BodyPartExamined").replace(" ", "") in _OTHER_PARTS:
        return "of another part of the body (Body Part Examined)"
    lateral = text(ds, "ViewPosition") in _LATERALS or _says_lateral(ds)
    return "a lateral view" if lateral or is_lateral(directions(ds)) else None


def directions(ds: pydicom.Dataset) -> list[str]:
    """Patient Orientation: where rows and columns lead; empty where it is absent or unreadable."""
    try:
        return [str(value).strip().upper() for value in ds.get("PatientOrientation") or ()]
    except VALUE_FAILURES:
        return []


def _says_lateral(ds: pydicom.Dataset) -> bool:
    """Whether the coded view (PS3.16 CID 4010) is a lateral one."""
    codes = items(ds, "ViewCodeSequence")
    return bool(codes) and "LATERAL" in text(codes[0], "CodeMeaning")
