"""The heatmap as NIfTI, for viewers of volumes such as 3D Slicer.

One slice in [0, 1], in steps of 1/255, columns first, 0 where never seen. An X-ray has no place in
the patient's space, so it is put where ITK, and with it 3D Slicer, puts a plain X-ray: the corner
pixel at the origin, columns towards the patient's left, rows along the next axis (P, though they go
down in the patient). So the map covers its X-ray, if that file is upright as stored. Voxels are as
large as the DICOM file's pixels in millimetres (those of the detector plane where the header states
only these); else a pixel is one wide, and the unit is unknown.
"""

from __future__ import annotations

import gzip
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrg.about import NOTICE
from cxrg.errors import UsageError
from cxrg.files import atomic_write

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.result import Grounding


def check_nibabel() -> None:
    """Check that nibabel is installed.

    Raises:
        UsageError: it is not.
    """
    if find_spec("nibabel") is None:
        raise UsageError("format nifti needs nibabel; pip install 'cxrg[nifti]'")


def write_nifti(grounding: Grounding, image: CxrImage, path: Path) -> None:
    """Write the heatmap as a compressed NIfTI file of one slice.

    Raises:
        UsageError: nibabel is missing.
        WriteError: the file cannot be written.
    """
    check_nibabel()
    nibabel: Any = import_module("nibabel")  # most of its functions have no types
    crop = image.frame.crop
    tall, wide = image.spacing or (crop.width / crop.height, 1.0)
    levels = np.rint(np.nan_to_num(grounding.heatmap) * 255).astype(np.uint8)
    # NIfTI's axes point right, anterior and superior; ITK's left, posterior and superior.
    volume = nibabel.Nifti1Image(levels.T[:, :, None], np.diag([-wide, -tall, 1.0, 1.0]))
    volume.header.set_xyzt_units("mm" if image.spacing else "unknown")
    volume.header.set_slope_inter(1 / 255, 0)
    volume.header["descrip"] = f"cxrg: {NOTICE}".encode()
    with atomic_write(path) as file:
        file.write(gzip.compress(volume.to_bytes(), mtime=0))  # equal results, equal bytes
