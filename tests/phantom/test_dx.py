"""Written DX objects are valid, deterministic, and show what went in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cxrg.errors import UsageError
from cxrg.image.dicom import read_dicom
from cxrg.phantom.dx import write_dx

TWELVE = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
SIXTEEN = TWELVE * 20


@pytest.mark.parametrize("monochrome1", [False, True])
@pytest.mark.parametrize(("pixels", "top"), [(TWELVE, 4095), (SIXTEEN, 65535)])
def test_what_is_written_is_what_is_read(
    tmp_path: Path, pixels: np.ndarray, top: int, monochrome1: bool
) -> None:
    path = tmp_path / "a.dcm"
    write_dx(path, pixels, seed=5, monochrome1=monochrome1)
    result = read_dicom(path)
    np.testing.assert_allclose(result.grey, pixels / top, atol=1e-6)
    assert result.warnings == ()
    assert result.window.startswith("window LINEAR")
    stored = pydicom.dcmread(path)
    assert stored.PhotometricInterpretation == ("MONOCHROME1" if monochrome1 else "MONOCHROME2")
    assert (stored.pixel_array[0, 0] > stored.pixel_array[-1, -1]) == monochrome1


@pytest.mark.parametrize("monochrome1", [False, True])
@pytest.mark.parametrize("pixels", [TWELVE, SIXTEEN])
def test_dciodvfy_finds_no_error(tmp_path: Path, pixels: np.ndarray, monochrome1: bool) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("dciodvfy (Debian dicom3tools) is not installed")
    path = tmp_path / "a.dcm"
    write_dx(path, pixels, seed=5, monochrome1=monochrome1)
    done = subprocess.run([validator, str(path)], capture_output=True, text=True, check=False)
    report = done.stdout + done.stderr
    assert "DXImageForPresentation" in report
    assert "Error" not in report


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "1.dcm", tmp_path / "2.dcm"
    write_dx(one, TWELVE, seed=5)
    write_dx(two, TWELVE, seed=5)
    assert one.read_bytes() == two.read_bytes()


def test_uids_tell_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"

    def written(pixels: np.ndarray, seed: int, monochrome1: bool = False) -> pydicom.Dataset:
        write_dx(path, pixels, seed=seed, monochrome1=monochrome1)
        return pydicom.dcmread(path)

    first, other = written(TWELVE, 5), written(TWELVE, 6)
    changed, turned = written(TWELVE + 1, 5), written(TWELVE, 5, True)
    assert len({ds.SOPInstanceUID for ds in (first, other, changed, turned)}) == 4
    assert first.StudyInstanceUID == changed.StudyInstanceUID == turned.StudyInstanceUID
    assert first.StudyInstanceUID != other.StudyInstanceUID
    assert first.PatientID != other.PatientID
    assert all(pydicom.uid.UID(ds.SOPInstanceUID).is_valid for ds in (first, other))


@pytest.mark.parametrize(
    "pixels", [TWELVE.astype(np.float32), TWELVE[0], np.zeros((0, 4), np.uint16)]
)
def test_other_pixels_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(UsageError, match="uint16"):
        write_dx(tmp_path / "a.dcm", pixels, seed=1)
