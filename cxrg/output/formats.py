"""The one list of the formats that a grounding can be written in.

To add a format, write its function in a module of this folder and add one line to :data:`WRITERS`:
the command line's ``--format``, the files of a batch and the benchmark of writing follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cxrg.output.arrays import write_arrays
from cxrg.output.picture import write_picture
from cxrg.output.record import write_record

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
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


def paths(folder: Path, stem: str, formats: Sequence[str]) -> dict[str, Path]:
    """The file of each format: ``folder/stem.format``."""
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
