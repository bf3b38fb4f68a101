"""From the autoencoder's own latents to those that the denoiser was trained on, and back.

diffusers' convention, as its image-to-image pipelines encode::

    z = (raw - shift_factor) * scaling_factor
    z = (raw - latents_mean) * scaling_factor / latents_std      where the configuration has these
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxrg.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

STATISTICS = ("latents_mean", "latents_std")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LatentScale:
    """``z = (raw - offset) * factor``, both float32 ``(C, 1, 1)``, or ``(1, 1, 1)`` for all."""

    offset: Tensor
    factor: Tensor

    def scale(self, raw: Tensor) -> Tensor:
        """Latents as the denoiser takes them."""
        return (raw - self.offset.to(raw.device)) * self.factor.to(raw.device)

    def scale_deviation(self, raw: Tensor) -> Tensor:
        """The standard deviation of scaled latents."""
        return raw * self.factor.to(raw.device)

    def unscale(self, latents: Tensor) -> Tensor:
        """Latents as the autoencoder decodes them."""
        return latents / self.factor.to(latents.device) + self.offset.to(latents.device)


def read_latent_scale(config: Mapping[str, Any]) -> LatentScale:
    """The scale that an autoencoder's configuration describes.

    Raises:
        ModelError: its settings contradict each other, or are no numbers to scale by.
    """
    factor, shift = config.get("scaling_factor", 1.0), config.get("shift_factor") or 0.0
    if not (_is_number(factor) and factor and _is_number(shift)):
        raise ModelError(
            "vae/config.json: scaling_factor and shift_factor must be numbers, the first not 0; "
            "correct it"
        )
    given = [name for name in STATISTICS if config.get(name) is not None]
    if not given:
        return LatentScale(offset=_column([shift]), factor=_column([factor]))
    if len(given) == 1 or shift:
        other = "shift_factor" if shift else next(n for n in STATISTICS if n not in given)
        both = "together with" if shift else "without"
        raise ModelError(
            f"vae/config.json has {given[0]} {both} {other}; correct it: latents_mean and "
            "latents_std go together, and instead of shift_factor"
        )
    means, deviations = (config[name] for name in STATISTICS)
    channels = config.get("latent_channels")
    for name, values in zip(STATISTICS, (means, deviations), strict=True):
        if not isinstance(values, (list, tuple)) or len(values) != channels:
            raise ModelError(f"vae/config.json: {name} must list {channels} numbers; correct it")
        if not all(map(_is_number, values)) or (values is deviations and min(values) <= 0):
            raise ModelError(
                f"vae/config.json: {name} must hold numbers, and deviations above 0; correct it"
            )
    factors = [factor / deviation for deviation in deviations]
    return LatentScale(offset=_column(means), factor=_column(factors))


def _column(values: Any) -> Tensor:
    import torch

    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
