"""Sampling: diffusers' own DDIM with Stable Diffusion 1.5's settings, and guidance by hand."""

from __future__ import annotations

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from cxrg.errors import UsageError
from cxrg.latents.sample import guided, sample
from cxrg.model.schedule import read_schedule

SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_samples_are_those_of_diffusers(prediction: str) -> None:
    theirs = DDIMScheduler(
        **SCHEDULE,
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    theirs.set_timesteps(7)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    z = noise
    for t in theirs.timesteps:
        z = theirs.step(network(z, int(t)), t, z).prev_sample
    seen: list[int] = []

    def predict(latent: torch.Tensor, t: int) -> torch.Tensor:
        seen.append(t)
        return network(latent, t)

    schedule = read_schedule({**SCHEDULE, "prediction_type": prediction})
    found = sample(schedule, noise, 7, predict)
    torch.testing.assert_close(found, z, atol=1e-4, rtol=1e-4)
    assert seen == theirs.timesteps.tolist()


def network(z: torch.Tensor, t: int) -> torch.Tensor:
    """Something that depends on the latent and on the timestep."""
    return torch.tanh(z * (1 + t / 500)) + 0.1 * z.roll(1, dims=-1)


def test_too_many_steps_are_refused() -> None:
    schedule = read_schedule(SCHEDULE | {"_class_name": "DDIMScheduler"})
    with pytest.raises(UsageError, match="use 1 to 500"):
        sample(schedule, torch.zeros(1, 1, 2, 2), 501, network)


def test_guidance_goes_beyond_the_conditional_output() -> None:
    empty, conditional = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0])
    assert guided(empty, conditional, 1.0).tolist() == [2.0, 0.0]
    assert guided(empty, conditional, 3.0).tolist() == [4.0, -4.0]
