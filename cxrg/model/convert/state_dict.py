"""Read other packages' weights without running code in them, and write parts of a folder."""

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
from cxrg.model.checkpoint.weight_files import find_weights

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
# What is copied of a text encoder's folder; weights in other formats are left out.
COPIED = (".json", ".txt", ".safetensors", ".model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One network in diffusers' terms.

    Attributes:
        kind: the network's class, with `save_config`.
        config: its configuration.
        weights: all of its tensors, by its own names.
    """

    kind: Any
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    @property
    def parameters(self) -> int:
        return sum(value.numel() for value in self.weights.values())


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a file's state dict without running code in it.

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
            f"{path}: holds more than tensors, which could run code; "
            "save it with torch.save(network.state_dict(), FILE)"
        ) from error
    except (OSError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: broken, or not written by torch.save; copy it again") from error
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
    """Make a part, after comparing all weights with the network's own.

    Raises:
        ModelError: the configuration describes no network, or one with other weights.
    """
    try:
        with torch.device("meta"):
            network = kind(**config)
    except (ValueError, RuntimeError, AssertionError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{origin}: no network has these sizes ({reason}); copy it again"
        ) from error
    compare_shapes(
        {name: tuple(value.shape) for name, value in network.state_dict().items()},
        {name: tuple(value.shape) for name, value in weights.items()},
        origin=origin,
    )
    return Part(kind=kind, config=config, weights=weights)


def compare_shapes(
    expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], *, origin: str
) -> None:
    """Check that weights are exactly a network's.

    Raises:
        ModelError: names are missing or left over, or shapes differ.
    """
    both = expected.keys() & given.keys()
    missing = sorted(expected.keys() - given.keys())
    extra = sorted(given.keys() - expected.keys())
    shapes = [
        f"{name} {given[name]} instead of {expected[name]}"
        for name in sorted(both)
        if expected[name] != given[name]
    ]
    differences = [
        f"{len(names)} weights {what}, such as {names[0]}"
        for names, what in (
            (missing, "are missing"),
            (extra, "are left over"),
            (shapes, "have another shape"),
        )
        if names
    ]
    if differences:
        raise ModelError(
            f"{origin}: {'; '.join(differences)}; give the whole state dict as published"
        )


def write_part(part: Part, folder: Path) -> None:
    """Write configuration and float32 weights, without building the network."""
    with torch.device("meta"):
        part.kind(**part.config).save_config(folder)
    weights = {name: value.float().contiguous() for name, value in part.weights.items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def text_width(folder: Path) -> int:
    """Width of the embeddings of the text encoder in a Stable Diffusion folder.

    Raises:
        ModelError: encoder or tokenizer is missing, or its weights are not in safetensors.
    """
    encoder = folder / "text_encoder"
    for part in ("text_encoder/config.json", "tokenizer/tokenizer_config.json"):
        if not (folder / part).is_file():
            raise ModelError(
                f"{folder}: no {part}; give a folder with text_encoder/ and tokenizer/, "
                "such as a copy of Stable Diffusion 2.1 base"
            )
    find_weights(encoder)
    try:
        config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
        return int(config["hidden_size"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{encoder}/config.json: no hidden_size; copy it again") from error


def copy_text(folder: Path, out: Path) -> None:
    """Copy text encoder and tokenizer, in full precision where there is a choice."""
    weights = find_weights(folder / "text_encoder")
    kept = {*weights.paths, weights.index}
    for part in ("text_encoder", "tokenizer"):
        (out / part).mkdir()
        for path in sorted((folder / part).iterdir()):
            of_weights = path.suffix == ".safetensors" or ".index." in path.name
            if path.suffix in COPIED and (path in kept or not of_weights):
                shutil.copyfile(path, out / part / path.name)
