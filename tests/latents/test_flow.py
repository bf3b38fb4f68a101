"""Rectified flow: diffusers' own sigmas and noise, and an ODE whose solution is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)

from cxrg.latents.invert import Inversion
from cxrg.latents.noise import AddedNoise
from cxrg.model.conditioning import Conditioning
from cxrg.model.schedule import Schedule, read_schedule

DPM = {
    "_class_name": "DPMSolverMultistepScheduler",
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "flow_shift": 3.0,
}
EULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
MEAN, SPREAD = 0.4, 0.7


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_sigmas_and_labels_are_those_of_euler(shift: float) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    ours = read_schedule({**EULER, "shift": shift})
    assert len(ours) == 1000
    torch.testing.assert_close(ours.sigma.float(), theirs.sigmas.flip(0))
    torch.testing.assert_close(ours.labels(torch.arange(1000)), theirs.timesteps.flip(0))
    torch.testing.assert_close(ours.alpha, 1 - ours.sigma)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # diffusers with numpy 2
def test_sigmas_and_labels_are_those_of_dpm() -> None:
    theirs = DPMSolverMultistepScheduler(
        **{key: value for key, value in DPM.items() if key != "_class_name"}
    )
    theirs.set_timesteps(999)  # the number of steps that steps over no training timestep
    ours = read_schedule(DPM)
    torch.testing.assert_close(ours.sigma[:999].float(), theirs.sigmas[:-1].flip(0))
    # diffusers cuts the labels to whole numbers there.
    labels = ours.labels(torch.arange(999))
    assert (labels - theirs.timesteps.flip(0)).abs().max() <= 1
    assert read_schedule({**DPM, "flow_shift": 1.0}).sigma[359] == pytest.approx(0.36)


def test_no_noise_is_labelled_zero() -> None:
    schedule = read_schedule(EULER)
    assert schedule.shares(-1) == (1.0, 0.0)
    labels = schedule.labels(torch.tensor([-1, 0, 499, 999]))
    expected = [0.0, 3 / 1.002, 750.0, 1000.0]
    torch.testing.assert_close(labels, torch.tensor(expected))
    diffusion = read_schedule({"_class_name": "DDIMScheduler"})
    assert diffusion.labels(torch.tensor([3, 7])).tolist() == [3, 7]


def test_the_published_window_means_about_the_same_noise() -> None:
    """With Sana's shift of 3 a timestep holds as much noise as in arXiv 2404.12920's backbone."""
    published = read_schedule(
        {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0205}
    )
    for t in (360, 537):
        ours, theirs = (float(s.sigma[t] / s.alpha[t]) for s in (read_schedule(DPM), published))
        assert ours == pytest.approx(theirs, rel=0.1)


def test_noise_is_added_as_diffusers_adds_it() -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    model: Any = SimpleNamespace(schedule=read_schedule(EULER))
    z0 = torch.full((1, 4, 8, 8), 2.0)
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    ((t, z),) = AddedNoise(schedule=model.schedule, levels=(450,), draws=1, seed=5).latents(
        model, z0
    )
    label = theirs.timesteps.flip(0)[t][None]
    torch.testing.assert_close(z, theirs.scale_noise(z0, label, noise))


def test_a_velocity_implies_the_image_and_the_noise() -> None:
    schedule = read_schedule(EULER)
    clean, noise = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
    for t in (-1, 0, 360, 999):
        z = schedule.mix(clean, noise, t)
        found = schedule.split(z, noise - clean, t)
        torch.testing.assert_close(found, (clean, noise))


def gaussian_flow(shift: float) -> Any:
    """The exact velocity of data that is normally distributed, and where it was evaluated.

    With ``z = (1 - s) z_0 + s eps`` all are jointly normal, so that both expectations given ``z``
    are linear; ``v = E[eps | z] - E[z_0 | z]``.
    """
    schedule = read_schedule({**EULER, "shift": shift})
    evaluated: list[int] = []

    def denoise(z: torch.Tensor, t: int, conditioning: Conditioning) -> torch.Tensor:
        evaluated.append(t)
        s = float(schedule.labels(torch.tensor([t]))) / 1000
        away = (z - (1 - s) * MEAN) / ((1 - s) ** 2 * SPREAD**2 + s**2)
        return s * away - (MEAN + (1 - s) * SPREAD**2 * away)

    return SimpleNamespace(
        schedule=schedule,
        denoise=denoise,
        embedding=lambda text: Conditioning(embeds=torch.zeros(1, 3, 2)),
        evaluated=evaluated,
    )


def solution(schedule: Schedule, z0: torch.Tensor, t: int) -> torch.Tensor:
    """The ODE's own: means and spreads are followed, and quantiles stay."""
    _, s = schedule.shares(t)
    spread = ((1 - s) ** 2 * SPREAD**2 + s**2) ** 0.5
    return (1 - s) * MEAN + spread / SPREAD * (z0 - MEAN)


def euler_error(steps: int, shift: float) -> float:
    model = gaussian_flow(shift)
    z0 = (
        MEAN + SPREAD * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    )
    index = 600 * steps // 1000
    ((t, z),) = Inversion(schedule=model.schedule, steps=steps, window=(index, index + 1)).latents(
        model, z0
    )
    assert t == 599
    assert (z - z0).abs().mean() > 0.1
    return float((z - solution(model.schedule, z0, t)).abs().max())


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_inversion_follows_the_known_ode(shift: float) -> None:
    coarse, fine = euler_error(50, shift), euler_error(500, shift)
    assert fine < 0.02
    # Euler is of first order: a tenth of the step, a tenth of the error.
    assert coarse / fine == pytest.approx(10, rel=0.2)


def test_inversion_is_eulers_method_evaluated_at_the_latents_own_timestep() -> None:
    model = gaussian_flow(3.0)
    z0 = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    found = list(Inversion(schedule=model.schedule, steps=50, window=(3, 6)).latents(model, z0))
    assert [t for t, _ in found] == [59, 79, 99]
    # Nothing is evaluated at the window's last index: it is only read.
    assert model.evaluated == [-1, 19, 39, 59, 79]
    z, ladder = z0, [0.0, *(3 * u / (1 + 2 * u) for u in (0.02, 0.04, 0.06, 0.08, 0.1))]
    for index, t in enumerate([-1, 19, 39, 59, 79]):
        if index >= 3:
            torch.testing.assert_close(found[index - 3][1], z)
        z = z + (ladder[index + 1] - ladder[index]) * model.denoise(z, t, None)
    torch.testing.assert_close(found[2][1], z)
