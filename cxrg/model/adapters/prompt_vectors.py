r"""Learnt vectors in the text embeddings of a frozen model (inspired by arXiv 2506.10633).

For encoder outputs :math:`c_k` of a phrase, :math:`k` its tokens::

    c'_k = c_k + r_w                      where token k belongs to word w of the vocabulary
    c'_k = c_k + g_i (p_i - c_k)          where k is padding position i of the last M
    c'_k = c_k                            everywhere else

:math:`r_w` are residuals, one per word; :math:`p_i` is a soft prefix that all phrases share, each
vector behind a gate :math:`g_i`. Cross-attention does not know the order of its tokens, so a prefix
is no different in the place of padding than after the start token; and there it takes the place of
a token that was attended to anyway. Additional tokens of any kind would change every softmax;
with :math:`g = r = 0` this changes nothing at all, bit for bit (zero-initialised gates: Zhang et
al., LLaMA-Adapter, ICLR 2024, section 3.2). A phrase that leaves fewer than M padding positions
has the last vectors of the prefix only. The empty prompt, which inversion follows, stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxrg.chest.matcher import Matcher, places
from cxrg.errors import ModelError
from cxrg.files import atomic_write
from cxrg.model.adapters.file import AdapterFile

CARD = "cxrg"
FORMAT = "cxrg.adapter/1"
TABLES = ("locations", "findings")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenSlots:
    """Which vector each token of some phrases gets.

    Attributes:
        residual: int64 ``(B, L)``, index of the residual, the last for none.
        prefix: int64 ``(B, L)``, index of the prefix vector, the last for none.
    """

    residual: Tensor
    prefix: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PromptVectors:
    """Learnt vectors and the words that they belong to.

    Attributes:
        prefix: float32 ``(M, D)``; M is 0 where there is none.
        gate: float32 ``(M,)``.
        residuals: float32 ``(K, D)``, in the order of the tables' names.
        terms: tables ``locations`` and ``findings``: names and their wordings; K names in all.
    """

    prefix: Tensor
    gate: Tensor
    residuals: Tensor
    terms: Mapping[str, Mapping[str, Sequence[str]]]

    def token_slots(self, tokenizer: Any, texts: Sequence[str], length: int) -> TokenSlots:
        """Where the vectors go in these phrases, padded or cut to ``length`` tokens."""
        padded = tokenizer(
            list(texts),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_offsets_mapping=True,
            return_attention_mask=True,
        )
        count, most = len(self.residuals), len(self.prefix)
        residual = torch.full((len(texts), length), count)
        prefix = torch.full((len(texts), length), most)
        matchers = [Matcher(self.terms[table]) for table in TABLES]
        for row, text in enumerate(texts):
            if not text.strip():
                continue
            first = 0
            for matcher in matchers:
                mentions = matcher(text)
                for token, owner in enumerate(places(padded["offset_mapping"][row], mentions)):
                    if owner is not None:
                        residual[row, token] = first + matcher.names.index(mentions[owner].name)
                first += len(matcher.names)
            free = [k for k, real in enumerate(padded["attention_mask"][row]) if not real][-most:]
            if most and free:
                prefix[row, free] = torch.arange(most)[-len(free) :]
        return TokenSlots(residual=residual, prefix=prefix)

    def apply(self, embeds: Tensor, slots: TokenSlots) -> Tensor:
        """Embeddings ``(B, L, D)`` with the vectors in them; differentiable in the vectors."""
        nothing = self.residuals.new_zeros(1, self.residuals.shape[1])
        residual, place = slots.residual.to(embeds.device), slots.prefix.to(embeds.device)
        gate = torch.cat([self.gate, self.gate.new_zeros(1)])[place][..., None]
        prefix = torch.cat([self.prefix, nothing])[place]
        moved = embeds + torch.cat([self.residuals, nothing])[residual]
        return moved + gate * (prefix - embeds)


def write_vectors(path: Path, vectors: PromptVectors, card: Mapping[str, Any]) -> None:
    """Write an adapter file atomically.

    Args:
        path: the file.
        vectors: the learnt vectors.
        card: facts to store: ``base`` (``name``, ``identity`` and ``width``) and how the vectors
            were made.

    Raises:
        WriteError: it cannot be written.
    """
    from safetensors.torch import save

    facts = {"format": FORMAT, **card, "terms": {t: dict(vectors.terms[t]) for t in TABLES}}
    tensors = {
        name: getattr(vectors, name).detach().cpu().contiguous()
        for name in ("prefix", "gate", "residuals")
    }
    with atomic_write(path) as file:
        file.write(save(tensors, metadata={CARD: json.dumps(facts, ensure_ascii=False)}))


def read_card(file: AdapterFile) -> dict[str, Any] | None:
    """The card of a file that `write_vectors` wrote; None where it is another kind of file.

    Raises:
        ModelError: the card cannot be read, or is of a later version.
    """
    if CARD not in file.metadata:
        return None
    try:
        card = json.loads(file.metadata[CARD])
        form = card["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file.path}: its card cannot be read; copy it again") from error
    if form != FORMAT:
        raise ModelError(f"{file.path}: format {form} is not handled here; update cxrg")
    return dict(card)


def read_vectors(file: AdapterFile, card: Mapping[str, Any], *, width: int) -> PromptVectors:
    """The vectors of a file whose card was read.

    Raises:
        ModelError: tensors are missing or too many, or their shapes do not belong together.
    """
    try:
        terms = {table: dict(card["terms"][table]) for table in TABLES}
        tensors = dict(file.tensors)
        vectors = PromptVectors(
            prefix=tensors.pop("prefix").float(),
            gate=tensors.pop("gate").float(),
            residuals=tensors.pop("residuals").float(),
            terms=terms,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file.path}: {error} is missing; copy it again") from error
    if tensors:
        raise ModelError(f"{file.path}: unknown tensor {min(tensors)}; copy it again")
    words, most = sum(map(len, terms.values())), len(vectors.prefix)
    for name, shape in (
        ("prefix", (most, width)),
        ("gate", (most,)),
        ("residuals", (words, width)),
    ):
        found = tuple(getattr(vectors, name).shape)
        if found != shape:
            raise ModelError(f"{file.path}: {name} is {found} but must be {shape}; copy it again")
    return vectors
