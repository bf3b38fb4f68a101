"""Import MONAI's chest X-ray latent diffusion model as a folder in diffusers' format.

The authors publish two state dicts, ``autoencoder.pth`` and ``diffusion_model.pth``, and use the
text encoder of Stable Diffusion 2.1 base. Weights keep their values; only names change, and the two
1x1 convolutions of the posterior are joined into one. The U-Net becomes diffusers'
`UNet2DConditionModel` with an epsilon of 1e-6, the autoencoder
`cxrg.model.families.monai_autoencoder`'s.

A state dict contains neither the number of attention heads, the groups of the normalisations nor
the noise schedule. They are taken from the published configuration: one head, 32 groups, 1000 steps
with betas from 0.0015 to 0.0205 linear in their root, v-prediction, latents scaled by 0.3 (arXiv
2404.12920; Project-MONAI/model-zoo, cxr_image_synthesis_latent_diffusion_model).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxrg.errors import ModelError
from cxrg.model.card import CARD_FILE, known_cards
from cxrg.model.convert import monai_keys as keys
from cxrg.model.convert.state_dict import (
    Part,
    checked_part,
    copy_text,
    read_state_dict,
    text_width,
    write_json,
    write_part,
)

CARD = "monai-cxr"
GROUPS = 32
SIDE = 512
SCALING_FACTOR = 0.3
SCHEDULER: Mapping[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.0015,
    "beta_end": 0.0205,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
# The settings by which the published model is recognised.
PUBLISHED_AUTOENCODER: Mapping[str, Any] = {
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 3,
    "block_out_channels": [64, 128, 128, 128],
    "layers_per_block": 2,
}
PUBLISHED_UNET: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "block_out_channels": [256, 512, 768],
    "layers_per_block": [2, 2, 2],
    "transformer_layers_per_block": 1,
    "cross_attention_dim": 1024,
    "attention_head_dim": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """An imported model.

    Attributes:
        folder: the diffusers-format folder.
        writer: the package that wrote the U-Net's file, ``monai-generative`` or ``monai``.
        parameters: numbers in the autoencoder and the U-Net together.
        published: whether both have the published sizes.
    """

    folder: Path
    writer: str
    parameters: int
    published: bool


def import_monai(
    *,
    autoencoder: Path,
    diffusion: Path,
    text_encoder: Path,
    out: Path,
    heads: int | Sequence[int] = 1,
) -> Imported:
    """Write MONAI's state dicts and a text encoder as a folder that `cxrg.load` reads.

    One file is in memory at a time. The folder appears whole or not at all.

    Args:
        autoencoder: state dict of an ``AutoencoderKL`` without attention.
        diffusion: state dict of a ``DiffusionModelUNet`` with text conditioning.
        text_encoder: folder with ``text_encoder/`` and ``tokenizer/``, as Stable Diffusion's.
        out: a folder that does not exist yet.
        heads: attention heads, or those of each level; the published model has one everywhere.

    Raises:
        ModelError: a file cannot be read safely, or lacks weights, or has others or of other
            shapes; the parts do not belong together; the folder exists or cannot be written.
    """
    if out.exists():
        raise ModelError(f"{out}: exists already; choose a new folder")
    width = text_width(text_encoder)
    building = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        building.mkdir(parents=True)
        vae, in_vae = _write(
            map_autoencoder(read_state_dict(autoencoder), origin=str(autoencoder)), building / "vae"
        )
        state = read_state_dict(diffusion)
        writer = keys.writer(state, origin=str(diffusion))
        part = map_unet(state, origin=str(diffusion), heads=heads)
        _check_together(vae, part.config, width, diffusion=diffusion, text_encoder=text_encoder)
        unet, in_unet = _write(part, building / "unet")
        copy_text(text_encoder, building)
        write_json(building / "scheduler" / "scheduler_config.json", SCHEDULER)
        published = is_published(vae, unet)
        write_json(building / CARD_FILE, _card_facts(out.name, writer, published=published))
        building.rename(out)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(f"{out}: cannot be written ({reason}); choose another folder") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Imported(folder=out, writer=writer, parameters=in_vae + in_unet, published=published)


def _write(part: Part, folder: Path) -> tuple[Mapping[str, Any], int]:
    """Write a part, and return its configuration and number of parameters."""
    write_part(part, folder)
    return part.config, part.parameters


def map_autoencoder(state: Mapping[str, Tensor], *, origin: str) -> Part:
    """MONAI's ``AutoencoderKL`` as a `MonaiAutoencoderKL`.

    Args:
        state: its state dict, on any device, ``meta`` included.
        origin: the file's name for messages.

    Raises:
        ModelError: a weight has no place in the network, or weights are missing.
    """
    from cxrg.model.families.monai_autoencoder import MonaiAutoencoderKL

    found = keys.autoencoder_names(state, origin=origin)
    counts = {*found.encoder_blocks, *found.decoder_blocks}
    if len(counts) != 1 or len(found.encoder_blocks) != len(found.decoder_blocks):
        raise ModelError(
            f"{origin}: {found.encoder_blocks} residual blocks per level in the encoder and "
            f"{found.decoder_blocks} in the decoder; only one number everywhere is handled"
        )
    weights = {found.names[key]: value for key, value in state.items()}
    for end in ("weight", "bias"):
        mean, spread = (weights.pop(f"quant_conv_{of}.{end}", None) for of in ("mu", "log_sigma"))
        if mean is not None and spread is not None:
            weights[f"quant_conv.{end}"] = torch.cat([mean, spread])
    levels = len(found.encoder_blocks)
    config = {
        "in_channels": _size(weights, "encoder.conv_in.weight", 1, origin=origin),
        "out_channels": _size(weights, "decoder.conv_out.weight", 0, origin=origin),
        "latent_channels": _size(weights, "post_quant_conv.weight", 0, origin=origin),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": _widths(weights, "encoder.down_blocks", levels, origin=origin),
        "layers_per_block": counts.pop(),
        "norm_num_groups": GROUPS,
        "sample_size": SIDE,
        "scaling_factor": SCALING_FACTOR,
        "mid_block_add_attention": False,
    }
    return checked_part(MonaiAutoencoderKL, config, weights, origin=origin)


def map_unet(state: Mapping[str, Tensor], *, origin: str, heads: int | Sequence[int] = 1) -> Part:
    """MONAI's text-conditioned ``DiffusionModelUNet`` as a `UNet2DConditionModel`.

    Args:
        state: its state dict, on any device, ``meta`` included.
        origin: the file's name for messages.
        heads: attention heads, or those of each level.

    Raises:
        ModelError: a weight has no place in the network, or weights are missing.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    names = keys.unet_names(state, origin=origin)
    if len(set(names.values())) < len(names):
        raise ModelError(f"{origin}: the same weights under two names; save it again")
    weights = {names[key]: value for key, value in state.items()}
    levels = _count(weights, "down_blocks.{}.resnets.0.conv1.weight")
    attended = [f"down_blocks.{i}.attentions.0.norm.weight" in weights for i in range(levels)]
    if True not in attended:
        raise ModelError(f"{origin}: no cross-attention, so it cannot ground phrases")
    block = f"down_blocks.{attended.index(True)}.attentions.0.transformer_blocks"
    config = {
        "sample_size": SIDE >> 3,
        "in_channels": _size(weights, "conv_in.weight", 1, origin=origin),
        "out_channels": _size(weights, "conv_out.weight", 0, origin=origin),
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attended],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attended[::-1]],
        "block_out_channels": _widths(weights, "down_blocks", levels, origin=origin),
        "layers_per_block": [
            _count(weights, f"down_blocks.{i}.resnets.{{}}.conv1.weight") for i in range(levels)
        ],
        "transformer_layers_per_block": _count(weights, f"{block}.{{}}.norm1.weight"),
        "cross_attention_dim": _size(weights, f"{block}.0.attn2.to_k.weight", 1, origin=origin),
        # By mistake diffusers named the number of heads so, and kept the name.
        "attention_head_dim": heads if isinstance(heads, int) else list(heads),
        "norm_num_groups": GROUPS,
        "norm_eps": 1e-6,
    }
    return checked_part(UNet2DConditionModel, config, weights, origin=origin)


def _widths(weights: Mapping[str, Tensor], at: str, levels: int, *, origin: str) -> list[int]:
    names = (f"{at}.{level}.resnets.0.conv1.weight" for level in range(levels))
    return [_size(weights, name, 0, origin=origin) for name in names]


def _size(weights: Mapping[str, Tensor], name: str, axis: int, *, origin: str) -> int:
    if name not in weights or weights[name].ndim <= axis:
        raise ModelError(f"{origin}: {name} is missing; give the whole state dict as published")
    return int(weights[name].shape[axis])


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    count = 0
    while pattern.format(count) in weights:
        count += 1
    return count


def _check_together(
    vae: Mapping[str, Any],
    unet: Mapping[str, Any],
    width: int,
    *,
    diffusion: Path,
    text_encoder: Path,
) -> None:
    if unet["in_channels"] != vae["latent_channels"]:
        raise ModelError(
            f"{diffusion}: the U-Net takes {unet['in_channels']} channels but the autoencoder "
            f"gives {vae['latent_channels']}; both files must be of one model"
        )
    if unet["cross_attention_dim"] != width:
        raise ModelError(
            f"{text_encoder}: embeddings are {width} wide but the U-Net takes "
            f"{unet['cross_attention_dim']}; the published one is Stable Diffusion 2.1 base's"
        )


def is_published(vae: Mapping[str, Any], unet: Mapping[str, Any]) -> bool:
    """Whether two configurations have the published model's sizes."""
    return all(
        config[key] == value
        for config, published in ((vae, PUBLISHED_AUTOENCODER), (unet, PUBLISHED_UNET))
        for key, value in published.items()
    )


def _card_facts(name: str, writer: str, *, published: bool) -> dict[str, Any]:
    """The card of the written folder; of other sizes than the published ones without its layers."""
    known = known_cards()[CARD]
    note = f"imported from files that {writer} wrote"
    card = replace(
        known,
        name=name,
        note=note if published else f"{note}; not of the published sizes",
        layers=known.layers if published else (),
    )
    return {key: value for key, value in asdict(card).items() if value not in ("", None, (), {})}
