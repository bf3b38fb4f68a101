"""Real chest X-rays to draw findings into, with the lungs found by the segmenter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from diffusers.models.unets.unet_2d import UNet2DModel

from cxrg.errors import InputError
from cxrg.image.read import read_image
from cxrg.learn.index import read_index
from cxrg.learn.log import Report
from cxrg.learn.train.pool import Background
from cxrg.learn.train.segmenter import plausible, segment, upright


def read_backgrounds(
    folder: Path,
    side: int,
    segmenter: UNet2DModel,
    report: Report,
    *,
    held_out: int = 0,
    strict: bool = False,
) -> tuple[Background, ...]:
    """Read the images that ``index.csv`` lists and keep those whose masks look like a chest.

    The last ``held_out`` rows are not read; with ``strict``, lungs must also be upright.

    The columns used are ``file`` and ``labels``; ``No Finding`` marks a healthy one.

    Raises:
        InputError: there is no valid index, or no image could be used.
    """
    rows = read_index(folder, ("file", "labels"), held_out)
    kept = []
    small = int(segmenter.config["sample_size"])
    for done, row in enumerate(rows, start=1):
        image = read_image(folder / row["file"], side=side)
        masks = segment(segmenter, replace(image.frame, side=small).sample(image.grey).clip(0, 1))
        if plausible(masks) and (upright(masks) or not strict):
            pixels = np.round(image.pixels * 255).astype(np.uint8)
            healthy = row["labels"] == "No Finding"
            kept.append(Background(pixels=pixels, outlines=masks, healthy=healthy))
        report("backgrounds", done, len(rows), len(kept) / done)
    if not kept:
        raise InputError(f"{folder}: no image with two plausible lungs; give frontal chest X-rays")
    return tuple(kept)
