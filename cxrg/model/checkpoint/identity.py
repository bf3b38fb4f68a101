"""A short fingerprint of the weights and configurations in a folder."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cxrg.model.checkpoint.layout import folder_family, part_names

BLOCK = 1 << 20
BLOCKS = 64
COUNTED = (".json", ".txt", ".model", ".safetensors")


def fingerprint(folder: Path) -> str:
    """``sha256:`` and 16 hex digits over a folder's configuration and weights.

    Of every file the name, the size and at most 64 blocks of 1 MiB, evenly spaced, count: files up
    to 64 MiB entirely, and several gigabytes in a moment.
    """
    digest = hashlib.sha256()
    parts = part_names(folder)
    paths = [path for part in parts for path in sorted((folder / part).iterdir())]
    family = folder_family(folder)
    paths += [folder / name for name in (family.more_files if family else ())]
    for path in paths:
        if path.is_file() and path.suffix in COUNTED:
            name = path.relative_to(folder).as_posix()
            digest.update(f"{name}:{path.stat().st_size}\n".encode())
            for block in _blocks(path):
                digest.update(block)
    return f"sha256:{digest.hexdigest()[:16]}"


def with_calibration(identity: str, presence: Mapping[str, Any]) -> str:
    """The identity of a model whose card has that calibration, which decides what is found."""
    if not presence:
        return identity
    digest = hashlib.sha256(json.dumps(presence, sort_keys=True).encode()).hexdigest()
    return f"{identity}~{digest[:8]}"


def without_calibration(identity: str) -> str:
    """The identity of the same model, and the same adapter, without a calibration."""
    return re.sub("~[0-9a-f]{8}", "", identity)


def with_adapter(identity: str, digest: str) -> str:
    """The identity of a model with an adapter of that digest."""
    return f"{identity}+{digest}"


def _blocks(path: Path) -> Iterator[bytes]:
    count = math.ceil(path.stat().st_size / BLOCK)
    chosen = (
        range(count)
        if count <= BLOCKS
        else (i * (count - 1) // (BLOCKS - 1) for i in range(BLOCKS))
    )
    with path.open("rb") as file:
        for index in chosen:
            file.seek(index * BLOCK)
            yield file.read(BLOCK)
