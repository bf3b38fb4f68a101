"""Sampling: from noise alone to the latent of an image, by DDIM without added noise.

Song et al., ICLR 2021, equation 12, over the timesteps of `leading_timesteps`, as Stable Diffusion
1.5 samples: the last step ends at the schedule's first ``abar`` (``set_alpha_to_one=False``).
Classifier-free guidance (Ho and Salimans, arXiv 2207.12598)::

    output = output_empty + scale (output_phrase - output_empty)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cxrg.latents.resample import leading_timesteps
from cxrg.model.model import Model
from cxrg.model.schedule import Schedule

Predict = Callable[[Tensor, int], Tensor]


def seeded_noise(model: Model, seed: int) -> Tensor:
    """Noise ``(1, C, h, w)`` to start from, the same on every device."""
    side = model.side // model.factor
    shape = (1, int(model.denoiser.config.in_channels), side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(model.device)


def sample(schedule: Schedule, noise: Tensor, steps: int, predict: Predict) -> Tensor:
    """Denoise step by step to a clean latent, ``(B, C, h, w)`` as the noise.

    Args:
        schedule: of the model.
        noise: the latent at the last timestep.
        steps: evaluations of the network.
        predict: the network's output, guided or not, for a latent and its timestep.

    Raises:
        UsageError: the model's schedule is not that long.
    """
    z = noise
    for t in reversed(leading_timesteps(steps, len(schedule))):
        clean, rest = schedule.split(z, predict(z, t), t)
        # Before the first step there is no timestep: the first one's share of noise remains.
        z = schedule.mix(clean, rest, max(t - len(schedule) // steps, 0))
    return z


def guided(empty: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """The network's output under classifier-free guidance."""
    return empty + scale * (conditional - empty)
