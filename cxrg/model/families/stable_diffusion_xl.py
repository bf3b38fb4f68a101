"""Stable Diffusion XL (Podell et al., arXiv 2307.01952): a U-Net with two text encoders.

The embeddings are both encoders' last states but one, side by side. The U-Net also takes the second
encoder's pooled embedding and the picture's sizes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrg.errors import ModelError
from cxrg.model.conditioning import Conditioning
from cxrg.model.families.base import Config
from cxrg.model.families.unet import UNet

if TYPE_CHECKING:
    from cxrg.model.model import Model

INDEX = "model_index.json"
SIZES = 6  # original height and width, upper left corner, target height and width


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SecondEncoder:
    """The second text encoder of Stable Diffusion XL.

    Attributes:
        network: with a projection, which gives the pooled embedding.
        tokenizer: of the same tokens as the first one.
        zeros_for_empty: the empty prompt's embeddings are zeros, as the published model learnt.
    """

    network: Any
    tokenizer: Any
    zeros_for_empty: bool = False


class StableDiffusionXL(UNet):
    """See this module."""

    more_parts = ("text_encoder_2", "tokenizer_2")
    more_files = (INDEX,)  # defines the empty prompt

    def includes(self, name: str, config: Config) -> bool:
        return super().includes(name, config) and config.get("addition_embed_type") == "text_time"

    def title(self, configs: Mapping[str, Config]) -> str:
        return "Stable Diffusion XL layout"

    def unhandled(self, config: Config) -> tuple[str, ...]:
        own = ("addition_embed_type",)
        return tuple(name for name in super().unhandled(config) if name not in own)

    def check_parts(self, folder: Path, config: Config, parts: Mapping[str, Any]) -> None:
        sizes = SIZES * config["addition_time_embed_dim"]
        wanted = config["projection_class_embeddings_input_dim"] - sizes
        given = parts["text_encoder_2"].config.projection_dim
        if wanted != given:
            raise ModelError(
                f"{folder}: the UNet takes a pooled embedding of width {wanted} but text_encoder_2 "
                f"gives {given}; refiners are not handled, and parts must belong together"
            )
        # One embedding per token is made of both encoders', so they must read the same tokens.
        if parts["tokenizer"].get_vocab() != parts["tokenizer_2"].get_vocab():
            raise ModelError(f"{folder}: tokenizer/ and tokenizer_2/ differ; copy them again")

    def encode(self, model: Model, texts: list[str]) -> Conditioning:
        import torch

        second = second_encoder(model)
        pairs = (model.tokenizer, model.text_encoder), (second.tokenizer, second.network)
        outputs = [
            encoder(model.tokenise(tokenizer, texts)["input_ids"], output_hidden_states=True)
            for tokenizer, encoder in pairs
        ]
        embeds = torch.cat([each.hidden_states[-2] for each in outputs], dim=-1)
        pooled = outputs[1].text_embeds
        if second.zeros_for_empty:
            words = torch.tensor([bool(text) for text in texts], device=model.device)
            embeds, pooled = embeds * words[:, None, None], pooled * words[:, None]
        return Conditioning(embeds=embeds, pooled=pooled)

    def conditions(self, model: Model, conditioning: Conditioning) -> dict[str, Any]:
        import torch

        assert conditioning.pooled is not None
        # Original size, upper left corner, target size (section 2.2).
        sizes = [model.side, model.side, 0, 0, model.side, model.side]
        time_ids = torch.tensor([sizes], device=model.device).expand(len(conditioning), -1)
        pooled = conditioning.pooled.to(model.dtype)
        return {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids}}


def second_encoder(model: Model) -> SecondEncoder:
    """The second text encoder of a model of this family."""
    if model.second is None:
        raise ModelError(f"{model.card.name}: no second text encoder; load the model from a folder")
    return model.second


def read_second(folder: Path, parts: Mapping[str, Any]) -> SecondEncoder | None:
    """The second text encoder among a folder's parts; None where the family has none."""
    if "text_encoder_2" not in parts:
        return None
    return SecondEncoder(
        network=parts["text_encoder_2"],
        tokenizer=parts["tokenizer_2"],
        zeros_for_empty=_zeros_for_empty(folder),
    )


def _zeros_for_empty(folder: Path) -> bool:
    """``force_zeros_for_empty_prompt`` of the pipeline, true by default."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return bool(index.get("force_zeros_for_empty_prompt", True))
    except (OSError, ValueError, AttributeError):
        return True
