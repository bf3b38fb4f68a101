"""The layout of a diffusers folder: its parts, its family, and whether that family is handled.

Every folder holds ``vae/``, ``text_encoder/``, ``tokenizer/``, ``scheduler/`` and a denoiser, in
``unet/`` or ``transformer/``; where training left averaged weights, in ``unet_ema/`` (diffusers'
``EMAModel``), those are taken instead of the last ones. Stable Diffusion XL has a second text
encoder with its tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cxrg.errors import ModelError
from cxrg.model.families import FAMILIES, HANDLED, family_for
from cxrg.model.families.base import Config, Family
from cxrg.model.latent_scale import read_latent_scale

DENOISERS = ("unet_ema", "unet", "transformer")
COMMON = ("text_encoder", "tokenizer", "scheduler")
MORE = tuple(dict.fromkeys(part for family in FAMILIES for part in family.more_parts))
EVERY_PART = ("vae", *DENOISERS, *COMMON, *MORE)
CONFIG_FILES = {
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
# Image and text in one softmax: there is no attention of image positions over text alone.
JOINT = ("SD3", "Flux", "Lumina2", "AuraFlow", "Chroma", "QwenImage")


def check_entries(folder: Path) -> None:
    """Refuse what a reader may wait for without end: pipes, sockets, devices, links to nowhere.

    Raises:
        ModelError: the folder or one of its parts holds such an entry.
    """
    for place in (folder, *(folder / part for part in EVERY_PART)):
        for path in sorted(place.glob("*")):
            if not (path.is_file() or path.is_dir()):
                raise ModelError(
                    f"{path}: a pipe, a device or a broken link, neither file nor folder; "
                    "remove it, or copy the model again"
                )


def denoiser_part(folder: Path) -> str:
    """The first of `DENOISERS` that the folder has; ``unet`` where it has none."""
    return next((part for part in DENOISERS if (folder / part).is_dir()), "unet")


def part_names(folder: Path) -> tuple[str, ...]:
    """The parts that a folder of its family must have."""
    denoiser = denoiser_part(folder)
    family = folder_family(folder)
    return ("vae", denoiser, *COMMON, *(family.more_parts if family else ()))


def folder_family(folder: Path) -> Family | None:
    """The family of a folder's denoiser; None where its configuration is of none or unreadable."""
    try:
        return family_for(part_config(folder, denoiser_part(folder)))
    except ModelError:
        return None  # reading the denoiser's configuration raises the error again


def networks_of(parts: Iterable[str]) -> list[str]:
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
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a JSON object ({error}); copy it again") from error


def check_family(folder: Path, denoiser: Config) -> Family:
    """The family of a denoiser's configuration.

    Raises:
        ModelError: the denoiser is of a kind that is not handled.
    """
    family, name = family_for(denoiser), str(denoiser.get("_class_name", ""))
    if family is None and name.startswith(JOINT):
        raise ModelError(
            f"{folder}: {name} lets image and text attend jointly, as Stable Diffusion 3.5 and "
            f"Flux do, which is not handled yet; use one of {HANDLED}"
        )
    if family is None:
        raise ModelError(f"{folder}: denoiser {name or '?'} is not handled; use one of {HANDLED}")
    if unhandled := family.unhandled(denoiser):
        raise ModelError(
            f"{folder}: {name} with {', '.join(unhandled)} is not handled; use one of {HANDLED}"
        )
    return family


def check_latents(folder: Path, denoiser: Config, vae: Config) -> None:
    """Check that the autoencoder gives the latents that the denoiser takes.

    Raises:
        ModelError: the configurations differ, or the autoencoder's scale cannot be read.
    """
    wanted, given = denoiser.get("in_channels", 4), vae.get("latent_channels")
    if wanted != given:
        raise ModelError(
            f"{folder}: the denoiser takes {wanted} channels but the autoencoder gives {given}; "
            "inpainting and depth models are not handled, and parts must belong together"
        )
    if vae.get("in_channels", 3) not in (1, 3):
        raise ModelError(
            f"{folder}: the autoencoder takes {vae['in_channels']} channels; grey or RGB images "
            "are handled"
        )
    try:
        read_latent_scale(vae)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error


def describe(configs: Mapping[str, Config]) -> str:
    """What kind of model the configurations describe, in words."""
    denoiser = next((configs[part] for part in DENOISERS if part in configs), None)
    if not denoiser:
        return "not known without unet/config.json"
    if known := family_for(denoiser):
        return known.title(configs)
    name = str(denoiser.get("_class_name", ""))
    if name.startswith(JOINT):
        return f"a diffusion transformer with joint attention of image and text ({name})"
    return f"a diffusion model of another kind ({name or 'no class named'})"
