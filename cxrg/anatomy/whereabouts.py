"""Names of the places of boxes in one image, by its own lungs where they can be outlined."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from cxrg.anatomy.segmenter import shipped
from cxrg.chest.places import Structures
from cxrg.chest.whereabouts import in_lungs, in_picture
from cxrg.errors import ImageError
from cxrg.geometry import Box, Frame
from cxrg.image.read import CxrImage

_SIDE = 256  # pixels of the square on which lungs are outlined: enough to name zones


class Whereabouts:
    """Describes boxes of one image; its lungs are outlined when the first box is described."""

    def __init__(self, image: CxrImage) -> None:
        self._image = image
        self._frame = replace(image.frame, side=_SIDE)

    def __call__(self, box: Box) -> str:
        """Where a box in source pixels lies: by the lungs, or by the picture without lungs."""
        small = self._frame.to_canonical(box)
        if small is None or self._lungs is None:
            return in_picture(box, self._image.frame.source)
        return in_lungs(small, self._lungs)

    @cached_property
    def _lungs(self) -> Structures | None:
        square = self._frame.sample(np.nan_to_num(self._image.grey)).clip(0, 1)
        frame = Frame(square.shape, Box(0, 0, _SIDE, _SIDE), _SIDE)
        try:
            return shipped()(replace(self._image, grey=square, frame=frame))
        except ImageError:
            return None
