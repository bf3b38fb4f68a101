"""U-Nets with one text encoder: Stable Diffusion 1.x and 2.x, RadEdit, MONAI's, the shipped model.

Cross-attention sits in down, middle and up blocks of several resolutions. The text embeddings are
given as they are, padding included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cxrg.model.conditioning import Conditioning
from cxrg.model.families.base import Config, Family, Layer, architecture, layer_names

if TYPE_CHECKING:
    from cxrg.model.model import Model

NAME = "UNet2DConditionModel"
STAGES = ("down_blocks", "mid_block", "up_blocks")
# Conditions beyond text, which a phrase does not give; attention to two texts at once; and the
# guidance embedding of latent consistency models (arXiv 2310.04378), which are made for sampling.
UNHANDLED = (
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "encoder_hid_dim",
    "addition_embed_type",
    "time_cond_proj_dim",
    "dual_cross_attention",
)


class UNet(Family):
    """See this module."""

    # Skip connections, feed-forward layers and a convolution's working space. 57 were measured on
    # a U-Net of Stable Diffusion 1.5's size (float32).
    maps_per_row = 60

    def includes(self, name: str, config: Config) -> bool:
        return name == NAME

    def title(self, configs: Mapping[str, Config]) -> str:
        vae = configs.get("vae", {}).get("_class_name")
        if vae == "MonaiAutoencoderKL":
            return "MONAI latent diffusion model, imported"
        text = architecture(configs.get("text_encoder", {})) or "?"
        if vae == "AutoencoderDC":
            return f"latent diffusion with a deep-compression autoencoder and {text}"
        denoiser = next((configs[part] for part in ("unet_ema", "unet") if part in configs), {})
        version = "2.x" if denoiser.get("use_linear_projection") else "1.x"
        layout = f"Stable Diffusion {version} layout"
        return layout if text.startswith("CLIP") else f"{layout} with {text}"

    def network_class(self) -> Any:
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        return UNet2DConditionModel

    def unhandled(self, config: Config) -> tuple[str, ...]:
        several = isinstance(config.get("cross_attention_dim"), (list, tuple))
        names = (*UNHANDLED, "cross_attention_dim") if several else UNHANDLED
        return tuple(name for name in names if config.get(name))

    def text_width(self, config: Config) -> int:
        return int(config["cross_attention_dim"])

    def encode(self, model: Model, texts: list[str]) -> Conditioning:
        padded = model.tokenise(model.tokenizer, texts)
        hidden = model.card.pass_attention_mask
        mask = {"attention_mask": padded["attention_mask"]} if hidden else {}
        states = model.text_encoder(padded["input_ids"], **mask).last_hidden_state
        return Conditioning(embeds=states)

    def layers(self, denoiser: Any, latent_side: int) -> tuple[Layer, ...]:
        # Not the order of named_modules(): diffusers registers up_blocks before mid_block.
        names = layer_names(denoiser)
        ordered = [name for stage in STAGES for name in names if name.split(".")[0] == stage]
        deepest = len(denoiser.config.down_block_types) - 1
        return tuple(
            Layer(name=name, side=latent_side >> _depth(name, deepest)) for name in ordered
        )

    def published(self, names: Sequence[str]) -> tuple[str, ...]:
        """Layers 3, 4, 6, 7 of the eleven of arXiv 2404.12920's backbone.

        They are the last of the last down block, the middle, and all but the first of the first up
        block.
        """
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(name.split(".transformer_blocks.")[0], []).append(name)
        down = [group for group in groups if group.startswith("down_blocks")][-1:]
        middle = [group for group in groups if group.startswith("mid_block")]
        up = [group for group in groups if group.startswith("up_blocks")]
        first = [group for group in up if group.split(".")[1] == up[0].split(".")[1]][1:]
        return tuple(name for group in (*down, *middle, *first) for name in groups[group])

    def grid_of(self, denoiser: Any, name: str) -> tuple[Any, int]:
        return denoiser.get_submodule(name.split(".transformer_blocks.")[0]), 1

    def map_size(self, config: Config, area: int) -> int:
        return area * int(config["block_out_channels"][0])


def _depth(name: str, deepest: int) -> int:
    """How often the latent was halved at a layer."""
    stage, index = name.split(".")[:2]
    if stage == "mid_block":
        return deepest
    return int(index) if stage == "down_blocks" else deepest - int(index)
