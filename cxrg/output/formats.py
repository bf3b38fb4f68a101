"""The one list of the formats that a grounding can be written in.

To add a format, write its function in a module of this folder and add one line to :data:`FORMATS`:
the command line's ``--format``, the files of a batch and the benchmark of writing follow from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cxrg.errors import UsageError
from cxrg.files import stem
from cxrg.output.arrays import write_arrays
from cxrg.output.dicom import check_image as check_dicom_image
from cxrg.output.dicom import check_packages, writer
from cxrg.output.nifti import check_nibabel, write_nifti
from cxrg.output.picture import write_picture
from cxrg.output.record import write_record

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.options import Options
    from cxrg.result import Grounding


class Writer(Protocol):
    """Write one grounding of ``image`` to ``path``; raises WriteError if that is not possible."""

    def __call__(self, grounding: Grounding, image: CxrImage, path: Path) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """One format.

    Attributes:
        write: writes a file of it.
        suffix: of its files.
        default: whether it is written where no formats are chosen.
        identifying: whether its files hold what the image says of its patient.
        check_packages: raises UsageError if a package is missing.
        check_image: raises ImageError if nothing can be written for this image.
    """

    write: Writer
    suffix: str
    default: bool = True
    identifying: bool = False
    check_packages: Callable[[], None] = lambda: None
    check_image: Callable[[CxrImage], None] = lambda image: None


def _dicom(module: str, suffix: str) -> Format:
    """A DICOM object in the study of the image; it holds the patient's data, so not by default."""
    return Format(
        write=writer(module),
        suffix=suffix,
        default=False,
        identifying=True,
        check_packages=check_packages,
        check_image=check_dicom_image,
    )


FORMATS: Mapping[str, Format] = {
    "json": Format(write=write_record, suffix="json"),
    "png": Format(write=write_picture, suffix="png"),
    "npz": Format(write=write_arrays, suffix="npz"),
    "nifti": Format(
        write=write_nifti, suffix="nii.gz", default=False, check_packages=check_nibabel
    ),
    "dicom-sr": _dicom("report", "sr.dcm"),
    "dicom-seg": _dicom("segmentation", "seg.dcm"),
    "dicom-sc": _dicom("capture", "sc.dcm"),
    "dicom-gsps": _dicom("presentation", "gsps.dcm"),
}
"""The formats by name."""

DEFAULT_FORMATS = tuple(name for name, each in FORMATS.items() if each.default)
IDENTIFYING_FORMATS = tuple(name for name, each in FORMATS.items() if each.identifying)
OTHER_FORMATS = tuple(
    name for name, each in FORMATS.items() if not each.default and not each.identifying
)


def settings_text(
    precision: str,
    options: Options,
    *,
    deidentify: bool = False,
    force_ground: bool = False,
    mend: bool = False,
) -> str:
    """Return precision and options as text, for file names and the ledger."""
    facts = {"precision": precision, **asdict(options)}
    if deidentify:
        facts["deidentify"] = True
    if force_ground:
        facts["force_ground"] = True
    if mend:
        facts["mend"] = True
    return json.dumps(facts, sort_keys=True)


def stem_of(grounding: Grounding, *, force_ground: bool = False) -> str:
    """Return the name of a grounding's files, less the suffix; see `cxrg.files.stem`.

    Args:
        grounding: a result.
        force_ground: whether the phrase was grounded whatever it means.
    """
    model, image = grounding.model, grounding.image
    facts = settings_text(
        model.precision,
        grounding.options,
        deidentify=image.deidentified,
        force_ground=force_ground,
        mend=image.mended is not None,
    )
    return stem(image.sha256, grounding.phrase, model.identity, facts)


def check_formats(names: Sequence[str]) -> None:
    """Check that formats are known and that the packages they need are installed.

    Raises:
        UsageError: a format is not known, or a package is missing.
    """
    for name in names:
        _format(name).check_packages()


def check_image(image: CxrImage, names: Sequence[str]) -> None:
    """Check, before the image is grounded, that the formats can be written for it.

    Raises:
        ImageError: one cannot be.
    """
    for name in names:
        FORMATS[name].check_image(image)


def paths(folder: Path, stem: str, names: Sequence[str]) -> dict[str, Path]:
    """The file of each format: ``folder/stem.suffix``.

    Raises:
        UsageError: a format is unknown.
    """
    return {name: folder / f"{stem}.{_format(name).suffix}" for name in names}


def write(grounding: Grounding, image: CxrImage, files: Mapping[str, Path]) -> None:
    """Write a grounding in several formats.

    Args:
        grounding: what to write.
        image: the image that it was found in.
        files: where to write each format, as from :func:`paths`.

    Raises:
        WriteError: a file cannot be written.
    """
    for name, path in files.items():
        FORMATS[name].write(grounding, image, path)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise UsageError(f"format {name!r} is unknown; use some of {', '.join(FORMATS)}")
    return FORMATS[name]
