"""Which files hold a part's weights, as diffusers and transformers name them.

One whole file, or shards that an index lists; and either in a variant such as ``fp16``::

    whole   model.safetensors                    model.fp16.safetensors
    shard   model-00001-of-00002.safetensors     model.fp16-00001-of-00002.safetensors
    index   model.safetensors.index.json         model.safetensors.index.fp16.json

Only safetensors are read: other formats can run code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrg.errors import ModelError

UNSAFE = (".bin", ".pt", ".pth", ".ckpt")
NOT_READ = "non_ema"  # weights before averaging, beside the averaged ones


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFiles:
    """The files of one variant.

    Attributes:
        variant: such as ``fp16``; None for files whose names have none.
        paths: one whole file, or all shards.
        index: the file that lists the shards; None for a whole file.
    """

    variant: str | None
    paths: Sequence[Path]
    index: Path | None


def find_weights(part: Path) -> WeightFiles:
    """The weight files of a part's folder: those of no variant, else ``fp16``, else another.

    Raises:
        ModelError: there are none in safetensors, or files are missing or misnamed.
    """
    names = sorted(path.name for path in part.iterdir())
    safe = [name for name in names if name.endswith(".safetensors")]
    if not safe:
        unsafe = [name for name in names if name.endswith(UNSAFE)]
        found = f"only {unsafe[0]}, which can run code when read" if unsafe else "no weights"
        raise ModelError(
            f"{part}: {found}; save the model with save_pretrained(..., safe_serialization=True)"
        )
    base = "model" if part.name.startswith("text_encoder") else "diffusion_pytorch_model"
    # Old versions of diffusers put the variant behind the shard's number.
    pattern = re.compile(
        rf"{base}(\.(?P<variant>\w+))?(?P<shard>-\d+-of-\d+)?(\.(?P<behind>\w+))?\.safetensors"
    )
    matches = [match for name in safe if (match := pattern.fullmatch(name))]
    by_variant: dict[str, list[re.Match[str]]] = {}
    for match in matches:
        variant = match["variant"] or match["behind"] or ""
        if variant != NOT_READ:
            by_variant.setdefault(variant, []).append(match)
    if not by_variant:
        raise ModelError(f"{part}: no {base}.safetensors; files must keep their names")
    variant = min(by_variant, key=lambda name: (name != "", name != "fp16", name))
    chosen = by_variant[variant]
    whole = [match.string for match in chosen if not match["shard"]]
    index = part / f"{base}.safetensors.index{variant and '.'}{variant}.json"
    if not whole:
        _check_shards(index)
    return WeightFiles(
        variant=variant or None,
        paths=[part / name for name in whole or [match.string for match in chosen]],
        index=None if whole else index,
    )


def _check_shards(index: Path) -> None:
    """Raise ModelError unless the index is there, and all shards that it lists."""
    part = index.parent
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        missing = sorted({str(name) for name in shards if not (part / str(name)).is_file()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: missing or not an index of shards; copy it again") from error
    if missing:
        raise ModelError(f"{part}: {missing[0]} is missing; copy it again")
