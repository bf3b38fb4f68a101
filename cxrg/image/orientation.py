"""How a stored picture is turned or mirrored, and how it comes upright.

Two kinds of file say so: the orientation tag of TIFF and Exif (TIFF 6.0, tag 274), and Patient
Orientation of DICOM (PS3.3 C.7.6.1.1.1). A chest X-ray hangs as if the patient faced the viewer:
the patient's left at the right edge, the feet at the lower edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cxrg.geometry import Box

N = TypeVar("N", int, float)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """The step from stored to upright pixels: transpose first, then flip.

    ``flip_rows`` swaps top and bottom, ``flip_columns`` left and right.
    """

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @property
    def inverse(self) -> Turn:
        """The step from upright to stored pixels."""
        if not self.transpose:
            return self
        return Turn(transpose=True, flip_rows=self.flip_columns, flip_columns=self.flip_rows)

    def then(self, other: Turn) -> Turn:
        """One turn for this one and another after it."""
        rows, columns = self.flip_rows, self.flip_columns
        if other.transpose:
            rows, columns = columns, rows
        return Turn(
            transpose=self.transpose != other.transpose,
            flip_rows=rows != other.flip_rows,
            flip_columns=columns != other.flip_columns,
        )

    def array(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The upright array of a stored one, ``(H, W)`` or ``(H, W, channels)``."""
        upright = stored.swapaxes(0, 1) if self.transpose else stored
        upright = upright[::-1] if self.flip_rows else upright
        upright = upright[:, ::-1] if self.flip_columns else upright
        return np.ascontiguousarray(upright)

    def shape(self, stored: tuple[N, N]) -> tuple[N, N]:
        """Height and width of the upright picture."""
        return stored[::-1] if self.transpose else stored

    def box(self, stored: Box, shape: tuple[float, float]) -> Box:
        """A box in upright pixels; ``stored`` is one in a stored picture of ``shape`` (H, W)."""
        x0, y0, x1, y1 = stored.x0, stored.y0, stored.x1, stored.y1
        if self.transpose:
            x0, y0, x1, y1 = y0, x0, y1, x1
        height, width = self.shape(shape)
        if self.flip_rows:
            y0, y1 = height - y1, height - y0
        if self.flip_columns:
            x0, x1 = width - x1, width - x0
        return replace(stored, x0=x0, y0=y0, x1=x1, y1=y1)


UPRIGHT = Turn()
_TAG: dict[int, Turn] = {
    1: UPRIGHT,
    2: Turn(flip_columns=True),
    3: Turn(flip_rows=True, flip_columns=True),
    4: Turn(flip_rows=True),
    5: Turn(transpose=True),
    6: Turn(transpose=True, flip_columns=True),
    7: Turn(transpose=True, flip_rows=True, flip_columns=True),
    8: Turn(transpose=True, flip_rows=True),
}


def from_tag(value: object) -> Turn:
    """The turn that an orientation tag asks for; none for values that TIFF does not define."""
    return _TAG.get(value, UPRIGHT) if isinstance(value, int) else UPRIGHT


def from_patient(directions: Sequence[str]) -> Turn:
    """The turn that Patient Orientation asks for; none where it does not describe a frontal view.

    Args:
        directions: where rows lead (to the right) and where columns lead (downwards), each by
            letters in the order of their weight, such as ``L`` and ``F``.
    """
    right, down = _main(directions)
    if right in "LR" and down in "HF":
        return Turn(flip_rows=down == "H", flip_columns=right == "R")
    if right in "HF" and down in "LR":
        return Turn(transpose=True, flip_rows=right == "H", flip_columns=down == "R")
    return UPRIGHT


def is_lateral(directions: Sequence[str]) -> bool:
    """Whether Patient Orientation says that the picture shows the patient from the side."""
    right, down = _main(directions)
    return (right in "AP" and down in "HF") or (right in "HF" and down in "AP")


def _main(directions: Sequence[str]) -> tuple[str, str]:
    """The main direction of rows and of columns, ``?`` for both where one is unknown."""
    if len(directions) != 2 or not all(d and set(d) <= set("APRLHF") for d in directions):
        return "?", "?"
    return directions[0][0], directions[1][0]
