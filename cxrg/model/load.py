"""Load a model by name, from a folder or from the hub, onto a device in a precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from cxrg.errors import UsageError
from cxrg.model.card import Card
from cxrg.model.checkpoint.folder import read_folder
from cxrg.model.checkpoint.identity import fingerprint, with_calibration
from cxrg.model.find import find
from cxrg.model.model import Model
from cxrg.model.schedule import read_schedule

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    name_or_path: str | Path = "compact",
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    offline: bool = False,
    adapter: str | Path | None = None,
) -> Model:
    """Load a model.

    Args:
        name_or_path: a name that ``cxrg models`` lists, a diffusers folder, or a hub id
            ``OWNER/NAME``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``. dtype: ``auto`` (the precision
        checked for the model), ``float32``, ``bfloat16``, ``float16``. revision: branch, tag or
        commit on the hub; a card's own revision is the default. offline: never use the network,
        like the environment variable ``HF_HUB_OFFLINE=1``. adapter: a safetensors file that ``cxrg
        tune`` wrote, a LoRA or a textual inversion.

    Raises:
        ModelError: the model cannot be found or fetched, is incomplete, or is not handled, or the
            adapter is not for it.
        UsageError: the device or precision is not available.
    """
    place = choose_device(device)
    folder, card = find(str(name_or_path), revision=revision, offline=offline)
    precision = choose_dtype(dtype, place, card)
    parts = read_folder(folder, precision)
    weights = fingerprint(folder)
    schedule = read_schedule(parts.scheduler)
    second = [parts.second.network] if parts.second else []
    for network in (parts.vae, parts.denoiser, parts.text_encoder, *second):
        network.requires_grad_(False).eval().to(place)
    model = Model(
        vae=parts.vae,
        denoiser=parts.denoiser,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        second=parts.second,
        schedule=schedule,
        card=_of_these_weights(card, weights),
        identity=with_calibration(weights, card.presence),
        device=place,
        dtype=precision,
    )
    if adapter is None:
        return model
    from cxrg.model.adapters.attach import attach

    return attach(model, Path(adapter))


def _of_these_weights(card: Card, weights: str) -> Card:
    """The card without scores of healthy chests that are of other weights."""
    stale = card.reference and card.reference["weights"] != weights
    return replace(card, reference={}) if stale else card


def choose_device(device: str) -> torch.device:
    """The device of that name; ``auto`` takes an accelerator where there is one.

    Raises:
        UsageError: the device is not available.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UsageError(
            f"device {device!r} is not known; use auto, cpu, cuda, cuda:N, mps"
        ) from error
    missing = (place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count()) or (
        place.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing or place.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device {device!r} is not on this machine; use --device cpu or auto")
    return place


def choose_dtype(dtype: str, device: torch.device, card: Card) -> torch.dtype:
    """The denoiser's precision; ``auto`` takes the card's where the device has it in hardware.

    Raises:
        UsageError: the precision is not known, or the device lacks it.
    """
    if dtype == "auto":
        fits = card.dtype == "bfloat16" and _has_bfloat16(device)
        return torch.bfloat16 if fits else torch.float32
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is not known; use auto, {', '.join(DTYPES)}")
    if dtype == "float16" and device.type == "cpu":
        raise UsageError("dtype float16 is not for the CPU; use float32 or bfloat16")
    if dtype == "bfloat16" and device.type != "cpu" and not _has_bfloat16(device):
        raise UsageError(f"dtype bfloat16 is not on {device}; use float32 or float16")
    return DTYPES[dtype]


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
