"""Compare weight files with a configuration without loading them.

Networks are built without memory (torch's ``meta`` device) from their configurations, and their
names and shapes are compared with the headers of the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from cxrg.errors import ModelError
from cxrg.model.checkpoint.networks import BUILD_FAILURES, first_line, network_class
from cxrg.model.checkpoint.weight_files import find_weights

Shapes = dict[str, tuple[int, ...]]
# Not read here: poolers, which saved encoders often lack, and positions, which old ones have.
UNREAD = ("pooler", "position_ids")
PRECISIONS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Headers:
    """What a part's weight files contain: names and shapes, bytes, precisions."""

    shapes: Shapes
    size: int
    precision: str

    @property
    def parameters(self) -> int:
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())


def read_headers(place: Path) -> Headers:
    """Read names and shapes from a part's weight files, without the numbers.

    Raises:
        ModelError: a file is missing, misnamed or broken.
    """
    files = find_weights(place).paths
    shapes: Shapes = {}
    precisions: set[str] = set()
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    piece = file.get_slice(name)
                    shapes[name] = tuple(piece.get_shape())
                    precisions.add(PRECISIONS.get(piece.get_dtype(), piece.get_dtype()))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: broken ({error}); copy it again") from error
    return Headers(
        shapes=shapes,
        size=sum(path.stat().st_size for path in files),
        precision=", ".join(sorted(precisions)),
    )


def without_memory(place: Path, config: Mapping[str, Any]) -> Any:
    """Build the network that a part's configuration describes, on the ``meta`` device.

    Raises:
        ModelError: the configuration describes none.
    """
    import transformers

    kind = network_class(place.parent, place.name, config)
    try:
        with torch.device("meta"):
            if not place.name.startswith("text_encoder"):
                return kind.from_config(config)
            automatic: Any = transformers.AutoModel
            facts_class: Any = transformers.AutoConfig if kind is automatic else kind.config_class
            facts = facts_class.from_pretrained(place, local_files_only=True)
            return kind.from_config(facts) if kind is automatic else kind(facts)
    except BUILD_FAILURES as error:
        raise ModelError(
            f"{place}: config.json does not describe a network ({first_line(error)}); copy it again"
        ) from error


def compare(network: Any, given: Shapes) -> tuple[str, tuple[str, ...]]:
    """Problems of a network's weights, empty where there are none, and harmless notes."""
    rename = getattr(network, "_fix_state_dict_keys_on_load", None)
    given = dict(given)
    if rename:
        rename(given)  # diffusers' own: old autoencoders name their attention otherwise
    prefix = f"{getattr(network, 'base_model_prefix', '') or 'no prefix'}."
    given = {name.removeprefix(prefix): shape for name, shape in given.items()}
    tied = {
        name.removeprefix(prefix) for name in getattr(network, "_tied_weights_keys", None) or ()
    }
    wanted = {
        name.removeprefix(prefix): tuple(value.shape)
        for name, value in network.state_dict().items()
    }
    needed = {name for name in wanted if name not in tied and not _unread(name)}
    missing = sorted(needed - given.keys())
    extra = sorted(name for name in given.keys() - wanted.keys() if not _unread(name))
    shapes = [name for name in sorted(needed & given.keys()) if wanted[name] != given[name]]
    problems = []
    if missing:
        problems.append(f"{len(missing)} weights are missing, such as {missing[0]}")
    if shapes:
        name = shapes[0]
        problems.append(f"{name} is {given[name]} and should be {wanted[name]}")
    notes = (f"{len(extra)} weights are not used, such as {extra[0]}",) if extra else ()
    return "; ".join(problems), notes


def _unread(name: str) -> bool:
    return any(part in name for part in UNREAD)
