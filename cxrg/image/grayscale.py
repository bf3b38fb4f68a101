"""From stored values to display grey: the grayscale transformations of DICOM, one by one.

The order is that of PS3.4 section N.2: stored value -> modality LUT -> VOI (LUT before window) ->
presentation, where MONOCHROME1 or an INVERSE shape inverts, once. A stored value is an integer of
at most 16 bits, so every step maps the table of all values that can be stored ("levels"); the
pixels look their grey up once, at the end.

The steps are written here instead of called from ``pydicom.pixels``, because its ``apply_voi``
wraps indices beyond 255 for 8-bit entries, its LUTs fail for a negative first value over unsigned
pixels, ``apply_windowing`` scales to bits instead of [0, 1], and ``apply_presentation_lut`` inverts
about the maximum of the data and overlooks MONOCHROME1. The tests compare with it where it is
right.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import InvalidOperation
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException

from cxrg.image.samples import WEIGHTS, default_range, stretch

Levels = NDArray[np.float64]

MAX_RESCALE = 1e30
"""Largest slope or intercept: sums and differences of values stay finite far beyond it."""

# What pydicom raises when a damaged element is first looked at.
VALUE_FAILURES = (
    *(ValueError, TypeError, OverflowError, InvalidOperation),
    *(KeyError, IndexError, AttributeError, NotImplementedError, BytesLengthException),
)


_NARROW = "the VOI LUT's entries have fewer bits than it states; their own were taken as its range"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lut:
    """A lookup table (PS3.3 C.11.1.1.1): ``entries`` from input ``first`` on.

    ``bits`` is the depth that its descriptor states, which is often not that of the entries.
    """

    first: int
    entries: Levels
    bits: int

    @property
    def top(self) -> float:
        """The highest value of as many bits as the entries use."""
        return float(2**self._used - 1)

    @property
    def narrow(self) -> bool:
        """Whether the entries use fewer bits than the descriptor states."""
        return self._used < self.bits

    @property
    def _used(self) -> int:
        return max(int(self.entries.max()).bit_length(), 1)

    def __call__(self, values: Levels) -> Levels:
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return np.asarray(self.entries[index.astype(np.intp)])


def stored_values(
    pixels: NDArray[np.generic], bits: int, high_bit: int, signed: bool
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """The ``bits`` bits up to ``high_bit`` of each pixel cell, sign-extended (PS3.5 8.1.1).

    Returns:
        int32 values, and a warning where other bits of the cells are set: old files keep overlays
        there, broken ones declare too few bits.
    """
    allocated = pixels.dtype.itemsize * 8
    cells = pixels.astype(np.int32) & (2**allocated - 1)
    field = (2**bits - 1) << (high_bit + 1 - bits)
    values = (cells & field) >> (high_bit + 1 - bits)
    if signed:
        values -= (values >> (bits - 1)) << bits
    others = cells & ~field
    sign = np.where(values < 0, (2**allocated - 1) & ~field, 0)
    if np.all((others == 0) | (others == sign)):
        return values, ()
    return values, (f"bits outside the {bits} of Bits Stored are set and were ignored",)


def padding(ds: pydicom.Dataset, low: int, allocated: int) -> slice:
    """Which entries of the table are background outside the picture (PS3.3 C.7.5.1.1.2)."""
    value = numbers(ds, "PixelPaddingValue")
    if not value:
        return slice(0, 0)
    ends = [*value, *numbers(ds, "PixelPaddingRangeLimit")]
    # A signed value written with VR US, or the reverse, is meant modulo the cell.
    wrapped = [(int(end) - low) % 2**allocated for end in ends]
    return slice(min(wrapped), max(wrapped) + 1)


def modality(levels: Levels, ds: pydicom.Dataset) -> tuple[Levels, tuple[float, float]]:
    """Modality LUT, else rescale slope and intercept (PS3.3 C.11.1): values and their range.

    Raises:
        ValueError: the slope or the intercept is so large that values would not be finite.
    """
    lut = read_lut(ds, "ModalityLUTSequence", signed=bool(levels[0] < 0))
    if lut:
        return lut(levels), (0.0, lut.top)
    slope = numbers(ds, "RescaleSlope", 1.0)[0] or 1.0
    intercept = numbers(ds, "RescaleIntercept", 0.0)[0]
    if max(abs(slope), abs(intercept)) > MAX_RESCALE:
        raise ValueError("Rescale Slope or Rescale Intercept is too large")
    values = levels * slope + intercept
    return values, (float(values.min()), float(values.max()))


def voi(
    values: Levels,
    counts: NDArray[np.int64],
    full: tuple[float, float],
    bits: int,
    ds: pydicom.Dataset,
) -> tuple[Levels, str, tuple[str, ...]]:
    """VOI LUT, else window, else the default range (PS3.3 C.11.2): grey in [0, 1].

    The first that maps at least two pixels to different values is taken.

    Args:
        values: output of the modality step for every stored value, ``(n,)``.
        counts: pixels per stored value, ``(n,)``, 0 for padding.
        full: range of ``values`` that can be stored.
        bits: stored bits.
        ds: the data set.

    Returns:
        grey ``(n,)``, the words for the result, warnings.
    """
    notes: list[str] = []
    if lut := read_lut(ds, "VOILUTSequence", signed=full[0] < 0):
        grey = lut(values) / lut.top
        if np.ptp(grey[counts > 0]) > 0:
            return grey, "VOI LUT", (_NARROW,) if lut.narrow else ()
    if items(ds, "VOILUTSequence"):
        notes.append("the VOI LUT shows nothing of the pixels and was ignored")
    centers, widths = numbers(ds, "WindowCenter"), numbers(ds, "WindowWidth")
    if centers and widths:
        function = text(ds, "VOILUTFunction") or "LINEAR"
        if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            notes.append("the VOI LUT Function is not known; LINEAR was taken")
            function = "LINEAR"
        usable = widths[0] >= (1 if function == "LINEAR" else np.finfo(np.float32).tiny)
        grey = apply_window(values, centers[0], widths[0], function) if usable else 0 * values
        if np.ptp(grey[counts > 0]) > 0:
            return grey, f"window {function} {centers[0]:g}/{widths[0]:g}", tuple(notes)
        notes.append("the window shows nothing of the pixels and was ignored")
    black, white, words = default_range(values, counts, full, bits)
    grey = stretch(values, black, white) if white > black else 0 * values
    return grey, words, tuple(notes)


def apply_window(values: Levels, center: float, width: float, function: str) -> Levels:
    """A window as grey in [0, 1]: PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), .2 (EXACT).

    ``width`` is at least 1 for LINEAR, above 0 for the others.
    """
    if function == "SIGMOID":
        # Beyond +-60 the exponential changes nothing more in float64, and would overflow.
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -60.0, 60.0)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def inverted(ds: pydicom.Dataset) -> tuple[bool, tuple[str, ...]]:
    """Whether low values are white (PS3.3 C.7.6.3.1.2 MONOCHROME1, C.8.11.3 shape INVERSE).

    The shape, where it is given, decides alone: both say the same thing, so inverting for each
    would invert twice. A contradiction is a warning.
    """
    monochrome1 = text(ds, "PhotometricInterpretation") == "MONOCHROME1"
    shape = text(ds, "PresentationLUTShape")
    if shape not in ("IDENTITY", "INVERSE"):
        return monochrome1, ()
    flip = shape == "INVERSE"
    if flip == monochrome1:
        return flip, ()
    note = "Photometric Interpretation and Presentation LUT Shape contradict; the shape was taken"
    return flip, (note,)


def pixel_aspect(ds: pydicom.Dataset) -> float:
    """Height of a pixel divided by its width (PS3.3 10.7.1.3, C.7.6.3.1.7, C.8.11.4).

    The spacing between rows comes first in all of these; Pixel Aspect Ratio is meant for images
    without a spacing, so it comes last.
    """
    pair = _pair(ds, *_SPACINGS, "PixelAspectRatio")
    return pair[0] / pair[1] if pair else 1.0


def pixel_spacing(ds: pydicom.Dataset) -> tuple[float, float] | None:
    """Height and width of a pixel in millimetres; None where the header states none."""
    return _pair(ds, *_SPACINGS)


_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


def _pair(ds: pydicom.Dataset, *keywords: str) -> tuple[float, float] | None:
    """The first plausible pair of sizes, that of rows first."""
    for keyword in keywords:
        pair = numbers(ds, keyword)
        if len(pair) == 2 and min(pair) > 0 and 0.2 <= pair[0] / pair[1] <= 5:
            return pair[0], pair[1]
    return None


def palette(levels: Levels, ds: pydicom.Dataset) -> tuple[Levels, bool]:
    """The grey of every stored value of PALETTE COLOR (PS3.3 C.7.6.3.1.5), and if it is colour.

    Colour becomes luminance. The three tables share one range, so that their colours stay.

    Raises:
        ValueError: a table is missing, unusable, or segmented.
    """
    signed = bool(levels[0] < 0)
    tables = []
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        table = _table(ds, ds.get(f"{name}Descriptor"), ds.get(f"{name}Data"), signed=signed)
        if table is None:
            raise ValueError("no usable palette")
        tables.append(table)
    top = max(table.top for table in tables)
    if top > 255:  # else 8-bit entries, whatever is stated
        top = max(top, *(float(2**table.bits - 1) for table in tables))
    channels = [table(levels) / top for table in tables]
    coloured = bool(np.any(channels[0] != channels[1]) or np.any(channels[0] != channels[2]))
    grey = np.average(channels, axis=0, weights=WEIGHTS) if coloured else channels[0]
    return grey, coloured


def read_lut(ds: pydicom.Dataset, keyword: str, *, signed: bool) -> Lut | None:
    """The first item of a LUT sequence (PS3.3 C.11.1.1.1, C.11.2.1.1), None where it is unusable.

    Args:
        ds: the data set.
        keyword: ``ModalityLUTSequence`` or ``VOILUTSequence``.
        signed: whether the first input value is signed, whatever its VR.
    """
    try:
        item = items(ds, keyword)[0]
        return _table(ds, item.LUTDescriptor, item.LUTData, signed=signed)
    except VALUE_FAILURES:
        return None


def _table(ds: pydicom.Dataset, descriptor: Any, raw: Any, *, signed: bool) -> Lut | None:
    """The table of a descriptor and its data, None where it is unusable."""
    try:
        count, first, bits = (int(v) for v in descriptor)
        plain = isinstance(raw, bytes)
        words = raw if plain else np.atleast_1d(raw).astype("<u2").tobytes()
    except VALUE_FAILURES:
        return None
    count = count % 65536 or 65536
    first = (first + 32768) % 65536 - 32768 if signed else first % 65536
    swapped = plain and not ds.file_meta.TransferSyntaxUID.is_little_endian
    order = ">" if swapped else "<"
    if len(words) >= 2 * count:
        entries = np.frombuffer(words, dtype=order + "u2", count=count)
    elif bits <= 8 and len(words) >= count:
        # Two 8-bit entries share a word; in a big-endian file the first is its second byte.
        packed = np.frombuffer(words[: len(words) // 2 * 2], dtype=order + "u2").astype("<u2")
        entries = packed.view(np.uint8)[:count]
    else:
        return None
    return Lut(first=first, entries=entries.astype(np.float64), bits=min(bits, 16))


def numbers(ds: pydicom.Dataset, keyword: str, default: float | None = None) -> tuple[float, ...]:
    """The finite numbers of an element; ``default`` or nothing where there are none."""
    nothing = () if default is None else (float(default),)
    try:
        value = ds.get(keyword)
        if value is None or value == "":
            return nothing
        many = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
        found = tuple(float(one) for one in many)
    except VALUE_FAILURES:
        return nothing
    return found if found and all(np.isfinite(found)) else nothing


def items(ds: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    """The items of a sequence, none where it is absent or unreadable."""
    try:
        return list(ds.get(keyword) or ())
    except VALUE_FAILURES:
        return []


def text(ds: pydicom.Dataset, keyword: str) -> str:
    """A code string in capitals, empty where it is absent or unreadable."""
    try:
        value = ds.get(keyword)
    except VALUE_FAILURES:
        return ""
    return value.strip().upper() if isinstance(value, str) else ""
