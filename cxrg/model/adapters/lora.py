r"""LoRA (Hu et al., ICLR 2022): low-rank changes, merged into the weights they belong to.

.. math:: W' = W + \frac{\alpha}{r} B A

with ``A`` (r, in) and ``B`` (out, r), or the same as convolutions. diffusers' files (old and new
names, through its own renaming) and peft's are read, for the denoiser and the text encoders.
Merging needs no further package and leaves plain layers, whose attention can be recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cxrg.errors import ModelError
from cxrg.model.adapters.file import AdapterFile
from cxrg.model.adapters.lora_config import read_settings

if TYPE_CHECKING:
    from cxrg.model.model import Model

_MARK = re.compile(r"lora", re.IGNORECASE)
_KEY = re.compile(
    r"(?P<module>.+?)\.(?:lora_(?P<part>[AB])(?:\.default)?\.weight|(?P<alpha>alpha))"
)
_NETWORKS = ("unet", "transformer", "text_encoder", "text_encoder_2")


@dataclass(slots=True)
class _Change:
    """The tensors for one module."""

    network: str
    module: str
    parts: dict[str, Tensor]
    alpha: float | None = None


def is_lora(file: AdapterFile) -> bool:
    """Whether a file holds low-rank changes of weights."""
    return any(_MARK.search(key) for key in file.tensors)


def merge(model: Model, file: AdapterFile) -> None:
    """Merge all changes of a file into a model's networks; all of them or none.

    Raises:
        ModelError: a key is not known, or a change does not fit the model.
    """
    networks = {"unet": model.denoiser, "transformer": model.denoiser}
    networks |= zip(("text_encoder", "text_encoder_2"), model.text_encoders, strict=False)
    ready = [
        (layer, _delta(file, each, layer))
        for each, layer in _fitting(file, _changes(file), networks)
    ]
    with torch.no_grad():
        for layer, delta in ready:
            merged = layer.weight.float() + delta.to(layer.weight.device)
            layer.weight.copy_(merged.to(layer.weight.dtype))


def _changes(file: AdapterFile) -> dict[str, _Change]:
    """Sort the file's tensors by network and module."""
    from diffusers.utils.state_dict_utils import (
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    if any(key.startswith(("lora_unet", "lora_te")) for key in file.tensors):
        raise ModelError(
            f"{file.path}: kohya's names for a LoRA; load it in diffusers and save_lora_weights()"
        )
    changes: dict[str, _Change] = {}
    rename: Any  # diffusers has no types
    for old, tensor in file.tensors.items():
        own = old.removeprefix("base_model.model.")
        network = next((n for n in _NETWORKS if own.startswith(f"{n}.")), "")
        rename = convert_unet_state_dict_to_peft
        if network.startswith("text_encoder") and "_linear_layer" in own:
            rename = convert_state_dict_to_peft
        (key,) = rename({own: tensor})
        match = _KEY.fullmatch(key.removeprefix(f"{network}.") if network else key)
        if match is None:
            raise ModelError(f"{file.path}: unknown tensor {old}; it is not a LoRA that cxrg reads")
        name = f"{network}:{match['module']}"
        change = changes.setdefault(name, _Change(network, match["module"], {}))
        if match["alpha"]:
            change.alpha = float(tensor)
        else:
            change.parts[match["part"]] = tensor.float()
    return changes


def _fitting(
    file: AdapterFile, changes: Mapping[str, _Change], networks: Mapping[str, nn.Module]
) -> Iterator[tuple[_Change, Any]]:
    """Each change with the layer that it belongs to."""
    for change in changes.values():
        missing = {"A", "B"} - change.parts.keys()
        if missing:
            raise ModelError(
                f"{file.path}: {change.module} lacks lora_{min(missing)}; copy it again"
            )
        if change.network and change.network not in networks:
            raise ModelError(
                f"{file.path}: made for Stable Diffusion XL, with a second text encoder; give such "
                "a model as --model"
            )
        searched = (
            [change.network] if change.network else [n for n in networks if n != "transformer"]
        )
        # transformers 5 has no text_model around CLIP's layers any more.
        names = dict.fromkeys((change.module, change.module.removeprefix("text_model.")))
        found = [
            layer
            for network in searched
            for name in names
            if (layer := _layer(networks[network], name)) is not None
        ]
        if not found:
            raise ModelError(
                f"{file.path}: made for another model, one with {change.module} in its "
                f"{change.network or 'unet'}; give that as --model"
            )
        if len(found) > 1:
            raise ModelError(
                f"{file.path}: {change.module} is in both text encoders; save the adapter with "
                "diffusers' save_lora_weights(), which names them"
            )
        yield change, found[0]


def _layer(network: nn.Module, name: str) -> Any:
    try:
        layer = network.get_submodule(name)
    except AttributeError:
        return None
    return layer if isinstance(layer, (nn.Linear, nn.Conv2d)) else None


def _delta(file: AdapterFile, change: _Change, layer: nn.Linear | nn.Conv2d) -> Tensor:
    """The change of a layer's weight, of the same shape."""
    down, up = change.parts["A"], change.parts["B"]
    rank = down.shape[0]
    expected = (tuple(layer.weight.shape[1:]), layer.weight.shape[0], rank)
    if (tuple(down.shape[1:]), up.shape[0], up.shape[1]) != expected:
        has = f"{tuple(layer.weight.shape)[:2]}"
        raise ModelError(
            f"{file.path}: made for another model, one whose {change.module} is "
            f"{(up.shape[0], down.shape[1])} and not {has}; give that as --model"
        )
    settings = read_settings(file, change.network)
    configured = settings.rank(change.module)
    if configured is not None and configured != rank:
        raise ModelError(
            f"{file.path}: {change.module} has rank {rank}, but its configuration says "
            f"{configured}; copy both files again"
        )
    # An alpha among the tensors takes precedence over the configuration's.
    scale = settings.scale(change.module, rank) if change.alpha is None else change.alpha / rank
    return scale * (up.flatten(1) @ down.flatten(1)).view(layer.weight.shape)
