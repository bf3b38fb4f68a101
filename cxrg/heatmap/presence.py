"""How strongly a phrase is present: a robust peak of its attention probabilities."""

from __future__ import annotations

import numpy as np

from cxrg.heatmap.maps import Heat

PRESENCE_TOP = 1 / 256  # one cell of a 16 x 16 attention map


def peak(values: Heat, top: float) -> float:
    """The mean of the highest values, ``top`` of them as a fraction and at least one."""
    flat = values.ravel()
    count = max(round(flat.size * top), 1)
    return float(np.partition(flat, flat.size - count)[-count:].mean())


def presence(heat: Heat) -> float:
    """How strongly a phrase is present: the robust peak of a map of probabilities."""
    return peak(heat, PRESENCE_TOP)
