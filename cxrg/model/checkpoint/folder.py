"""Read the parts of a diffusers folder.

What is not handled is refused by name, before any weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cxrg.model.checkpoint import layout
from cxrg.model.checkpoint.headers import read_headers
from cxrg.model.checkpoint.networks import (
    check_depth,
    network_class,
    quiet_libraries,
    read_network,
)
from cxrg.model.checkpoint.text import check_text, read_tokenizer
from cxrg.model.checkpoint.weight_files import find_weights
from cxrg.model.families.stable_diffusion_xl import SecondEncoder, read_second


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of a folder, on the CPU; ``scheduler`` is a configuration."""

    vae: Any
    denoiser: Any
    text_encoder: Any
    tokenizer: Any
    second: SecondEncoder | None = None
    scheduler: Mapping[str, Any]


def read_folder(folder: Path, denoiser_dtype: torch.dtype = torch.float32) -> Parts:
    """Read a diffusers folder; all parts but the denoiser in float32.

    Raises:
        ModelError: a part is missing, not in safetensors, broken, or of a kind not handled.
    """
    denoiser = layout.denoiser_part(folder)
    # The denoiser first: where its family is not handled, neither are the other parts.
    family = layout.check_family(folder, layout.part_config(folder, denoiser))
    configs = {part: layout.part_config(folder, part) for part in layout.part_names(folder)}
    layout.check_latents(folder, configs[denoiser], configs["vae"])
    networks = layout.networks_of(configs)
    parts: dict[str, Any] = {}
    variants = {part: find_weights(folder / part).variant for part in networks}
    with quiet_libraries():
        for part in networks:
            kind = network_class(folder, part, configs[part])
            check_depth(folder / part, configs[part], len(read_headers(folder / part).shapes))
            how = _loading(part, denoiser_dtype if part == denoiser else torch.float32)
            parts[part] = read_network(kind, folder / part, variant=variants[part], **how)
        for part in (name for name in configs if name.startswith("tokenizer")):
            parts[part] = read_tokenizer(folder / part, configs[part], lower=family.lowers_text)
    check_text(folder, parts)
    return Parts(
        vae=parts["vae"],
        denoiser=parts[denoiser],
        text_encoder=parts["text_encoder"],
        tokenizer=parts["tokenizer"],
        second=read_second(folder, parts),
        scheduler=configs["scheduler"],
    )


def _loading(part: str, dtype: torch.dtype) -> dict[str, Any]:
    """The arguments by which a network's own library loads it in a precision."""
    if part.startswith("text_encoder"):
        return {"dtype": dtype, "trust_remote_code": False}
    return {"torch_dtype": dtype}
