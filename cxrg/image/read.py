"""Read a chest X-ray as the model sees it: float32 grey in a square, and the frame back.

DICOM goes through `cxrg.image.dicom`, PNG, JPEG and TIFF through `cxrg.image.picture`; these come
without any instruction how to show them, so their grey is that of `cxrg.image.samples`. What is in
memory goes through `cxrg.image.memory`. Whatever the source, ``grey`` is upright, and bright where
the body is dense.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

from cxrg.geometry import Fit, Frame
from cxrg.image import dicom, memory, picture
from cxrg.image.dicom import DisplayGrey
from cxrg.image.file import HEAD, Kind, image_error, kind_of, open_file, read_bytes
from cxrg.image.memory import ImageInMemory
from cxrg.image.mending import Mending
from cxrg.image.orientation import Turn

ImageSource: TypeAlias = str | Path | ImageInMemory
"""A file; or in memory a NumPy array, a Pillow image or a pydicom data set."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CxrImage:
    """One chest X-ray.

    Attributes:
        pixels: float32 ``(S, S)`` in [0, 1], what the model sees; 0 beyond the picture.
        frame: converts between the square and the pixels of the upright picture.
        grey: float32 ``(H, W)`` in [0, 1], the upright picture in its own display grey.
        path: the file as named; for an image in memory the file that it was opened from, or what
            it is.
        sha256: of the file's bytes, hexadecimal; for an image in memory of its content.
        kind: ``dicom``, ``png``, ``jpeg``, ``tiff``; ``memory`` for arrays and Pillow images.
        uid: SOP Instance UID of a DICOM object; its hash where ``deidentified``.
        window: where the grey comes from, e.g. ``VOI LUT``, ``window LINEAR 2048/4096``,
            ``palette``, ``full range``, ``percentile 0.5-99.5``, ``as given`` for floats.
        warnings: what to know about the file, one sentence each.
        stated: what a DICOM header says that it is instead of a frontal chest X-ray, such as
            ``a lateral view``; None where it says no such thing.
        deidentified: whether results hold hashes in the place of DICOM UIDs; see `deidentify`.
        spacing: height and width of a pixel in millimetres; None where they are not known.
        dataset: the pydicom data set that it was read from, where that was in memory.
        mended: how the picture was turned or inverted after it was read; None where it was not.
    """

    pixels: NDArray[np.float32]
    frame: Frame
    grey: NDArray[np.float32]
    path: Path
    sha256: str
    kind: Kind | Literal["memory"]
    uid: str | None
    window: str
    warnings: tuple[str, ...]
    stated: str | None = None
    deidentified: bool = False
    spacing: tuple[float, float] | None = None
    dataset: Dataset | None = None
    mended: Mending | None = None

    def __repr__(self) -> str:
        """One line without pixels, and without the file's name, which may be a patient's."""
        height, width = self.grey.shape
        seen = self.frame.side
        return (
            f"<CxrImage: {self.kind}, {width} x {height} pixels, {self.window}, "
            f"for a model of {seen} x {seen}, sha256 {self.sha256[:8]}>"
        )


def read_image(source: ImageSource, *, side: int, fit: Fit = "pad") -> CxrImage:
    """Read a chest X-ray from a file or from memory.

    Args:
        source: a DICOM, PNG, JPEG or TIFF file (the suffix does not matter); a pydicom data set; a
            Pillow image; or an array, uint8 or uint16 of shape ``(H, W)`` or ``(H, W, 3 or 4)``
            with the grey that a PNG of these values has, or floats ``(H, W)`` from 0 (black) to 1
            (white). Arrays and Pillow images are upright, and bright where the body is dense.
        side: side of the model's square in pixels.
        fit: ``pad`` shows the whole image with margins, ``crop`` the middle of it.

    Raises:
        ImageError: not one grey image that can be read; one line with the remedy.
        UsageError: ``fit`` is neither of the two, or the source none of these.
    """
    kind: Kind | Literal["memory"]
    dataset = None
    if isinstance(source, (str, Path)):
        path = Path(source)
        kind, sha256, read = _read_file(path)
    else:
        kind, sha256, read = memory.read_memory(source)
        path = memory.name_of(source)
        dataset = source if isinstance(source, Dataset) else None
    height, width = read.grey.shape
    frame = Frame.fit((height, width), side, fit, read.pixel_aspect)
    return CxrImage(
        pixels=np.clip(frame.sample(read.grey), 0.0, 1.0),
        frame=frame,
        grey=read.grey,
        path=path,
        sha256=sha256,
        kind=kind,
        uid=read.uid,
        window=read.window,
        warnings=read.warnings,
        stated=read.stated,
        spacing=read.spacing,
        dataset=dataset,
    )


def deidentify(image: CxrImage) -> CxrImage:
    """Put the hash of the SOP Instance UID in its place, in whatever is made of the image."""
    if image.deidentified:
        return image
    uid = dicom.hashed_uid(image.uid) if image.uid else None
    return replace(image, uid=uid, deidentified=True)


def _read_file(path: Path) -> tuple[Kind, str, DisplayGrey]:
    """The kind of a file, the SHA-256 of its bytes, and its display grey."""
    data = read_bytes(path)
    kind = kind_of(data[:HEAD])
    if kind is None:
        raise image_error(path, "is not a DICOM, PNG, JPEG or TIFF file", "convert it to one")
    if kind == "dicom":
        read = dicom.read_dicom(path, data)
    else:
        read = picture.read_picture(path, data, kind)
    return kind, hashlib.sha256(data).hexdigest(), read


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a file stores its picture: ``(H, W)``, and the turn with which `read_image` reads it."""

    kind: Kind
    stored: tuple[int, int]
    turn: Turn

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width of what `read_image` returns."""
        return self.turn.shape(self.stored)


def read_layout(path: Path | str) -> Layout | None:
    """The layout from a file's header, None where it is no image or its header is damaged."""
    path = Path(path)
    kind = _kind(path)
    if kind is None:
        return None
    if kind == "dicom":
        found = dicom.read_layout(path)
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(path, formats=[kind.upper()]) as opened:
                    found = picture.stored_layout(opened)
        except (*picture.FAILURES, Image.DecompressionBombError):
            return None
    return Layout(kind=kind, stored=found[0], turn=found[1]) if found else None


def is_image(path: Path | str) -> bool:
    """Whether a file starts like one of the four kinds; False where it cannot be read."""
    return _kind(Path(path)) is not None


def is_other_object(path: Path | str) -> bool:
    """Whether a file is DICOM, but states that it is no image: a directory, a report."""
    path = Path(path)
    return _kind(path) == "dicom" and dicom.states_other_class(path)


def _kind(path: Path) -> Kind | None:
    """The kind of a file, None where it is none of the four or cannot be read."""
    try:
        if not path.is_file():
            return None
        with open_file(path) as file:
            return kind_of(file.read(HEAD))
    except (OSError, ValueError):
        return None
