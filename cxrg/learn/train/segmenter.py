"""Find lungs, cardiomediastinal silhouette and airways in a real X-ray, taught by phantoms alone.

A small U-Net (diffusers' ``UNet2DModel`` without attention) sees phantoms under widely varied
exposure, processing, findings and markers, so that a real image looks like one more variation
(domain randomisation; Tobin et al., 2017; for medical images Billot et al., SynthSeg, 2023).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from cxrg.anatomy.segmenter import chances, largest_part
from cxrg.chest.lung import extent
from cxrg.geometry import Mask
from cxrg.learn.log import Report
from cxrg.learn.train.config import SegmenterConfig
from cxrg.learn.trainer import Trainer, TrainerConfig

STRUCTURES = ("right lung", "left lung", "heart and mediastinum", "airways")


def new_segmenter(side: int, channels: tuple[int, ...]) -> UNet2DModel:
    """An untrained segmenter for ``(B, 1, side, side)`` in [-1, 1]; logits for ``STRUCTURES``."""
    depth = len(channels)
    net: UNet2DModel = UNet2DModel(
        sample_size=side,
        in_channels=1,
        out_channels=len(STRUCTURES),
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) * depth,
        up_block_types=("UpBlock2D",) * depth,
        norm_num_groups=8,
        add_attention=False,
    )
    return net


def train_segmenter(
    images: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    config: SegmenterConfig,
    report: Report,
    checkpoint: Path,
) -> UNet2DModel:
    """Train on phantoms.

    Args:
        images: ``(N, side, side)``, 0..255; a quarter of the model's side is enough for outlines.
        masks: ``(N, 4, side, side)`` in the order of ``STRUCTURES``.
        config: network, length and learning rate.
        report: called with the loss of every step.
        checkpoint: file of the training's state, from which an interrupted run resumes.
    """
    torch.manual_seed(0)
    net = new_segmenter(images.shape[-1], config.channels)
    picks = np.random.default_rng(0).integers(len(images), size=(config.steps, config.batch))
    zero = torch.zeros((), dtype=torch.long)

    def objective(step: int) -> dict[str, torch.Tensor]:
        pick = picks[step]
        x = torch.from_numpy(images[pick])[:, None].float() / 127.5 - 1
        y = torch.from_numpy(masks[pick]).float()
        logits = net(x, zero).sample
        chance = logits.sigmoid()
        overlap = 2 * (chance * y).sum((2, 3)) + 1
        dice = 1 - overlap / (chance.sum((2, 3)) + y.sum((2, 3)) + 1)
        return {"segmenter": F.binary_cross_entropy_with_logits(logits, y) + dice.mean()}

    loop = TrainerConfig.one_cycle(config.steps, config.learning_rate, weight_decay=1e-3)
    Trainer(net, loop, checkpoint=checkpoint).run(objective, report)
    net.eval()
    return net


def segment(net: UNet2DModel, image: NDArray[np.float32]) -> dict[str, Mask]:
    """Masks of ``STRUCTURES`` in one image ``(side, side)`` in [0, 1]; largest part of each."""
    chance = chances(net, image)
    return {n: largest_part(c > 0.5) for n, c in zip(STRUCTURES, chance, strict=True)}


def plausible(masks: dict[str, Mask]) -> bool:
    """Whether masks could be a frontal chest: two lungs of sensible size, side by side."""
    right, left = masks["right lung"], masks["left lung"]
    shares = right.mean(), left.mean()
    if min(shares) < 0.035 or max(shares) > 0.32 or max(shares) > 3.2 * min(shares):
        return False
    middle_right, middle_left = np.nonzero(right)[1].mean(), np.nonzero(left)[1].mean()
    return bool(middle_left - middle_right > 0.2 * right.shape[1])


def upright(masks: dict[str, Mask]) -> bool:
    """Whether two plausible lungs are also compact, about as tall as each other, and level."""
    right, left = (extent(masks[f"{side} lung"]) for side in ("right", "left"))
    if right is None or left is None:
        return False
    side = masks["right lung"].shape[0]
    tall = sorted((right[3] - right[1], left[3] - left[1]))
    filled = min(
        masks[f"{name} lung"].sum() / ((box[2] - box[0]) * (box[3] - box[1]))
        for name, box in (("right", right), ("left", left))
    )
    level = abs(right[1] - left[1]) < 0.13 * side and abs(right[3] - left[3]) < 0.2 * side
    return bool(tall[1] < 1.55 * tall[0] and filled > 0.42 and level and tall[0] > 0.26 * side)


def enlarge(mask: Mask, side: int) -> Mask:
    """A mask at a larger size, its outline smooth."""
    grown = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(grown > 0.5)
