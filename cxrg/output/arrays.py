"""The arrays of a grounding as a NumPy archive, for computing on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxrg.files import atomic_write
from cxrg.output.record import record, record_line

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.result import Grounding


def write_arrays(grounding: Grounding, image: CxrImage, path: Path) -> None:
    """Write ``heatmap`` (H, W), ``canonical`` (S, S), ``boxes`` (N, 5) and ``record``.

    ``heatmap`` is float32 in [0, 1] in source pixels, NaN where the model never looked;
    ``canonical`` is the same map on the model's square; the columns of ``boxes`` are x0, y0, x1,
    y1 (source pixels, half-open) and score (NaN: none); ``record`` is the JSON record as text.

    Raises:
        CxrgError: the file cannot be written.
    """
    boxes = [
        (b.x0, b.y0, b.x1, b.y1, np.nan if b.score is None else b.score) for b in grounding.boxes
    ]
    with atomic_write(path) as file:
        # Not compressed: a smooth map of floats shrinks by a tenth, and that takes longer than
        # grounding it.
        np.savez(
            file,
            heatmap=grounding.heatmap,
            canonical=grounding.canonical,
            boxes=np.array(boxes, dtype=np.float32).reshape(-1, 5),
            record=np.array(record_line(record(grounding))),
        )
