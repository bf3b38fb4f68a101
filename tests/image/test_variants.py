"""Every variant of PNG, JPEG and TIFF is read right or refused, over a generated matrix.

``pytest -rP`` shows the counts.
"""

from __future__ import annotations

import io
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cxrg.errors import ImageError
from cxrg.image.orientation import UPRIGHT
from cxrg.image.read import read_image
from tests.image.test_dicom import many_scans

rasters = pytest.importorskip(
    "tests.oracles.rasters", reason="tifffile or imagecodecs is not installed"
)
GREY = (np.arange(48 * 40, dtype=np.uint32).reshape(48, 40) * 65535 // 1919).astype(np.uint16)


def put(folder: Path, data: bytes) -> Path:
    file = folder / "file"
    file.write_bytes(data)
    return file


def check(variants: Any, folder: Path, read: set[str]) -> None:
    """All are right or refused; ``read`` are the groups of which not all are refused."""
    counts, wrong = rasters.count(variants, folder)
    sys.stdout.write(rasters.table(counts) + "\n")
    assert wrong == []
    assert {group for group, ended in counts if ended == "right"} == read


def test_every_png(tmp_path: Path) -> None:
    grey = {f"PNG colour type 0, {depth} bits" for depth in (1, 2, 4, 8, 16)}
    palettes = {f"PNG colour type 3, {depth} bits" for depth in (1, 2, 4, 8)}
    others = {
        f"PNG colour type {colour}, {depth} bits" for colour in (2, 4, 6) for depth in (8, 16)
    }
    keyed = {f"{name}, keyed" for name in (*palettes, "PNG colour type 0, 8 bits")}
    keyed.add("PNG colour type 2, 8 bits, keyed")
    check(rasters.pngs(), tmp_path, grey | palettes | others | keyed)


def test_every_jpeg(tmp_path: Path) -> None:
    kinds = ["grey", "grey optimized", "RGB", "CMYK", "YCCK", "lossless"]
    kinds += [f"YCbCr {name}" for name in ("444", "422", "420", "411", "440")]
    check(rasters.jpegs(), tmp_path, {f"JPEG {kind}" for kind in kinds})


COLOURS = ("RGB", "RGB+alpha", "RGB+premultiplied", "RGB+unspecified", "CMYK", "YCbCr")
TIFFS = {
    *(f"TIFF u1 {colour}{planes}" for colour in COLOURS for planes in ("", " in planes")),
    *(f"TIFF u1 {grey}" for grey in ("black is zero", "white is zero", "grey+alpha", "palette")),
    *(f"TIFF u2 {c}" for c in ("black is zero", "white is zero", "RGB", "RGB+alpha")),
    *("TIFF i1 black is zero", "TIFF i2 black is zero", "TIFF packed 12 bits, photometric 1"),
    *(f"TIFF packed {bits} bits, photometric {n}" for bits in (1, 2, 4, 8) for n in (0, 1, 3)),
    *(f"TIFF packed 16 bits, photometric {n}" for n in (0, 1)),
}


YCBCR = {"TIFF u1 YCbCr", "TIFF u1 YCbCr in planes"}  # read where JPEG compresses them


def test_tiffs_of_few_compressions(tmp_path: Path) -> None:
    check(rasters.tiffs(thin=True), tmp_path, TIFFS - YCBCR)


@pytest.mark.slow
def test_every_tiff(tmp_path: Path) -> None:
    check(rasters.tiffs(), tmp_path, TIFFS)


def test_a_wrong_reader_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrg.image.tiff._unread", lambda *_: "")
    planes = rasters.tiff_variant("u2", "RGB", planar="separate")
    assert rasters.outcome(planes, tmp_path).startswith("wrong")
    premultiplied = rasters.tiff_variant("u2", "RGB+premultiplied")
    assert rasters.outcome(premultiplied, tmp_path).startswith("wrong")
    monkeypatch.setattr("cxrg.image.picture.stored_layout", lambda _: ((48, 40), UPRIGHT))
    (turned,) = itertools.islice(rasters.jpegs(), 5, 6)
    assert rasters.outcome(turned, tmp_path).startswith("wrong")


# --- pages and parts of TIFF ----------------------------------------------------------------------


def pages(*kinds: int) -> bytes:
    """A TIFF of a page of each NewSubfileType, the full ones being `GREY`."""
    file = io.BytesIO()
    with rasters.tifffile.TiffWriter(file) as writer:
        for kind in kinds:
            page = GREY[::2, ::2].copy() if kind else GREY
            writer.write(page, subfiletype=bool(kind), photometric="minisblack", metadata=None)
    data = bytearray(file.getvalue())
    for page, kind in zip(rasters.tifffile.TiffFile(io.BytesIO(data)).pages, kinds, strict=True):
        data[page.tags[254].valueoffset] = kind
    return bytes(data)


@pytest.mark.parametrize("kinds", [(0,), (1,), (0, 1), (1, 0), (0, 1, 4), (0, 4), (0, *[1] * 20)])
def test_reduced_pages_and_masks_are_no_pages(tmp_path: Path, kinds: tuple[int, ...]) -> None:
    image = read_image(put(tmp_path, pages(*kinds)), side=16)
    assert image.warnings == ()
    expected = GREY if 0 in kinds else GREY[::2, ::2]
    np.testing.assert_allclose(image.grey, expected / 65535, atol=1e-6)


@pytest.mark.parametrize("kinds", [(0, 0), (0, 1, 0), (0, *[1] * 80)])
def test_several_full_pages_are_refused(tmp_path: Path, kinds: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="more than one page"):
        read_image(put(tmp_path, pages(*kinds)), side=16)


def with_tag(data: bytes, tag: int, change: Any) -> bytes:
    """A TIFF in which the value field, or the value it leads to, of a tag is overwritten."""
    found = rasters.tifffile.TiffFile(io.BytesIO(data)).pages[0].tags[tag]
    broken = bytearray(data)
    at = found.valueoffset
    broken[at : at + len(change)] = change
    return bytes(broken)


def striped(**options: Any) -> bytes:
    file = io.BytesIO()
    rasters.tifffile.imwrite(file, GREY, photometric="minisblack", metadata=None, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "tag", "change"),
    [
        (striped(rowsperstrip=7), 273, bytes(4)),  # a strip without a place
        (striped(rowsperstrip=7, compression="lzw"), 279, bytes(2)),  # and one without a size
        (striped(rowsperstrip=16), 278, b"\x01\0"),  # more strips than there are places
        (striped(tile=(16, 16)), 324, bytes(4)),
        (striped(tile=(16, 16)), 322, b"\0\0"),
        (striped(tile=(16, 16)), 257, b"\xf0\0"),  # a taller picture than its tiles
    ],
    ids=["no place", "no size", "few strips", "no tile", "no width", "few tiles"],
)
def test_incomplete_tiffs_are_refused(tmp_path: Path, data: bytes, tag: int, change: bytes) -> None:
    assert read_image(put(tmp_path, data), side=16).grey.shape == (48, 40)
    with pytest.raises(ImageError, match=r"lacks parts|cannot be decoded"):
        read_image(put(tmp_path, with_tag(data, tag, change)), side=16)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_file_of_thousands_of_scans_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pixels = (GREY >> 8).astype(np.uint8)
    monkeypatch.setattr("cxrg.image.codec.MAX_SCANNED", 48 * 40 * 100)
    few, many = (many_scans(pixels, count) for count in (10, 3000))
    if kind == "TIFF":
        few, many = (in_tiff(data) for data in (few, many))
    assert read_image(put(tmp_path, few), side=16).grey.shape == (48, 40)
    with pytest.raises(ImageError, match="too many JPEG scans"):
        read_image(put(tmp_path, many), side=16)


def in_tiff(jpeg: bytes) -> bytes:
    """A TIFF whose one strip is that JPEG."""
    file = io.BytesIO()
    Image.new("L", (40, 48)).save(file, "TIFF", compression="jpeg")
    data = file.getvalue()
    page = rasters.tifffile.TiffFile(io.BytesIO(data)).pages[0]
    broken = bytearray(data + jpeg)
    for tag, value in ((273, len(data)), (279, len(jpeg))):
        at = page.tags[tag].valueoffset
        size = {3: 2, 4: 4}[page.tags[tag].dtype]
        broken[at : at + size] = value.to_bytes(size, "little")
    return bytes(broken)
