"""Where the named parts of a chest are: masks of twenty locations, from one of three sources.

A *source* is a function from an image to the structures outlined in it, boolean masks by name:

* :func:`cxrg.anatomy.segmenter.shipped`: a small network finds lungs and mediastinum;
* :func:`cxrg.anatomy.folder.mask_folder`: the user's own masks, or those another program exported;
* :func:`cxrg.phantom.structures.of_phantom`: a phantom's exact regions.

:func:`locate` makes the masks of :data:`LOCATIONS` from what a source outlined, with geometric
rules for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxrg.chest.places import LOCATIONS, Structures, locate
from cxrg.geometry import Mask

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage

__all__ = ["LOCATIONS", "Mask", "Source", "Structures", "anatomy", "locate"]

Source = Callable[["CxrImage"], Structures]
"""The structures in an image, in pixels of its ``grey`` (H, W).

Raises ImageError (or another InputError) where it finds none.
"""


def anatomy(image: CxrImage, source: Source | None = None) -> NDArray[np.float32]:
    """Masks ``(20, H, W)`` in [0, 1] of :data:`LOCATIONS`, in pixels of the original image.

    Args:
        image: the image.
        source: where the structures come from; the shipped segmenter unless given.

    Raises:
        InputError: no two lungs were found, or the source has nothing for this image.
    """
    if source is None:
        from cxrg.anatomy.segmenter import shipped

        source = shipped()
    return locate(source(image))
