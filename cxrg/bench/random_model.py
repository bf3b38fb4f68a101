"""A model of a known size with random weights, to measure speed and memory without a checkpoint.

``sd15`` has the sizes of Stable Diffusion 1.5 (Rombach et al., CVPR 2022): a UNet of 860 million
parameters on 64 x 64 latents, a text encoder of the size of CLIP ViT-L/14's, and its autoencoder.
``monai`` has those of MONAI's chest X-ray model (`cxrg.model.convert.monai`) with the text encoder
of Stable Diffusion 2.1 base. What such a model finds means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cxrg.errors import UsageError
from cxrg.model.card import Card, known_cards
from cxrg.model.convert import monai
from cxrg.model.load import choose_device, choose_dtype
from cxrg.model.model import Model
from cxrg.model.schedule import read_schedule

NOTE = "random weights: speed only"
TEXT_LENGTH = 77


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """The configurations of a model's parts, as its files would have them.

    Attributes:
        vae: keywords of the autoencoder; ``monai_vae`` chooses MONAI's structure.
        unet: keywords of the UNet.
        text: keywords of CLIP's text encoder.
        scheduler: the noise schedule.
        card: name of the known card with its image range and layers; empty: none.
    """

    vae: Mapping[str, Any]
    monai_vae: bool
    unet: Mapping[str, Any]
    text: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    card: str = ""


RANDOM: Mapping[str, Sizes] = {
    "sd15": Sizes(
        vae={"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
        monai_vae=False,
        unet={
            "block_out_channels": (320, 640, 1280, 1280),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,  # diffusers' name for the number of heads
        },
        text={"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        scheduler={"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    ),
    "monai": Sizes(
        vae={**monai.PUBLISHED_AUTOENCODER, "scaling_factor": monai.SCALING_FACTOR},
        monai_vae=True,
        unet={
            **monai.PUBLISHED_UNET,
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        },
        text={"hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16},
        scheduler=monai.SCHEDULER,
        card=monai.CARD,
    ),
}


def random_model(name: str = "sd15", *, device: str = "auto", dtype: str = "auto") -> Model:
    """A model with random weights on a device.

    Raises:
        UsageError: the size is not known, or the device or precision is not there.
    """
    sizes = sizes_of(name)
    place = choose_device(device)
    known = known_cards().get(sizes.card) or Card(name="", text_length=TEXT_LENGTH)
    card = replace(known, name=f"random-{name}", note=NOTE)
    precision = choose_dtype(dtype, place, card)
    networks = (_autoencoder(sizes), random_unet(name, precision), _text_encoder(sizes.text))
    vae, unet, text = (each.requires_grad_(False).eval().to(place) for each in networks)
    return Model(
        vae=vae,
        denoiser=unet,
        text_encoder=text,
        tokenizer=_tokenizer(),
        schedule=read_schedule(sizes.scheduler),
        card=card,
        identity=NOTE,
        device=place,
        dtype=precision,
    )


def sizes_of(name: str) -> Sizes:
    """The sizes of that name.

    Raises:
        UsageError: they are not known.
    """
    if name not in RANDOM:
        raise UsageError(f"no random model {name!r}; use {', '.join(RANDOM)}")
    return RANDOM[name]


def unet_without_weights(name: str) -> Any:
    """The UNet of a size on the meta device: shapes only."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(sample_size=64, **RANDOM[name].unet)


def random_unet(name: str, dtype: torch.dtype) -> Any:
    """The UNet, filled without the layers' own initialisation, which takes minutes at this size."""
    # nn.Module's own: diffusers' method warns of layers that stay in float32, though none does.
    unet = nn.Module.to(unet_without_weights(name), dtype).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in unet.modules():
            for key, parameter in module.named_parameters(recurse=False):
                _fill(module, key, parameter, generator)
    return unet


def _fill(module: nn.Module, key: str, parameter: Tensor, generator: torch.Generator) -> None:
    """Weights that keep the activations' size, as far as that is needed to stay finite."""
    if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
        parameter.fill_(1.0 if key == "weight" else 0.0)
    elif key == "bias":
        parameter.zero_()
    else:
        parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)


def _autoencoder(sizes: Sizes) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from cxrg.model.families.monai_autoencoder import MonaiAutoencoderKL

    kind = MonaiAutoencoderKL if sizes.monai_vae else AutoencoderKL
    return kind(
        **{
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "latent_channels": 4,
            "sample_size": 512,
            **sizes.vae,
        }
    )


def _text_encoder(text: Mapping[str, Any]) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    width = text["hidden_size"]
    config = CLIPTextConfig(
        intermediate_size=4 * width, max_position_embeddings=TEXT_LENGTH, **text
    )
    return CLIPTextModel(config)


def _tokenizer() -> Any:
    """Letters instead of CLIP's vocabulary: the prompt is padded to the same length anyway."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TEXT_LENGTH)
