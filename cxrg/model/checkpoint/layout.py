"""What a diffusers folder is: its parts, its family, and whether that family is handled.

Every folder holds ``vae/``, ``text_encoder/``, ``tokenizer/``, ``scheduler/`` and a denoiser, in
``unet/`` or ``transformer/``; where training left averaged weights beside the last ones, in
``unet_ema/`` (diffusers' ``EMAModel``), those are taken. Stable Diffusion XL has a second
text encoder with its tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxrg.errors import ModelError

Config = Mapping[str, Any]

DENOISERS = ("unet_ema", "unet", "transformer")
SECOND = ("text_encoder_2", "tokenizer_2")
EVERY_PART = ("vae", *DENOISERS, "text_encoder", "tokenizer", "scheduler", *SECOND)
CONFIG_FILES = {
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
UNET, PIXART, SANA = "UNet2DConditionModel", "PixArtTransformer2DModel", "SanaTransformer2DModel"
# Image and text in one softmax: there is no attention of image positions over text alone.
JOINT = ("SD3", "Flux", "Lumina2", "AuraFlow", "Chroma", "QwenImage")
HANDLED = "Stable Diffusion 1.x, 2.x and XL, PixArt-Sigma and Sana"
# Conditions beyond text, which a phrase does not give, and ways of attending that are not read.
EXTRAS = {
    UNET: ("class_embed_type", "encoder_hid_dim_type"),
    PIXART: (),
    SANA: ("guidance_embeds", "qk_norm"),
}


def denoiser_part(folder: Path) -> str:
    """The first of `DENOISERS` that the folder has; ``unet`` where it has none."""
    return next((part for part in DENOISERS if (folder / part).is_dir()), "unet")


def part_names(folder: Path) -> tuple[str, ...]:
    """The parts that a folder of its kind must have."""
    denoiser = denoiser_part(folder)
    first = ("vae", denoiser, "text_encoder", "tokenizer", "scheduler")
    try:
        return (*first, *SECOND) if is_xl(part_config(folder, denoiser)) else first
    except ModelError:
        return first  # whoever reads the denoiser's configuration tells what is wrong


def networks_of(parts: Mapping[str, Any]) -> list[str]:
    """Those parts that have weights."""
    return [part for part in parts if part not in CONFIG_FILES]


def part_config(folder: Path, part: str) -> dict[str, Any]:
    """The configuration of a part.

    Raises:
        ModelError: it is missing or cannot be read.
    """
    name = CONFIG_FILES.get(part, "config.json")
    path = folder / part / name
    if not path.is_file():
        raise ModelError(
            f"{folder}: no {part}/{name}; a diffusers folder holds vae/, unet/ or transformer/, "
            "text_encoder/, tokenizer/ and scheduler/"
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: not a JSON object ({error}); copy it again") from error


def class_name(denoiser: Config) -> str:
    """The denoiser's class; PixArt's as it is called today."""
    name = str(denoiser.get("_class_name", ""))
    if name == "Transformer2DModel" and denoiser.get("norm_type") == "ada_norm_single":
        return PIXART  # its name in diffusers until 0.28, and in the files written then
    return name


def is_xl(denoiser: Config) -> bool:
    """Whether the U-Net also takes a pooled text embedding and the picture's size."""
    return denoiser.get("addition_embed_type") == "text_time"


def lowers_text(denoiser: Config) -> bool:
    """Whether the family's pipeline makes prompts lower-case: PixArt's and Sana's do."""
    return class_name(denoiser) != UNET


def check_family(folder: Path, denoiser: Config) -> None:
    """Complain of a denoiser that is not handled.

    Raises:
        ModelError: its configuration says so.
    """
    name = class_name(denoiser)
    if name.startswith(JOINT):
        raise ModelError(
            f"{folder}: {name} lets image and text attend jointly, as Stable Diffusion 3.5 and "
            f"Flux do, which is not handled yet; use one of {HANDLED}"
        )
    if name not in EXTRAS:
        raise ModelError(f"{folder}: denoiser {name or '?'} is not handled; use one of {HANDLED}")
    extras = [key for key in EXTRAS[name] if denoiser.get(key)]
    if name == UNET and denoiser.get("addition_embed_type") and not is_xl(denoiser):
        extras.append("addition_embed_type")
    if name == PIXART and _wants_size(denoiser):
        extras.append("use_additional_conditions")
    if extras:
        raise ModelError(
            f"{folder}: the {name} also wants {', '.join(extras)}, not handled yet; "
            f"use one of {HANDLED}"
        )


def check_latents(folder: Path, denoiser: Config, vae: Config) -> None:
    """Complain of a denoiser that takes other latents than the autoencoder gives.

    Raises:
        ModelError: the configurations say so.
    """
    wanted, given = denoiser.get("in_channels", 4), vae.get("latent_channels")
    if wanted != given:
        raise ModelError(
            f"{folder}: the denoiser takes {wanted} channels but the autoencoder gives {given}; "
            "inpainting and depth models are not handled, and parts must belong together"
        )


def _wants_size(pixart: Config) -> bool:
    """As PixArt-alpha at 1024 pixels does; diffusers' rule where nothing is said."""
    said = pixart.get("use_additional_conditions")
    return pixart.get("sample_size", 128) == 128 if said is None else bool(said)


def family(configs: Mapping[str, Config]) -> str:
    """What kind of model the configurations describe, in words."""
    denoiser = next((configs[part] for part in DENOISERS if part in configs), None)
    if not denoiser:
        return "not known without unet/config.json"
    name, vae = class_name(denoiser), configs.get("vae", {})
    if name != UNET:
        return _transformer_family(name)
    if vae.get("_class_name") == "MonaiAutoencoderKL":
        return "MONAI latent diffusion model, imported"
    if is_xl(denoiser):
        return "Stable Diffusion XL layout"
    text = str((configs.get("text_encoder", {}).get("architectures") or ["?"])[0])
    if vae.get("_class_name") == "AutoencoderDC":
        return f"latent diffusion with a deep-compression autoencoder and {text}"
    layout = f"Stable Diffusion {'2.x' if denoiser.get('use_linear_projection') else '1.x'} layout"
    return layout if text.startswith("CLIP") else f"{layout} with {text}"


def _transformer_family(name: str) -> str:
    known = {PIXART: "PixArt", SANA: "Sana"}
    if name in known:
        return f"{known[name]}, a diffusion transformer with text cross-attention ({name})"
    if name.startswith(JOINT):
        return f"a diffusion transformer with joint attention of image and text ({name})"
    return f"a diffusion model of another kind ({name or 'no class named'})"
