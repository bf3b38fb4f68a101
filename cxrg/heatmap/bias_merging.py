"""Bimodal Bias Merging (Nützel, Dombrowski, Kainz, arXiv 2507.12236; its released code).

Two passes: ``R`` reads the real image, ``F`` samples an image from the phrase alone. Per step
``s``, layer ``l`` and token ``k`` each gives a map at the latents' resolution. With the start token
``c`` and the chosen tokens ``W``, means over all steps and layers::

    b_img = mean R_c          where the model looks whatever the words are
    b_txt = mean F_W          where these words usually are
    m     = minmax(u8(mean(R_c @ F_W)))       the product of matrices, as released
    s     = max(0, SSIM(u8(b_img), u8(b_txt)))
    out   = (1 - s)^2 a + s^2 m + 2 s (1 - s) (m + a + m a) / 2

where ``a`` is the plain map in [0, 1] and ``u8`` scales to 0..255 in 8 bits. The mean over tokens
is taken before the product, which is linear, and means over layers are sums that run: the tensor of
all maps (1 GB for Stable Diffusion 1.5) is never made.

A map of side ``n`` repeated ``r`` times along both axes is ``up(X)``. Since ``up(X) @ up(Y) = r
up(X @ Y)``, products are taken at the layer's own resolution.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.attention.free_run import FreeRun
from cxrg.attention.watch import AttentionMaps
from cxrg.errors import UsageError
from cxrg.heatmap.maps import Heat, scale

SSIM_WINDOW = 7  # positions, scikit-image's default


def check_merging(side: int) -> None:
    """Raise UsageError if biases cannot be merged, before the network runs.

    Args:
        side: of the latents.

    Raises:
        UsageError: scikit-image is not installed, or the latents are smaller than SSIM's window.
    """
    if find_spec("skimage") is None:
        raise UsageError(
            "Bimodal Bias Merging needs scikit-image; pip install 'cxrg[gen2ground]', "
            "or use bbm=off"
        )
    if side < SSIM_WINDOW:
        raise UsageError(f"bbm needs latents of {SSIM_WINDOW} x {SSIM_WINDOW}; use bbm=off")


def merge(plain: Heat, real: AttentionMaps, free: FreeRun) -> Heat:
    """The merged map.

    Args:
        plain: ``(n, n)`` in [0, 1], of the latents' side.
        real: of the real image, with the start token's maps beside it.
        free: the free run, at the same timesteps and in the same layers.

    Returns:
        float32 ``(n, n)``, from 0; it may exceed 1.
    """
    side = free.side
    image, text = real.extra["start"], free.maps.layers
    similarity = agreement(
        _mean((maps.mean(axis=0) for maps in image.values()), side),
        _mean((maps.mean(axis=0) for maps in text.values()), side),
    )
    both = scale(_bytes(_mean((_product(image[n], text[n], side) for n in image), side)))
    union = (both + plain + both * plain) / 2
    apart = 1 - similarity
    merged = apart**2 * plain + similarity**2 * both + 2 * similarity * apart * union
    return np.asarray(merged, np.float32)


def agreement(image: Heat, text: Heat) -> float:
    """How far two biases agree, 0 to 1: the structural similarity of their 8-bit pictures."""
    from skimage import metrics

    similarity: Any = metrics.structural_similarity
    pictures = (_bytes(each).astype(np.uint8) for each in (image, text))
    return max(0.0, float(similarity(*pictures, data_range=255)))


def _product(image: Heat, text: Heat, side: int) -> Heat:
    """The mean over steps of one layer's products, which are those of its repeated maps."""
    repeated = side / image.shape[-1]
    return np.asarray((image @ text).mean(axis=0) * repeated, np.float32)


def _mean(maps: Iterable[Heat], side: int) -> Heat:
    """The mean of maps of any resolution, each repeated to ``(side, side)``."""
    total: NDArray[np.float64] = np.zeros((side, side))
    count = 0
    for each in maps:
        total += cv2.resize(each, (side, side), interpolation=cv2.INTER_NEAREST)
        count += 1
    return np.asarray(total / count, np.float32)


def _bytes(heat: Heat) -> Heat:
    """Scaled to the whole numbers 0 to 255; a constant map gives 0."""
    return np.floor(scale(heat) * 255)
