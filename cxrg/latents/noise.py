"""Noisy latents of the forward process (Ho et al., NeurIPS 2020, equation 4)::

z_t = alpha_t z0 + sigma_t eps,   eps ~ N(0, 1)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cxrg.errors import UsageError
from cxrg.model.model import Model


def noise_latents(
    model: Model, z0: Tensor, *, timesteps: Sequence[int], draws: int, seed: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield ``draws`` noisy latents ``(t, z_t)`` for each timestep, the same for the same seed.

    Args:
        model: the model.
        z0: latents ``(B, C, h, w)`` of the images, which all get the same noise: an image's result
            does not depend on which others were read with it.
        timesteps: training timesteps.
        draws: noise draws per timestep; every draw and timestep has its own noise.
        seed: of a generator on the CPU, so that the noise is the same on every device.

    Raises:
        UsageError: a timestep is beyond the model's schedule.
    """
    check_timesteps(model, timesteps)
    generator = torch.Generator().manual_seed(seed)
    for t in timesteps:
        for _ in range(draws):
            noise = torch.randn((1, *z0.shape[1:]), generator=generator).to(z0.device)
            yield t, model.schedule.mix(z0, noise, t)


def check_timesteps(model: Model, timesteps: Sequence[int]) -> None:
    last = len(model.schedule) - 1
    for t in timesteps:
        if not 0 <= t <= last:
            raise UsageError(f"timestep {t} is beyond the model's schedule; use 0 to {last}")
