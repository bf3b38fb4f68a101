"""Whole image files to be damaged: every transfer syntax and picture format that is read."""

from __future__ import annotations

import base64
import io
import warnings
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import tifffile
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLSNearLossless,
    RLELossless,
)

SECRET = "Canary^Fuzz"
# The same 16 x 16 ramp of 12 bits three times, made once with imagecodecs: htj2k_encode,
# ljpeg_encode and jpeg8_encode.
_HTJ2K = (
    "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB"
    "/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAPMAAf+TwAAm0/gFB3QA"
    "AMAAE0AAE0AAEYCO+AMHdAC0/QKHdAAAYwDAABUQAAVAABBBxAKIdAAAsMX2AICUAMAAFdAABaEAAFaAA3CI4QAw5PB/"
    "OkFlNgBFALVkAcwAzP4GMAHXTZcAmZknwuN6+QBvU8G2AMAALdgABdLAAC6gyd3sZiYAZ28CcnaJDWMv3NXyPJZv3GYh"
    "Rp+XcAGgUISGFgBgAkBBnABIwAEABf0EIDkEQgB8dBfkvbtxc/knKnMBFReGVFwQs3FhmEwXxmxcWJCpeAByGuYAwbec"
    "X3lffHD59W/jXy2RAf/Z"
)
_LOSSLESS_JPEG = (
    "/9j/xAAWAAEBAQAAAAAAAAAAAAAAAAAGBwz/wwALDAAQABABABEA/9oACAEAAAYAAM//AHq9XW9XW9Xq63q63q9XW9XW"
    "ppU6xKsSp1iVYlTrEqynLEqdYlWJU6xKsSp1iWppViVOsSrEqdYlWJU6ynLEqxKnWJViVOsSrEqenJ1iVYlTrEqxKnWJ"
    "ViWppU6xKsSp1iVYlTrEqynLEqdYlWJU6xKsSp1iWppViVOsSrEqdYlWJU6ynLEqxKnWJViVOsSrEqenJ1iVYlTrEqxK"
    "nWJViWppU6xKsSp1iVYlTrEqynLEqdYlWJU6xKsSp1iWppViVOsSrEqdYlWJU6ynLEqxKnWJViVOsSrEqenJ1iVYlTrE"
    "qxKnWJViUP/Z"
)
_TWELVE_BIT_JPEG = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsL"
    "EBYQERMUFRUVDA8XGBYUGBIUFRT/wQALDAAQABABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAACQwN/8QAGxAAAAcBAAAA"
    "AAAAAAAAAAAAAAgMKDRFUeL/2gAIAQEAAD8AklC2puOK1zKLgKsW1NxxWuZRcDUAC2puOK1zKLgKqW1NxxWuZRcD/9k="
)


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where one element is: its header from ``start``, its value from ``value`` to ``end``."""

    start: int
    value: int
    end: int
    keyword: str


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A whole file; ``data`` is inflated where the data set was deflated from ``deflated`` on."""

    name: str
    data: bytes
    spans: tuple[Span, ...] = ()
    order: str = "<"
    explicit: bool = True
    deflated: int | None = None

    @property
    def pixels(self) -> int:
        """Where the pixel data's value starts; the middle where there is none."""
        found = [span.value for span in self.spans if span.keyword == "PixelData"]
        return found[0] if found else len(self.data) // 2


@cache
def dicom_seeds() -> tuple[Seed, ...]:
    """One or more for every transfer syntax that is read, most of them of real patients' images.

    Their names were removed by those who published them; a secret is put in place.
    """
    bundled = [
        *("MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm"),
        *("MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"),
        *("JPEG2000.dcm", "JPEG-lossy.dcm", "CT_small.dcm", "SC_rgb_jpeg_dcmtk.dcm"),
        *("bad_sequence.dcm", "J2K_pixelrep_mismatch.dcm", "MR_truncated.dcm"),
    ]
    files = {name: get_testdata_file(name, download=False) for name in bundled}
    # Lossless JPEG of a real image, and real files with lookup tables, where pydicom-data is.
    for name in ("JPEG-LL.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm", "693_J2KI.dcm"):
        files[name] = get_testdata_file(name, download=False)
    real = {name: Path(str(file)).read_bytes() for name, file in files.items() if file}
    return tuple(_located(name, data) for name, data in {**real, **_made()}.items())


def _made() -> dict[str, bytes]:
    """Small files for syntaxes and steps that the real ones do not have."""
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    grey = (ramp >> 4).astype(np.uint8)
    photo = io.BytesIO()
    Image.fromarray(grey).save(photo, "JPEG", quality=90)
    progressive = io.BytesIO()
    Image.fromarray(grey).save(progressive, "JPEG", quality=90, progressive=True)
    small = np.zeros((16, 16), np.uint16)
    luts = dataset(ramp, ModalityLUTSequence=[_lut(0, 4096)], VOILUTSequence=[_lut(0, 4096)])
    luts.PixelPaddingValue, luts.PixelPaddingRangeLimit = 0, 10
    near = dataset(ramp)
    near.compress(JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)
    table = dataset(ramp)
    table.compress(JPEG2000Lossless, encapsulate_ext=True, generate_instance_uid=False)
    colour = dataset(np.dstack([grey] * 3))
    colour.compress(RLELossless, generate_instance_uid=False)
    made = {
        "luts": luts,
        "near-lossless": near,
        "extended offset table": table,
        "colour": colour,
        "baseline": _framed(grey, photo.getvalue(), JPEGBaseline8Bit),
        "progressive": _framed(grey, progressive.getvalue(), JPEGExtended12Bit),
        "high throughput": _framed(small, base64.b64decode(_HTJ2K), HTJ2KLossless),
        "lossless": _framed(small, base64.b64decode(_LOSSLESS_JPEG), JPEGLossless),
        "lossy of 12 bits": _framed(small, base64.b64decode(_TWELVE_BIT_JPEG), JPEGExtended12Bit),
        "palette": dataset(grey, PhotometricInterpretation="PALETTE COLOR", **_palette()),
        "mirrored": dataset(ramp, PatientOrientation=["R", "F"]),
    }
    return {name: as_bytes(ds) for name, ds in made.items()}


def dataset(pixels: np.ndarray, **elements: Any) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1.1")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = UID("2.25.99")
    ds.PatientName = ds.PatientID = SECRET
    ds.Modality, ds.ViewPosition, ds.PixelSpacing = "DX", "PA", [0.14, 0.14]
    ds.WindowCenter, ds.WindowWidth, ds.NumberOfFrames = "2048", "4096", "1"
    ds.RescaleSlope, ds.RescaleIntercept = "1", "0"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    ds.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = 8 * pixels.dtype.itemsize
    ds.BitsStored = min(12, ds.BitsAllocated)
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
    ds.add_new("PixelData", "OB" if ds.BitsAllocated == 8 else "OW", pixels.tobytes())
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def _lut(first: int, count: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count, first, 12])
    item.add_new("LUTData", "OW", np.arange(count, dtype="<u2").tobytes())
    return item


def _palette() -> dict[str, Any]:
    ramp = np.arange(256, dtype="<u2").tobytes()
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    tables = {f"{name}Data": ramp for name in names}
    return tables | {f"{name}Descriptor": [256, 0, 16] for name in names}


def _framed(pixels: np.ndarray, frame: bytes, syntax: UID) -> Dataset:
    ds = dataset(pixels)
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    return ds


def as_bytes(ds: Dataset) -> bytes:
    file = io.BytesIO()
    pydicom.dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def _located(name: str, data: bytes) -> Seed:
    """The file with the places of its elements."""
    start = None
    if b"1.2.840.10008.1.2.1.99" in data[:1024]:
        start = 144 + int.from_bytes(data[140:144], "little")
        data = data[:start] + zlib.decompress(data[start:], -zlib.MAX_WBITS)
    plain = data.replace(b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(io.BytesIO(plain), force=True)
        implicit, little = ds.original_encoding
        body = [_span(ds.get_item(tag), bool(implicit)) for tag in ds.keys()]  # noqa: SIM118
        meta = [_span(ds.file_meta.get_item(tag), False) for tag in ds.file_meta.keys()]  # noqa: SIM118
    spans = sorted([s for s in (*meta, *body) if s and s.start >= 0], key=lambda span: span.start)
    return Seed(
        name=name,
        data=data,
        spans=tuple(spans),
        order="<" if little else ">",
        explicit=not implicit,
        deflated=start,
    )


def _span(element: Any, implicit: bool) -> Span | None:
    value = getattr(element, "value_tell", None) or getattr(element, "file_tell", None)
    if not value:
        return None
    long = element.VR in ("OB", "OW", "OF", "OD", "OL", "SQ", "UN", "UT", "UC", "UR")
    length = getattr(element, "length", 0xFFFFFFFF)
    end = value + (length if length != 0xFFFFFFFF else 0)
    keyword = pydicom.datadict.keyword_for_tag(element.tag)
    start = value - (8 if implicit or not long else 12)
    return Span(start=start, value=value, end=end, keyword=keyword)


@cache
def picture_seeds() -> tuple[Seed, ...]:
    """PNG, JPEG and TIFF in the kinds that are read."""
    ramp = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40) * 34
    grey = (ramp >> 8).astype(np.uint8)
    colour = np.dstack([grey, grey[::-1], grey])
    kinds: list[tuple[str, str, np.ndarray, dict[str, Any]]] = [
        ("png", "PNG", grey, {}),
        ("deep png", "PNG", ramp, {}),
        ("colour png", "PNG", colour, {}),
        ("jpeg", "JPEG", grey, {}),
        ("progressive jpeg", "JPEG", colour, {"progressive": True}),
        ("tiff", "TIFF", grey, {}),
        ("deep tiff", "TIFF", ramp, {"compression": "tiff_adobe_deflate"}),
        ("lzw tiff", "TIFF", colour, {"compression": "tiff_lzw"}),
        ("jpeg tiff", "TIFF", grey, {"compression": "jpeg"}),
        ("packbits tiff", "TIFF", grey, {"compression": "packbits"}),
        ("turned jpeg", "JPEG", grey, {"exif": _turned()}),
    ]
    signed = (ramp.astype(np.int32) - 32768).astype(np.int16)
    return (
        *(_picture(*kind) for kind in kinds),
        _tiff("signed tiff", signed, rowsperstrip=7),
        _tiff("deep colour tiff in tiles", np.dstack([ramp] * 3), tile=(16, 16)),
        _with_thumbnail("pages of tiff", grey),
        _tiff("tiff in planes", colour.transpose(2, 0, 1), planarconfig="separate"),
    )


def _tiff(name: str, samples: np.ndarray, **options: Any) -> Seed:
    file = io.BytesIO()
    photometric = "rgb" if samples.ndim == 3 else "minisblack"
    tifffile.imwrite(file, samples, photometric=photometric, metadata=None, **options)
    return Seed(name=name, data=file.getvalue())


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def _with_thumbnail(name: str, grey: np.ndarray) -> Seed:
    """A picture, and a reduced one as a further page, which NewSubfileType 1 marks."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as pages:
        pages.write(grey, photometric="minisblack", metadata=None)
        pages.write(grey[::4, ::4], photometric="minisblack", metadata=None, subfiletype=1)
    return Seed(name=name, data=file.getvalue())


def _picture(name: str, format: str, samples: np.ndarray, options: dict[str, Any]) -> Seed:
    file = io.BytesIO()
    Image.fromarray(samples).save(file, format, **options)
    return Seed(name=name, data=file.getvalue(), order=">" if format != "TIFF" else "<")


def whole(seed: Seed, data: bytes) -> bytes:
    """The file, deflated again where the seed was."""
    if seed.deflated is None or len(data) <= seed.deflated:
        return data
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return data[: seed.deflated] + deflater.compress(data[seed.deflated :]) + deflater.flush()
