"""Images in memory have the grey of files with the same content, or are refused by name."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, JPEGBaseline8Bit

from cxrg.errors import ImageError, UsageError
from cxrg.image.read import read_image
from tests.image.test_dicom import COLOUR, RAMP, SECRET, UID, make, save
from tests.oracles import rasters

EIGHT = np.arange(48 * 32, dtype=np.uint32).reshape(48, 32).astype(np.uint8)
TWELVE = (np.arange(48 * 32, dtype=np.uint32).reshape(48, 32) * 2).astype(np.uint16)


def grey_of_file(path: Path, data: bytes) -> np.ndarray:
    path.write_bytes(data)
    return read_image(path, side=32).grey


@pytest.mark.parametrize(
    "array", [EIGHT, TWELVE, TWELVE * 20, COLOUR, np.dstack([COLOUR, COLOUR[..., :1]])]
)
def test_whole_numbers_have_the_grey_of_a_png(tmp_path: Path, array: np.ndarray) -> None:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    expected = grey_of_file(tmp_path / "a.png", file.getvalue())
    image = read_image(array, side=32)
    np.testing.assert_array_equal(image.grey, expected)
    assert (image.kind, image.path, image.uid) == ("memory", Path("array"), None)
    assert image.pixels.shape == (32, 32)
    for other in (np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">"))):
        same = read_image(other, side=32)
        np.testing.assert_array_equal(same.grey, expected)
        assert same.sha256 == image.sha256
    changed = array.copy()
    changed[0, 0] += 1
    assert read_image(changed, side=32).sha256 != image.sha256


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_are_grey_as_they_are(kind: type) -> None:
    array: NDArray[Any] = np.linspace(0.25, 0.5, 48 * 32).reshape(48, 32).astype(kind)
    image = read_image(array, side=32)
    np.testing.assert_array_equal(image.grey, array.astype(np.float32))
    assert image.window == "as given"
    array[:] = 0
    assert image.grey.min() == 0.25, "the image is a copy"


REFUSED: dict[str, tuple[Any, str]] = {
    "range": (np.linspace(0, 255, 1024).reshape(32, 32), "floats from 0 to 255; scale them to"),
    "negative": (np.linspace(-1, 1, 1024).reshape(32, 32), "floats from -1 to 1; scale them"),
    "undefined": (np.full((32, 32), np.nan), "floats from nan to nan; scale them"),
    "flat floats": (np.full((32, 32), 0.5), "every pixel has the same value"),
    "flat": (np.full((32, 32), 5, np.uint8), "every pixel has the same value"),
    "signed": (np.zeros((32, 32), int), "int64, 2 axes; give uint8, uint16, or grey floats"),
    "colour floats": (np.zeros((32, 32, 3)), "float64, 3 axes; give uint8, uint16"),
    "objects": (np.full((32, 32), "x", object), "object, 2 axes; give uint8"),
    "truth": (np.zeros((32, 32), bool), "bool, 2 axes; give uint8"),
    "channels first": (np.zeros((3, 32, 32), np.uint8), r"shape 3 x 32 x 32; give \(H, W\)"),
    "a batch": (np.zeros((1, 3, 32, 32), np.uint8), "shape 1 x 3 x 32 x 32"),
    "a number": (np.array(3), "shape no axis"),
    "a row": (np.zeros((1, 999), np.uint8), "too small"),
    "empty": (np.zeros((0, 32), np.uint8), "zero-sized"),
    "mode I": (Image.fromarray(TWELVE).convert("I"), "mode I, .*give its path, or an array"),
    "mode F": (Image.new("F", (32, 32)), "mode F, .*give its path, or an array"),
}


@pytest.mark.parametrize(("source", "problem"), REFUSED.values(), ids=list(REFUSED))
def test_refusals_are_one_line_with_a_remedy(source: Any, problem: str) -> None:
    with pytest.raises(ImageError, match=problem) as refusal:
        read_image(source, side=32)
    assert "\n" not in str(refusal.value)
    assert "; " in str(refusal.value)


@pytest.mark.parametrize("source", [None, 3, [[0, 1]], b"\x89PNG", object()])
def test_what_is_no_image_is_refused(source: Any) -> None:
    with pytest.raises(UsageError, match="is no image; give a path, a NumPy array, a Pillow"):
        read_image(source, side=32)


def test_every_raster_that_pillow_opens_is_read_as_its_file_or_refused(tmp_path: Path) -> None:
    read = refused = 0
    variants = itertools.chain(rasters.pngs(), rasters.jpegs(), rasters.tiffs(thin=True))
    for variant in variants:
        try:
            opened = Image.open(io.BytesIO(variant.data))
        except OSError:
            continue
        try:
            grey = read_image(opened, side=32).grey
        except ImageError:
            refused += 1
            continue
        read += 1
        assert variant.grey is not None, variant.name
        # Pillow keeps 8 bits of PNG's 16-bit colour and cuts the rest off.
        cut = variant.group.startswith("PNG") and "16 bits" in variant.group
        colour = len(opened.getbands()) > 1
        allowed = 1.5 / 255 if cut and colour else variant.tolerance
        worst = np.abs(grey - variant.grey).max()
        assert worst <= allowed, f"{variant.group}, {variant.name}: {worst}"
    assert read > 500
    assert refused > 50


def test_an_orientation_tag_of_a_pillow_image_is_applied(tmp_path: Path) -> None:
    picture = Image.fromarray(EIGHT)
    picture.getexif()[274] = 6
    image = read_image(picture, side=32)
    np.testing.assert_allclose(image.grey * 255, np.rot90(EIGHT, -1), atol=1e-4)
    assert "orientation tag was applied" in image.warnings[0]
    picture.save(tmp_path / "a.png", exif=picture.getexif())
    with Image.open(tmp_path / "a.png") as opened:
        again = read_image(opened, side=32)
    np.testing.assert_array_equal(again.grey, image.grey)
    assert again.path == tmp_path / "a.png"


def jpeg_dicom() -> pydicom.Dataset:
    file = io.BytesIO()
    Image.fromarray(EIGHT).save(file, "JPEG", quality=100)
    ds = make(EIGHT, bits=8, PixelData=encapsulate([file.getvalue()]))
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds["PixelData"].is_undefined_length = True
    return ds


def big_endian() -> pydicom.Dataset:
    ds = make(PixelData=RAMP.byteswap().tobytes())
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    return ds


DATA_SETS = {
    "plain": lambda: make(WindowCenter=2000, WindowWidth=1500),
    "inverse": lambda: make(PhotometricInterpretation="MONOCHROME1"),
    "mirrored": lambda: make(PatientOrientation=["R", "F"]),
    "colour": lambda: make(COLOUR, bits=8),
    "JPEG": jpeg_dicom,
    "big-endian": big_endian,
}


@pytest.mark.parametrize("build", DATA_SETS.values(), ids=list(DATA_SETS))
@pytest.mark.parametrize("reread", [False, True])
def test_data_sets_are_read_as_their_files(tmp_path: Path, build: Any, reread: bool) -> None:
    data = save(build())
    path = tmp_path / "a.dcm"
    expected_grey = grey_of_file(path, data)
    expected = read_image(path, side=32)
    ds = pydicom.dcmread(path) if reread else build()
    image = read_image(ds, side=32)
    np.testing.assert_array_equal(image.grey, expected_grey)
    assert (image.kind, image.uid) == ("dicom", UID)
    for name in ("window", "warnings", "stated"):
        assert getattr(image, name) == getattr(expected, name), name
    assert image.path == (path if reread else Path("data set"))


def test_a_data_set_without_meta_information_is_read() -> None:
    ds = make()
    del ds.file_meta
    np.testing.assert_array_equal(read_image(ds, side=32).grey, read_image(make(), side=32).grey)


def test_data_sets_without_a_picture_are_refused_as_their_files() -> None:
    with pytest.raises(ImageError, match="has no pixel data; give the image object"):
        read_image(make(PixelData=None), side=32)
    with pytest.raises(ImageError, match="has more than one frame"):
        read_image(make(NumberOfFrames=4), side=32)
    with pytest.raises(ImageError, match="cannot be decoded as"):
        read_image(make(PixelData=b"\0" * 100), side=32)


def test_an_image_prints_as_one_line_without_its_name(tmp_path: Path) -> None:
    path = tmp_path / f"{SECRET}.dcm"
    path.write_bytes(save(make()))
    image = read_image(path, side=64)
    assert repr(image) == (
        f"<CxrImage: dicom, 16 x 32 pixels, {image.window}, for a model of 64 x 64, "
        f"sha256 {image.sha256[:8]}>"
    )
