"""Latent and noise sampled anew at every step, and no denoising between the steps.

As Generate to Ground reads a real image (Nützel, Dombrowski, Kainz, arXiv 2507.12236, released
code): for each timestep ``t`` of a DDIM schedule, with the posterior's mean and deviation::

    z_0 = mean + std eps'
    z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps        eps, eps' ~ N(0, 1)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cxrg.errors import UsageError
from cxrg.latents.invert import window_indices
from cxrg.model.microbatch import Microbatch
from cxrg.model.model import Model
from cxrg.model.schedule import Schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """Route to noisy latents that samples latent and noise anew at every step.

    Attributes:
        schedule: of the model.
        steps: requested steps, see `leading_timesteps`.
        window: the steps whose latents are read, see `window_indices`.
        seed: of a generator on the CPU, so that the noise is the same on every device.
        every_step: read all steps, not only the window, as bias merging needs.

    Raises:
        UsageError: steps or window do not fit the schedule, or the window must begin with 0.
    """

    schedule: Schedule
    steps: int
    window: Sequence[float]
    seed: int
    every_step: bool = False

    def __post_init__(self) -> None:
        start, stop = self._window()
        if self.every_step and start:
            raise UsageError(
                f"window {start}:{stop} cannot be merged; begin it with 0, or use bbm=off"
            )

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The timestep of every latent that is read."""
        start, stop = self._window()
        return tuple(self._list()[start : None if self.every_step else stop])

    @property
    def evaluations(self) -> int:
        """Network evaluations that lead to the latents: none."""
        return 0

    @property
    def draws(self) -> int:
        """Latents that are read at every timestep: one."""
        return 1

    def describe(self) -> str:
        listed = self._list()
        start, stop = self._window()
        return (
            f"resamples latent and noise at {stop - start} of {len(listed)} DDIM steps "
            f"(t = {listed[start]} to {listed[stop - 1]})"
        )

    def latents(
        self, model: Model, mean: Tensor, std: Tensor, microbatch: Microbatch | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(timestep, latent)`` for each step.

        All images get the same draws, so an image's result does not depend on which others were
        read with it; a step's draws do not depend on the window.

        Args:
            model: not used; no network is evaluated.
            mean: of the images' posterior, ``(B, C, h, w)``.
            std: its standard deviation, of the same shape.
            microbatch: not used.
        """
        start, stop = self._window()
        times = self._list()
        generator = torch.Generator().manual_seed(self.seed)
        for index, t in enumerate(times if self.every_step else times[:stop]):
            draws = torch.randn((2, 1, *mean.shape[1:]), generator=generator)
            latent, noise = draws.to(mean.device)
            if index >= start:
                yield t, self.schedule.mix(mean + std * latent, noise, t)

    def _list(self) -> list[int]:
        return leading_timesteps(self.steps, len(self.schedule))

    def _window(self) -> tuple[int, int]:
        return window_indices(self.window, len(self._list()))


def leading_timesteps(steps: int, train_steps: int = 1000) -> list[int]:
    """Ascending timesteps of Stable Diffusion 1.5's DDIM: "leading" spacing, offset by 1.

    50 of 1000 are 1, 21, ... 981.

    Raises:
        UsageError: the model's schedule is not that long.
    """
    ratio = train_steps // steps
    if ratio < 2:
        raise UsageError(
            f"steps {steps} does not fit the model's schedule; use 1 to {train_steps // 2}"
        )
    return [index * ratio + 1 for index in range(steps)]
