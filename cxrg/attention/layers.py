"""Which cross-attention layers a denoiser has, and which of them are read."""

from __future__ import annotations

from typing import Any

from cxrg.errors import UsageError
from cxrg.model.families import family_of
from cxrg.model.families.base import Layer
from cxrg.model.model import Model


def cross_attention_layers(denoiser: Any, latent_side: int) -> tuple[Layer, ...]:
    """All cross-attention layers in the order of the forward pass: down, middle, up in a U-Net."""
    return family_of(denoiser).layers(denoiser, latent_side)


def choose_layers(model: Model, choice: str | int | tuple[str, ...]) -> tuple[str, ...]:
    """Full names of the layers to read, in the order of the forward pass.

    Args:
        model: the model.
        choice: ``card``, ``paper``, ``all``, the side of the maps, or names (full, or of a parent
            module).

    Raises:
        UsageError: no layer has that name or side.
    """
    layers = cross_attention_layers(model.denoiser, model.side // model.factor)
    if choice == "card":
        choice = model.card.layers or "paper"
    if choice == "paper":
        return model.family.published([layer.name for layer in layers])
    if choice == "all":
        return tuple(layer.name for layer in layers)
    if isinstance(choice, int):
        chosen = [layer.name for layer in layers if layer.side == choice]
        if not chosen:
            sides = sorted({layer.side for layer in layers})
            raise UsageError(f"no attention map is {choice} wide; use {', '.join(map(str, sides))}")
        return tuple(chosen)
    names = (choice,) if isinstance(choice, str) else choice
    for name in names:
        if not any(_within(layer.name, name) for layer in layers):
            known = ", ".join(dict.fromkeys(block_of(layer.name) for layer in layers))
            raise UsageError(f"no cross-attention in layer {name!r}; there are {known}")
    return tuple(layer.name for layer in layers if any(_within(layer.name, name) for name in names))


def _within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def block_of(name: str) -> str:
    """The module that a layer is named after: the transformer in a U-Net, else the block."""
    return name.split(".transformer_blocks.")[0].removesuffix(".attn2")
