"""The picture as Secondary Capture (PS3.3 A.8.1): what every viewer shows, with text burned in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from cxrg.output.dicom.objects import identity_of, write_object
from cxrg.output.dicom.source import Source
from cxrg.output.picture import render

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.result import Grounding


def write(grounding: Grounding, image: CxrImage, path: Path) -> None:
    """Write the picture of a grounding as DICOM secondary capture.

    Raises:
        CxrgError: it cannot be made or written.
    """
    write_object(path, image, lambda source: _capture(grounding, image, source))


def _capture(grounding: Grounding, image: CxrImage, source: Source) -> Dataset:
    from highdicom.sc import SCImage

    ds = SCImage.from_ref_dataset(
        ref_dataset=source.header,
        pixel_array=render(grounding, image),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **identity_of(grounding, source, "SC"),
    )
    ds.Laterality = ""  # of the series: a chest has both sides
    ds.BurnedInAnnotation = "YES"
    ds.LossyImageCompression = "00"
    return ds
