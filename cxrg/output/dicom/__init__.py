"""DICOM objects made from a result: they belong to the study of the image, and into the archive.

Unlike all else that cxrg writes they hold what the source says of patient and study (PS3.3 C.7.1,
C.7.2), without which no archive files them; ``--deidentify`` leaves it out. Their UIDs follow from
the source, the phrase and the settings, so that a repeated run makes the same objects again and an
archive keeps one. Coordinates are those of the stored pixels, from 0 to Columns and Rows (PS3.3
C.10.5, C.18.6), also where cxrg brought the picture upright.

highdicom, of the extra ``cxrg[dicom]``, builds them; it is imported when one is written.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cxrg.errors import UsageError

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.output.formats import Writer
    from cxrg.result import Grounding


def check_packages() -> None:
    """Check that highdicom is installed.

    Raises:
        UsageError: it is not.
    """
    if find_spec("highdicom") is None:
        raise UsageError("formats dicom-... need highdicom; pip install 'cxrg[dicom]'")


def check_image(image: CxrImage) -> None:
    """Check that DICOM objects can be derived from an image.

    Raises:
        ImageError: it is no DICOM object, or belongs to no study.
    """
    from cxrg.output.dicom.source import read_source

    read_source(image)


def writer(module: str) -> Writer:
    """Return the function ``write`` of a module of this folder.

    The module is imported when it writes: the command line starts without pydicom.
    """

    def write(grounding: Grounding, image: CxrImage, path: Path) -> None:
        import_module(f"{__name__}.{module}").write(grounding, image, path)

    return write
