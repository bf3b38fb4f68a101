"""Samples that come without any instruction how to show them: one channel, then display grey.

So are PNG, JPEG and TIFF, and colour in DICOM, whose windows and tables are for grey pixels only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.image.file import image_error

WEIGHTS = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in luminance (ITU-R BT.601)."""

COLOURED = "the picture is in colour; its luminance was taken"
_TRANSPARENT = "the picture is partly transparent; it was composed over black"


def grey_levels(samples: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """One channel ``(H, W)`` of unsigned samples ``(H, W)`` or ``(H, W, 3 or 4)``, and warnings.

    Equal channels are grey as they are; others become luminance. A fourth channel is opacity, and
    the picture is composed over black.
    """
    if samples.ndim == 2:
        return samples, ()
    notes = []
    colour = samples[..., :3]
    if np.all(colour == colour[..., :1]):
        grey = colour[..., 0]
    else:
        notes.append(COLOURED)
        grey = cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_RGB2GRAY)
    top = np.iinfo(samples.dtype).max
    if samples.shape[-1] == 4 and np.any(samples[..., 3] < top):
        notes.append(_TRANSPARENT)
        faded = grey.astype(np.float64) * samples[..., 3] / top
        grey = np.rint(faded).astype(samples.dtype)
    return np.ascontiguousarray(grey), tuple(notes)


def default_grey(
    path: Path, samples: NDArray[Any], bits: int
) -> tuple[NDArray[np.float32], str, tuple[str, ...]]:
    """Unsigned samples ``(H, W)`` or ``(H, W, 3 or 4)`` of ``bits`` bits as grey in [0, 1].

    Returns:
        grey ``(H, W)``, the words for its range, warnings.

    Raises:
        ImageError: all pixels are the same.
    """
    channel, notes = grey_levels(samples)
    counts = np.bincount(channel.ravel(), minlength=2**bits)
    refuse_constant(path, counts)
    values = np.arange(len(counts), dtype=np.float64)
    black, white, window = default_range(values, counts, (0.0, 2.0**bits - 1), bits)
    table = stretch(values, black, white).astype(np.float32)
    return table[channel], window, notes


def refuse_constant(path: Path, counts: NDArray[np.int64]) -> None:
    """Refuse a picture of one value, given how many pixels have each.

    Raises:
        ImageError: fewer than two values occur.
    """
    if np.count_nonzero(counts) < 2:
        raise image_error(path, "every pixel has the same value", "export the image again")


def default_range(
    values: NDArray[np.float64], counts: NDArray[np.int64], full: tuple[float, float], bits: int
) -> tuple[float, float, str]:
    """The grey range of pixels that come without any instruction how to show them.

    The full range that can be stored, unless the pixels have more than 8 bits and fill less than
    half of it (12 bits kept in 16 would be near black): then the percentiles 0.5 and 99.5.

    Args:
        values: what each stored value means, ``(n,)``.
        counts: how many pixels have it, ``(n,)``; at least two values occur.
        full: lowest and highest value that can be stored.
        bits: stored bits per pixel.

    Returns:
        black, white, and the words for the result.
    """
    order = np.argsort(values, kind="stable")
    share = np.cumsum(counts[order]) / counts.sum()
    black, white = (float(values[order][np.searchsorted(share, p)]) for p in (0.005, 0.995))
    if bits <= 8 or white - black >= (full[1] - full[0]) / 2:
        return full[0], full[1], "full range"
    if white > black:
        return black, white, "percentile 0.5-99.5"
    seen = values[counts > 0]
    return float(seen.min()), float(seen.max()), "minimum to maximum"


def stretch(values: NDArray[np.float64], black: float, white: float) -> NDArray[np.float64]:
    """``values`` with ``black`` at 0 and ``white`` at 1, clipped; ``black < white``."""
    return np.clip((values - black) / (white - black), 0.0, 1.0)
