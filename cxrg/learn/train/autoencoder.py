"""The image autoencoder of the compact model: ``AutoencoderDC`` (Chen et al., 2024), deterministic.

Its first stage holds no blocks, so pixels are unshuffled at once and the expensive resolutions are
never computed. The loss is absolute error on pixels, on a half-sized copy and on differences of
neighbours (edges); noise on the latent while training keeps the latent space smooth.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from cxrg.learn.log import Report
from cxrg.learn.train.config import AutoencoderConfig
from cxrg.learn.trainer import Trainer, TrainerConfig


def new_autoencoder(config: AutoencoderConfig) -> AutoencoderDC:
    """An untrained autoencoder for one-channel images in [-1, 1]."""
    depth = len(config.channels)
    model: AutoencoderDC = AutoencoderDC(
        in_channels=1,
        latent_channels=config.latent_channels,
        attention_head_dim=32,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=config.channels,
        decoder_block_out_channels=config.channels,
        encoder_layers_per_block=config.layers,
        decoder_layers_per_block=config.layers,
        encoder_qkv_multiscales=((),) * depth,
        decoder_qkv_multiscales=((),) * depth,
        upsample_block_type="interpolate",
        downsample_block_type="pixel_unshuffle",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=1.0,
    )
    return model


def reconstruction_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Absolute error of pixels, of a half-sized copy, and of neighbour differences."""
    coarse = F.l1_loss(F.avg_pool2d(made, 2), F.avg_pool2d(wanted, 2))
    across = F.l1_loss(made.diff(dim=3), wanted.diff(dim=3))
    down = F.l1_loss(made.diff(dim=2), wanted.diff(dim=2))
    return F.l1_loss(made, wanted) + coarse + 0.5 * (across + down)


def train_autoencoder(
    images: NDArray[np.uint8],
    config: AutoencoderConfig,
    seed: int,
    report: Report,
    checkpoint: Path,
) -> AutoencoderDC:
    """Train on ``images`` (N, side, side), 0..255; the model has its scaling factor set.

    The training's state is written to ``checkpoint``, from which an interrupted run resumes.
    """
    torch.manual_seed(seed)
    model = new_autoencoder(config)

    def objective(step: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([seed, step])
        pick = rng.integers(len(images), size=config.batch)
        x = _shrunk(torch.from_numpy(images[pick])[:, None].float() / 127.5 - 1, config.side)
        latent = model.encode(x).latent
        noise = torch.from_numpy(rng.standard_normal(latent.shape, np.float32))
        noise = 0.05 * latent.detach().std() * noise
        return {"autoencoder": reconstruction_loss(model.decode(latent + noise).sample, x)}

    loop = TrainerConfig.one_cycle(config.steps, config.learning_rate, weight_decay=1e-4)
    Trainer(model, loop, checkpoint=checkpoint).run(objective, report)
    model.eval()
    sample = encode_all(model, images[:2000])
    scale = float(1.0 / sample.std())
    model.register_to_config(scaling_factor=scale)  # type: ignore[no-untyped-call]  # no types
    return model


def _shrunk(images: torch.Tensor, side: int) -> torch.Tensor:
    """Means of squares of pixels, ``(B, 1, side, side)``; smaller images as they are."""
    return F.avg_pool2d(images, max(images.shape[-1] // side, 1))


@torch.inference_mode()
def encode_all(
    model: AutoencoderDC, images: NDArray[np.uint8], batch: int = 32
) -> NDArray[np.float32]:
    """Latents ``(N, C, h, w)`` of images ``(N, side, side)``, not yet scaled."""
    parts = []
    for start in range(0, len(images), batch):
        x = torch.from_numpy(images[start : start + batch])[:, None].float() / 127.5 - 1
        parts.append(model.encode(x).latent.numpy())
    return np.concatenate(parts)
