"""From an image's latent to noisy latents at chosen timesteps.

``ddim`` runs deterministic DDIM backwards (Song et al., ICLR 2021, equation 12; arXiv 2404.12920's
released code). For a target ``t`` with predecessor ``s = t - ratio`` and ``abar_s = 1`` where
``s < 0``, the network is asked with the *target's* label::

    v-prediction   z0  = sqrt(abar_s) z - sqrt(1 - abar_s) v
                   eps = sqrt(abar_s) v + sqrt(1 - abar_s) z
    epsilon        z0  = (z - sqrt(1 - abar_s) eps) / sqrt(abar_s)
    z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) eps

``noise`` draws from the forward process instead (Ho et al., NeurIPS 2020, equation 4)::

    z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) eps,   eps ~ N(0, 1)

At guidance 0 only the empty prompt steers the inversion: the latents do not depend on the phrase.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from cxrg.capacity import Capacity
from cxrg.errors import UsageError
from cxrg.model import Model
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


def predict(
    z: Tensor, output: Tensor, alpha_bar: float, prediction_type: Literal["epsilon", "v_prediction"]
) -> tuple[Tensor, Tensor]:
    """The clean latent and the noise that a network's output implies, ``(z0, eps)``.

    Args:
        z: noisy latents.
        output: the network's output for them.
        alpha_bar: cumulative product of ``1 - beta`` where ``z`` lies.
        prediction_type: what the output means.
    """
    signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    if prediction_type == "epsilon":
        return (z - noise * output) / signal, output
    return signal * z - noise * output, signal * output + noise * z


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
        ``(t, z)``: the network's label and the latent that it is asked with at that index.

    Raises:
        UsageError: steps or window do not fit the model's schedule.
    """
    train_steps = len(model.alphas_cumprod)
    times = timestep_list(steps, train_steps)
    start, stop = window_indices(window, len(times))
    context = model.embedding("")[None]
    capacity = capacity or Capacity(len(z0))
    ratio = train_steps // steps
    z = z0
    for index, t in enumerate(times[:stop]):
        if index >= start:
            yield t, z
        if index < stop - 1:
            alpha_s = _alpha_bar(model, t - ratio)
            output = _denoise(model, z, t, context, capacity)
            clean, noise = predict(z, output, alpha_s, model.prediction_type)
            alpha_t = _alpha_bar(model, t)
            z = alpha_t**0.5 * clean + (1 - alpha_t) ** 0.5 * noise


def _denoise(model: Model, z: Tensor, t: int, context: Tensor, capacity: Capacity) -> Tensor:
    def few(part: list[Tensor]) -> Tensor:
        return model.denoise(torch.stack(part), t, context.expand(len(part), -1, -1))

    return torch.cat(list(capacity.run(z, few)))


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
    _check_timesteps(model, timesteps)
    generator = torch.Generator().manual_seed(seed)
    for t in timesteps:
        alpha = _alpha_bar(model, t)
        for _ in range(draws):
            noise = torch.randn((1, *z0.shape[1:]), generator=generator).to(z0.device)
            yield t, alpha**0.5 * z0 + (1 - alpha) ** 0.5 * noise


def check_path(model: Model, options: Options) -> None:
    """Complain of a way that the model's schedule does not have, before it is gone.

    Raises:
        UsageError: see `ddim_latents` and `noise_latents`.
    """
    if options.path == "ddim":
        times = timestep_list(options.steps, len(model.alphas_cumprod))
        window_indices(options.window, len(times))
    else:
        _check_timesteps(model, options.timesteps)


def _check_timesteps(model: Model, timesteps: Sequence[int]) -> None:
    last = len(model.alphas_cumprod) - 1
    for t in timesteps:
        if not 0 <= t <= last:
            raise UsageError(f"timestep {t} is beyond the model's schedule; use 0 to {last}")


def _alpha_bar(model: Model, timestep: int) -> float:
    """The cumulative product at a timestep; 1 before the first, where there is no noise."""
    return float(model.alphas_cumprod[timestep]) if timestep >= 0 else 1.0
