"""Noisy latents of the forward process (Ho et al., NeurIPS 2020, equation 4)::

z_t = alpha_t z0 + sigma_t eps,   eps ~ N(0, 1)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cxrg.errors import UsageError
from cxrg.model.microbatch import Microbatch
from cxrg.model.model import Model
from cxrg.model.schedule import Schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedNoise:
    """Route to noisy latents that adds seeded noise to the image's latent.

    Attributes:
        schedule: of the model.
        levels: training timesteps to which noise is added.
        draws: noise draws per timestep; every draw and timestep has its own noise.
        seed: of a generator on the CPU, so that the noise is the same on every device.

    Raises:
        UsageError: a timestep is beyond the schedule.
    """

    schedule: Schedule
    levels: Sequence[int]
    draws: int
    seed: int

    def __post_init__(self) -> None:
        last = len(self.schedule) - 1
        for t in self.levels:
            if not 0 <= t <= last:
                raise UsageError(f"timestep {t} is beyond the model's schedule; use 0 to {last}")

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The timestep of every latent that is read."""
        return tuple(t for t in self.levels for _ in range(self.draws))

    @property
    def evaluations(self) -> int:
        """Network evaluations that lead to the latents: none."""
        return 0

    def describe(self) -> str:
        times = ", ".join(map(str, self.levels))
        return f"adds noise: t = {times}, draws of each: {self.draws}"

    def latents(
        self,
        model: Model,
        mean: Tensor,
        std: Tensor | None = None,
        microbatch: Microbatch | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(timestep, latent)`` for every draw, the same for the same seed.

        Args:
            model: not used; no network is evaluated.
            mean: latents ``(B, C, h, w)`` of the images, which all get the same noise: an image's
                result does not depend on which others were read with it.
            std: not used; noise is added to the posterior's mean.
            microbatch: not used.
        """
        generator = torch.Generator().manual_seed(self.seed)
        for t in self.timesteps:
            noise = torch.randn((1, *mean.shape[1:]), generator=generator).to(mean.device)
            yield t, self.schedule.mix(mean, noise, t)
