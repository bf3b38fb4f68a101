r"""LoRA (Hu et al., ICLR 2022): low-rank changes, merged into the weights they belong to.

.. math:: W' = W + \frac{\alpha}{r} B A

with ``A`` (r, in) and ``B`` (out, r), or the same as convolutions. Read are diffusers' files (old
and new names, through diffusers' own renaming) and peft's, for the denoiser and the text encoder.
Merging needs no further package and leaves plain layers, which attention can be watched in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cxrg.errors import ModelError
from cxrg.model.adapters.file import AdapterFile

if TYPE_CHECKING:
    from cxrg.model.model import Model

METADATA = "lora_adapter_metadata"  # diffusers' name for what peft keeps in adapter_config.json
_MARK = re.compile(r"lora", re.IGNORECASE)
_KEY = re.compile(
    r"(?P<module>.+?)\.(?:lora_(?P<part>[AB])(?:\.default)?\.weight|(?P<alpha>alpha))"
)
_NETWORKS = ("unet", "transformer", "text_encoder")
_UNMERGEABLE = ("use_dora", "use_rslora", "lora_bias")


@dataclass(slots=True)
class _Change:
    """What a file says of one module."""

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
    changes = _changes(file)
    _settings(file, changes)
    networks = {"unet": model.denoiser, "transformer": model.denoiser}
    networks["text_encoder"] = model.text_encoder
    ready = [
        (layer, _delta(file, each, layer)) for each, layer in _fitting(file, changes, networks)
    ]
    with torch.no_grad():
        for layer, delta in ready:
            merged = layer.weight.float() + delta.to(layer.weight.device)
            layer.weight.copy_(merged.to(layer.weight.dtype))


def _changes(file: AdapterFile) -> dict[str, _Change]:
    """What the file says, by network and module."""
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
        if network == "text_encoder" and "_linear_layer" in own:
            rename = convert_state_dict_to_peft
        (key,) = rename({own: tensor})
        match = _KEY.fullmatch(key.removeprefix(f"{network}.") if network else key)
        if match is None:
            raise ModelError(f"{file.path}: unknown tensor {old}; it is no LoRA that cxrg reads")
        name = f"{network}:{match['module']}"
        change = changes.setdefault(name, _Change(network, match["module"], {}))
        if match["alpha"]:
            change.alpha = float(tensor)
        else:
            change.parts[match["part"]] = tensor.float()
    return changes


def _settings(file: AdapterFile, changes: Mapping[str, _Change]) -> None:
    """Fill in what stands beside the tensors: the alphas, and kinds that cannot be merged."""
    facts: dict[str, Any] = dict(file.config)
    if METADATA in file.metadata:
        try:
            facts |= json.loads(file.metadata[METADATA])
        except ValueError as error:
            raise ModelError(f"{file.path}: its metadata cannot be read; copy it again") from error
    for key, value in facts.items():
        name = key.rsplit(".", 1)[-1]
        if name in _UNMERGEABLE and value:
            raise ModelError(f"{file.path}: {name} is not handled; train a plain LoRA")
    for change in changes.values():
        prefix = f"{change.network}." if f"{change.network}.lora_alpha" in facts else ""
        alpha = facts.get(f"{prefix}lora_alpha")
        pattern = facts.get(f"{prefix}alpha_pattern") or {}
        for name, own in pattern.items():
            # peft matches a pattern against the end of a module's name.
            if change.module == name or change.module.endswith(f".{name}"):
                alpha = own
        if change.alpha is None and alpha is not None:
            change.alpha = float(alpha)


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
        asked = [change.network] if change.network else ["unet", "text_encoder"]
        # transformers 5 has no text_model around CLIP's layers any more.
        names = dict.fromkeys((change.module, change.module.removeprefix("text_model.")))
        found = [
            layer
            for network in asked
            for name in names
            if (layer := _layer(networks[network], name)) is not None
        ]
        if len(found) != 1:
            raise ModelError(
                f"{file.path}: made for another model, one with {change.module} in its "
                f"{change.network or 'unet'}; give that as --model"
            )
        yield change, found[0]


def _layer(network: nn.Module, name: str) -> Any:
    try:
        layer = network.get_submodule(name)
    except AttributeError:
        return None
    return layer if isinstance(layer, (nn.Linear, nn.Conv2d)) else None


def _delta(file: AdapterFile, change: _Change, layer: nn.Linear | nn.Conv2d) -> Tensor:
    """What is added to a layer's weight, of its shape."""
    down, up = change.parts["A"], change.parts["B"]
    rank = down.shape[0]
    wanted = (tuple(layer.weight.shape[1:]), layer.weight.shape[0], rank)
    if (tuple(down.shape[1:]), up.shape[0], up.shape[1]) != wanted:
        has = f"{tuple(layer.weight.shape)[:2]}"
        raise ModelError(
            f"{file.path}: made for another model, one whose {change.module} is "
            f"{(up.shape[0], down.shape[1])} and not {has}; give that as --model"
        )
    scale = 1.0 if change.alpha is None else change.alpha / rank
    return scale * (up.flatten(1) @ down.flatten(1)).view(layer.weight.shape)
