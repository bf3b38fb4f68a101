"""The heatmap as fractional segmentation (PS3.3 A.51, C.8.20.2) over the stored pixels.

The value 255 stands for 1, and 0 for what the model never saw too. The fractional type is
PROBABILITY, which is the nearest that DICOM has: the values are attention, from 0 to 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxrg.about import NOTICE, __version__
from cxrg.output.dicom.codes import SCHEME, finding_code, finding_of
from cxrg.output.dicom.objects import identity_of, settings_of, short, uid_of, write_object
from cxrg.output.dicom.source import Source

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.result import Grounding

_LEVELS = 255
_REGION = Code("attended-region", SCHEME, "Region attended to for a phrase")


def write(grounding: Grounding, image: CxrImage, path: Path) -> None:
    """Write the heatmap of a grounding as DICOM segmentation.

    Raises:
        CxrgError: it cannot be made or written.
    """
    write_object(path, image, lambda source: _segmentation(grounding, source))


def _segmentation(grounding: Grounding, source: Source) -> Dataset:
    from highdicom import AlgorithmIdentificationSequence, seg

    finding = finding_of(grounding)
    device = finding is not None and finding.group == "device"
    code = finding_code(grounding)
    kind = codes.SCT.PhysicalObject if device else codes.SCT.MorphologicallyAbnormalStructure
    description = seg.SegmentDescription(
        segment_number=1,
        segment_label=short(grounding.phrase),
        segmented_property_category=kind if code else codes.SCT.SpatialAndRelationalConcept,
        segmented_property_type=code or _REGION,
        algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name="cxrg",
            family=codes.DCM.ArtificialIntelligence,
            version=__version__,
            source="cxrg",
            parameters=dict(settings_of(grounding)),
        ),
        tracking_uid=uid_of(grounding, source, "SEG", "segment"),
        tracking_id=short(grounding.phrase),
    )
    description.SegmentDescription = f"{grounding.status}; {NOTICE}"
    heatmap = source.turn.inverse.array(grounding.heatmap)
    ds = seg.Segmentation(
        source_images=[source.header],
        pixel_array=np.nan_to_num(heatmap).clip(0, 1),
        segmentation_type=seg.SegmentationTypeValues.FRACTIONAL,
        fractional_type=seg.SegmentationFractionalTypeValues.PROBABILITY,
        max_fractional_value=_LEVELS,
        segment_descriptions=[description],
        omit_empty_frames=False,
        content_label="HEATMAP",
        content_description=short(f"{grounding.status}: {grounding.phrase}"),
        **identity_of(grounding, source, "SEG"),
    )
    # Frames are the stored pixels; highdicom knows this of images in a frame of reference only.
    ds.PatientOrientation = source.header.get("PatientOrientation")
    dimensions = uid_of(grounding, source, "SEG", "dimensions")
    for item in (*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    return ds
