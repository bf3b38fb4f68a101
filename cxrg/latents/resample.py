"""Latent and noise drawn afresh at every step, and no denoising between the steps.

As Generate to Ground reads a real image (Nützel, Dombrowski, Kainz, arXiv 2507.12236, released
code): for each timestep ``t`` of a DDIM schedule, with the posterior's mean and deviation::

    z_0 = mean + std eps'
    z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps        eps, eps' ~ N(0, 1)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cxrg.errors import UsageError
from cxrg.latents.invert import window_indices
from cxrg.model.model import Model
from cxrg.options import Options


def redraw_times(steps: int, train_steps: int = 1000) -> list[int]:
    """Ascending timesteps of Stable Diffusion 1.5's DDIM: "leading" spacing, offset by 1.

    50 of 1000 are 1, 21, ... 981.

    Raises:
        UsageError: the model's schedule is not that long.
    """
    ratio = train_steps // steps
    if ratio < 2:
        raise UsageError(f"steps {steps} cannot be meant; use 1 to {train_steps // 2}")
    return [index * ratio + 1 for index in range(steps)]


def redraw_count(model: Model, options: Options) -> int:
    """How many latents are read: the window's, or all where biases are to be merged.

    Raises:
        UsageError: steps or window do not fit the model's schedule.
    """
    times = redraw_times(options.steps, len(model.schedule))
    start, stop = window_indices(options.window, len(times))
    if options.bbm == "off":
        return stop - start
    if start:
        raise UsageError(f"window {start}:{stop} cannot be merged; begin it with 0, or use bbm=off")
    return len(times)


def redraw_latents(
    model: Model, mean: Tensor, std: Tensor, options: Options
) -> Iterator[tuple[int, Tensor]]:
    """Yield ``(t, z_t)`` for the steps of the window, or for all where biases are to be merged.

    Args:
        model: the model.
        mean: of the images' posterior, ``(B, C, h, w)``.
        std: its standard deviation, of the same shape.
        options: ``steps``, ``window``, ``seed`` and ``bbm``.

    All images get the same draws, so an image's result does not depend on which others were read
    with it; a step's draws do not depend on the window. The noise is drawn on the CPU, so that it
    is the same on every device.

    Raises:
        UsageError: see `redraw_count`.
    """
    times = redraw_times(options.steps, len(model.schedule))
    start, stop = window_indices(options.window, len(times))
    stop = start + redraw_count(model, options)
    generator = torch.Generator().manual_seed(options.seed)
    for index, t in enumerate(times[:stop]):
        latent, noise = torch.randn((2, 1, *mean.shape[1:]), generator=generator).to(mean.device)
        if index >= start:
            yield t, model.schedule.mix(mean + std * latent, noise, t)
