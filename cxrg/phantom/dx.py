"""Write a rendered radiograph as a Digital X-Ray Image for presentation (PS3.3 A.26, C.8.11).

Everything about the patient is made up from the seed, and so are the UIDs (PS3.5 B.2, UUID-derived
under 2.25): writing the same pixels again gives the same object, which a PACS keeps once.
"""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from cxrg.errors import UsageError

# A detector of 430 mm on its longer side, the usual one for chests.
_DETECTOR_MM = 430.0
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "phantom.cxrg")
_IMPLEMENTATION = f"2.25.{_NAMESPACE.int}"


def write_dx(
    path: Path, pixels: NDArray[np.uint16], *, seed: int, monochrome1: bool = False
) -> None:
    """Write a frontal (PA) chest radiograph as a DICOM DX object For Presentation.

    Args:
        path: the file to write.
        pixels: uint16 ``(H, W)``, bright for dense, 12 bits used or all 16; the patient's left on
            the right side.
        seed: names the made-up patient and study.
        monochrome1: store low values as white. The picture shown stays the same.

    Raises:
        UsageError: ``pixels`` is not a uint16 picture.
    """
    if pixels.dtype != np.uint16 or pixels.ndim != 2 or not pixels.size:
        raise UsageError("write_dx takes uint16 pixels (H, W); scale the picture to 0..4095 first")
    bits = 12 if pixels.max() < 4096 else 16
    stored = (2**bits - 1 - pixels if monochrome1 else pixels).astype("<u2")
    ds = _file(seed, stored.tobytes() + bytes([bits, monochrome1]))
    _add_patient_and_study(ds, seed)
    _add_acquisition(ds)
    _add_geometry(ds, *stored.shape)
    _add_pixels(ds, stored, bits, monochrome1)
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


def _uid(*parts: object) -> UID:
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}")


def _file(seed: int, content: bytes) -> Dataset:
    """An empty DX object with its file meta information and SOP Common module (C.12.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = _uid(seed, "instance", hashlib.sha256(content).hexdigest())
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    meta.ImplementationVersionName = "CXRG"
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID = meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    return ds


def _add_patient_and_study(ds: Dataset, seed: int) -> None:
    """Patient (C.7.1), study (C.7.2), series (C.7.3, C.8.11.1) and equipment (C.7.5)."""
    ds.PatientName = f"Phantom^{seed}"
    ds.PatientID = f"CXRG-PHANTOM-{seed}"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "O"
    ds.StudyInstanceUID = _uid(seed, "study")
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20200101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.StudyID = "1"
    ds.AccessionNumber = ""
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Synthetic chest radiograph"
    ds.SeriesInstanceUID = _uid(seed, "series")
    ds.SeriesNumber = 1
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.Manufacturer = "cxrg"
    ds.ManufacturerModelName = "phantom"
    ds.DeviceSerialNumber = "0"
    ds.SoftwareVersions = "cxrg phantom"
    ds.InstanceNumber = 1


def _add_acquisition(ds: Dataset) -> None:
    """A PA view of the chest: DX anatomy (C.8.11.2), positioning (C.8.11.5), view (C.8.11.5.1)."""
    ds.BodyPartExamined = "CHEST"
    ds.AnatomicRegionSequence = [_code("51185008", "SCT", "Chest")]
    ds.ImageLaterality = "U"
    ds.ViewPosition = "PA"
    view = _code("399348003", "SCT", "postero-anterior")
    view.ViewModifierCodeSequence = []
    ds.ViewCodeSequence = [view]
    ds.PatientOrientationCodeSequence = [_code("10904000", "SCT", "erect")]
    ds.PositionerType = ""
    ds.PatientOrientation = ["L", "F"]
    ds.AcquisitionContextSequence = []
    ds.DetectorType = "DIRECT"
    ds.DetectorConfiguration = "AREA"


def _add_geometry(ds: Dataset, height: int, width: int) -> None:
    """Square pixels in the plane of the detector (C.8.11.4)."""
    spacing = f"{_DETECTOR_MM / max(height, width):.6g}"
    ds.ImagerPixelSpacing = [spacing, spacing]


def _add_pixels(ds: Dataset, stored: NDArray[np.uint16], bits: int, monochrome1: bool) -> None:
    """The DX image itself (C.8.11.3) with its window (C.11.2)."""
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.DerivationDescription = "Rendered phantom, not a patient"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated = 16
    ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = 0
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if monochrome1 else -1
    ds.RescaleIntercept = "0"
    ds.RescaleSlope = "1"
    ds.RescaleType = "US"
    ds.PresentationLUTShape = "INVERSE" if monochrome1 else "IDENTITY"
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "NO"
    # LINEAR maps centre - 0.5 -+ (width - 1) / 2 to black and white: all values, exactly.
    ds.WindowCenter = str(2 ** (bits - 1))
    ds.WindowWidth = str(2**bits)
    ds.PixelData = stored.tobytes()
    ds["PixelData"].VR = "OW"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item
