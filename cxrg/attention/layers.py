"""Which cross-attention layers a denoiser has, and which of them are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cxrg.errors import UsageError
from cxrg.model.model import Model, is_transformer

STAGES = ("down_blocks", "mid_block", "up_blocks")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A cross-attention module of the denoiser, and the side of its map for a square latent."""

    name: str
    side: int


def cross_attention_layers(denoiser: Any, latent_side: int) -> tuple[Layer, ...]:
    """All cross-attention layers in the order of the forward pass: down, middle, up in a U-Net."""
    names = [name for name, _ in denoiser.named_modules() if name.endswith(".attn2")]
    if is_transformer(denoiser):
        side = latent_side // int(denoiser.config.patch_size)
        return tuple(Layer(name=name, side=side) for name in names)
    # Not the order of named_modules(): diffusers registers up_blocks before mid_block.
    ordered = [name for stage in STAGES for name in names if name.split(".")[0] == stage]
    deepest = len(denoiser.config.down_block_types) - 1
    return tuple(Layer(name=name, side=latent_side >> _depth(name, deepest)) for name in ordered)


def grid_of(denoiser: Any, name: str) -> tuple[Any, int]:
    """The last module around a layer that sees the image as a grid, and its patch's side."""
    if is_transformer(denoiser):
        return denoiser, int(denoiser.config.patch_size)
    return denoiser.get_submodule(name.split(".transformer_blocks.")[0]), 1


def _depth(name: str, deepest: int) -> int:
    """How often the latent was halved where a layer sits."""
    stage, index = name.split(".")[:2]
    if stage == "mid_block":
        return deepest
    return int(index) if stage == "down_blocks" else deepest - int(index)


def choose_layers(model: Model, wanted: str | int | tuple[str, ...]) -> tuple[str, ...]:
    """Full names of the layers to read, in the order of the forward pass.

    Args:
        model: the model.
        wanted: ``card``, ``paper``, ``all``, the side of the maps, or names (full, or of a parent
            module).

    Raises:
        UsageError: no layer has that name or side.
    """
    layers = cross_attention_layers(model.denoiser, model.side // model.factor)
    if wanted == "card":
        wanted = model.card.layers or "paper"
    if wanted == "paper":
        return published_layers([layer.name for layer in layers])
    if wanted == "all":
        return tuple(layer.name for layer in layers)
    if isinstance(wanted, int):
        chosen = [layer.name for layer in layers if layer.side == wanted]
        if not chosen:
            sides = sorted({layer.side for layer in layers})
            raise UsageError(f"no attention map is {wanted} wide; use {', '.join(map(str, sides))}")
        return tuple(chosen)
    names = (wanted,) if isinstance(wanted, str) else wanted
    for name in names:
        if not any(_within(layer.name, name) for layer in layers):
            known = ", ".join(dict.fromkeys(block_of(layer.name) for layer in layers))
            raise UsageError(f"no cross-attention in layer {name!r}; there are {known}")
    return tuple(layer.name for layer in layers if any(_within(layer.name, name) for name in names))


def _within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def published_layers(names: Sequence[str]) -> tuple[str, ...]:
    """The published choice among ordered layer names.

    The last of the last down block, the middle, and all but the first of the first up block: layers
    3, 4, 6, 7 of the eleven of arXiv 2404.12920's backbone. For transformers nothing is published;
    their counterpart here is the middle third of the blocks.
    """
    if names and names[0].startswith("transformer_blocks."):
        third = len(names) // 3
        return tuple(names[third : len(names) - third])
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(block_of(name), []).append(name)
    down = [group for group in groups if group.startswith("down_blocks")][-1:]
    middle = [group for group in groups if group.startswith("mid_block")]
    up = [group for group in groups if group.startswith("up_blocks")]
    first = [group for group in up if group.split(".")[1] == up[0].split(".")[1]][1:]
    return tuple(name for group in (*down, *middle, *first) for name in groups[group])


def block_of(name: str) -> str:
    """The module that a layer is named after: the transformer in a U-Net, else the block."""
    return name.split(".transformer_blocks.")[0].removesuffix(".attn2")


def self_attention_layers(model: Model) -> tuple[str, ...]:
    """Full names of the self-attention layers with the finest maps, beside the cross-attention."""
    layers = cross_attention_layers(model.denoiser, model.side // model.factor)
    finest = max(layer.side for layer in layers)
    return tuple(
        f"{layer.name.removesuffix('attn2')}attn1" for layer in layers if layer.side == finest
    )
