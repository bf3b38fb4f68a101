"""Attach an adapter to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from cxrg.errors import ModelError
from cxrg.model.adapters.file import AdapterFile, read_adapter
from cxrg.model.adapters.prompt_vectors import PromptVectors, read_card, read_vectors
from cxrg.model.checkpoint.identity import with_adapter

if TYPE_CHECKING:
    from cxrg.model.model import Model

NO_PADDING = "prompt vectors replace padding, which diffusion transformers do not attend to"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Adapter:
    """An adapter that is attached to a model.

    Attributes:
        name: the file's name, less its suffix.
        vectors: added to the text embeddings; None where networks were changed instead.
    """

    name: str
    vectors: PromptVectors | None = None

    def apply(self, model: Model, texts: Sequence[str], embeds: Tensor) -> Tensor:
        """Embeddings ``(B, L, D)`` of texts, with the adapter's vectors in them."""
        if self.vectors is None:
            return embeds
        slots = self.vectors.token_slots(model.tokenizer, texts, model.text_length)
        return self.vectors.apply(embeds, slots)


def attach(model: Model, path: Path) -> Model:
    """Attach an adapter; the identity of the model that is returned covers both.

    Textual inversion and LoRA change the given model's networks in place: give one just loaded.

    Raises:
        ModelError: the file cannot be read, holds something unknown, or belongs to another model.
    """
    file = read_adapter(path.expanduser())
    name = file.path.stem
    if model.adapter is not None:
        raise ModelError(
            f"{file.path}: the model has adapter {model.adapter.name}; load it again without"
        )
    vectors = _attach(model, file)
    return replace(
        model,
        adapter=Adapter(name=name, vectors=vectors),
        identity=with_adapter(model.identity, file.digest),
    )


def _attach(model: Model, file: AdapterFile) -> PromptVectors | None:
    card = read_card(file)
    if card is not None:
        return _tuned(model, file, card)
    from cxrg.model.adapters import lora
    from cxrg.model.adapters import textual_inversion as inversion

    if lora.is_lora(file):
        lora.merge(model, file)
    else:
        inversion.add_words(model, file)
    return None


def _tuned(model: Model, file: AdapterFile, card: dict[str, object]) -> PromptVectors:
    base = card.get("base")
    facts = base if isinstance(base, dict) else {}
    if facts.get("identity") != model.identity:
        base_model = f"{facts.get('name')} ({facts.get('identity')})"
        raise ModelError(
            f"{file.path}: made for model {base_model}, not {model.card.name} ({model.identity}); "
            "give that as --model"
        )
    if not model.family.attends_to_padding:
        raise ModelError(f"{file.path}: {NO_PADDING}; give a model with a U-Net")
    vectors = read_vectors(file, card, width=int(facts["width"]))
    return PromptVectors(
        prefix=vectors.prefix.to(model.device),
        gate=vectors.gate.to(model.device),
        residuals=vectors.residuals.to(model.device),
        terms=vectors.terms,
    )
