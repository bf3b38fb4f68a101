"""Each DICOM step against arrays worked out by hand, the whole chain against highdicom."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.uid
import pytest
from PIL import Image
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from cxrg.errors import ImageError
from cxrg.image.codec import Codestream, read_codestream
from cxrg.image.dicom import read_dicom
from cxrg.image.grayscale import (
    apply_window,
    inverted,
    modality,
    padding,
    pixel_aspect,
    read_lut,
    stored_values,
)

UID = pydicom.uid.UID("2.25.12345")
SECRET = "Doe^Jane"
RAMP = np.arange(32 * 16, dtype=np.uint16).reshape(32, 16) * 8
COLOUR = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)


def make(pixels: np.ndarray = RAMP, bits: int = 12, **elements: Any) -> Dataset:
    """A DX data set of native pixels; ``elements`` are added, or removed where None."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    ds.file_meta.MediaStorageSOPInstanceUID = UID
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = UID
    ds.PatientName = SECRET
    ds.PatientID = SECRET
    ds.Modality = "DX"
    ds.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    ds.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored = min(bits, ds.BitsAllocated)
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def save(ds: Dataset) -> bytes:
    file = io.BytesIO()
    dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def read(ds: Dataset) -> Any:
    return read_dicom(Path("chest.dcm"), save(ds))


def lut(first: int, entries: list[int], bits: int, vr: str = "US") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    data: Any = entries
    if vr == "OW":
        data = np.asarray(entries, "<u2" if bits > 8 else "u1").tobytes()
    item.add_new("LUTData", vr, data)
    return item


# Steps


def test_window_linear_by_hand() -> None:
    # c - 0.5 = 1.5, w - 1 = 2: black up to 0.5, white above 2.5 (PS3.3 C.11.2.1.2.1).
    grey = apply_window(np.array([-5.0, 0, 0.5, 1, 1.5, 2, 2.5, 9]), 2, 3, "LINEAR")
    np.testing.assert_allclose(grey, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1])


def test_window_linear_of_width_one_is_a_step() -> None:
    grey = apply_window(np.array([1.0, 1.5, 1.6, 2]), 2, 1, "LINEAR")
    np.testing.assert_array_equal(grey, [0, 0, 1, 1])


def test_window_linear_exact_by_hand() -> None:
    grey = apply_window(np.array([0.0, 1, 2, 3, 4, 5]), 2, 4, "LINEAR_EXACT")
    np.testing.assert_allclose(grey, [0, 0.25, 0.5, 0.75, 1, 1])


def test_window_sigmoid_by_hand() -> None:
    grey = apply_window(np.array([2.0, 3, 1e6, -1e6]), 2, 4, "SIGMOID")
    np.testing.assert_allclose(grey, [0.5, 1 / (1 + np.exp(-1)), 1, 0], atol=1e-12)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(100, 1), (100.5, 77.7), (2000, 4096), (5, 4000)])
def test_window_agrees_with_pydicom(function: str, center: float, width: float) -> None:
    values = np.arange(4096, dtype=np.float64)
    ds = make(WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    with np.errstate(over="ignore"):
        expected = apply_windowing(values, ds) / 4095
    np.testing.assert_allclose(apply_window(values, center, width, function), expected, atol=1e-9)


def test_rescaled_window_agrees_with_pydicom() -> None:
    ds = make(WindowCenter="0", WindowWidth="900", RescaleSlope="0.5", RescaleIntercept="-800")
    span = 0.5 * 4095
    expected = (apply_windowing(apply_modality_lut(RAMP, ds), ds) + 800) / span
    np.testing.assert_allclose(read(ds).grey, expected, atol=1e-6)


def test_stored_values_signed_and_shifted() -> None:
    # 12 bits in the upper part of the cell: 0xFFF0 is -1, 0x8000 is -2048, 0x7FF0 is 2047.
    cells = np.array([[0xFFF0, 0x8000, 0x7FF0, 0x0010]], np.uint16)
    values, notes = stored_values(cells.view(np.int16), 12, 15, True)
    np.testing.assert_array_equal(values, [[-1, -2048, 2047, 1]])
    assert notes == ()


def test_stored_values_extend_the_sign_that_the_writer_left_out() -> None:
    values, notes = stored_values(np.array([[0x0FFF, 0x0800, 5, -3]], np.int16), 12, 11, True)
    np.testing.assert_array_equal(values, [[-1, -2048, 5, -3]])
    assert notes == ()


def test_stored_values_ignore_overlay_bits_with_a_warning() -> None:
    values, notes = stored_values(np.array([[0xF003, 4]], np.uint16), 12, 11, False)
    np.testing.assert_array_equal(values, [[3, 4]])
    assert len(notes) == 1
    assert "12 of Bits Stored" in notes[0]


def test_unused_bits_of_a_file_are_ignored_with_a_warning() -> None:
    result = read(make(RAMP | 0x8000, bits=12))
    np.testing.assert_allclose(result.grey, RAMP / 4095, atol=1e-6)
    assert "outside the 12 of Bits Stored" in result.warnings[0]
    assert read(make(RAMP << 4, bits=12, HighBit=15)).warnings == ()


def test_modality_rescales() -> None:
    ds = make(RescaleSlope="2.5", RescaleIntercept="-100")
    values, full = modality(np.arange(4096.0), ds)
    assert values[:3].tolist() == [-100, -97.5, -95]
    assert full == (-100, 2.5 * 4095 - 100)


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_modality_lut_clips_at_both_ends(vr: str) -> None:
    ds = make(ModalityLUTSequence=[lut(2, [10, 20, 300], 16, vr)], RescaleSlope="9")
    values, full = modality(np.arange(7.0), ds)
    assert values.tolist() == [10, 10, 10, 20, 300, 300, 300]
    assert full == (0, 511)
    expected = apply_modality_lut(np.arange(7), ds)
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("first", [-3, 65533])
def test_lut_of_signed_pixels_starts_below_zero_whatever_its_vr(first: int) -> None:
    table = read_lut(
        make(VOILUTSequence=[lut(first, [1, 2, 3, 4], 8)]), "VOILUTSequence", signed=True
    )
    assert table is not None
    assert table(np.array([-9.0, -3, -2, -1, 0, 9])).tolist() == [1, 1, 2, 3, 4, 4]
    assert table.top == 7


def test_lut_of_more_than_256_entries_of_8_bits() -> None:
    entries = [i // 2 for i in range(512)]
    ds = make(VOILUTSequence=[lut(0, entries, 8, "OW")])
    table = read_lut(ds, "VOILUTSequence", signed=False)
    assert table is not None
    np.testing.assert_array_equal(table(np.arange(512.0)), entries)


@pytest.mark.parametrize(
    ("stated", "highest", "top", "narrow"),
    [
        (10, 4095, 4095, False),
        (12, 4095, 4095, False),
        (14, 4095, 4095, True),
        (16, 4095, 4095, True),
        (16, 1023, 1023, True),
        (16, 1000, 1023, True),
        (16, 40000, 65535, False),
    ],
)
def test_lut_has_the_range_of_its_entries(
    stated: int, highest: int, top: int, narrow: bool
) -> None:
    item = lut(0, [0, highest], stated)
    table = read_lut(make(VOILUTSequence=[item]), "VOILUTSequence", signed=False)
    assert table is not None
    assert (table.top, table.narrow) == (top, narrow)


@pytest.mark.parametrize(("stated", "highest"), [(16, 4095), (14, 4095), (16, 1023)])
def test_voi_lut_narrower_than_stated_gives_the_same_picture(stated: int, highest: int) -> None:
    curve = np.linspace(0, 1, 4096) ** 0.8
    entries = np.rint(curve * highest).astype(int).tolist()
    plain = read(make(VOILUTSequence=[lut(0, np.rint(curve * 4095).astype(int).tolist(), 12)]))
    result = read(make(VOILUTSequence=[lut(0, entries, stated, "OW")]))
    np.testing.assert_allclose(result.grey, plain.grey, atol=1 / highest)
    assert plain.warnings == ()
    (note,) = result.warnings
    assert "fewer bits" in note


def test_modality_lut_narrower_than_stated_gives_the_same_picture() -> None:
    entries = np.arange(4096).tolist()
    for stated in (12, 16):
        result = read(make(ModalityLUTSequence=[lut(0, entries, stated)]))
        assert result.window == "full range"
        np.testing.assert_allclose(result.grey, RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize("entries", [[], [7]])
def test_lut_shorter_than_promised_is_unusable(entries: list[int]) -> None:
    item = lut(0, [1, 2, 3, 4], 16)
    item.LUTData = entries
    assert read_lut(make(VOILUTSequence=[item]), "VOILUTSequence", signed=False) is None


@pytest.mark.parametrize(
    ("photometric", "shape", "flip", "warned"),
    [
        ("MONOCHROME2", None, False, False),
        ("MONOCHROME2", "IDENTITY", False, False),
        ("MONOCHROME1", None, True, False),
        ("MONOCHROME1", "INVERSE", True, False),
        ("MONOCHROME2", "INVERSE", True, True),
        ("MONOCHROME1", "IDENTITY", False, True),
    ],
)
def test_inversion_happens_once(
    photometric: str, shape: str | None, flip: bool, warned: bool
) -> None:
    ds = make(PhotometricInterpretation=photometric)
    if shape:
        ds.PresentationLUTShape = shape
    found, notes = inverted(ds)
    assert (found, bool(notes)) == (flip, warned)
    grey = read(ds).grey
    assert (grey[0, 0] > grey[-1, -1]) == flip


def test_padding_wraps_values_of_the_wrong_sign() -> None:
    assert padding(make(), 0, 16) == slice(0, 0)
    assert padding(make(PixelPaddingValue=7), 0, 16) == slice(7, 8)
    assert padding(make(PixelPaddingValue=7, PixelPaddingRangeLimit=3), 0, 16) == slice(3, 8)
    ds = make(PixelRepresentation=0, PixelPaddingValue=63488)
    assert padding(ds, -2048, 16) == slice(0, 1)


@pytest.mark.parametrize(
    ("elements", "aspect", "spacing"),
    [
        ({}, 1.0, None),
        ({"PixelSpacing": ["0.3", "0.2"]}, 1.5, (0.3, 0.2)),
        ({"ImagerPixelSpacing": ["0.2", "0.4"]}, 0.5, (0.2, 0.4)),
        ({"PixelAspectRatio": ["4", "3"]}, 4 / 3, None),
        ({"PixelSpacing": ["0", "0"], "ImagerPixelSpacing": ["0.3", "0.2"]}, 1.5, (0.3, 0.2)),
        ({"PixelSpacing": ["0.2", "0.2"], "PixelAspectRatio": ["2", "1"]}, 1.0, (0.2, 0.2)),
        ({"PixelAspectRatio": ["1", "0"]}, 1.0, None),
        ({"PixelAspectRatio": ["1000", "1"]}, 1.0, None),
    ],
)
def test_pixel_aspect_and_spacing(
    elements: dict[str, Any], aspect: float, spacing: tuple[float, float] | None
) -> None:
    assert pixel_aspect(make(**elements)) == pytest.approx(aspect)
    found = read(make(**elements))
    assert found.pixel_aspect == pytest.approx(aspect)
    assert found.spacing == spacing


# The chain


def test_voi_lut_comes_before_the_window() -> None:
    ds = make(WindowCenter=9, WindowWidth=2, VOILUTSequence=[lut(0, [0] * 1000 + [255] * 4000, 8)])
    result = read(ds)
    assert result.window == "VOI LUT"
    np.testing.assert_array_equal(result.grey, (RAMP >= 1000).astype(np.float32))


def test_voi_lut_agrees_with_pydicom() -> None:
    entries = np.sort(np.random.default_rng(0).integers(0, 4096, 3000)).tolist()
    ds = make(VOILUTSequence=[lut(500, entries, 12)])
    expected = apply_voi(RAMP.astype(np.int32), ds) / 4095
    np.testing.assert_allclose(read(ds).grey, expected, atol=1e-6)


def test_window_of_the_file_is_named() -> None:
    ds = make(WindowCenter=["2048", "5"], WindowWidth=["4096", "5"])
    result = read(ds)
    assert result.window == "window LINEAR 2048/4096"
    np.testing.assert_allclose(result.grey, RAMP / 4095, atol=1e-6)
    assert result.uid == UID
    assert result.warnings == ()
    assert result.grey.dtype == np.float32


def test_modality_comes_before_the_window() -> None:
    ds = make(RescaleSlope="2", RescaleIntercept="-1000", WindowCenter="0", WindowWidth="2000")
    ds.VOILUTFunction = "LINEAR_EXACT"
    expected = np.clip((2.0 * RAMP - 1000 + 1000) / 2000, 0, 1)
    np.testing.assert_allclose(read(ds).grey, expected, atol=1e-6)


def test_full_range_without_voi() -> None:
    result = read(make())
    assert result.window == "full range"
    np.testing.assert_allclose(result.grey, RAMP / 4095, atol=1e-6)


def test_percentiles_without_voi_where_little_of_the_range_is_used() -> None:
    result = read(make(bits=16))
    assert result.window == "percentile 0.5-99.5"
    low, high = np.percentile(RAMP, [0.5, 99.5], method="inverted_cdf")
    expected = np.clip((RAMP.astype(float) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(result.grey, expected, atol=1e-6)


def test_eight_bits_without_voi_are_taken_as_they_are() -> None:
    pixels = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16) // 4
    result = read(make(pixels, bits=8))
    assert result.window == "full range"
    np.testing.assert_allclose(result.grey, pixels / 255, atol=1e-6)


def test_eight_bits_signed() -> None:
    pixels = np.arange(-128, 128).astype(np.int8).reshape(16, 16)
    expected = np.arange(256).reshape(16, 16) / 255
    np.testing.assert_allclose(read(make(pixels, bits=8)).grey, expected, atol=1e-6)


def test_sixteen_bits_signed_with_window() -> None:
    pixels = (RAMP.astype(np.int16) - 2000).astype(np.int16)
    ds = make(pixels, bits=16, WindowCenter="0", WindowWidth="4001")
    expected = np.clip((pixels + 0.5) / 4000 + 0.5, 0, 1)
    np.testing.assert_allclose(read(ds).grey, expected, atol=1e-6)


def test_padding_is_black_and_does_not_count() -> None:
    pixels = RAMP.copy()
    pixels[:4] = 65535
    plain = make(pixels, bits=16, PixelPaddingValue=65535, PhotometricInterpretation="MONOCHROME2")
    result = read(plain)
    assert result.window == "percentile 0.5-99.5"
    assert (result.grey[:4] == 0).all()
    low, high = np.percentile(RAMP[4:], [0.5, 99.5], method="inverted_cdf")
    expected = np.clip((RAMP[4:].astype(float) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(result.grey[4:], expected, atol=1e-6)
    plain.PhotometricInterpretation = "MONOCHROME1"
    assert (read(plain).grey[:4] == 0).all()


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": "90000", "WindowWidth": "10"},
        {"WindowCenter": "2000", "WindowWidth": "0"},
        {"VOILUTSequence": [lut(0, [7] * 4, 8)]},
    ],
)
def test_voi_that_shows_nothing_is_ignored_with_a_warning(elements: dict[str, Any]) -> None:
    result = read(make(**elements))
    assert result.window == "full range"
    assert any("was ignored" in note for note in result.warnings)


def test_unknown_voi_function_is_a_warning() -> None:
    result = read(make(WindowCenter="9", WindowWidth="20", VOILUTFunction="CUBIC"))
    assert result.window == "window LINEAR 9/20"
    assert "VOI LUT Function" in result.warnings[0]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", [None, "IDENTITY", "INVERSE"])
@pytest.mark.parametrize(
    "grey",
    [
        {"WindowCenter": "2100", "WindowWidth": "1500"},
        {"WindowCenter": "2100", "WindowWidth": "1500", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "2100", "WindowWidth": "1500", "VOILUTFunction": "LINEAR_EXACT"},
        # highdicom folds slope and window into one, which is exact for LINEAR_EXACT only.
        {
            "WindowCenter": "0",
            "WindowWidth": "900",
            "RescaleSlope": "0.5",
            "RescaleIntercept": "-800",
            "VOILUTFunction": "LINEAR_EXACT",
        },
        # highdicom scales the entries to their own range, so they use all 16 bits here.
        {"VOILUTSequence": [lut(100, [i * 65535 // 2999 for i in range(3000)], 16)]},
    ],
)
def test_chain_agrees_with_highdicom(
    photometric: str, shape: str | None, grey: dict[str, Any]
) -> None:
    highdicom = pytest.importorskip("highdicom", reason="the oracle highdicom is not installed")
    ds = make(PhotometricInterpretation=photometric, **grey)
    if shape:
        ds.PresentationLUTShape = shape
    ds.StudyInstanceUID = ds.SeriesInstanceUID = generate_uid()
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        if keyword not in ds:
            setattr(ds, keyword, "1" if keyword == "RescaleSlope" else "0")
    ds.RescaleType = "US"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = highdicom.imread(io.BytesIO(save(ds)))
        expected = image.get_frame(
            1, apply_voi_transform=True, apply_presentation_lut=True, voi_output_range=(0.0, 1.0)
        )
    np.testing.assert_allclose(read(ds).grey, expected, atol=1e-5)


# Containers and codecs


def plain_syntax(ds: Dataset, syntax: pydicom.uid.UID) -> bytes:
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = RAMP.astype(">u2").tobytes()
    return save(ds)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_plain_transfer_syntaxes(syntax: pydicom.uid.UID) -> None:
    ds = make(VOILUTSequence=[lut(0, list(range(4096)), 12, "US")])
    result = read_dicom(Path("x"), plain_syntax(ds, syntax))
    np.testing.assert_allclose(result.grey, RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("keep", ["meta", "prefix", "nothing"])
def test_files_without_preamble(syntax: pydicom.uid.UID, keep: str) -> None:
    data = plain_syntax(make(), syntax)
    group_length = int.from_bytes(data[140:144], "little")
    start = {"meta": 132, "prefix": 128, "nothing": 144 + group_length}[keep]
    result = read_dicom(Path("x"), data[start:])
    np.testing.assert_allclose(result.grey, RAMP / 4095, atol=1e-6)


JFIF = b"\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
# 4096 grey values in a size that JPEG 2000 can halve five times.
SQUARE = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def compress(syntax: str) -> Dataset:
    ds = make(SQUARE)
    ds.compress(syntax, generate_instance_uid=False)
    return ds


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_codecs(syntax: str) -> None:
    if syntax == JPEG2000Lossless:
        pytest.importorskip("openjpeg", reason="pylibjpeg-openjpeg is not installed")
    np.testing.assert_allclose(read(compress(syntax)).grey, SQUARE / 4095, atol=1e-6)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_high_bit_of_compressed_pixels(syntax: str) -> None:
    ds = make(SQUARE << 4, bits=16) if syntax == RLELossless else make(SQUARE)
    ds.compress(syntax, generate_instance_uid=False)
    ds.BitsStored, ds.HighBit = 12, 15
    np.testing.assert_allclose(read(ds).grey, SQUARE / 4095, atol=1e-6)


def test_lut_words_of_a_big_endian_file() -> None:
    item = lut(0, [0, 1], 12, "OW")
    entries = np.arange(4096)[::-1]
    item.LUTDescriptor = [4096, 0, 12]
    item.LUTData = entries.astype(">u2").tobytes()
    result = read_dicom(Path("x"), plain_syntax(make(VOILUTSequence=[item]), ExplicitVRBigEndian))
    np.testing.assert_allclose(result.grey, 1 - RAMP / 4095, atol=1e-6)


def jpeg_frame(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def baseline(pixels: np.ndarray, frame: bytes) -> Dataset:
    ds = make(pixels, bits=8)
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return ds


def test_jpeg_baseline() -> None:
    pixels = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (32, 1))
    frame = jpeg_frame(pixels)
    expected = np.asarray(Image.open(io.BytesIO(frame))) / 255
    np.testing.assert_allclose(read(baseline(pixels, frame)).grey, expected, atol=1.5 / 255)


def test_colour_of_equal_channels_is_grey() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    result = read(make(np.dstack([grey] * 3), bits=8))
    np.testing.assert_allclose(result.grey, grey / 255, atol=1e-6)


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": "2048", "WindowWidth": "4096"},
        {"RescaleSlope": "1", "RescaleIntercept": "-1024"},
        {"VOILUTSequence": [lut(0, list(range(4096)), 12)]},
        {"ModalityLUTSequence": [lut(0, list(range(4096)), 12)]},
        {"PresentationLUTShape": "INVERSE"},
        {"PixelPaddingValue": 200},
    ],
    ids=lambda elements: "+".join(elements),
)
def test_elements_for_grey_pixels_are_not_applied_to_colour(elements: dict[str, Any]) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    result = read(make(np.dstack([grey] * 3), bits=8, **elements))
    np.testing.assert_allclose(result.grey, grey / 255, atol=1e-6)
    assert (result.window, result.warnings) == ("full range", ())


def luminance(colour: np.ndarray) -> np.ndarray:
    return colour @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_colour_becomes_luminance_with_a_warning(planar: int, syntax: pydicom.uid.UID) -> None:
    stored = COLOUR.transpose(2, 0, 1) if planar and syntax != RLELossless else COLOUR
    ds = make(COLOUR, bits=8, PixelData=stored.tobytes())
    if syntax == RLELossless:
        ds.compress(syntax, generate_instance_uid=False)
    ds.PlanarConfiguration = planar
    result = read(ds)
    np.testing.assert_allclose(result.grey, luminance(COLOUR) / 255, atol=0.6 / 255)
    (note,) = result.warnings
    assert "luminance" in note


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_luma_and_chroma_become_luminance(syntax: pydicom.uid.UID) -> None:
    smooth = np.tile(np.arange(100, 132, dtype=np.uint8), (16, 1))
    # Grey with a red tint: full-range YCbCr of BT.601, whose first channel is the luminance.
    ds = make(np.dstack([smooth, np.full_like(smooth, 120), np.full_like(smooth, 140)]), bits=8)
    ds.PhotometricInterpretation = "YBR_FULL"
    if syntax == RLELossless:
        ds.compress(syntax, generate_instance_uid=False)
    np.testing.assert_allclose(read(ds).grey, smooth / 255, atol=1.5 / 255)


ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"  # and then 0 for RGB, 1 for YCbCr


@pytest.mark.parametrize("header", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("stated", ["JFIF", "Adobe", "nothing"])
@pytest.mark.parametrize("space", ["RGB", "YCBCR"])
def test_colour_space_of_a_jpeg_is_what_it_states(header: str, stated: str, space: str) -> None:
    codecs = pytest.importorskip("imagecodecs", reason="the encoder imagecodecs is not installed")
    ramp = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (32, 1))
    colour = np.dstack([ramp, ramp, np.full_like(ramp, 120)])
    frame = codecs.jpeg8_encode(
        colour, level=98, colorspace="RGB", outcolorspace=space, subsampling="444"
    )
    # The encoder's own segment of either kind is taken out, and the wanted one put in its place.
    at, length = frame.index(b"\xff", 2), int.from_bytes(frame[4:6], "big")
    assert frame[at + 1] in (0xE0, 0xEE)
    segment = {"JFIF": JFIF, "Adobe": ADOBE + bytes([space == "YCBCR"]), "nothing": b""}[stated]
    frame = frame[:2] + segment + frame[4 + length :]
    if (stated == "JFIF" and space == "RGB") or (
        stated == "nothing" and (header == "RGB") != (space == "RGB")
    ):
        return  # the file contradicts the standard, and nothing in it shows that
    ds = baseline(colour, frame)
    ds.PhotometricInterpretation = header
    result = read(ds)
    np.testing.assert_allclose(result.grey, luminance(colour) / 255, atol=4 / 255)


def palette_of(tables: list[np.ndarray], bits: int) -> dict[str, Any]:
    made: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        made[f"{colour}PaletteColorLookupTableDescriptor"] = [len(table), 0, bits]
        made[f"{colour}PaletteColorLookupTableData"] = table.astype("<u2").tobytes()
    return made


@pytest.mark.parametrize(
    ("scale", "stated"), [(257, 16), (1, 16), (1, 8)], ids=["16 bits", "8 in 16", "8 bits"]
)
def test_palette_is_shown_by_its_own_grey(scale: int, stated: int) -> None:
    index = np.arange(256, dtype=np.uint8).reshape(16, 16)
    ramp = np.arange(256)[::-1] * scale
    result = read(make(index, 8, **palette_of([ramp] * 3, stated), WindowCenter=9, WindowWidth=9))
    np.testing.assert_allclose(result.grey, 1 - index / 255, atol=1e-6)
    assert (result.window, result.warnings) == ("palette", ())


def test_palette_in_colour_becomes_luminance_with_a_warning() -> None:
    index = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tables = [np.arange(256) * 257, np.arange(256)[::-1] * 257, np.full(256, 100 * 257)]
    result = read(make(index, 8, **palette_of(tables, 16)))
    expected = luminance(np.stack(tables, -1) / 65535)[index]
    np.testing.assert_allclose(result.grey, expected, atol=1e-6)
    assert "luminance" in result.warnings[0]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("slope", ["1", "1e30", "-1e30", "1e-30", "1e-308"])
@pytest.mark.parametrize("center", ["0", "1e308", "-1e308", "1e-308"])
@pytest.mark.parametrize("width", ["1", "1e308", "1e-308", "-1e308"])
def test_extreme_numbers_give_grey_or_one_line(
    function: str, slope: str, center: str, width: str
) -> None:
    ds = make(RescaleSlope=slope, RescaleIntercept="1e30", VOILUTFunction=function)
    ds.WindowCenter, ds.WindowWidth = center, width
    try:
        grey = read(ds).grey
    except ImageError:
        return
    assert np.isfinite(grey).all()
    assert grey.min() >= 0
    assert grey.max() <= 1


def test_missing_samples_per_pixel_and_high_bit_are_filled_in() -> None:
    result = read(make(SamplesPerPixel=None, HighBit=None))
    np.testing.assert_allclose(result.grey, RAMP / 4095, atol=1e-6)


def frame_of(pixels: np.ndarray, codec: str) -> tuple[bytes, str]:
    """An independent encoder's codestream, and its transfer syntax."""
    codecs = pytest.importorskip("imagecodecs", reason="the encoder imagecodecs is not installed")
    bits = 8 if pixels.dtype == np.uint8 else 12
    if codec == "lossy":
        options = {} if bits == 8 else {"bitspersample": 12}
        return codecs.jpeg8_encode(pixels, level=100, **options), JPEGExtended12Bit
    if codec == "lossless":
        return codecs.ljpeg_encode(pixels, bitspersample=bits), JPEGLosslessSV1
    if codec == "jpeg-ls":
        return codecs.jpegls_encode(pixels), JPEGLSLossless
    if codec == "jpeg 2000":
        data = codecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, level=0)
        return data, JPEG2000Lossless
    return codecs.htj2k_encode(pixels), HTJ2KLossless


def with_frame(frame: bytes, syntax: str, allocated: int, stored: int) -> Dataset:
    """A header for the frame of a picture of 64 x 64 pixels."""
    ds = make(SQUARE, BitsAllocated=allocated, BitsStored=stored, HighBit=stored - 1)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return ds


CODECS = ("lossy", "lossless", "jpeg-ls", "jpeg 2000", "htj2k")
# The last three encoders write 8 or 16 bits only.
DEPTHS = [
    (codec, 8, *header) for codec in CODECS for header in ((8, 8), (16, 8), (16, 12), (16, 16))
]
DEPTHS += [(codec, 12, 16, stored) for codec in CODECS[:2] for stored in (12, 16)]


@pytest.mark.parametrize(("codec", "depth", "allocated", "stored"), DEPTHS)
def test_depth_of_a_codestream_is_its_own(
    codec: str, depth: int, allocated: int, stored: int
) -> None:
    pixels = SQUARE if depth == 12 else (SQUARE >> 4).astype(np.uint8)
    frame, syntax = frame_of(pixels, codec)
    assert read_codestream(frame) == Codestream(rows=64, columns=64, components=1, bits=depth)
    result = read(with_frame(frame, syntax, allocated, stored))
    tolerance = (2 if codec == "lossy" else 0.01) / (2**depth - 1)
    np.testing.assert_allclose(result.grey, pixels / (2**depth - 1), atol=tolerance)
    assert result.window == "full range"
    assert ["its header says" in note for note in result.warnings] == [True] * (depth != stored)


def test_decoders_write_nothing_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    frame, syntax = frame_of(SQUARE, "lossy")
    # Spectral selection 0 to 0 instead of 0 to 63: gdcm remarks on it, and decodes.
    end = frame.rindex(b"\xff\xda") + 8
    odd = frame[:end] + b"\0" + frame[end + 1 :]
    assert frame[end] == 63
    assert np.array_equal(
        read(with_frame(odd, syntax, 16, 12)).grey, read(with_frame(frame, syntax, 16, 12)).grey
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("codec", "bits"), [("lossless", 12), ("lossy", 12), ("lossless", 8)])
def test_what_would_make_gdcm_end_the_process_is_kept_from_it(codec: str, bits: int) -> None:
    pixels = SQUARE if bits == 12 else (SQUARE >> 4).astype(np.uint8)
    frame, syntax = frame_of(pixels, codec)
    version_17 = JFIF.replace(b"\0\x01\x01", b"\0\x11\x01")
    odd = frame[:2] + version_17 + b"\xff\xfe\0\x04no" + b"\xff" + frame[2:]
    expected = read(with_frame(frame, syntax, 16, bits)).grey
    np.testing.assert_array_equal(read(with_frame(odd, syntax, 16, bits)).grey, expected)
    # Pixels of more bits than are stored.
    result = read(with_frame(frame, syntax, 8 if bits == 8 else 16, 2))
    np.testing.assert_array_equal(result.grey, expected)
    assert f"{bits} were taken" in result.warnings[0]


@pytest.mark.parametrize("codec", CODECS[2:])
@pytest.mark.parametrize(("header", "allocated"), [(12, 16), (8, 8), (8, 16)])
def test_codestream_of_more_bits_than_its_header_says(
    codec: str, header: int, allocated: int
) -> None:
    frame, syntax = frame_of(SQUARE * 16, codec)
    result = read(with_frame(frame, syntax, allocated, header))
    np.testing.assert_allclose(result.grey, SQUARE * 16 / 65535, atol=1e-6)
    assert "16 were taken" in result.warnings[0]
    # An encoder may state 16 bits for 12; that is no fault.
    frame, syntax = frame_of(SQUARE, codec)
    result = read(with_frame(frame, syntax, 16, 12))
    np.testing.assert_allclose(result.grey, SQUARE / 4095, atol=1e-6)
    assert result.warnings == ()


def test_window_of_another_depth_than_the_codestream_is_ignored() -> None:
    pixels = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (32, 1))
    frame = jpeg_frame(pixels)
    for window, words in (("128 256", "window LINEAR 128/256"), ("2048 4096", "full range")):
        ds = baseline(pixels, frame)
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.WindowCenter, ds.WindowWidth = window.split()
        result = read(ds)
        assert result.window == words
        np.testing.assert_allclose(result.grey, pixels / 255, atol=3 / 255)


def turned(elements: list[str]) -> Callable[[np.ndarray], np.ndarray]:
    turns: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "L F": lambda p: p,
        "R F": lambda p: p[:, ::-1],
        "L H": lambda p: p[::-1],
        "R H": lambda p: p[::-1, ::-1],
        "F L": lambda p: p.T,
        "H R": lambda p: p[::-1, ::-1].T,
        "F R": np.rot90,
        "H L": lambda p: np.rot90(p, -1),
    }
    return turns[" ".join(elements)]


@pytest.mark.parametrize("rows", "LRHF")
@pytest.mark.parametrize("columns", "LRHF")
def test_a_mirrored_or_turned_picture_is_brought_upright(rows: str, columns: str) -> None:
    if (rows in "LR") == (columns in "LR"):
        assert read(make(PatientOrientation=[rows, columns])).warnings == ()
        return
    stored = turned([rows, columns])(RAMP)
    ds = make(np.ascontiguousarray(stored), PatientOrientation=[rows, columns])
    ds.PixelSpacing = [0.2, 0.1] if rows in "LR" else [0.1, 0.2]
    result = read(ds)
    np.testing.assert_allclose(result.grey, RAMP / 4095, atol=1e-6)
    assert result.pixel_aspect == 2
    assert result.spacing == (0.2, 0.1)
    assert ["upright" in note for note in result.warnings] == [True] * (
        (rows, columns) != ("L", "F")
    )


@pytest.mark.parametrize(
    ("directions", "words"),
    [
        (["A", "F"], "lateral"),
        (["P", "F"], "lateral"),
        (["PR", "FL"], "lateral"),
        (["RP", "FA"], "upright"),
        (["L", "P"], ""),
        (["L"], ""),
        (["L", "X"], ""),
        (["", ""], ""),
        (["LE", "RT", "CD"], ""),
    ],
)
def test_patient_orientation_in_other_forms(directions: list[str], words: str) -> None:
    result = read(make(PatientOrientation=directions))
    assert words in " ".join((*result.warnings, result.stated or ""))
    assert len(result.warnings) + bool(result.stated) == bool(words)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_codestream_tells_its_size(syntax: str) -> None:
    if syntax == JPEG2000Lossless:
        pytest.importorskip("openjpeg", reason="pylibjpeg-openjpeg is not installed")
    ds = compress(syntax)
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    assert read_codestream(frame) == Codestream(rows=64, columns=64, components=1, bits=12)


def test_codestream_of_jpeg_tells_its_size() -> None:
    for shape in ((40, 24), (40, 24, 3)):
        expected = Codestream(rows=40, columns=24, components=(*shape, 1)[2], bits=8)
        assert read_codestream(jpeg_frame(np.zeros(shape, np.uint8))) == expected
    assert read_codestream(b"\xff\xd8") is None
    assert read_codestream(b"") is None


# Refusals and warnings


def cut_pixels(data: bytes) -> bytes:
    return data[:-100]


def cut_header(data: bytes) -> bytes:
    return data[: data.index(b"\x28\x00\x10\x00") + 3]


@pytest.mark.parametrize(
    ("ds", "damage", "problem"),
    [
        (make(), cut_pixels, "truncated"),
        (make(), cut_header, "has no pixel data"),
        (compress(RLELossless), cut_pixels, "truncated"),
        (make(PixelData=None), bytes, "has no pixel data"),
        (make(NumberOfFrames=2, PixelData=RAMP.tobytes() * 2), bytes, "more than one frame"),
        (make(Rows=0), bytes, "zero-sized"),
        (make(Rows=None), bytes, "lacks a usable Rows"),
        (make(BitsStored=None), bytes, "lacks a usable BitsStored"),
        (make(BitsStored=17), bytes, "17 bits stored in 16"),
        (make(Rows=65000, Columns=65000), bytes, "too large"),
        (make(RAMP[:4]), bytes, "too small"),
        (make(np.resize(RAMP, (16, 512))), bytes, "is a strip"),
        (make(np.full((32, 32), 7, np.uint16)), bytes, "same value"),
        (make(PixelPaddingValue=0, PixelPaddingRangeLimit=4095), bytes, "same value"),
        (make(ModalityLUTSequence=[lut(0, [5, 5], 16)]), bytes, "one value"),
        (make(PhotometricInterpretation="PALETTE COLOR"), bytes, "no usable palette"),
        (make(PhotometricInterpretation="HSV"), bytes, "neither grey nor RGB"),
        (make(PhotometricInterpretation=None), bytes, "lacks a usable PhotometricInterpretation"),
        (make(COLOUR, SamplesPerPixel=1), bytes, "neither grey nor RGB"),
        (make(COLOUR, PixelRepresentation=1), bytes, "colour with signed pixels"),
        (make(np.full((32, 32, 3), 7, np.uint8)), bytes, "same value"),
        (make(RescaleSlope="1e308"), bytes, "Rescale Slope or Rescale Intercept"),
        (make(RescaleIntercept="-1e308"), bytes, "Rescale Slope or Rescale Intercept"),
        (make(BitsAllocated=32, BitsStored=32, HighBit=31), bytes, "32 bits stored"),
    ],
)
def test_refusals_are_one_line_with_a_remedy(
    ds: Dataset, damage: Callable[[bytes], bytes], problem: str
) -> None:
    with pytest.raises(ImageError, match=problem) as caught:
        read_dicom(Path("chest.dcm"), damage(save(ds)))
    message = str(caught.value)
    assert message.startswith("chest.dcm: ")
    assert "; " in message
    assert "\n" not in message
    assert "Doe" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_every_cut_of_a_file_is_refused_or_says_nothing_new() -> None:
    data = save(make(WindowCenter="2048", WindowWidth="4096"))
    for end in range(132, len(data) - 1, 7):
        with pytest.raises(ImageError):
            read_dicom(Path("x"), data[:end])


def test_noise_after_the_magic_bytes_is_refused() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        with pytest.raises(ImageError):
            read_dicom(Path("x"), bytes(128) + b"DICM" + rng.bytes(300))


def test_flipped_bytes_never_end_in_a_traceback() -> None:
    rng = np.random.default_rng(6)
    voi: dict[str, Any] = {
        "VOILUTSequence": [lut(0, [1, 2, 3, 4], 8)],
        "WindowCenter": "9",
        "WindowWidth": "9",
    }
    data = save(make(RAMP[:16, :16].copy(), **voi))
    for _ in range(1500):
        broken = bytearray(data)
        for place in rng.integers(132, len(data) - 512, 3):
            broken[place] = rng.integers(256)
        try:
            grey = read_dicom(Path("x"), bytes(broken)).grey
        except ImageError:
            continue
        assert np.isfinite(grey).all()
        assert grey.min() >= 0
        assert grey.max() <= 1


def test_compressed_image_of_another_size_is_refused_before_decoding() -> None:
    small = np.zeros((32, 32), np.uint8)
    huge = bytearray(jpeg_frame(small))
    start = huge.index(b"\xff\xc0")
    huge[start + 5 : start + 9] = b"\xff\xf0\xff\xf0"
    with pytest.raises(ImageError, match="does not match its header"):
        read(baseline(small, bytes(huge)))


BOMB = zlib.compressobj(wbits=-zlib.MAX_WBITS)
BOMB_DATA = BOMB.compress(bytes(2**26)) + BOMB.flush()


def deflated(padding: bytes = b"\0", length: int | None = None, start: int = 0) -> bytes:
    """A small file that inflates to 64 MiB, with its meta header written in an unusual form."""
    uid = DeflatedExplicitVRLittleEndian.encode() + padding
    meta = b"\x02\x00\x10\x00UI" + len(uid).to_bytes(2, "little") + uid
    group = (len(meta) if length is None else length).to_bytes(4, "little")
    head = b"\x02\x00\x00\x00UL\x04\x00" + group
    return (bytes(128) + b"DICM" + head + meta + BOMB_DATA)[start:]


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"padding": b"\0\0\0"},
        {"padding": b" "},
        {"padding": b""},
        {"length": 7},
        {"length": 2**31},
        {"start": 128},
        {"start": 132},
    ],
    ids=str,
)
def test_deflated_bomb_is_refused(monkeypatch: pytest.MonkeyPatch, form: dict[str, Any]) -> None:
    monkeypatch.setattr("cxrg.image.dicom.MAX_INFLATED", 2**20)
    monkeypatch.setattr("pydicom.filereader.zlib.decompress", None)  # not reached
    with pytest.raises(ImageError, match="inflates to more than 1 MiB"):
        read_dicom(Path("x"), deflated(**form))


def test_run_lengths_are_decoded_no_further_than_the_picture() -> None:
    ds = compress(RLELossless)
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    run = b"\x81\x00"  # 128 zeros
    ds.PixelData = encapsulate([frame + run * 2**20])
    tracemalloc.start()
    try:
        result = read(ds)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(result.grey, SQUARE / 4095, atol=1e-6)
    assert peak < 2**25  # all runs would be 128 MiB


@pytest.mark.parametrize(
    "header",
    [[3, 64, 80, 90], [1, 64], [2, 60, 80], [2, 90, 80], [2, 64, 2**31]],
    ids=["a segment more", "a segment less", "in the header", "backwards", "beyond the end"],
)
def test_run_lengths_with_another_header_are_refused(header: list[int]) -> None:
    ds = compress(RLELossless)
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.PixelData = encapsulate([np.array(header, "<u4").tobytes().ljust(64, b"\0") + frame[64:]])
    with pytest.raises(ImageError, match="cannot be decoded"):
        read(ds)


def many_scans(pixels: np.ndarray, count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", progressive=True)
    frame = file.getvalue()
    last = frame.rindex(b"\xff\xda")
    return frame[:last] + frame[last:-2] * count + b"\xff\xd9"


def test_jpeg_of_thousands_of_scans_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = (SQUARE >> 4).astype(np.uint8)
    # 64 x 64 pixels would need half a million scans.
    monkeypatch.setattr("cxrg.image.codec.MAX_SCANNED", 64 * 64 * 100)
    assert read(baseline(pixels, many_scans(pixels, 50))).grey.shape == (64, 64)
    with pytest.raises(ImageError, match="too many JPEG scans"):
        read(baseline(pixels, many_scans(pixels, 3000)))


def lateral_code() -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "399173006", "SCT"
    code.CodeMeaning = "left lateral"
    return code


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "FOR PROCESSING"),
    ],
)
def test_warnings(elements: dict[str, Any], words: str) -> None:
    (note,) = read(make(**elements)).warnings
    assert words in note


@pytest.mark.parametrize(
    ("elements", "stated"),
    [
        ({"ViewPosition": "LL"}, "a lateral view"),
        ({"ViewPosition": "RL"}, "a lateral view"),
        ({"ViewPosition": "LATERAL"}, "a lateral view"),
        ({"ViewCodeSequence": [lateral_code()]}, "a lateral view"),
        ({"Modality": "CT"}, "no plain radiograph (Modality)"),
        ({"BodyPartExamined": "KNEE"}, "of another part of the body (Body Part Examined)"),
        ({"BodyPartExamined": "C SPINE"}, "of another part of the body (Body Part Examined)"),
    ],
)
def test_other_pictures_are_known_by_their_header(elements: dict[str, Any], stated: str) -> None:
    assert read(make(**elements)).stated == stated


@pytest.mark.parametrize("view", ["PA", "AP", ""])
@pytest.mark.parametrize("part", ["CHEST", "PORT CHEST", "THORAX", "DOE JANE", ""])
def test_frontal_views_of_the_chest_bring_no_warning(view: str, part: str) -> None:
    result = read(make(ViewPosition=view, BodyPartExamined=part, BurnedInAnnotation="NO"))
    assert (result.warnings, result.stated) == ((), None)


def test_nothing_of_the_patient_gets_out(
    recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    data = save(make(WindowCenter="2048", WindowWidth="4096"))
    # An invalid date and a window with the name in it: pydicom would quote both.
    data = data.replace(b"2048", b"Jane").replace(b"2.25.12345", b"2.25.Doe45")
    with caplog.at_level("DEBUG"):
        result = read_dicom(Path("x"), data)
    assert result.uid is None
    assert result.window == "full range"
    assert not recwarn.list
    assert not caplog.records
    assert "Jane" not in str(result.warnings)


def test_a_uid_that_is_none_is_left_out() -> None:
    data = save(make()).replace(b"2.25.12345", b"Doe^Jane^1")
    assert read_dicom(Path("x"), data).uid is None


def test_reading_imports_no_torch() -> None:
    code = "import sys, cxrg.image.read; print(sorted({'torch', 'diffusers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
