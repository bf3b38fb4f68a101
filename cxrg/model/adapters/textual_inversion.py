"""Textual inversion (Gal et al., ICLR 2023): a new word whose embedding was learnt.

Read are diffusers' files (one key, the word) and AUTOMATIC1111's (key ``emb_params``; the word is
the file's name). The word may stand for several vectors; wherever a phrase has it, the tokenizer
sees as many tokens, which is what diffusers makes of it before tokenising.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cxrg.errors import ModelError
from cxrg.model.adapters.file import AdapterFile

if TYPE_CHECKING:
    from cxrg.model.model import Model

WIDTHS = {
    768: "Stable Diffusion 1.x",
    1024: "Stable Diffusion 2.x",
    1280: "Stable Diffusion XL",
}


def add_words(model: Model, file: AdapterFile) -> None:
    """Teach a model the word of a file.

    Raises:
        ModelError: the file is of another kind, for another text encoder, or its word is taken.
    """
    word, vectors = _word(file)
    table = model.text_encoder.get_input_embeddings().weight
    if vectors.shape[1] != table.shape[1]:
        known = WIDTHS.get(vectors.shape[1], "another")
        raise ModelError(
            f"{file.path}: made for a text encoder of width {vectors.shape[1]} ({known}), not "
            f"{table.shape[1]} as in {model.card.name}; give that model as --model"
        )
    tokenizer = model.tokenizer
    if word in tokenizer.get_vocab():
        raise ModelError(f"{file.path}: the model has a token {word!r} already; rename the word")
    pieces = [word]
    if len(vectors) > 1:
        tag = file.digest.rpartition(":")[2]
        pieces = [f"<|{tag}-{number}|>" for number in range(len(vectors))]
        _expand(tokenizer, word, " ".join(pieces))
    first = len(tokenizer)
    tokenizer.add_tokens(pieces)
    model.text_encoder.resize_token_embeddings(
        max(len(tokenizer), table.shape[0]), mean_resizing=False
    )
    table = model.text_encoder.get_input_embeddings().weight.requires_grad_(False)
    with torch.no_grad():
        table[first : first + len(pieces)] = vectors.to(table)


def _word(file: AdapterFile) -> tuple[str, Tensor]:
    """The word, and its vectors float32 ``(n, D)``."""
    keys = sorted(file.tensors)
    if keys == ["clip_g", "clip_l"]:
        raise ModelError(f"{file.path}: made for Stable Diffusion XL; give such a model as --model")
    if len(keys) != 1:
        raise ModelError(
            f"{file.path}: {len(keys)} tensors, such as {keys[0]!r}; an adapter is what cxrg tune "
            "wrote, a LoRA, or one textual inversion"
            if keys
            else f"{file.path}: holds nothing; copy it again"
        )
    (key,) = keys
    vectors = file.tensors[key].float()
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    if vectors.ndim != 2 or not len(vectors):
        raise ModelError(f"{file.path}: {key!r} is no list of vectors; copy it again")
    return (file.path.stem if key == "emb_params" else key), vectors


def _expand(tokenizer: Any, word: str, pieces: str) -> None:
    """Have the tokenizer read ``pieces`` for a word, and tell the word's own place in the text."""
    from tokenizers import normalizers

    core = tokenizer.backend_tokenizer
    replace = normalizers.Replace(word, pieces)
    before = core.normalizer
    core.normalizer = normalizers.Sequence([replace, before] if before else [replace])
