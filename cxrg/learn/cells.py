"""Masks on a grid of cells, as training reads them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def coarse(mask: NDArray[np.generic], grid: int) -> NDArray[np.uint8]:
    """Average a mask, bool or in [0, 1], over the cells of a grid: uint8 ``(grid, grid)``.

    A cell holds the mask's share of its area, 0 to 255 (methods of anatomy-grounded prompt tuning:
    area-averaged masks).
    """
    shares = cv2.resize(mask.astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA)
    return np.round(shares.clip(0, 1) * 255).astype(np.uint8)
