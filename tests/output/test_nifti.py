"""The heatmap as a volume, read back by nibabel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from cxrg.geometry import Box
from cxrg.output.nifti import write_nifti
from tests.fakes import samples


def read(path: Path, **changes):
    """A volume of 40 rows and 60 columns, of which the pixel in row 30 and column 10 is 1."""
    image = replace(samples.image(40, 60, aspect=changes.pop("aspect", 1.0)), **changes)
    heatmap = np.zeros((40, 60), np.float32)
    heatmap[30, 10], heatmap[5, 50], heatmap[0, 0] = 1, 0.4, np.nan
    box = Box(1, 1, 3, 3, 0.5)
    grounding = samples.grounding(image, heatmap=heatmap, boxes=(box,))
    write_nifti(grounding, image, path)
    return nibabel.load(path)


def test_voxels_are_the_xrays_pixels_with_its_spacing(tmp_path: Path) -> None:
    volume = read(tmp_path / "x.nii.gz", spacing=(0.3, 0.2))
    values = volume.get_fdata()
    assert values.shape == (60, 40, 1)
    assert values[10, 30, 0] == pytest.approx(1)
    assert values[50, 5, 0] == pytest.approx(0.4, abs=0.5 / 255)
    assert np.count_nonzero(values) == 2  # 0 where never seen
    np.testing.assert_allclose(volume.header.get_zooms(), (0.2, 0.3, 1), rtol=1e-6)
    assert volume.header.get_xyzt_units()[0] == "mm"
    assert b"not for diagnosis" in volume.header["descrip"].item()


def test_columns_go_to_the_patients_left_as_itk_lays_an_xray(tmp_path: Path) -> None:
    """ITK's axes are L, P, S: an X-ray has the identity there, and so has the map."""
    volume = read(tmp_path / "x.nii.gz", spacing=(0.3, 0.2))
    assert nibabel.aff2axcodes(volume.affine) == ("L", "P", "S")
    to_itk = np.diag([-1, -1, 1, 1])
    np.testing.assert_allclose(to_itk @ volume.affine, np.diag([0.2, 0.3, 1, 1]), rtol=1e-6)


def test_without_a_spacing_a_pixel_is_one_wide_in_its_aspect(tmp_path: Path) -> None:
    volume = read(tmp_path / "x.nii.gz", aspect=2.0)
    np.testing.assert_allclose(volume.header.get_zooms(), (1, 2, 1), rtol=1e-6)
    assert volume.header.get_xyzt_units()[0] == "unknown"


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        read(tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
