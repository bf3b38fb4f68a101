"""A picture that is turned or inverted, and says so nowhere, brought upright with bright bones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from cxrg.geometry import Frame
from cxrg.image.orientation import UPRIGHT, Turn

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage

_TURNS = {
    0: UPRIGHT,
    90: Turn(transpose=True, flip_columns=True),
    180: Turn(flip_rows=True, flip_columns=True),
    270: Turn(transpose=True, flip_rows=True),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mending:
    """What is done to a picture.

    Attributes:
        clockwise: degrees by which it is turned clockwise.
        inverted: whether black becomes white.
    """

    clockwise: Literal[0, 90, 180, 270] = 0
    inverted: bool = False

    @property
    def turn(self) -> Turn:
        """The step from the pixels of the picture to those of the mended one."""
        return _TURNS[self.clockwise]

    @property
    def description(self) -> str:
        """What is done, in words; empty for nothing."""
        turned = {
            0: "",
            90: "turned clockwise by 90 degrees",
            180: "turned by 180 degrees",
            270: "turned counter-clockwise by 90 degrees",
        }[self.clockwise]
        return " and ".join(filter(None, (turned, "inverted" if self.inverted else "")))


def mended_by(image: CxrImage, mending: Mending) -> CxrImage:
    """The mended image; its pixels, and boxes and maps in it, are those of the mended picture."""
    turn = mending.turn
    grey = turn.array(image.grey)
    if mending.inverted:
        grey = np.float32(1) - grey
    source = image.frame.source
    frame = Frame(turn.shape(source), turn.box(image.frame.crop, source), image.frame.side)
    pixels = np.clip(frame.sample(grey), 0.0, 1.0)
    spacing = image.spacing[::-1] if image.spacing and turn.transpose else image.spacing
    return replace(image, grey=grey, frame=frame, pixels=pixels, spacing=spacing, mended=mending)
