"""Smooth random fields, the raw material of every organic shape and texture here."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, side: int, cells: int) -> Array:
    """Gaussian noise on a ``cells x cells`` lattice, enlarged to the side, of unit variance."""
    coarse = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    step = side / cells
    shift_x, shift_y = rng.uniform(0, step, 2)
    full = round((cells + 3) * step)
    field = cv2.resize(coarse, (full, full), interpolation=cv2.INTER_CUBIC)
    y, x = int(step / 2 + shift_y), int(step / 2 + shift_x)
    part = field[y : y + side, x : x + side]
    return np.asarray(part / max(float(part.std()), 1e-6), dtype=np.float32)


def fractal_noise(rng: np.random.Generator, side: int, cells: int, octaves: int = 3) -> Array:
    """Sum of smooth noises, each octave twice as fine and half as strong; unit variance."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        count = cells * 2**octave
        if count > side:
            break
        total += smooth_noise(rng, side, count) * 0.5**octave
    return np.asarray(total / max(float(total.std()), 1e-6), dtype=np.float32)


def grid(side: int) -> tuple[Array, Array]:
    """Pixel-centre coordinates ``x`` (1, side) and ``y`` (side, 1), each in (0, 1)."""
    axis = ((np.arange(side) + 0.5) / side).astype(np.float32)
    return axis[None, :], axis[:, None]


def soft_step(value: NDArray[np.floating[Any]], width: float) -> Array:
    """0 below, 1 above zero, with a smooth edge about ``width`` wide."""
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * value / width, -30, 30))), np.float32)
