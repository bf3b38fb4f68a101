"""Routes from an image's latent to noisy latents, and which of them the options choose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from cxrg.latents.invert import Inversion
from cxrg.latents.noise import AddedNoise
from cxrg.latents.resample import Resampling
from cxrg.model.microbatch import Microbatch
from cxrg.model.model import Model
from cxrg.model.schedule import Schedule
from cxrg.options import Options


class Route(Protocol):
    """From the posterior of an image's latent to the noisy latents that are read."""

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The timestep of every latent that is read."""

    @property
    def evaluations(self) -> int:
        """Network evaluations that lead to the latents, for one image."""

    @property
    def draws(self) -> int:
        """Latents that are read at every timestep, which differ by their noise only."""

    def describe(self) -> str:
        """What the route does on the model's schedule, for ``cxrg models check``."""

    def latents(
        self, model: Model, mean: Tensor, std: Tensor, microbatch: Microbatch | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(timestep, latent)`` for images of that posterior, each ``(B, C, h, w)``.

        Args:
            model: the model.
            mean: of the latents' posterior.
            std: its standard deviation.
            microbatch: most rows in one network evaluation; None: all of them.
        """


def route_of(options: Options, schedule: Schedule) -> Route:
    """The route that the options choose.

    Raises:
        UsageError: the schedule does not support it.
    """
    match options.path:
        case "ddim":
            return Inversion(schedule=schedule, steps=options.steps, window=options.window)
        case "noise":
            return AddedNoise(
                schedule=schedule,
                levels=options.timesteps,
                draws=options.draws,
                seed=options.seed,
            )
        case "resample":
            return Resampling(
                schedule=schedule,
                steps=options.steps,
                window=options.window,
                seed=options.seed,
                every_step=options.bbm != "off",
            )
