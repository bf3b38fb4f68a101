"""``--set KNOB=VALUE``, ``--device``, ``--adapter`` and ``--masks``, for several commands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cxrg.errors import ModelError, UsageError


def read_knobs(given: Sequence[str]) -> dict[str, str]:
    """Names and values of knobs, as text.

    Raises:
        UsageError: one is not of that form.
    """
    pairs = [text.partition("=") for text in given]
    bad = [text for text, (name, mark, _) in zip(given, pairs, strict=True) if not (name and mark)]
    if bad:
        raise UsageError(f"--set {bad[0]!r} is not KNOB=VALUE; write it such as tokens=content")
    return {name.strip(): value.strip() for name, _, value in pairs}


def check_device(device: str) -> None:
    """Complain of a device that cannot be meant, before anything slow is imported.

    Raises:
        UsageError: the name is not known.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UsageError(f"device {device!r} is not known; use auto, cpu, cuda, cuda:N or mps")


def check_adapter(adapter: Path | None) -> None:
    """Complain of an adapter that is not there, before anything slow is imported.

    Raises:
        ModelError: there is no such file.
    """
    if adapter is not None and not adapter.expanduser().exists():
        raise ModelError(f"{adapter}: no such adapter; give a .safetensors file")


def check_masks(masks: Path | None) -> None:
    """Complain of a folder of masks that is not there, before anything slow is imported.

    Raises:
        UsageError: there is no such folder.
    """
    if masks is not None and not masks.is_dir():
        raise UsageError(f"no folder {masks}; --masks names the folder of the masks")
