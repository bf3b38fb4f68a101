"""Facts about a checkpoint, kept as data: ``cxrg.json`` in its folder, or ``models.toml`` here.

A card holds what a diffusers folder does not contain: the range that the autoencoder takes, the
length of prompts, the attention layers to read, the training data and the terms of use. Code reads
the card and never tests for a model's name.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from cxrg.errors import ModelError
from cxrg.model.calibration import check_calibration

ImageRange = Literal["0..1", "-1..1"]
Weights = Literal["shipped", "download", "request", "import", "trained"]

WEIGHTS = Path(__file__).parents[1] / "weights"
CARD_FILE = "cxrg.json"
LARGEST = 16_384  # side of an image in pixels, or tokens of a prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Facts about one checkpoint; an empty string or None means unknown.

    Attributes:
        weights: how the weights come: in this package, from the hub, on request from their
            authors, in another format that must be converted first, or by ``cxrg train``.
        image_range: the range that the autoencoder takes and gives.
        side: pixels of the model's square; None: the denoiser's sample size.
        text_length: tokens of a padded prompt; None: the tokenizer's limit (300 for transformers).
        pass_attention_mask: hide padding from a U-Net's text encoder (never from the U-Net; a
            transformer and its text encoder never see padding).
        layers: cross-attention modules to read, full names or parents; empty: the published rule.
        dtype: the precision that was checked against float32 on this checkpoint.
        presets: knobs that replace those of the preset of that name.
        reference: presence scores in healthy chests, see `cxrg.heatmap.reference`.
        presence: from scores to probabilities, as `cxrg.model.calibration.Calibration` has it.
    """

    name: str
    title: str = ""
    licence: str = ""
    access: str = ""
    trained_on: str = ""
    attribution: str = ""
    note: str = ""
    hub_id: str = ""
    revision: str = ""
    weights: Weights = "download"
    image_range: ImageRange = "-1..1"
    side: int | None = None
    text_length: int | None = None
    text_encoder: str = ""
    pass_attention_mask: bool = False
    layers: tuple[str, ...] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)
    presence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shipped(self) -> bool:
        return self.weights == "shipped"

    @property
    def has_own_language(self) -> bool:
        """Whether its text encoder learnt general language, not only the phrases of phantoms."""
        return self.weights not in ("shipped", "trained")


def card_from(facts: Mapping[str, Any], *, origin: str) -> Card:
    """Build a card from a parsed file.

    Raises:
        ModelError: a fact is unknown or has an invalid value.
    """
    known = {item.name for item in fields(Card)}
    unknown = sorted(set(facts) - known)
    if unknown:
        raise ModelError(
            f"{origin}: unknown fact {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    for key, allowed in _ALLOWED.items():
        if key in facts and facts[key] not in allowed:
            raise ModelError(f"{origin}: {key} is {facts[key]!r}; use {' or '.join(allowed)}")
    if "name" not in facts:
        raise ModelError(f'{origin}: no name; add "name"')
    for key, value in facts.items():
        if not _has_its_type(key, value):
            raise ModelError(f"{origin}: {key} cannot be {value!r:.40}; correct it")
    check_calibration(facts.get("presence", {}), origin=origin)
    return Card(**{**facts, "layers": tuple(facts.get("layers", ()))})


def _has_its_type(key: str, value: Any) -> bool:
    """Whether a fact has the type of its field."""
    match key:
        case "side" | "text_length":
            return value is None or (type(value) is int and 1 <= value <= LARGEST)
        case "pass_attention_mask":
            return isinstance(value, bool)
        case "layers":
            listed = isinstance(value, (list, tuple))
            return listed and all(isinstance(name, str) for name in value)
        case "presets":
            named = isinstance(value, dict)
            return named and all(isinstance(knobs, dict) for knobs in value.values())
        case "reference":
            return _is_reference(value)
        case "presence":
            return isinstance(value, dict)
    # Facts are shown: control characters would reach the terminal.
    return isinstance(value, str) and value.isprintable()


def _is_reference(value: Any) -> bool:
    """Whether it is a table of `cxrg.heatmap.reference`, or empty."""
    if not isinstance(value, dict):
        return False
    if not value:
        return True
    texts = [value.get(key) for key in ("weights", "preset", "of")]
    images, at, scores = (value.get(key) for key in ("images", "quantiles", "scores"))
    if not (all(isinstance(text, str) and text.isprintable() for text in texts)):
        return False
    if not (type(images) is int and images > 0 and isinstance(scores, dict) and _ascend(at)):
        return False
    return all(_ascend(each) and len(each) == len(at or ()) for each in scores.values())


def _ascend(values: Any) -> bool:
    """Whether it is a list of numbers from 0 to 1 that never fall, at least one."""
    if not (isinstance(values, list) and values):
        return False
    if not all(type(each) in (int, float) and 0 <= each <= 1 for each in values):
        return False
    return all(low <= high for low, high in pairwise(values))


_ALLOWED = {
    "weights": ("shipped", "download", "request", "import", "trained"),
    "image_range": ("0..1", "-1..1"),
    "dtype": ("float32", "bfloat16"),
}


def read_card(folder: Path) -> Card | None:
    """The card in a model's folder; None where it has none.

    Raises:
        ModelError: the card cannot be read.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON ({error}); mend or remove it") from error
    if not isinstance(facts, dict):
        raise ModelError(f"{path}: not a JSON object; mend or remove it")
    return card_from(facts, origin=str(path))


def known_cards() -> dict[str, Card]:
    """All cards by name: shipped models first, then the public checkpoints of ``models.toml``."""
    folders = sorted(path.parent for path in WEIGHTS.glob(f"*/{CARD_FILE}"))
    shipped = [card for folder in folders if (card := read_card(folder))]
    table = tomllib.loads((Path(__file__).with_name("models.toml")).read_text(encoding="utf-8"))
    public = [
        card_from({"name": name, **facts}, origin=f"models.toml [{name}]")
        for name, facts in table.items()
    ]
    return {card.name: card for card in (*shipped, *public)}
