"""What the positional arguments mean: image files, folders of them, and phrases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cxrg.errors import ImageError, UsageError


def split_arguments(
    arguments: Sequence[str], phrases: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Images and phrases: the last positional is the phrase unless ``--phrase`` gave any.

    Raises:
        UsageError: an image or a phrase is missing.
    """
    if phrases:
        return list(arguments), list(phrases)
    *images, phrase = arguments
    if phrase.strip() and Path(phrase).exists():
        raise UsageError(
            f"{phrase} is a file or folder, so the phrase is missing; "
            "put it last in quotes, or give it with --phrase"
        )
    if not images:
        raise UsageError("one argument is too few; give an image and a phrase in quotes")
    return images, [phrase]


def find_images(arguments: Sequence[str]) -> tuple[list[Path], list[ImageError]]:
    """The image files meant, and what is wrong with arguments that are none.

    Folders are searched recursively, in sorted order, by content; files in them that are no images
    are passed over.
    """
    images: list[Path] = []
    refused: list[ImageError] = []
    for argument in arguments:
        try:
            images += _images_of(argument)
        except ImageError as error:
            refused.append(error)
    return images, refused


def _images_of(argument: str) -> list[Path]:
    from cxrg.image import is_image, read_image

    path = Path(argument)
    if path.is_dir():
        inside = [file for file in sorted(path.rglob("*")) if is_image(file)]
        if not inside:
            raise ImageError(f"{argument}: holds no image; name a folder of DICOM, PNG, JPEG, TIFF")
        return inside
    if not is_image(path):
        read_image(path, side=1)  # says why, and before a model is loaded
    return [path]
