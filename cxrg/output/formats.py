"""The one list of the formats that a grounding can be written in.

To add a format, write its function in a module of this folder and add one line to :data:`WRITERS`:
the command line's ``--format``, the files of a batch and the benchmark of writing follow from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cxrg.errors import UsageError
from cxrg.files import stem
from cxrg.output.arrays import write_arrays
from cxrg.output.picture import write_picture
from cxrg.output.record import write_record

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.options import Options
    from cxrg.result import Grounding


class Writer(Protocol):
    """Write one grounding of ``image`` to ``path``; raises WriteError if that is not possible."""

    def __call__(self, grounding: Grounding, image: CxrImage, path: Path) -> None: ...


WRITERS: Mapping[str, Writer] = {
    "json": write_record,
    "png": write_picture,
    "npz": write_arrays,
}
"""The writer of each format. A format's name is also the suffix of its files."""

FORMATS = tuple(WRITERS)


def settings_text(
    precision: str, options: Options, *, deidentify: bool = False, force_ground: bool = False
) -> str:
    """Return precision and options as text, for file names and the ledger."""
    facts = {"precision": precision, **asdict(options)}
    if deidentify:
        facts["deidentify"] = True
    if force_ground:
        facts["force_ground"] = True
    return json.dumps(facts, sort_keys=True)


def stem_of(grounding: Grounding, *, deidentify: bool = False, force_ground: bool = False) -> str:
    """Return the name of a grounding's files, less the suffix; see `cxrg.files.stem`.

    Args:
        grounding: a result.
        deidentify: whether its image's UID was replaced by a hash.
        force_ground: whether the phrase was grounded whatever it means.
    """
    model = grounding.model
    facts = settings_text(
        model.precision, grounding.options, deidentify=deidentify, force_ground=force_ground
    )
    return stem(grounding.image.sha256, grounding.phrase, model.identity, facts)


def paths(folder: Path, stem: str, formats: Sequence[str]) -> dict[str, Path]:
    """The file of each format: ``folder/stem.format``.

    Raises:
        UsageError: a format is unknown.
    """
    unknown = ", ".join(name for name in formats if name not in WRITERS)
    if unknown:
        raise UsageError(f"format {unknown} is unknown; use some of {', '.join(FORMATS)}")
    return {name: folder / f"{stem}.{name}" for name in formats}


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
        WRITERS[name](grounding, image, path)
