"""What derived DICOM objects take from the image that a result was found in."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom import DataElement, Dataset
from pydicom.valuerep import DA, TM

from cxrg.geometry import Box
from cxrg.image.dicom import KEYWORDS, directions, hashed_uid, quiet, read_header
from cxrg.image.file import image_error, read_bytes
from cxrg.image.grayscale import text
from cxrg.image.orientation import Turn, from_patient

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage

_UID = re.compile(r"[0-9.]{1,64}")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_EMPTY_IF_MISSING = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
# A projection has no place in a frame of reference; its UID alone would claim one.
_LEFT_OUT = ("FrameOfReferenceUID", "PositionReferenceIndicator", "IconImageSequence")
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_KINDS = {"PatientBirthDate": DA, "StudyDate": DA, "PatientBirthTime": TM, "StudyTime": TM}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The image as derived objects see it.

    Attributes:
        header: its elements without pixels, text as Unicode; de-identified where the image is.
        turn: the step from its stored pixels to the upright picture that boxes are in.
    """

    header: Dataset
    turn: Turn

    def outline(self, box: Box) -> NDArray[np.float64]:
        """Return the corners of a box of the upright picture in stored pixels, closed: (5, 2)."""
        stored = float(self.header.Rows), float(self.header.Columns)
        b = self.turn.inverse.box(box, self.turn.shape(stored))
        return np.array([(b.x0, b.y0), (b.x1, b.y0), (b.x1, b.y1), (b.x0, b.y1), (b.x0, b.y0)])


def read_source(image: CxrImage) -> Source:
    """Read what derived objects need of an image.

    Raises:
        ImageError: it is no DICOM file, belongs to no study, or has changed.
    """
    if image.kind != "dicom":
        raise image_error(
            image.path,
            "is no DICOM object, so no study is known that a DICOM result could belong to",
            "give the DICOM file, or leave out the formats dicom-...",
        )
    given = _header(image)
    with quiet():
        for keyword in (*_UIDS, "SOPClassUID"):
            if not _UID.fullmatch(text(given, keyword)):
                raise image_error(
                    image.path,
                    f"lacks a valid {keyword}, without which no DICOM result can refer to it",
                    "export it again, or leave out the formats dicom-...",
                )
        turn = from_patient(directions(given))
        if image.mended:
            turn = turn.then(image.mended.turn)
        return Source(header=_without_patient(given) if image.deidentified else given, turn=turn)


def _header(image: CxrImage) -> Dataset:
    """Return the elements of an image that may be copied, text decoded."""
    if image.dataset is not None:
        given = image.dataset
    else:
        data = read_bytes(image.path)
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise image_error(image.path, "has changed since it was read", "ground it again")
        given = read_header(image.path, data)
    with quiet():
        header = Dataset()
        for element in _copied(given):
            header.add(element)
        try:
            header.decode()
        except (LookupError, ValueError, TypeError, AttributeError):
            raise image_error(
                image.path, "has text in an unknown character set", "correct its header"
            ) from None
        _repair(header)
    return header


def _copied(given: Dataset) -> Iterator[DataElement]:
    """Yield copies of the elements without pixels, overlays and private ones."""
    for tag in list(given.keys()):
        if tag.is_private or (0x5000 <= tag.group < 0x7FE1 and tag.group != 0x5200):
            continue
        element = given[tag]
        if element.keyword not in _LEFT_OUT:
            yield copy.deepcopy(element)


def _repair(header: Dataset) -> None:
    """Fill in what may be empty, and empty what is no valid date, time, sex or function."""
    header.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _EMPTY_IF_MISSING:
        if header.get(keyword) is None:
            setattr(header, keyword, "")
    if text(header, "PatientSex") not in ("M", "F", "O"):
        header.PatientSex = ""
    if text(header, "VOILUTFunction") not in _FUNCTIONS:
        header.pop("VOILUTFunction", None)
    for keyword, kind in _KINDS.items():
        try:
            kind(header.get(keyword, ""))
        except (ValueError, TypeError):
            setattr(header, keyword, "")


def _without_patient(header: Dataset) -> Dataset:
    """Return what tells nothing of patient and study, with hashes in the place of UIDs."""
    kept = Dataset()
    for keyword in KEYWORDS:
        if keyword in header:
            kept[keyword] = header[keyword]
    for item in (*kept.get("VOILUTSequence", ()), *kept.get("ModalityLUTSequence", ())):
        item.pop("LUTExplanation", None)
    for keyword in _UIDS:
        setattr(kept, keyword, hashed_uid(text(header, keyword)))
    kept.PatientIdentityRemoved = "YES"
    kept.DeidentificationMethod = "Derived object without data of patient and study; UIDs hashed"
    _repair(kept)
    return kept
