"""Noise schedules: diffusers' own numbers for every scheduler class that it has."""

from __future__ import annotations

from typing import Any

import diffusers.schedulers
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from cxrg.errors import ModelError
from cxrg.model.schedule import DIFFUSION, FLOW, read_schedule

# diffusers with numpy 2: __array__ and __array_wrap__
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
ZERO_SNR = "rescale_betas_zero_snr"


def installed(name: str) -> bool:
    """Whether diffusers has a class, and the packages that it needs are there."""
    return not hasattr(getattr(diffusers.schedulers, name), "_backends")


CLASSES = sorted(name for name in dir(diffusers.schedulers) if name.endswith("Scheduler"))
INSTALLED = [name for name in DIFFUSION if installed(name)]


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("more", [{}, {"beta_end": 0.015}, {"beta_schedule": "squaredcos_cap_v2"}])
def test_what_a_configuration_leaves_out_is_its_classs_default(name: str, more: Any) -> None:
    theirs = getattr(diffusers.schedulers, name)(**more)
    ours = read_schedule({"_class_name": name, **more})
    torch.testing.assert_close(ours.alpha**2, theirs.alphas_cumprod.double(), rtol=1e-4, atol=1e-7)
    assert len(ours) == theirs.config.num_train_timesteps
    assert ours.prediction_type == theirs.config.prediction_type == "epsilon"


@pytest.mark.parametrize("name", INSTALLED)
def test_zero_terminal_snr_is_obeyed_or_refused(name: str) -> None:
    config = {"_class_name": name, ZERO_SNR: True}
    if ZERO_SNR not in getattr(diffusers.schedulers, name)().config:
        with pytest.raises(ModelError, match=f"{name} has no {ZERO_SNR}; name DDIMScheduler"):
            read_schedule(config)
        return
    bar = read_schedule(config).alpha ** 2
    assert bar[-1] == 0
    theirs = getattr(diffusers.schedulers, name)(**{ZERO_SNR: True}).alphas_cumprod.double()
    # Some classes keep the last share a little above zero, where they divide by it.
    torch.testing.assert_close(bar, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", FLOW)
def test_a_flows_shift_is_one_where_none_is_named(name: str) -> None:
    theirs = getattr(diffusers.schedulers, name)()
    sigma = theirs.timesteps.flip(0).unique() / theirs.config.num_train_timesteps
    torch.testing.assert_close(read_schedule({"_class_name": name}).sigma.float(), sigma)


def test_every_other_class_is_refused() -> None:
    others = set(CLASSES) - set(DIFFUSION) - set(FLOW)
    assert {"CMStochasticIterativeScheduler", "IPNDMScheduler", "EDMEulerScheduler"} <= others
    for name in sorted(others):
        with pytest.raises(ModelError, match=f"scheduler {name} is not handled; use"):
            read_schedule({"_class_name": name})


def test_a_configuration_without_a_class_is_a_ddpms() -> None:
    expected = DDPMScheduler().alphas_cumprod.double()
    torch.testing.assert_close(read_schedule({}).alpha ** 2, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"num_train_timesteps": 10**12}, "num_train_timesteps 1000000000000 is not 1 to 100000"),
        ({"num_train_timesteps": 0}, "num_train_timesteps 0 is not 1 to 100000; correct it"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps 'many' is no count; correct it"),
        ({"num_train_timesteps": True}, "num_train_timesteps True is no count"),
        ({"beta_start": "0.1"}, "beta_start '0.1' is not 0 to 1; correct it"),
        ({"beta_end": float("nan")}, "beta_end nan is not 0 to 1"),
        ({"beta_end": -1}, "beta_end -1 is not 0 to 1"),
        ({"trained_betas": "text"}, "trained_betas is not a list of numbers"),
        ({"trained_betas": []}, "trained_betas is not a list of numbers"),
        ({"trained_betas": [0.1, None]}, "trained_betas None is not 0 to 1"),
        ({"beta_schedule": ["linear"]}, r"beta schedule \['linear'\] is not handled"),
        ({"_class_name": FLOW[0], "shift": "x"}, "shift 'x' is not 0.001 to 1000; correct it"),
        ({"_class_name": FLOW[0], "shift": 0}, "shift 0 is not 0.001 to 1000"),
        ({"_class_name": FLOW[0], "num_train_timesteps": -5}, "num_train_timesteps -5 is not 1"),
    ],
)
def test_values_that_describe_no_schedule_are_refused(facts: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_schedule(facts)


def test_null_is_the_default() -> None:
    plain, null = read_schedule({}), read_schedule({"beta_start": None, "trained_betas": None})
    assert torch.equal(plain.alpha, null.alpha)
