"""A model of a known size with random weights, to measure speed without a checkpoint.

``sd15`` has the sizes of Stable Diffusion 1.5 (Rombach et al., CVPR 2022): a UNet of 860 million
parameters on 64 x 64 latents, a text encoder of the size of CLIP ViT-L/14's, and its autoencoder.
What such a model finds means nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cxrg.card import Card
from cxrg.errors import UsageError
from cxrg.model import Model, choose_device, choose_dtype
from cxrg.schedule import read_schedule

RANDOM = ("sd15",)
NOTE = "random weights: speed only"
_SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
_BLOCKS = (320, 640, 1280, 1280)
_TEXT_WIDTH, _TEXT_LENGTH = 768, 77


def random_model(name: str = "sd15", *, device: str = "auto", dtype: str = "auto") -> Model:
    """A model with random weights on a device.

    Raises:
        UsageError: the size is not known, or the device or precision is not there.
    """
    if name not in RANDOM:
        raise UsageError(f"no random model {name!r}; use {', '.join(RANDOM)}")
    place = choose_device(device)
    card = Card(name=f"random-{name}", note=NOTE, text_length=_TEXT_LENGTH)
    precision = choose_dtype(dtype, place, card)
    networks = (_autoencoder(), random_unet(precision), _text_encoder())
    vae, unet, text = (each.requires_grad_(False).eval().to(place) for each in networks)
    return Model(
        vae=vae,
        denoiser=unet,
        text_encoder=text,
        tokenizer=_tokenizer(),
        schedule=read_schedule(_SCHEDULE),
        card=card,
        identity=NOTE,
        device=place,
        dtype=precision,
    )


def unet_without_weights() -> Any:
    """The UNet on the meta device: shapes only."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=64,
            block_out_channels=_BLOCKS,
            cross_attention_dim=_TEXT_WIDTH,
            attention_head_dim=8,  # diffusers' name for the number of heads
        )


def random_unet(dtype: torch.dtype) -> Any:
    """The UNet, filled without the layers' own initialisation, which takes minutes at this size."""
    # nn.Module's own: diffusers' method warns of layers that stay in float32, though none does.
    unet = nn.Module.to(unet_without_weights(), dtype).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in unet.modules():
            for name, parameter in module.named_parameters(recurse=False):
                _fill(module, name, parameter, generator)
    return unet


def _fill(module: nn.Module, name: str, parameter: Tensor, generator: torch.Generator) -> None:
    """Weights that keep the activations' size, as far as that is needed to stay finite."""
    if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
        parameter.fill_(1.0 if name == "weight" else 0.0)
    elif name == "bias":
        parameter.zero_()
    else:
        parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)


def _autoencoder() -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


def _text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        hidden_size=_TEXT_WIDTH,
        intermediate_size=4 * _TEXT_WIDTH,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=_TEXT_LENGTH,
    )
    return CLIPTextModel(config)


def _tokenizer() -> Any:
    """Letters instead of CLIP's vocabulary: the prompt is padded to the same length anyway."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=_TEXT_LENGTH)
