"""Inversion: the published list, the identities, and the return for an analytic denoiser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from cxrg.errors import UsageError
from cxrg.latents.invert import Inversion, timestep_list, window_indices
from cxrg.latents.noise import AddedNoise
from cxrg.model.conditioning import Conditioning
from cxrg.model.schedule import Schedule, read_schedule

SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0205}
MEAN, SPREAD = 0.4, 0.7


def gaussian_model(prediction_type: str) -> Any:
    """The exact denoiser of normally distributed data, and the timesteps of its evaluations."""
    schedule = read_schedule({**SCHEDULE, "prediction_type": prediction_type})
    alphas_cumprod = schedule.alpha**2
    evaluated: list[int] = []

    def denoise(z: torch.Tensor, t: int, conditioning: Conditioning) -> torch.Tensor:
        assert conditioning.embeds.shape == (len(z), 3, 2)
        evaluated.append(t)
        bar = alphas_cumprod[t]
        variance = bar * SPREAD**2 + 1 - bar
        eps = (1 - bar).sqrt() * (z - bar.sqrt() * MEAN) / variance
        clean = (z - (1 - bar).sqrt() * eps) / bar.sqrt()
        return eps if prediction_type == "epsilon" else bar.sqrt() * eps - (1 - bar).sqrt() * clean

    return SimpleNamespace(
        schedule=schedule,
        denoise=denoise,
        embedding=lambda text: Conditioning(embeds=torch.zeros(1, 3, 2)),
        evaluated=evaluated,
    )


def test_three_hundred_steps_are_334() -> None:
    times = timestep_list(300)
    assert len(times) == 334
    assert (times[0], times[1], times[-1]) == (0, 3, 999)
    assert times[slice(*window_indices((120, 180), 334))][::59] == [360, 537]
    assert timestep_list(50) == list(range(19, 1000, 20))
    assert timestep_list(1000) == list(range(1000))
    with pytest.raises(UsageError, match="1 to 1000"):
        timestep_list(1001)


def test_windows_are_indices_or_fractions_of_the_real_length() -> None:
    assert window_indices((0.4, 0.6), 334) == (134, 200)
    assert window_indices((0, 334), 334) == (0, 334)
    for window in ((0, 335), (5, 5), (0.5, 0.5)):
        with pytest.raises(UsageError, match="use 0:334"):
            window_indices(window, 334)


@pytest.mark.parametrize("bar", [0.9985, 0.289, 0.078])
def test_identities_between_latent_noise_and_output(bar: float) -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=generator, dtype=torch.float64)
    z = bar**0.5 * clean + (1 - bar) ** 0.5 * noise
    v = bar**0.5 * noise - (1 - bar) ** 0.5 * clean
    for output, kind in ((noise, "epsilon"), (v, "v_prediction")):
        alpha, sigma = torch.tensor([[bar**0.5], [(1 - bar) ** 0.5]], dtype=torch.float64)
        schedule = Schedule(prediction_type=cast(Any, kind), alpha=alpha, sigma=sigma)
        z0, eps = schedule.split(z, output, 0)
        torch.testing.assert_close(z0, clean, atol=1e-6, rtol=0)
        torch.testing.assert_close(eps, noise, atol=1e-6, rtol=0)


def return_error(prediction_type: str, steps: int) -> float:
    """How far DDIM from t = 599 ends from where the inversion to it began."""
    model = gaussian_model(prediction_type)
    z0 = MEAN + SPREAD * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    index = 600 * steps // 1000
    ((label, z),) = Inversion(
        schedule=model.schedule, steps=steps, window=(index, index + 1)
    ).latents(model, z0)
    assert label == 599 + 1000 // steps
    # Far from where it started, as the noise level at t = 599 demands.
    assert (z - z0).abs().mean() > 0.2
    scheduler = DDIMScheduler(
        **SCHEDULE, prediction_type=prediction_type, clip_sample=False, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(steps)
    for t in (t for t in scheduler.timesteps.tolist() if t <= 599):
        output = model.denoise(z.double(), t, Conditioning(embeds=torch.zeros(2, 3, 2)))
        z = scheduler.step(output, t, z.double()).prev_sample
    return float((z - z0).abs().max())


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_ddim_brings_the_inverted_latent_back(prediction_type: str) -> None:
    # The published step is of first order: a quarter of the step, a quarter of the error.
    coarse, fine = return_error(prediction_type, 250), return_error(prediction_type, 1000)
    assert fine < 0.02
    assert coarse / fine == pytest.approx(4, rel=0.15)


def test_no_step_is_taken_that_is_not_read() -> None:
    model = gaussian_model("v_prediction")
    latents = Inversion(schedule=model.schedule, steps=50, window=(3, 5)).latents(
        model, torch.zeros(1, 4, 8, 8)
    )
    assert model.evaluated == []
    assert [t for t, _ in latents] == [79, 99]
    assert model.evaluated == [19, 39, 59, 79]
    route = Inversion(schedule=model.schedule, steps=50, window=(3, 5))
    assert route.evaluations == len(model.evaluated)
    assert route.timesteps == (79, 99)


def test_noise_follows_the_forward_process() -> None:
    model = gaussian_model("epsilon")
    z0 = torch.full((1, 4, 64, 64), 2.0)
    latents = list(
        AddedNoise(schedule=model.schedule, levels=(100, 500), draws=2, seed=7).latents(model, z0)
    )
    assert [t for t, _ in latents] == [100, 100, 500, 500]
    for t, z in latents:
        bar = float(model.schedule.alpha[t]) ** 2
        assert z.mean().item() == pytest.approx(2 * bar**0.5, abs=0.03)
        assert z.std().item() == pytest.approx((1 - bar) ** 0.5, rel=0.03)
    again = list(
        AddedNoise(schedule=model.schedule, levels=(100, 500), draws=2, seed=7).latents(model, z0)
    )
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(latents, again, strict=True))
    assert not torch.equal(latents[0][1], latents[1][1])
    with pytest.raises(UsageError, match="0 to 999"):
        list(
            AddedNoise(schedule=model.schedule, levels=(1000,), draws=1, seed=0).latents(model, z0)
        )
