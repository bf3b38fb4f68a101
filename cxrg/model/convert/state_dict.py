"""Reading other packages' weights without running anything, and writing parts of a folder."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cxrg.errors import ModelError

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
# What a text encoder's folder needs; weights in other formats stay behind.
COPIED = (".json", ".txt", ".safetensors", ".model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One network as diffusers would have it.

    Attributes:
        kind: the network's class, with `save_config`.
        config: its configuration.
        weights: tensors under its own names, every one there and of its shape.
    """

    kind: Any
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    @property
    def parameters(self) -> int:
        return sum(value.numel() for value in self.weights.values())


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A file's state dict, without running anything in it.

    Raises:
        ModelError: the file is not there, holds more than tensors, or is no state dict.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give a .pth file with a state dict")
    try:
        # In torch's present format, weights are read from the disk as they are written out.
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: more than tensors, and what else it holds could run code; "
            "save it with torch.save(network.state_dict(), FILE)"
        ) from error
    except (OSError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: not a file of torch.save, or broken; copy it again") from error
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path}: not a state dict; use torch.save(network.state_dict(), FILE)")
    other = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if other:
        raise ModelError(
            f"{path}: not a state dict but a dict with {', '.join(other[:4])}; "
            "save it with torch.save(network.state_dict(), FILE)"
        )
    return dict(content)


def checked_part(
    kind: Any, config: Mapping[str, Any], weights: Mapping[str, Tensor], *, origin: str
) -> Part:
    """A part whose every weight was compared with the network's own.

    Raises:
        ModelError: no network can have the configuration, or not these weights.
    """
    try:
        with torch.device("meta"):
            network = kind(**config)
    except (ValueError, RuntimeError, AssertionError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{origin}: sizes that cannot be built ({reason}); copy it again"
        ) from error
    compare_shapes(
        {name: tuple(value.shape) for name, value in network.state_dict().items()},
        {name: tuple(value.shape) for name, value in weights.items()},
        origin=origin,
    )
    return Part(kind=kind, config=config, weights=weights)


def compare_shapes(
    wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], *, origin: str
) -> None:
    """Refuse weights that are not exactly a network's.

    Raises:
        ModelError: a name is missing or left over, or a shape is another.
    """
    both = wanted.keys() & given.keys()
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    shapes = [
        f"{name} {given[name]} instead of {wanted[name]}"
        for name in sorted(both)
        if wanted[name] != given[name]
    ]
    told = [
        f"{len(names)} weights {what}, such as {names[0]}"
        for names, what in (
            (missing, "are missing"),
            (extra, "are left over"),
            (shapes, "have another shape"),
        )
        if names
    ]
    if told:
        raise ModelError(f"{origin}: {'; '.join(told)}; give the whole state dict as published")


def write_part(part: Part, folder: Path) -> None:
    """Write configuration and float32 weights; no network is made."""
    with torch.device("meta"):
        part.kind(**part.config).save_config(folder)
    weights = {name: value.float().contiguous() for name, value in part.weights.items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def text_width(folder: Path) -> int:
    """The width of the embeddings of the text encoder in a Stable Diffusion folder.

    Raises:
        ModelError: encoder or tokenizer is not there, or its weights are pickles.
    """
    encoder = folder / "text_encoder"
    for part in ("text_encoder/config.json", "tokenizer/tokenizer_config.json"):
        if not (folder / part).is_file():
            raise ModelError(
                f"{folder}: no {part}; give a folder with text_encoder/ and tokenizer/, "
                "such as a copy of Stable Diffusion 2.1 base"
            )
    if not list(encoder.glob("*.safetensors")):
        raise ModelError(
            f"{encoder}: no .safetensors file, and pickles could run code; "
            "save it with save_pretrained(..., safe_serialization=True)"
        )
    try:
        config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
        return int(config["hidden_size"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{encoder}/config.json: no hidden_size; copy it again") from error


def copy_text(folder: Path, out: Path) -> None:
    """Copy text encoder and tokenizer, in full precision where there is a choice."""
    for part in ("text_encoder", "tokenizer"):
        (out / part).mkdir()
        files = [path for path in sorted((folder / part).iterdir()) if path.suffix in COPIED]
        full = [path for path in files if ".fp16." not in path.name]
        only_half = part == "text_encoder" and not any(
            path.suffix == ".safetensors" for path in full
        )
        for path in files if only_half else full:
            shutil.copyfile(path, out / part / path.name)
