"""Lungs and mediastinum in a real X-ray, found by the small network that the package ships.

The network is `cxrg.learn.train.segmenter`'s, read from a diffusers folder; its card says what it
was trained on. It outlines; what is done to its outlines is here: the largest part of each lung
with its holes filled, sides by position, and a refusal where that is no frontal chest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from cxrg.chest.places import Structures
from cxrg.errors import ImageError, ModelError
from cxrg.geometry import Mask
from cxrg.image.read import CxrImage

SHIPPED = Path(__file__).with_name("segmenter_weights")
STRUCTURES = ("right lung", "left lung", "mediastinum")
"""The network's first channels; a fourth, the airways, is not used."""

Heat = NDArray[np.float32]
# Least and most share of the image that one lung can have, and how unequal the two may be.
_SMALLEST, _LARGEST, _UNEQUAL = 0.025, 0.35, 4.0
# How much darker than the mediastinum the darker lung must be, in standard deviations of the grey:
# 254 real frontal X-rays have .41 or more, noise (in which the network sees lungs too) .06.
_CONTRAST = 0.25
# Readers outline the mediastinum from about here on, as a share of the lungs' height below their
# top; the network continues into the neck.
_MEDIASTINUM_TOP = 0.2


@cache
def shipped() -> Callable[[CxrImage], Structures]:
    """The source of structures that comes with the package."""
    return segmenter(SHIPPED)


def segmenter(folder: Path) -> Callable[[CxrImage], Structures]:
    """A source of structures from a segmenter's folder.

    Raises:
        ModelError: the folder holds no such network.
    """
    from diffusers.models.unets.unet_2d import UNet2DModel

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        net: Any = UNet2DModel.from_config(config)
        weights = load_file(folder / "diffusion_pytorch_model.safetensors")
        net.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{folder}: no segmenter that can be read; give a folder that cxrg train wrote"
        ) from error
    net.eval().requires_grad_(False)
    side = int(net.config.sample_size)

    def find(image: CxrImage) -> Structures:
        frame = replace(image.frame, side=side)
        return outline(image, chances(net, frame.sample(image.grey).clip(0, 1)))

    return find


@torch.inference_mode()
def chances(net: Any, square: Heat) -> Heat:
    """Probabilities ``(structures, side, side)`` in a square of grey ``(side, side)`` in [0, 1]."""
    x = torch.from_numpy(square)[None, None] * 2 - 1
    found: Heat = net(x, torch.zeros((), dtype=torch.long)).sample.sigmoid()[0].numpy()
    return found


def outline(image: CxrImage, chance: Heat) -> Structures:
    """Structures ``(H, W)`` of an image from the network's probabilities on the square.

    Raises:
        ImageError: there are no two lungs side by side.
    """
    frame = replace(image.frame, side=chance.shape[-1])
    # Probabilities are enlarged and cut afterwards, so that outlines are smooth.
    full = [np.nan_to_num(frame.restore(np.ascontiguousarray(c))) for c in chance[:3]]
    first, second = (whole_part((lung > 0.5) & (lung >= other)) for lung, other in _both(full))
    middle = _below_neck(whole_part((full[2] > 0.5) & ~first & ~second), first | second)
    if not (_are_lungs(first, second) and _is_air(image.grey, first, second, middle)):
        raise ImageError(
            f"{image.path}: no two lungs were found; give a frontal chest X-ray, or own --masks"
        )
    if middle_of(first) > middle_of(second):
        first, second = second, first
    return {"right lung": first, "left lung": second, "mediastinum": middle}


def _both(full: list[Heat]) -> tuple[tuple[Heat, Heat], tuple[Heat, Heat]]:
    return (full[0], full[1]), (full[1], full[0])


def largest_part(mask: Mask) -> Mask:
    """The largest connected part of a mask; all False where it is empty."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return mask
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def whole_part(mask: Mask) -> Mask:
    """The largest connected part of a mask with its holes filled; all False where it is empty."""
    if not mask.any():
        return mask
    part = largest_part(mask)
    # What the frame's background cannot reach from outside is a hole.
    padded = np.pad(~part, 1, constant_values=True).astype(np.uint8)
    _, outside = cv2.connectedComponents(padded, connectivity=4)
    return np.asarray(outside[1:-1, 1:-1] != outside[0, 0])


def _below_neck(middle: Mask, lungs: Mask) -> Mask:
    """The part of the mediastinum beside the lungs."""
    rows = np.flatnonzero(lungs.any(1))
    if not rows.size:
        return middle
    top = rows[0] + _MEDIASTINUM_TOP * (rows[-1] + 1 - rows[0])
    row = np.arange(len(lungs))[:, None]
    return np.asarray(middle & (row >= round(top)) & (row <= rows[-1]))


def middle_of(mask: Mask) -> float:
    """The mean column of a mask."""
    return float(np.nonzero(mask)[1].mean())


def _are_lungs(a: Mask, b: Mask) -> bool:
    shares = float(a.mean()), float(b.mean())
    if min(shares) < _SMALLEST or max(shares) > _LARGEST or max(shares) > _UNEQUAL * min(shares):
        return False
    width = np.ptp(np.flatnonzero((a | b).any(0)))
    return abs(middle_of(a) - middle_of(b)) > 0.25 * float(width)


def _is_air(grey: Heat, a: Mask, b: Mask, middle: Mask) -> bool:
    """Whether a lung is darker than what is between them, as air is."""
    if not middle.any():
        return False
    darker = min(float(grey[a].mean()), float(grey[b].mean()))
    return float(grey[middle].mean()) - darker > _CONTRAST * float(grey.std())
