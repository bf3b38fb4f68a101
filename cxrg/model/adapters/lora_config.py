r"""A LoRA's configuration: the factor by which the change of each module is scaled.

.. math:: s = \alpha / r,   or with ``use_rslora``   s = \alpha / \sqrt{r}

(Kalajdzievski, arXiv 2312.03732). The configuration is peft's ``adapter_config.json``, or what
diffusers keeps of it in the file's metadata, there with the network's name before each setting.
A pattern is a regular expression for the end of a module's name, and the first that matches counts,
as in peft. A setting that would change what the tensors mean is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cxrg.errors import ModelError
from cxrg.model.adapters.file import AdapterFile

T = TypeVar("T", int, float)
METADATA = "lora_adapter_metadata"  # diffusers' name for what peft keeps in adapter_config.json
# Settings of peft that change nothing once there are tensors: their origin, their training, and the
# choice of modules, which the tensors' names repeat.
NEUTRAL = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",  # for layers with transposed weights, which no model here has
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
# Initial values of the tensors; other kinds, such as "pissa", also change the model's own weights.
INITIAL_VALUES = ("gaussian", "eva", "orthogonal")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSettings:
    """The settings of one network's changes; names and defaults are peft's."""

    r: int | None = None
    lora_alpha: float | None = None
    use_rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    def rank(self, module: str) -> int | None:
        """The rank of a module's change; None where no configuration names one."""
        return _match(self.rank_pattern, module, self.r)

    def scale(self, module: str, rank: int) -> float:
        """The factor of a module's change; 1 where no configuration names an alpha."""
        alpha = _match(self.alpha_pattern, module, self.lora_alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def read_settings(file: AdapterFile, network: str) -> LoraSettings:
    """The settings of a network's changes.

    Args:
        file: the adapter.
        network: its name before the tensors' names, such as ``unet``; empty where there is none.

    Raises:
        ModelError: a setting is not handled or cannot be read.
    """
    facts = dict(file.config)
    if METADATA in file.metadata:
        try:
            facts |= json.loads(file.metadata[METADATA])
        except (ValueError, TypeError, RecursionError) as error:
            raise ModelError(f"{file.path}: its metadata cannot be read; copy it again") from error
    own = {
        name.removeprefix(f"{network}."): value
        for name, value in facts.items()
        if network and name.startswith(f"{network}.")
    }
    own = own or {name: value for name, value in facts.items() if "." not in name}
    for name in own:
        if not _is_handled(name, own[name]):
            raise ModelError(f"{file.path}: {name} is not handled; train a plain LoRA")
    return _settings(file, own) if own else LoraSettings()


def _is_handled(name: str, value: Any) -> bool:
    if name in NEUTRAL or name in LoraSettings.__dataclass_fields__ or not value:
        return True
    match name:
        case "peft_type":
            return str(value).upper() == "LORA"
        case "bias":
            return bool(value == "none")
        case "init_lora_weights":
            return value is True or value in INITIAL_VALUES
    return False


def _settings(file: AdapterFile, facts: Mapping[str, Any]) -> LoraSettings:
    """Settings of a configuration; peft's defaults of rank and alpha are both 8."""
    try:
        return LoraSettings(
            r=int(facts["r"]) if "r" in facts else None,
            lora_alpha=float(facts.get("lora_alpha", 8)),
            use_rslora=bool(facts.get("use_rslora")),
            rank_pattern=_patterns(facts.get("rank_pattern"), int),
            alpha_pattern=_patterns(facts.get("alpha_pattern"), float),
        )
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise ModelError(
            f"{file.path}: r, lora_alpha or a pattern of its configuration cannot be read "
            f"({error}); copy it again"
        ) from error


def _patterns(given: Any, number: Any) -> dict[str, Any]:
    patterns = {str(key): number(value) for key, value in (given or {}).items()}
    for key in patterns:
        re.compile(key)
    return patterns


def _match(patterns: Mapping[str, T], module: str, otherwise: T | None) -> T | None:
    """The value of the first pattern that a module's name matches, as peft matches them."""
    for key, value in patterns.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return otherwise
