"""What differs between model families, one module each; the first that fits is a model's family."""

from __future__ import annotations

from typing import Any

from cxrg.model.families.base import Config, Family
from cxrg.model.families.stable_diffusion_xl import StableDiffusionXL
from cxrg.model.families.transformer import PixArt, Sana
from cxrg.model.families.unet import UNet

UNET = UNet()
FAMILIES: tuple[Family, ...] = (StableDiffusionXL(), UNET, PixArt(), Sana())
HANDLED = "Stable Diffusion 1.x, 2.x and XL, PixArt-Sigma and Sana"


def family_for(config: Config) -> Family | None:
    """The family of a denoiser's configuration file; None where none handles it."""
    return _first(str(config.get("_class_name", "")), config)


def family_of(denoiser: Any) -> Family:
    """The family of a denoiser that was built; a plain U-Net where its class is not known."""
    return _first(type(denoiser).__name__, getattr(denoiser, "config", {})) or UNET


def _first(name: str, config: Config) -> Family | None:
    return next((family for family in FAMILIES if family.includes(name, config)), None)
