"""Diffusion transformers with text cross-attention: PixArt-Sigma and Sana.

One row of blocks, all of one resolution, over patches of the latent. Padding is hidden from the
text encoder and gets no attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from cxrg.model.conditioning import Conditioning
from cxrg.model.families.base import Config, Family, Layer, layer_names

if TYPE_CHECKING:
    from torch import Tensor

    from cxrg.model.model import Model


class Transformer(Family):
    """What both have in common.

    Attributes:
        known_as: the family's name.
        class_name: the denoiser's class in diffusers.
    """

    known_as: ClassVar[str]
    class_name: ClassVar[str]

    lowers_text = True
    attends_to_padding = False
    longest_text = 300  # what both pipelines pad to; their encoders would take more
    # All maps have one size. 23 were measured on PixArt-Sigma's size, 17 on Sana 0.6B's, both with
    # a prompt of 300 tokens, whose attention is part of it (float32).
    maps_per_row = 25

    def includes(self, name: str, config: Config) -> bool:
        return name == self.class_name

    def title(self, configs: Mapping[str, Config]) -> str:
        return (
            f"{self.known_as}, a diffusion transformer with text cross-attention "
            f"({self.class_name})"
        )

    def text_width(self, config: Config) -> int:
        return int(config.get("caption_channels") or config["cross_attention_dim"])

    def encode(self, model: Model, texts: list[str]) -> Conditioning:
        padded = model.tokenise(model.tokenizer, texts)
        mask = padded["attention_mask"]
        states = model.text_encoder(padded["input_ids"], attention_mask=mask).last_hidden_state
        return Conditioning(embeds=states, mask=mask.bool())

    def conditions(self, model: Model, conditioning: Conditioning) -> dict[str, Any]:
        return {"encoder_attention_mask": conditioning.mask}

    def layers(self, denoiser: Any, latent_side: int) -> tuple[Layer, ...]:
        side = latent_side // int(denoiser.config.patch_size)
        return tuple(Layer(name=name, side=side) for name in layer_names(denoiser))

    def published(self, names: Sequence[str]) -> tuple[str, ...]:
        """The middle third of the blocks: nothing is published for transformers.

        They are the counterpart of the layers that are read in a U-Net.
        """
        third = len(names) // 3
        return tuple(names[third : len(names) - third])

    def grid_of(self, denoiser: Any, name: str) -> tuple[Any, int]:
        return denoiser, int(denoiser.config.patch_size)

    def map_size(self, config: Config, area: int) -> int:
        positions = area // int(config["patch_size"]) ** 2
        return positions * int(config["num_attention_heads"]) * int(config["attention_head_dim"])


class PixArt(Transformer):
    """PixArt-Sigma (Chen et al., arXiv 2403.04692)."""

    known_as = "PixArt"
    class_name = "PixArtTransformer2DModel"

    def includes(self, name: str, config: Config) -> bool:
        # Its name in diffusers until 0.28, and in the files written then.
        old = name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_single"
        return old or super().includes(name, config)

    def network_class(self) -> Any:
        from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

        return PixArtTransformer2DModel

    def unhandled(self, config: Config) -> tuple[str, ...]:
        # Sizes, as PixArt-alpha at 1024 pixels takes them; diffusers' rule where none is set.
        sized = config.get("use_additional_conditions")
        sized = config.get("sample_size", 128) == 128 if sized is None else bool(sized)
        return ("use_additional_conditions",) if sized else ()


class Sana(Transformer):
    """Sana (Xie et al., arXiv 2410.10629)."""

    known_as = "Sana"
    class_name = "SanaTransformer2DModel"

    def network_class(self) -> Any:
        from diffusers.models.transformers.sana_transformer import SanaTransformer2DModel

        return SanaTransformer2DModel

    def unhandled(self, config: Config) -> tuple[str, ...]:
        return tuple(name for name in ("guidance_embeds", "qk_norm") if config.get(name))

    def labels(self, config: Config, labels: Tensor) -> Tensor:
        return labels * float(config.get("timestep_scale") or 1)
