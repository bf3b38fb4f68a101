"""Files of every kind are written by hand or by Pillow, and read back to known grey."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
import pytest
from PIL import Image

from cxrg.errors import ImageError, UsageError
from cxrg.image.file import MAX_BYTES
from cxrg.image.read import is_image, read_image
from cxrg.phantom.dx import write_dx

EIGHT = np.arange(48 * 32, dtype=np.uint32).reshape(48, 32).astype(np.uint8)
# 16 bits that use nearly all of the range, and 12 bits kept in 16.
SIXTEEN = (np.arange(48 * 32, dtype=np.uint32).reshape(48, 32) * 42).astype(np.uint16)
TWELVE = (np.arange(48 * 32, dtype=np.uint32).reshape(48, 32) * 2).astype(np.uint16)
NOISE = np.random.default_rng(0).integers(0, 256, (48, 32), np.uint8)


def pillow(samples: np.ndarray, format: str, mode: str | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(samples)
    if mode:
        picture = picture.convert(mode)
    picture.save(file, format, **options)
    return file.getvalue()


def png(samples: np.ndarray, colour: int, width: int | None = None) -> bytes:
    """A PNG of 16-bit samples of any colour type, which Pillow cannot write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width or samples.shape[1], len(samples), 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(samples: np.ndarray, photometric: int, order: Literal["<", ">"] = "<") -> bytes:
    """A TIFF of one uncompressed strip, ``photometric`` 0 (white is zero) or 1."""
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    height, width = samples.shape
    bits = samples.dtype.itemsize * 8
    entries = [
        *((256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric)),
        *((273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(data))),
    ]
    body = b""
    for tag, kind, value in entries:
        packed = struct.pack(
            order + ("HH" if kind == 3 else "I"), *([value, 0] if kind == 3 else [value])
        )
        body += struct.pack(order + "HHI", tag, kind, 1) + packed
    magic = b"II*\0" if order == "<" else b"MM\0*"
    start = struct.pack(order + "I", 8 + len(data))
    directory = struct.pack(order + "H", len(entries)) + body + bytes(4)
    return magic + start + data + directory


def read(tmp_path: Path, data: bytes, side: int = 32, **options: Any) -> Any:
    path = tmp_path / "chest.bin"
    path.write_bytes(data)
    return read_image(path, side=side, **options)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.dstack([grey] * 3)


# Grey


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        (pillow(EIGHT, "PNG"), "png", EIGHT / 255),
        (pillow(SIXTEEN, "PNG"), "png", SIXTEEN / 65535),
        (pillow(EIGHT, "TIFF"), "tiff", EIGHT / 255),
        (pillow(SIXTEEN, "TIFF"), "tiff", SIXTEEN / 65535),
        (pillow(SIXTEEN, "TIFF", compression="tiff_lzw"), "tiff", SIXTEEN / 65535),
        (tiff(SIXTEEN, 1, ">"), "tiff", SIXTEEN / 65535),
        (tiff(SIXTEEN, 0), "tiff", 1 - SIXTEEN / 65535),
        (tiff(EIGHT, 0), "tiff", 1 - EIGHT / 255),
        (pillow(rgb(EIGHT), "PNG"), "png", EIGHT / 255),
        (pillow(EIGHT, "PNG", "RGBA"), "png", EIGHT / 255),
        (pillow(EIGHT, "PNG", "LA"), "png", EIGHT / 255),
        (pillow(EIGHT, "PNG", "P"), "png", EIGHT / 255),
        (png(rgb(SIXTEEN).reshape(48, -1), 2, 32), "png", SIXTEEN / 65535),
    ],
)
def test_grey_of_the_file_is_kept(
    tmp_path: Path, data: bytes, kind: str, expected: np.ndarray
) -> None:
    image = read(tmp_path, data)
    assert image.kind == kind
    assert image.window == "full range"
    assert image.warnings == ()
    assert image.grey.dtype == np.float32
    np.testing.assert_allclose(image.grey, expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg(tmp_path: Path, mode: str) -> None:
    smooth = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (48, 1))
    image = read(tmp_path, pillow(smooth, "JPEG", mode, quality=95))
    assert image.kind == "jpeg"
    assert image.warnings == ()
    np.testing.assert_allclose(image.grey, smooth / 255, atol=3 / 255)


@pytest.mark.parametrize("data", [pillow(TWELVE, "PNG"), tiff(TWELVE, 1)])
def test_twelve_bits_in_sixteen_are_stretched(tmp_path: Path, data: bytes) -> None:
    image = read(tmp_path, data)
    assert image.window == "percentile 0.5-99.5"
    low, high = np.percentile(TWELVE, [0.5, 99.5], method="inverted_cdf").astype(float)
    np.testing.assert_allclose(image.grey, np.clip((TWELVE - low) / (high - low), 0, 1), atol=1e-6)


def test_few_bright_pixels_do_not_make_the_range(tmp_path: Path) -> None:
    samples = np.full((48, 32), 100, np.uint16)
    samples[0, 0], samples[0, 1] = 200, 300
    image = read(tmp_path, pillow(samples, "PNG"))
    # All percentiles fall on one value here, so the extremes decide.
    assert image.window == "minimum to maximum"
    np.testing.assert_allclose(image.grey[0, :3], [0.5, 1, 0])


def test_colour_becomes_luminance_with_a_warning(tmp_path: Path) -> None:
    colour = np.zeros((48, 32, 3), np.uint8)
    colour[:, :16] = 200, 100, 50
    image = read(tmp_path, pillow(colour, "PNG"))
    assert "colour" in image.warnings[0]
    assert image.grey[0, 0] == pytest.approx(
        (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255, abs=0.003
    )


def test_deep_colour_keeps_its_depth_and_channel_order(tmp_path: Path) -> None:
    colour = rgb(SIXTEEN)
    colour[..., 2] = 0
    image = read(tmp_path, png(colour.reshape(48, -1), 2, 32))
    expected = (0.299 + 0.587) * SIXTEEN / 65535
    assert "colour" in image.warnings[0]
    np.testing.assert_allclose(image.grey, expected, atol=1e-4)


def test_transparency_is_laid_over_black_with_a_warning(tmp_path: Path) -> None:
    samples = np.dstack([EIGHT, np.full_like(EIGHT, 255)])
    samples[:8, :, 1] = 0
    image = read(tmp_path, pillow(samples, "PNG"))
    assert "transparent" in image.warnings[0]
    assert (image.grey[:8] == 0).all()
    np.testing.assert_allclose(image.grey[8:], EIGHT[8:] / 255, atol=1e-6)


def test_deep_grey_with_alpha(tmp_path: Path) -> None:
    samples = np.dstack([SIXTEEN, np.full_like(SIXTEEN, 65535)]).reshape(48, -1)
    image = read(tmp_path, png(samples, 4, 32))
    np.testing.assert_allclose(image.grey, SIXTEEN / 65535, atol=1e-6)


def test_orientation_of_a_photograph_is_applied_with_a_warning(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (48, 1))
    exif = Image.Exif()
    exif[274] = 6
    image = read(tmp_path, pillow(smooth, "JPEG", quality=95, exif=exif))
    np.testing.assert_allclose(image.grey, np.rot90(smooth, -1) / 255, atol=3 / 255)
    assert "upright" in image.warnings[0]


# What goes with the grey


def test_image_knows_its_file(tmp_path: Path) -> None:
    data = pillow(EIGHT, "PNG")
    image = read(tmp_path, data, side=64)
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert image.path == tmp_path / "chest.bin"
    assert image.uid is None
    assert image.frame.source == (48, 32)
    assert image.pixels.shape == (64, 64)
    assert image.pixels.dtype == np.float32
    np.testing.assert_array_equal(image.pixels, np.clip(image.frame.sample(image.grey), 0, 1))


def test_pad_and_crop(tmp_path: Path) -> None:
    data = pillow(np.maximum(EIGHT, 1), "PNG")
    padded = read(tmp_path, data, side=48)
    np.testing.assert_array_equal(padded.pixels[:, :8], 0)
    np.testing.assert_allclose(padded.pixels[:, 8:40], padded.grey, atol=1e-6)
    cropped = read(tmp_path, data, side=32, fit="crop")
    np.testing.assert_allclose(cropped.pixels, cropped.grey[8:40], atol=1e-6)
    with pytest.raises(UsageError):
        read(tmp_path, data, fit="squash")


def test_dicom_goes_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "no-suffix"
    write_dx(path, TWELVE, seed=1)
    image = read_image(str(path), side=48)
    assert image.kind == "dicom"
    assert image.uid is not None
    np.testing.assert_allclose(image.grey, TWELVE / 4095, atol=1e-6)


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    write_dx(path, TWELVE, seed=1)
    ds = pydicom.dcmread(path)
    # 48 rows 0.2 mm apart, 32 columns 0.3 mm apart: as tall as wide.
    ds.ImagerPixelSpacing = ["0.2", "0.3"]
    ds.save_as(path)
    image = read_image(path, side=16)
    assert (image.frame.crop.x0, image.frame.crop.x1) == pytest.approx((0, 32))
    assert (image.frame.crop.y0, image.frame.crop.y1) == pytest.approx((0, 48))
    blocks = image.grey.reshape(16, 3, 16, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(image.pixels, blocks, atol=1e-6)


# Refusals


def test_refusals_of_names(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "report.txt").write_text("Left basal opacity, no effusion.")
    os.mkfifo(tmp_path / "pipe")
    for name, problem in {
        "empty.png": "is empty",
        "report.txt": "is not a DICOM, PNG, JPEG or TIFF file",
        "pipe": "not a regular file",
        "absent.dcm": "does not exist",
        ".": "is a folder",
    }.items():
        with pytest.raises(ImageError, match=problem) as caught:
            read_image(tmp_path / name, side=32)
        assert "; " in str(caught.value)


def test_a_name_cannot_break_the_line(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist") as caught:
        read_image(tmp_path / "a\nb\x1b[31m", side=32)
    assert str(caught.value).isprintable()


def test_a_name_with_a_null_is_refused() -> None:
    with pytest.raises(ImageError):
        read_image("a\0b", side=32)
    assert not is_image("a\0b")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match="is larger than"):
        read_image(path, side=32)


def pages() -> bytes:
    file = io.BytesIO()
    Image.fromarray(EIGHT).save(file, "TIFF", save_all=True, append_images=[Image.fromarray(EIGHT)])
    return file.getvalue()


def bomb() -> bytes:
    """60,000 x 60,000 pixels in a few bytes: only the header is there to see."""
    data = bytearray(png(np.zeros((4, 4), np.uint16), 0))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (pillow(NOISE, "PNG")[:-200], "cannot be decoded"),
        (pillow(NOISE, "JPEG")[:-200], "cannot be decoded"),
        (pillow(NOISE, "TIFF")[:-900], "cannot be decoded"),
        (tiff(SIXTEEN, 0, ">"), "cannot be decoded"),
        (tiff(SIXTEEN, 1)[:-900], "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
        (b"\xff\xd8\xff\xe0", "cannot be decoded"),
        (b"II*\0", "cannot be decoded"),
        (b"DICM", "DICOM|no pixel data"),
        (bomb(), "too large"),
        (pages(), "more than one page"),
        (pillow(np.full((32, 32), 9, np.uint8), "PNG"), "same value"),
        (pillow(np.full((32, 32, 3), 9, np.uint8), "JPEG"), "same value"),
        (pillow(EIGHT[:8, :8], "PNG"), "too small"),
        (pillow(np.resize(EIGHT, (16, 300)), "PNG"), "is a strip"),
        (pillow(EIGHT.astype(np.float32), "TIFF"), "no integers of at most 16 bits"),
        (pillow(EIGHT.astype(np.int32), "TIFF"), "no integers of at most 16 bits"),
        (b"GIF89a" + bytes(100), "is not a DICOM, PNG, JPEG or TIFF file"),
        (bytes(300), "is not a DICOM, PNG, JPEG or TIFF file"),
    ],
)
def test_refusals_are_one_line_with_a_remedy(tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(ImageError, match=problem) as caught:
        read(tmp_path, data)
    message = str(caught.value)
    assert "chest.bin: " in message
    assert "; " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "data", [pillow(NOISE, "PNG"), pillow(NOISE, "JPEG"), tiff(SIXTEEN, 0), pillow(NOISE, "TIFF")]
)
def test_flipped_bytes_never_end_in_a_traceback(tmp_path: Path, data: bytes) -> None:
    rng = np.random.default_rng(7)
    for _ in range(200):
        broken = bytearray(data)
        for place in rng.integers(4, len(data), 3):
            broken[place] = rng.integers(256)
        try:
            image = read(tmp_path, bytes(broken[: rng.integers(5, 2 * len(data))]))
        except ImageError:
            continue
        assert np.isfinite(image.grey).all()


# Recognising kinds


@pytest.mark.parametrize(
    ("head", "known"),
    [
        (bytes(128) + b"DICM", True),
        (b"II*\0" + bytes(124) + b"DICM", True),
        (b"DICM\x02\0\0\0UL\x04\0", True),
        (b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", True),
        (b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100", True),
        (b"\x00\x08\x00\x05CS\x00\x0aISO_IR 100", True),
        (b"\x08\x00\x05\x00\x0a\xff\xff\x00ISO_IR 100", False),
        (b"MM\0*" + bytes(20), True),
        (b"\x89PNG\r\n\x1a\n", True),
        (b"\xff\xd8\xff\xe0", True),
        (b"plain text, long enough for a header", False),
        (b"PK\x03\x04" + bytes(30), False),
        (b"", False),
    ],
)
def test_is_image_looks_at_the_first_bytes(tmp_path: Path, head: bytes, known: bool) -> None:
    path = tmp_path / "any.txt"
    path.write_bytes(head)
    assert is_image(path) is known


def test_is_image_of_what_cannot_be_read(tmp_path: Path) -> None:
    assert not is_image(tmp_path)
    assert not is_image(tmp_path / "absent")


def example(name: str) -> Callable[[], Path]:
    def find() -> Path:
        store = pytest.importorskip("data_store", reason="pydicom-data is not installed")
        return Path(store.__path__[0]) / "data" / name

    return find


@pytest.mark.parametrize(
    ("name", "shape", "window"),
    [
        ("RG1_UNCR.dcm", (1955, 1841), "window LINEAR 15000/30000"),
        ("RG1_J2KR.dcm", (1955, 1841), "window LINEAR 15000/30000"),
        ("JPEG-LL.dcm", (1024, 256), "percentile 0.5-99.5"),
    ],
)
def test_real_files(name: str, shape: tuple[int, int], window: str) -> None:
    image = read_image(example(name)(), side=128)
    assert image.grey.shape == shape
    assert image.window == window
    if name.startswith("RG1"):
        # MONOCHROME1 turned around once: the mediastinum is brighter than the lung beside it.
        assert image.pixels[40:60, 60:68].mean() > image.pixels[40:60, 30:40].mean() + 0.1
