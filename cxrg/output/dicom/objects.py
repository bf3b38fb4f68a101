"""What all derived DICOM objects share: their identity, what made them, and their file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import Dataset

from cxrg.about import __version__
from cxrg.files import atomic_write
from cxrg.image.dicom import hashed_uid, quiet
from cxrg.image.file import image_error
from cxrg.image.grayscale import text
from cxrg.output.dicom import check_packages
from cxrg.output.dicom.source import Source, read_source

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.result import Grounding

_SERIES_NUMBERS = {"SR": 9001, "SEG": 9002, "SC": 9003, "PR": 9004}


def write_object(path: Path, image: CxrImage, build: Callable[[Source], Dataset]) -> None:
    """Write the object that ``build`` makes for the source.

    Raises:
        ImageError: none can be made, for the source's header.
        UsageError: highdicom is missing.
        WriteError: the file cannot be written.
    """
    check_packages()
    source = read_source(image)
    with quiet(), _refusing(image.path):
        ds = build(source)
        ds.SpecificCharacterSet = "ISO_IR 192"
        if image.deidentified:
            ds.PatientIdentityRemoved = source.header.PatientIdentityRemoved
            ds.DeidentificationMethod = source.header.DeidentificationMethod
        with atomic_write(path) as file:
            ds.save_as(file, enforce_file_format=True)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn errors of the libraries about a header into one line that repeats none of it."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError, NotImplementedError) as error:
        raise image_error(
            path,
            f"has a header that no DICOM result can be derived from ({type(error).__name__})",
            "correct it, or leave out the formats dicom-...",
        ) from None


def uid_of(grounding: Grounding, source: Source, *parts: object) -> str:
    """Return the UID of a part of an object: the same for the same source, phrase and settings.

    What depends on rounding, such as scores, is left out: another device would make other UIDs.
    """
    model, image = grounding.model, grounding.image
    facts = [
        *("cxrg", __version__, text(source.header, "SOPInstanceUID"), image.sha256),
        *(grounding.phrase, grounding.asked, grounding.status, len(grounding.boxes)),
        *(model.identity, model.precision, asdict(grounding.options)),
        *(image.deidentified, image.mended and asdict(image.mended), parts),
    ]
    return hashed_uid(json.dumps(facts, sort_keys=True))


def identity_of(grounding: Grounding, source: Source, modality: str) -> dict[str, Any]:
    """Return what every constructor of highdicom takes: UIDs, numbers and the device.

    Each object has a series of its own: viewers show one object of a series.
    """
    return {
        "series_instance_uid": uid_of(grounding, source, modality, "series"),
        "series_number": _SERIES_NUMBERS[modality],
        "series_description": short(f"cxrg: {grounding.phrase}"),
        "sop_instance_uid": uid_of(grounding, source, modality, "instance"),
        "instance_number": 1,
        "manufacturer": "cxrg",
        "manufacturer_model_name": short(f"cxrg with {grounding.model.name}"),
        "software_versions": __version__,
        "device_serial_number": grounding.model.identity.removeprefix("sha256:")[:16],
    }


def settings_of(grounding: Grounding) -> Mapping[str, str]:
    """Return by name what a result was made with, as text: the model's fingerprint, the knobs."""
    model = grounding.model
    facts = {
        "model": model.name,
        "fingerprint": model.identity,
        "precision": model.precision,
        "adapter": model.adapter,
        **asdict(grounding.options),
    }
    return {name: _word(value) for name, value in facts.items() if value is not None}


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def printable(words: str) -> str:
    """Return text with spaces in the place of control characters, which DICOM text may not hold."""
    return "".join(each if each.isprintable() else " " for each in words)


def short(words: str, most: int = 64) -> str:
    """Return text on one line as a Long String holds it: 64 characters, no backslash."""
    line = " ".join(printable(words).replace("\\", "/").split())
    return line if len(line) <= most else line[: most - 3].rstrip() + "..."
