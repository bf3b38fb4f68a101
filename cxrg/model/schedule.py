"""How much image and how much noise a latent holds at each training timestep.

All families add noise along ``z_t = alpha_t z_0 + sigma_t eps`` with ``eps ~ N(0, 1)``, for
``t = 0 .. T-1``; ``t = -1`` stands for no noise.

Diffusion (Ho et al., NeurIPS 2020, equation 4; ``abar_t`` is the cumulative product of
``1 - beta``)::

    alpha_t = sqrt(abar_t),   sigma_t = sqrt(1 - abar_t)

Rectified flow (Liu et al., ICLR 2023, arXiv 2209.03003, equation 1; with the shift of Esser et al.,
ICML 2024, arXiv 2403.03206, that moves timesteps to more noise)::

    sigma_t = shift u / (1 + (shift - 1) u)  with  u = (t + 1) / T,   alpha_t = 1 - sigma_t

whose network predicts the velocity ``v = dz / dsigma = eps - z_0`` and takes ``T sigma_t`` as its
timestep. With Sana's shift of 3, a timestep ``t`` then means about as much noise as in the backbone
of arXiv 2404.12920. Image and noise follow from a latent and the network's output::

    epsilon        z_0 = (z - sigma eps) / alpha
    v-prediction   z_0 = alpha z - sigma v,   eps = alpha v + sigma z   (arXiv 2202.00512)
    flow           z_0 = z - sigma v,         eps = z + alpha v
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cxrg.errors import ModelError

MOST_TIMESTEPS = 100_000  # a hundred times what is usual; arrays of this length are small
Prediction = Literal["epsilon", "v_prediction", "flow"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Schedule:
    """Factors of image and noise per training timestep.

    Attributes:
        prediction_type: what the network's output means.
        alpha: float64 ``(T,)``, the factor of the image.
        sigma: float64 ``(T,)``, the factor of the noise.
    """

    prediction_type: Prediction
    alpha: Tensor
    sigma: Tensor

    def __len__(self) -> int:
        return len(self.sigma)

    @property
    def is_flow(self) -> bool:
        return self.prediction_type == "flow"

    def shares(self, timestep: int) -> tuple[float, float]:
        """``(alpha_t, sigma_t)``; a negative timestep is the image without noise."""
        if timestep < 0:
            return 1.0, 0.0
        return float(self.alpha[timestep]), float(self.sigma[timestep])

    def mix(self, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """The noisy latent of a clean one and noise."""
        alpha, sigma = self.shares(timestep)
        return alpha * clean + sigma * noise

    def split(self, z: Tensor, output: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
        """The clean latent and the noise, ``(z0, eps)``, that a network's output implies.

        Args:
            z: noisy latents.
            output: the network's output for them.
            timestep: of ``z``.
        """
        alpha, sigma = self.shares(timestep)
        if self.prediction_type == "epsilon":
            return (z - sigma * output) / alpha, output
        if self.prediction_type == "v_prediction":
            return alpha * z - sigma * output, alpha * output + sigma * z
        return z - sigma * output, z + alpha * output

    def labels(self, timesteps: Tensor) -> Tensor:
        """The network's input for timesteps: for a flow ``T sigma_t``, which is 0 at -1."""
        if not self.is_flow:
            return timesteps
        ladder = torch.cat([self.sigma.new_zeros(1), self.sigma]) * len(self)
        return ladder.float().to(timesteps.device)[timesteps + 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What a scheduler class of diffusers assumes where its configuration is silent.

    Attributes:
        beta_start, beta_end, beta_schedule: the class's own.
        rescales: whether the class obeys ``rescale_betas_zero_snr``.
    """

    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    rescales: bool = False


_PLAIN, _RESCALING = Defaults(), Defaults(rescales=True)
_HEUN = Defaults(beta_start=0.00085, beta_end=0.012)
_LCM = Defaults(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescales=True)
# Classes whose noise is that of `Schedule`; their other settings concern their own sampling.
DIFFUSION = {
    "DDIMInverseScheduler": _RESCALING,
    "DDIMParallelScheduler": _RESCALING,
    "DDIMScheduler": _RESCALING,
    "DDPMParallelScheduler": _RESCALING,
    "DDPMScheduler": _RESCALING,
    "DEISMultistepScheduler": _PLAIN,
    "DPMSolverMultistepInverseScheduler": _PLAIN,
    "DPMSolverMultistepScheduler": _RESCALING,
    "DPMSolverSDEScheduler": _HEUN,
    "DPMSolverSinglestepScheduler": _PLAIN,
    "EulerAncestralDiscreteScheduler": _RESCALING,
    "EulerDiscreteScheduler": _RESCALING,
    "HeunDiscreteScheduler": _HEUN,
    "KDPM2AncestralDiscreteScheduler": _HEUN,
    "KDPM2DiscreteScheduler": _HEUN,
    "LCMScheduler": _LCM,
    "LMSDiscreteScheduler": _PLAIN,
    "PNDMScheduler": _PLAIN,
    "SASolverScheduler": _PLAIN,
    "TCDScheduler": _LCM,
    "UniPCMultistepScheduler": _RESCALING,
}
FLOW = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
)


def read_schedule(config: Mapping[str, Any]) -> Schedule:
    """The schedule of a scheduler's configuration; a DDPM's where no class is named.

    Raises:
        ModelError: the schedule or the prediction is not handled.
    """
    name = str(config.get("_class_name") or "DDPMScheduler")
    if name in FLOW:
        return _flow(config, "shift")
    if name not in DIFFUSION:
        raise ModelError(f"scheduler {name} is not handled; use a DDPM, DDIM or flow schedule")
    prediction = config.get("prediction_type", "epsilon")
    if config.get("use_flow_sigmas") and prediction == "flow_prediction":
        return _flow(config, "flow_shift")
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"prediction type {prediction!r} is not handled; use epsilon, v_prediction, "
            "or flow_prediction with use_flow_sigmas"
        )
    if config.get("use_flow_sigmas"):
        raise ModelError(f"flow sigmas with {prediction} are not handled; use flow_prediction")
    alphas_cumprod = torch.cumprod(1 - _betas(config, DIFFUSION[name]), dim=0)
    if config.get("rescale_betas_zero_snr"):
        if not DIFFUSION[name].rescales:
            raise ModelError(
                f"scheduler {name} has no rescale_betas_zero_snr; name DDIMScheduler in its "
                "configuration, or set it to false"
            )
        # Lin et al., arXiv 2305.08891, algorithm 1
        root = alphas_cumprod.sqrt()
        alphas_cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return Schedule(
        prediction_type="epsilon" if prediction == "epsilon" else "v_prediction",
        alpha=alphas_cumprod.sqrt(),
        sigma=(1 - alphas_cumprod).sqrt(),
    )


def _flow(config: Mapping[str, Any], key: str) -> Schedule:
    for unhandled in ("use_dynamic_shifting", "invert_sigmas"):
        if config.get(unhandled):
            raise ModelError(f"flow schedule with {unhandled} is not handled; use a fixed {key}")
    count = _count(config)
    shift = _number(config, key, 1.0, low=0.001, high=1000)
    u = torch.arange(1, count + 1, dtype=torch.float64) / count
    sigma = shift * u / (1 + (shift - 1) * u)
    return Schedule(prediction_type="flow", alpha=1 - sigma, sigma=sigma)


def _betas(config: Mapping[str, Any], default: Defaults) -> Tensor:
    """diffusers' betas: ``linear``, ``scaled_linear``, ``squaredcos_cap_v2``, or trained ones."""
    count = _count(config)
    trained = config.get("trained_betas")
    if trained is not None:
        if not isinstance(trained, (list, tuple)) or not 1 <= len(trained) <= MOST_TIMESTEPS:
            raise ModelError("scheduler: trained_betas is not a list of numbers; correct it")
        values = [_checked("trained_betas", value, low=0, high=1) for value in trained]
        return torch.tensor(values, dtype=torch.float64)
    start = _number(config, "beta_start", default.beta_start, low=0, high=1)
    end = _number(config, "beta_end", default.beta_end, low=0, high=1)
    kind = config.get("beta_schedule", default.beta_schedule)
    if kind == "linear":
        return torch.linspace(start, end, count, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
    if kind == "squaredcos_cap_v2":
        times = torch.arange(count + 1, dtype=torch.float64) / count
        bar = torch.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    raise ModelError(
        f"beta schedule {kind!r} is not handled; use linear, scaled_linear or squaredcos_cap_v2"
    )


def _count(config: Mapping[str, Any]) -> int:
    """The number of training timesteps; diffusers' classes assume 1000."""
    count = config.get("num_train_timesteps", 1000)
    if type(count) is not int:
        raise ModelError(f"scheduler: num_train_timesteps {count!r:.40} is no count; correct it")
    return int(_checked("num_train_timesteps", count, low=1, high=MOST_TIMESTEPS))


def _number(
    config: Mapping[str, Any], name: str, default: float, *, low: float, high: float
) -> float:
    """A number of a configuration; the default where it is absent or null."""
    value = config.get(name)
    return default if value is None else _checked(name, value, low=low, high=high)


def _checked(name: str, value: Any, *, low: float, high: float) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise ModelError(f"scheduler: {name} {value!r:.40} is not {low:g} to {high:g}; correct it")
    return float(value)
