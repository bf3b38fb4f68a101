"""The arrays of a grounding as a NumPy archive, for computing on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cxrg.errors import InputError
from cxrg.files import atomic_write
from cxrg.geometry import Box, Frame
from cxrg.output.record import record, record_line

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.result import Grounding


def write_arrays(grounding: Grounding, image: CxrImage, path: Path) -> None:
    """Write ``canonical`` (S, S), ``crop`` (4,), ``source`` (2,), ``boxes`` (N, 5), ``record``.

    ``canonical`` is the heatmap on the model's square, float32 in [0, 1]. `read_heatmap` enlarges
    it to source pixels by the two facts of `cxrg.geometry.Frame`: ``crop``, the part of the source
    that the square shows (x0, y0, x1, y1 in source pixels), and ``source``, height and width of the
    image. The columns of ``boxes`` are x0, y0, x1, y1 (source pixels, half-open) and score (NaN:
    none); ``record`` is the JSON record as text.

    Raises:
        CxrgError: the file cannot be written.
    """
    boxes = [
        (b.x0, b.y0, b.x1, b.y1, np.nan if b.score is None else b.score) for b in grounding.boxes
    ]
    crop = image.frame.crop
    with atomic_write(path) as file:
        # Not the heatmap in source pixels: it is a hundred times larger and knows nothing more.
        np.savez_compressed(
            file,
            canonical=grounding.canonical,
            crop=np.array([crop.x0, crop.y0, crop.x1, crop.y1]),
            source=np.array(image.frame.source),
            boxes=np.array(boxes, dtype=np.float32).reshape(-1, 5),
            record=np.array(record_line(record(grounding))),
        )


def read_heatmap(path: str | Path) -> NDArray[np.float32]:
    """The heatmap (H, W) in source pixels of a file that `write_arrays` wrote.

    Returns:
        float32 in [0, 1], NaN where the model never looked; equal to `Grounding.heatmap`.

    Raises:
        InputError: the file is not such a file.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            canonical, crop, source = (archive[name] for name in ("canonical", "crop", "source"))
        height, width = (int(length) for length in source)
        frame = Frame((height, width), Box(*(float(edge) for edge in crop)), len(canonical))
        return frame.restore(canonical)
    except (OSError, EOFError, KeyError, TypeError, ValueError, BadZipFile) as error:
        raise InputError(
            f"{path}: holds no heatmap ({type(error).__name__}); "
            "name a file that cxrg ground --format npz wrote"
        ) from error
