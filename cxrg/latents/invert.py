"""Inversion: deterministic sampling run backwards, from an image's latent to more noise.

At a timestep ``s`` the network's output splits the latent into image and noise, which are mixed
anew for the next one, ``t`` (see `cxrg.model.schedule`)::

    z_t = alpha_t z0 + sigma_t eps

For diffusion this is DDIM (Song et al., ICLR 2021, equation 12; arXiv 2404.12920's released code);
the network is evaluated at the *target's* timestep ``t``. For a rectified flow it is Euler's method
along the learned velocity from data to noise (Liu et al., ICLR 2023, arXiv 2209.03003)::

    z_t = z_s + (sigma_t - sigma_s) v(z_s, s)

and the network is evaluated at the latent's own timestep ``s``, as its velocity is defined.

The inversion is conditioned on the empty prompt (guidance 0): its latents do not depend on the
phrase.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cxrg.errors import UsageError
from cxrg.model.conditioning import Conditioning
from cxrg.model.microbatch import Microbatch
from cxrg.model.model import Model
from cxrg.model.schedule import Schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step of an inversion.

    Attributes:
        label: the timestep at which the network is evaluated.
        source: the latent's timestep before the step; -1: no noise.
        target: the latent's timestep after the step.
    """

    label: int
    source: int
    target: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Inversion:
    """Route to noisy latents that inverts the image's latent, see this module.

    Attributes:
        schedule: of the model.
        steps: requested steps, see `timestep_list`.
        window: the steps whose latents are read, see `window_indices`.

    Raises:
        UsageError: steps or window do not fit the schedule.
    """

    schedule: Schedule
    steps: int
    window: Sequence[float]

    def __post_init__(self) -> None:
        self._window()

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The timestep of every latent that is read."""
        start, stop = self._window()
        return tuple(step.label for step in self.path()[start:stop])

    @property
    def evaluations(self) -> int:
        """Network evaluations that lead to the last latent, for one image."""
        return len(self._moves())

    def path(self) -> tuple[Step, ...]:
        """All steps of the schedule, from clean to noisy."""
        targets = timestep_list(self.steps, len(self.schedule))
        sources = [-1, *targets[:-1]]
        labels = sources if self.schedule.is_flow else targets
        return tuple(
            Step(label=label, source=source, target=target)
            for label, source, target in zip(labels, sources, targets, strict=True)
        )

    @property
    def draws(self) -> int:
        """Latents that are read at every timestep: one."""
        return 1

    def describe(self) -> str:
        path = self.path()
        start, stop = self._window()
        return (
            f"inverts {stop} of {len(path)} {'Euler' if self.schedule.is_flow else 'DDIM'} steps, "
            f"reads {start} to {stop - 1} (t = {path[start].label} to {path[stop - 1].label})"
        )

    def latents(
        self,
        model: Model,
        mean: Tensor,
        std: Tensor | None = None,
        microbatch: Microbatch | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Invert and yield ``(timestep, latent)`` for each step of the window.

        Lazy: each pair takes only the network evaluations that lead to it, one per step before it.

        Args:
            model: the model.
            mean: latents ``(B, C, h, w)`` of the images.
            std: not used; the posterior's mean is inverted.
            microbatch: most images in one network evaluation; None: all of them.
        """
        start, stop = self._window()
        conditioning = model.embedding("")
        microbatch = microbatch or Microbatch(len(mean))
        z = mean
        for index, step in enumerate(self._moves()):
            if index >= start:
                yield step.label, z
            output = _denoise(model, z, step.label, conditioning, microbatch)
            z = self.schedule.mix(*self.schedule.split(z, output, step.source), step.target)
        yield self.path()[stop - 1].label, z

    def _moves(self) -> tuple[Step, ...]:
        """The steps taken, one network evaluation each: all before the last latent read."""
        return self.path()[: self._window()[1] - 1]

    def _window(self) -> tuple[int, int]:
        return window_indices(self.window, len(timestep_list(self.steps, len(self.schedule))))


def timestep_list(steps: int, train_steps: int = 1000) -> list[int]:
    """Ascending timesteps of "trailing" spacing.

    The spacing is the whole number ``train_steps // steps``, so there can be more of them than
    requested: 300 of 1000 gives 334, 0 to 999 in steps of 3.

    Raises:
        UsageError: more steps than the model was trained with.
    """
    if not 1 <= steps <= train_steps:
        raise UsageError(f"steps {steps} does not fit the model's schedule; use 1 to {train_steps}")
    return [t - 1 for t in range(train_steps, 0, -(train_steps // steps))][::-1]


def window_indices(window: Sequence[float], count: int) -> tuple[int, int]:
    """The indices ``[start, stop)`` of a window in a list of ``count`` steps.

    Args:
        window: two indices, or two floats that are fractions of ``count``.
        count: the list's length.

    Raises:
        UsageError: the window reaches beyond the list, or holds no step.
    """
    fractions = any(isinstance(edge, float) for edge in window)
    start, stop = (round(edge * count) if fractions else int(edge) for edge in window)
    if not 0 <= start < stop <= count:
        raise UsageError(f"window {start}:{stop} is not within the {count} steps; use 0:{count}")
    return start, stop


def _denoise(
    model: Model, z: Tensor, t: int, conditioning: Conditioning, microbatch: Microbatch
) -> Tensor:
    def few(part: list[Tensor]) -> Tensor:
        return model.denoise(torch.stack(part), t, conditioning.repeat(len(part)))

    return torch.cat(list(microbatch.run(z, few)))
