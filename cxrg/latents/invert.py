"""From an image's latent to noisy latents at chosen timesteps.

``ddim`` runs deterministic sampling backwards. At a timestep ``s`` the network's output splits the
latent into image and noise, which are mixed anew for the next one, ``t`` (see
`cxrg.model.schedule`)::

    z_t = alpha_t z0 + sigma_t eps

For diffusion this is DDIM (Song et al., ICLR 2021, equation 12; arXiv 2404.12920's released code);
the network is asked with the *target's* timestep ``t``. For a rectified flow it is Euler's method
along the learned velocity from data to noise (Liu et al., ICLR 2023, arXiv 2209.03003)::

    z_t = z_s + (sigma_t - sigma_s) v(z_s, s)

and the network is asked where the latent lies, at ``s``, as its velocity is defined.

At guidance 0 only the empty prompt steers the inversion: the latents do not depend on the phrase.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cxrg.errors import UsageError
from cxrg.latents.noise import check_timesteps
from cxrg.model.conditioning import Context
from cxrg.model.microbatch import Capacity
from cxrg.model.model import Model
from cxrg.model.schedule import Schedule
from cxrg.options import Options


def timestep_list(steps: int, train_steps: int = 1000) -> list[int]:
    """Ascending timesteps of "trailing" spacing.

    The spacing is the whole number ``train_steps // steps``, so there can be more of them than
    asked for: 300 of 1000 gives 334, 0 to 999 in steps of 3.

    Raises:
        UsageError: more steps than the model was trained with.
    """
    if not 1 <= steps <= train_steps:
        raise UsageError(f"steps {steps} cannot be meant; the model has 1 to {train_steps}")
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


def ddim_latents(
    model: Model,
    z0: Tensor,
    *,
    steps: int,
    window: Sequence[float],
    capacity: Capacity | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Invert with the empty prompt and yield the latents that the window reads.

    Lazy: each pair takes only the network evaluations that lead to it, one per step before it.

    Args:
        model: the model.
        z0: latents ``(B, C, h, w)`` of the images.
        steps: requested steps, see `timestep_list`.
        window: see `window_indices`.
        capacity: most images in one network evaluation; None: all of them.

    Yields:
        ``(t, z)``: the timestep that the network is asked with at that index, and the latent.

    Raises:
        UsageError: steps or window do not fit the model's schedule.
    """
    schedule = model.schedule
    start, stop = window_indices(window, len(timestep_list(steps, len(schedule))))
    context = model.embedding("")
    capacity = capacity or Capacity(len(z0))
    z = z0
    for index, (asked, here, target) in enumerate(inversion_steps(schedule, steps)[:stop]):
        if index >= start:
            yield asked, z
        if index < stop - 1:
            clean, noise = schedule.split(z, _denoise(model, z, asked, context, capacity), here)
            z = schedule.mix(clean, noise, target)


def inversion_steps(schedule: Schedule, steps: int) -> list[tuple[int, int, int]]:
    """Timesteps of each step: asked with, where the latent lies (-1: no noise), where it goes.

    Raises:
        UsageError: more steps than the model was trained with.
    """
    targets = timestep_list(steps, len(schedule))
    places = [-1, *targets[:-1]]
    asked = places if schedule.is_flow else targets
    return list(zip(asked, places, targets, strict=True))


def _denoise(model: Model, z: Tensor, t: int, context: Context, capacity: Capacity) -> Tensor:
    def few(part: list[Tensor]) -> Tensor:
        return model.denoise(torch.stack(part), t, context.repeat(len(part)))

    return torch.cat(list(capacity.run(z, few)))


def check_path(model: Model, options: Options) -> None:
    """Complain of a way that the model's schedule does not have, before it is gone.

    Raises:
        UsageError: see `ddim_latents` and `noise_latents`.
    """
    if options.path == "ddim":
        times = timestep_list(options.steps, len(model.schedule))
        window_indices(options.window, len(times))
    else:
        check_timesteps(model, options.timesteps)
