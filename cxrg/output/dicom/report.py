"""A result as structured report: Comprehensive 3D SR by TID 1500 (PS3.16), with boxes as SCOORD.

The report has a group for the phrase (TID 1501), with its status, its score and, where the model is
calibrated, its probability, and one for each box (TID 1410). Where nothing was found or looked for,
the first group says so and there is no other. Reports are preliminary and unverified.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxrg.about import NOTICE, __version__
from cxrg.chest.whereabouts import codes_of, side_of
from cxrg.geometry import Box
from cxrg.image.dicom import hashed_uid
from cxrg.output.dicom.codes import SCHEME, finding_code, pydicom_code
from cxrg.output.dicom.objects import (
    identity_of,
    printable,
    settings_of,
    uid_of,
    write_object,
)
from cxrg.output.dicom.source import Source

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.result import Grounding

_STATUS = Code("status", SCHEME, "Status of the phrase")
_STATUSES = {
    "found": Code("found", SCHEME, "Found"),
    "not found": Code("not-found", SCHEME, "Not found"),
    "uncalibrated": Code("uncalibrated", SCHEME, "Presence was not judged"),
    "nothing to mark": Code("nothing-to-mark", SCHEME, "Nothing to mark"),
    "unknown phrase": Code("unknown-phrase", SCHEME, "Unknown phrase"),
}
_SOUGHT = Code("sought", SCHEME, "Finding looked for")
_PHRASE = Code("phrase", SCHEME, "Phrase")
_PRESENCE = Code("presence", SCHEME, "Probability of presence")
_SCORE = Code("presence-score", SCHEME, "Presence score")
_BOX_SCORE = Code("box-score", SCHEME, "Box score")
_SIDES = {
    "left": Code("7771000", "SCT", "Left"),
    "right": Code("24028007", "SCT", "Right"),
    "both": Code("51440002", "SCT", "Right and left"),
}


def write(grounding: Grounding, image: CxrImage, path: Path) -> None:
    """Write a grounding as DICOM structured report.

    Raises:
        CxrgError: it cannot be made or written.
    """
    write_object(path, image, lambda source: _report(grounding, source))


def _report(grounding: Grounding, source: Source) -> Dataset:
    from highdicom import sr
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=hashed_uid(f"cxrg {__version__}"),
            name="cxrg",
            manufacturer_name="cxrg",
            model_name=grounding.model.name,
        ),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=codes.SCT.ChestImaging,
        imaging_measurements=[
            group
            for number, each in enumerate((grounding, *grounding.parts))
            for group in _groups(each, source, number)
        ],
        title=codes.DCM.ImagingMeasurementReport,
    )
    return sr.Comprehensive3DSR(
        evidence=[source.header],
        content=content,
        coding_schemes=[
            CodingSchemeIdentificationItem(designator=SCHEME, name="Codes of cxrg itself")
        ],
        **identity_of(grounding, source, "SR"),
    )


def _groups(grounding: Grounding, source: Source, number: int) -> Iterator[Any]:
    """Yield the group of a phrase, and one for each of its boxes; ``number`` is that of a part."""
    yield _phrase_group(grounding, source, number)
    for box_number, box in enumerate(grounding.boxes):
        yield _box_group(grounding, source, number, box_number, box)


def _phrase_group(grounding: Grounding, source: Source, number: int) -> Any:
    from highdicom import sr

    found = grounding.status == "found"
    code = finding_code(grounding)
    evaluations = [sr.QualitativeEvaluation(name=_STATUS, value=_STATUSES[grounding.status])]
    if code and not found:
        # Not as finding: who does not know the status would read that it is there.
        evaluations.append(sr.QualitativeEvaluation(name=_SOUGHT, value=code))
    measurements = [_score(_SCORE, grounding.score)]
    if grounding.presence is not None:
        measurements.append(_score(_PRESENCE, grounding.presence))
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=uid_of(grounding, source, "SR", number), identifier=printable(grounding.phrase)
        ),
        finding_type=code if found else None,
        algorithm_id=_algorithm(grounding, knobs=True),
        measurements=measurements if grounding.evaluations > 0 else None,
        qualitative_evaluations=evaluations,
        source_images=[sr.SourceImageForMeasurementGroup.from_source_image(source.header)],
    )
    texts = [(_PHRASE, grounding.phrase)]
    texts += [(codes.DCM.Comment, each) for each in _comments(grounding)]
    _add_texts(group, texts)
    return group


def _box_group(grounding: Grounding, source: Source, number: int, box_number: int, box: Box) -> Any:
    from highdicom import sr

    place = grounding.places[box_number]
    side = side_of(place)
    sites = [
        sr.FindingSite(pydicom_code(site), laterality=_SIDES[side] if side else None)
        for site in codes_of(place)
    ]
    group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=uid_of(grounding, source, "SR", number, "box", box_number),
            identifier=printable(f"{grounding.phrase}, box {box_number + 1}"),
        ),
        referenced_region=sr.ImageRegion(
            graphic_type=sr.GraphicTypeValues.POLYLINE,
            graphic_data=source.outline(box),
            source_image=sr.SourceImageForRegion.from_source_image(source.header),
        ),
        finding_type=finding_code(grounding) if grounding.status == "found" else None,
        algorithm_id=_algorithm(grounding),
        finding_sites=sites or None,
        measurements=None if box.score is None else [_score(_BOX_SCORE, box.score)],
    )
    _add_texts(group, [(_PHRASE, grounding.phrase), (codes.DCM.Comment, f"Place: {place}")])
    return group


def _comments(grounding: Grounding) -> Iterator[str]:
    """Yield what a reader should know of a phrase, beside its status."""
    if not grounding.boxes:
        yield "No box: see the status of the phrase. This does not say that the finding is absent."
    if grounding.intent.summary:
        yield f"The phrase as it was read: {grounding.intent.summary}"
    if grounding.image.mended:
        yield f"The picture was {grounding.image.mended.description} before it was read."
    # What concerns the file alone is left out: it speaks of the upright picture.
    yield from (each for each in grounding.warnings if each not in grounding.image.warnings)
    yield NOTICE


def _add_texts(group: Any, texts: list[tuple[Code, str]]) -> None:
    from highdicom import sr

    for name, value in texts:
        group[0].ContentSequence.append(
            sr.TextContentItem(
                name=name,
                value=printable(value),
                relationship_type=sr.RelationshipTypeValues.CONTAINS,
            )
        )


def _score(name: Code, value: float) -> Any:
    from highdicom import sr

    return sr.Measurement(name=name, value=float(value), unit=codes.UCUM.NoUnits)


def _algorithm(grounding: Grounding, *, knobs: bool = False) -> Any:
    """Return name, version and model of what found it, and with ``knobs`` all settings."""
    from highdicom import sr

    settings = settings_of(grounding)
    named = settings if knobs else ("model", "fingerprint")
    return sr.AlgorithmIdentification(
        name="cxrg",
        version=__version__,
        parameters=[f"{name}={settings[name]}" for name in named],
    )
