r"""The denoiser of the compact model, trained to denoise and to attend to what its words name.

Denoising is v-prediction (Salimans and Ho, 2022): :math:`v = \sqrt{\bar\alpha_t}\,\epsilon -
\sqrt{1-\bar\alpha_t}\,z_0`, squared error. The attention terms ask, at every watched layer, that
the share of a position's attention that falls on the phrase's own tokens,
:math:`p = \sum_{k \in phrase} A[p, k]`, be the finding's coverage of that position: binary
cross-entropy per layer, and a soft Dice on the mean of all layers. What a position does not give
to the phrase goes to the start, end and padding tokens, so a phrase that describes nothing is
answered by a map near zero: the heatmap is absolute and doubles as a presence score. Both terms
weigh a finding by its area, and a nodule has nearly none; the share term, minus the log of the part
of the phrase's attention that falls on the finding, weighs it like a whole lung. In
spirit these are ``L_in`` and ``L_out`` of methods of anatomy-grounded prompt tuning, on exact
masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it
from transformers import BertModel

from cxrg.attention.layers import cross_attention_layers
from cxrg.attention.watch import watch
from cxrg.learn.log import Report
from cxrg.learn.train.batches import Batch, draw, make_sampler
from cxrg.learn.train.config import DiffusionConfig
from cxrg.learn.train.pool import Pool
from cxrg.learn.train.text import tokens_of
from cxrg.learn.trainer import Trainer, TrainerConfig


def new_scheduler() -> DDIMScheduler:
    """The noise schedule of the published chest X-ray model (scaled linear, v-prediction)."""
    scheduler: DDIMScheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.0015,
        beta_end=0.0205,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
    )
    return scheduler


def new_unet(
    config: DiffusionConfig, grid: int, latent_channels: int, text_width: int
) -> UNet2DConditionModel:
    """An untrained denoiser on a ``grid x grid`` latent."""
    down = tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.attention)
    up = tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention))
    unet: UNet2DConditionModel = UNet2DConditionModel(
        sample_size=grid,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        cross_attention_dim=text_width,
        # diffusers reads this as the number of heads (its own historical naming).
        attention_head_dim=tuple(width // config.head_width for width in config.channels),
        only_cross_attention=tuple(not each for each in config.self_attention),
        norm_num_groups=16,
        use_linear_projection=True,
    )
    return unet


class Pair(nn.Module):
    """Denoiser and text encoder, trained and averaged together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: BertModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder


_LEAST = 1e-12
"""A smaller share counts as this much, with gradient 0. With a larger limit (1e-4 was tried), the
word of a rare finding whose share once falls below it gets no gradient and never recovers."""


_PEAK = 4
"""Positions that a presence score is the mean of: 1/256 of a 32 x 32 map, as in grounding."""


def attention_loss(maps: dict[str, Tensor], target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy per layer plus Dice of the mean map.

    Args:
        maps: per layer ``(B, h, w)``, the phrase's share of attention in [0, 1].
        target: ``(B, grid, grid)`` coverage in [0, 1].
        weight: ``(B, grid, grid)``, 0 where a position does not count.
    """
    total = target.new_zeros(())
    whole = []
    for share in maps.values():
        size = share.shape[-1]
        wanted = F.adaptive_avg_pool2d(target[:, None], size)[:, 0]
        counts = F.adaptive_avg_pool2d(weight[:, None], size)[:, 0]
        safe = share.clamp(_LEAST, 1 - 1e-5)
        error = F.binary_cross_entropy(safe, wanted, reduction="none")
        total = total + (error * counts).sum() / counts.sum().clamp_min(1)
        large = F.interpolate(share[:, None], target.shape[-2:], mode="bilinear")[:, 0]
        whole.append(large)
    mean = torch.stack(whole).mean(0) * weight
    wanted = target * weight
    overlap = 2 * (mean * wanted).sum((1, 2)) + 1
    dice = 1 - overlap / (mean.sum((1, 2)) + wanted.sum((1, 2)) + 1)
    counted = (weight.sum((1, 2)) > 0).float()
    return total / len(maps) + (dice * counted).sum() / counted.sum().clamp_min(1)


def share_loss(maps: dict[str, Tensor], target: Tensor, weight: Tensor) -> Tensor:
    """Minus the log of the part of the phrase's attention inside the target, per layer.

    Arguments as of `attention_loss`. A phrase with an empty target does not count.
    """
    total = target.new_zeros(())
    for share in maps.values():
        size = share.shape[-1]
        counts = F.adaptive_avg_pool2d(weight[:, None], size)[:, 0]
        wanted = F.adaptive_avg_pool2d((target * weight)[:, None], size)[:, 0]
        peak = wanted.amax((1, 2), keepdim=True)
        inside = (share * wanted / peak.clamp_min(1e-6)).sum((1, 2)).clamp_min(_LEAST)
        lost = inside.log() - (share * counts).sum((1, 2)).clamp_min(_LEAST).log()
        counted = (peak[:, 0, 0] > 0).float()
        total = total - (lost * counted).sum() / counted.sum().clamp_min(1)
    return total / len(maps)


def presence_loss(
    maps: dict[str, Tensor], target: Tensor, weight: Tensor, read: tuple[str, ...]
) -> Tensor:
    """Cross-entropy of the score that grounding gives with whether the finding is there.

    The terms by area hardly reach what is small: a rim or a nodule covers few of the positions, and
    its word stays at full attention in every picture, or at none. Here each phrase counts as one.
    The score is the mean of the layers ``read``, at its `_PEAK` highest positions: in the target if
    there is one, anywhere if there is none.

    Arguments as of `attention_loss`, and the names of the layers that the preset reads.
    """
    whole = [
        F.interpolate(maps[name][:, None], target.shape[-2:], mode="bilinear") for name in read
    ]
    mean = torch.cat(whole, 1).mean(1).flatten(1)
    present = target.flatten(1).amax(1, keepdim=True)
    inside = (target.flatten(1) >= 0.5 * present) & (weight.flatten(1) > 0)
    highest = mean.masked_fill(~inside, 0).topk(_PEAK, 1).values
    count = inside.sum(1).clamp(1, _PEAK)
    score = (highest.sum(1) / count).clamp(_LEAST, 1 - 1e-5)
    there = (present[:, 0] > 0).float()
    error = F.binary_cross_entropy(score, there, reduction="none")
    # Between the two it is not known what a reader would say.
    counted = ((present[:, 0] == 0) | (present[:, 0] > 0.5)) & inside.any(1)
    return (error * counted).sum() / counted.sum().clamp_min(1)


def _timesteps(rng: np.random.Generator, size: int) -> Tensor:
    """A third uniform over the schedule, the rest in the low noise where grounding reads."""
    low, wide = rng.integers(0, 450, size), rng.integers(0, 1000, size)
    return torch.from_numpy(np.where(rng.random(size) < 2 / 3, low, wide))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Objective:
    """What one step computes; made once per run."""

    config: DiffusionConfig
    tokenizer: Any
    length: int
    alphas: Tensor
    layers: tuple[str, ...]
    read: tuple[str, ...]

    def __call__(
        self, pair: Pair, z0: Tensor, batch: Batch, rng: np.random.Generator, share_weight: float
    ) -> tuple[Tensor, Tensor]:
        """Denoising loss and attention loss of one batch."""
        ids, mask, own = tokens_of(self.tokenizer, batch.phrases, self.length)
        conditioning = pair.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        t = _timesteps(rng, len(z0))
        noise = torch.from_numpy(rng.standard_normal(z0.shape, dtype=np.float32))
        alpha = self.alphas[t].float()[:, None, None, None]
        z_t = alpha.sqrt() * z0 + (1 - alpha).sqrt() * noise
        v = alpha.sqrt() * noise - (1 - alpha).sqrt() * z0
        with watch(pair.unet, self.layers, own) as recorder:
            made = pair.unet(z_t, t, encoder_hidden_states=conditioning).sample
            maps = dict(recorder.maps)
        error = (made - v).square().mean((1, 2, 3))
        denoise = (error * batch.described).sum() / batch.described.sum().clamp_min(1)
        readable = (t < self.config.attention_below).float()[:, None, None]
        counts = batch.weight * readable
        look = attention_loss(maps, batch.target, counts)
        if share_weight:
            look = look + share_weight * share_loss(maps, batch.target, counts)
        if self.config.presence_weight:
            there = presence_loss(maps, batch.target, counts, self.read)
            look = look + self.config.presence_weight * there
        return denoise, look


def learning_rate(config: DiffusionConfig, step: int) -> float:
    """Linear warm-up, a plateau, and a linear fall to zero over the last 30 %: once up to
    ``share_from``, and once from there to the end."""
    second = step >= config.share_from
    start = config.share_from if second else 0
    end = config.steps if second else min(config.share_from, config.steps)
    fall = (end - step) / (0.3 * (end - start))
    return config.learning_rate * max(min((step - start) / config.warmup, 1.0, fall), 1e-3)


def train_diffusion(
    pair: Pair,
    pool: Pool,
    latents: NDArray[np.float16],
    objective: Objective,
    seed: int,
    report: Report,
    *,
    checkpoint: Path,
    check: Callable[[Trainer[Pair]], None],
) -> Trainer[Pair]:
    """Train to the configured end, from ``checkpoint`` if it exists.

    Args:
        pair: networks with their initial weights.
        pool: pictures and queries.
        latents: ``(N, C, h, w)``, scaled to unit variance.
        objective: computes the two losses of a batch.
        seed: of all random choices, together with the step.
        report: called with the losses of every step.
        checkpoint: file of the training's state.
        check: called before each checkpoint is written.
    """
    config = objective.config
    sampler = make_sampler(pool, config.balance)

    def losses(step: int) -> dict[str, Tensor]:
        rng, words = np.random.default_rng([seed, step]), Random(seed * 1_000_003 + step)
        batch = draw(
            pool,
            sampler,
            rng,
            words,
            size=config.batch,
            caption_drop=config.caption_drop,
            box_share=config.box_share,
            shares=config.shares,
            normal_share=config.normal_share,
        )
        z0 = torch.from_numpy(latents[batch.index].astype(np.float32))
        share = config.share_weight if step >= config.share_from else 0.0
        denoise, look = objective(pair, z0, batch, rng, share)
        loss = denoise + config.attention_weight * look
        return {"diffusion": loss, "diffusion/attention": look}

    loop = TrainerConfig(
        steps=config.steps,
        schedule=lambda step: {"lr": learning_rate(config, step)},
        weight_decay=0.01,
        ema=config.ema,
        checkpoint_every=config.checkpoint_every,
        checkpoint_at=config.snapshots,
    )
    trainer = Trainer(pair, loop, checkpoint=checkpoint)
    trainer.run(losses, report, check)
    return trainer


def watched_layers(unet: UNet2DConditionModel, smallest: int = 8) -> tuple[str, ...]:
    """The cross-attention layers that the attention terms reach: maps at least 8 wide."""
    layers = cross_attention_layers(unet, int(unet.config["sample_size"]))
    return tuple(layer.name for layer in layers if layer.side >= smallest)
