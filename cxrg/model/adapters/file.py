"""Read an adapter's file: safetensors only, since other formats can run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrg.errors import ModelError
from cxrg.model.checkpoint.weight_files import UNSAFE

if TYPE_CHECKING:
    from torch import Tensor

# peft's and diffusers' own names for the one file of an adapter's folder.
IN_FOLDER = ("adapter_model", "pytorch_lora_weights", "learned_embeds")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AdapterFile:
    """The content of an adapter's file.

    Attributes:
        tensors: by key, on the CPU.
        metadata: the file's text metadata.
        config: the content of peft's ``adapter_config.json`` in its folder; empty without one.
        digest: of the file's content and that configuration, see `adapter_digest`.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    config: Mapping[str, Any]
    digest: str


def read_adapter(path: Path) -> AdapterFile:
    """Read an adapter's file, or the one in the folder that peft or diffusers wrote.

    Raises:
        ModelError: there is no such file, it is not in safetensors, or holds values that no
            adapter has.
    """
    file = _find_file(path)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - no dict
            metadata = opened.metadata() or {}
        digest = adapter_digest(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: not a readable safetensors file; copy it again") from error
    _check_values(file, tensors)
    return AdapterFile(
        path=file, tensors=tensors, metadata=metadata, config=_config(file), digest=digest
    )


def _check_values(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Check for values that only a damaged file has: none, whole numbers, or not finite ones.

    Raises:
        ModelError: there are such values.
    """
    for key, tensor in tensors.items():
        if not tensor.numel():
            raise ModelError(f"{file}: {key} is empty; copy it again")
        if not (tensor.is_floating_point() or key.endswith("alpha")):
            raise ModelError(f"{file}: {key} is {tensor.dtype}, not floating point; save it again")
        if not tensor.isfinite().all():
            raise ModelError(f"{file}: {key} is not finite; get another copy")
        if key.endswith("alpha") and tensor.numel() != 1:
            raise ModelError(f"{file}: {key} is not one number; copy it again")


def adapter_digest(path: Path) -> str:
    """``sha256:`` and 16 hexadecimal digits of an adapter's file and of peft's configuration.

    Raises:
        ModelError: there is no such file, or its configuration cannot be read.
        OSError: the file cannot be read.
    """
    file = _find_file(path)
    digest = hashlib.sha256(file.read_bytes())
    config = _config(file)
    if config:
        digest.update(json.dumps(config, sort_keys=True).encode())
    return f"sha256:{digest.hexdigest()[:16]}"


def _config(file: Path) -> dict[str, Any]:
    """The content of peft's ``adapter_config.json`` beside a file; empty without one."""
    path = file.with_name("adapter_config.json")
    return _json(path) if file.stem == "adapter_model" and path.is_file() else {}


def _find_file(path: Path) -> Path:
    if path.is_dir():
        found = [path / f"{name}.safetensors" for name in IN_FOLDER]
        several = [file for file in found if file.is_file()]
        if len(several) != 1:
            names = ", ".join(file.name for file in found)
            raise ModelError(f"{path}: holds none or several of {names}; give the adapter's file")
        return several[0]
    if path.suffix in UNSAFE:
        raise ModelError(f"{path}: {path.suffix} can run code when read; save it as safetensors")
    if not path.is_file():
        raise ModelError(f"{path}: no such adapter; give a .safetensors file")
    return path


def _json(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON; copy it again") from error
    if not isinstance(facts, dict):
        raise ModelError(f"{path}: not a JSON object; copy it again")
    return facts
