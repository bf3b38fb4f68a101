"""Textual inversion (Gal et al., ICLR 2023): a new word whose embedding was learnt.

Files that are read: diffusers' (one key, the word), AUTOMATIC1111's (key ``emb_params``; the word
is the file's name) and those for Stable Diffusion XL (keys ``clip_l`` and ``clip_g``, one for each
text encoder; the word is the file's name). The word may stand for several vectors; wherever a
phrase has it, the tokenizer sees as many tokens, which is what diffusers makes of it before
tokenising.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cxrg.errors import ModelError
from cxrg.model.adapters.file import AdapterFile

if TYPE_CHECKING:
    from cxrg.model.model import Model

BOTH = ("clip_l", "clip_g")  # the first and the second text encoder's vectors
WIDTHS = {
    768: "Stable Diffusion 1.x",
    1024: "Stable Diffusion 2.x",
    1280: "Stable Diffusion XL",
}


def add_words(model: Model, file: AdapterFile) -> None:
    """Add the word of a file to a model, with vectors for each of its text encoders.

    Raises:
        ModelError: the file is of another kind, for another text encoder, or its word is taken.
    """
    word, learnt = _word(model, file)
    for vectors, encoder in zip(learnt, model.text_encoders, strict=True):
        width = encoder.get_input_embeddings().weight.shape[1]
        if vectors.shape[1] != width:
            known = WIDTHS.get(vectors.shape[1], "another")
            raise ModelError(
                f"{file.path}: made for a text encoder of width {vectors.shape[1]} ({known}), not "
                f"{width} as in {model.card.name}; give that model as --model"
            )
    if word in model.tokenizer.get_vocab():
        raise ModelError(f"{file.path}: the model has a token {word!r} already; rename the word")
    count = len(learnt[0])
    tag = file.digest.rpartition(":")[2]
    pieces = [f"<|{tag}-{number}|>" for number in range(count)] if count > 1 else [word]
    for vectors, encoder, tokenizer in zip(
        learnt, model.text_encoders, model.tokenizers, strict=True
    ):
        if count > 1:
            _expand(tokenizer, word, " ".join(pieces))
        first = len(tokenizer)
        tokenizer.add_tokens(pieces)
        size = max(len(tokenizer), encoder.get_input_embeddings().weight.shape[0])
        encoder.resize_token_embeddings(size, mean_resizing=False)
        table = encoder.get_input_embeddings().weight.requires_grad_(False)
        with torch.no_grad():
            table[first : first + count] = vectors.to(table)


def _word(model: Model, file: AdapterFile) -> tuple[str, list[Tensor]]:
    """The word, and its vectors float32 ``(n, D)`` for each text encoder of the model."""
    keys = sorted(file.tensors)
    of_two = keys == sorted(BOTH)
    if of_two and model.second is None:
        raise ModelError(f"{file.path}: made for Stable Diffusion XL; give such a model as --model")
    if len(keys) != 1 and not of_two:
        raise ModelError(
            f"{file.path}: {len(keys)} tensors, such as {keys[0]!r}; an adapter is what cxrg tune "
            "wrote, a LoRA, or one textual inversion"
            if keys
            else f"{file.path}: holds nothing; copy it again"
        )
    if model.second is not None and not of_two:
        raise ModelError(
            f"{file.path}: made for one text encoder, and {model.card.name} has two; give a file "
            f"with {' and '.join(BOTH)}"
        )
    vectors = [_vectors(file, key) for key in (BOTH if of_two else keys)]
    if len({len(each) for each in vectors}) > 1:
        raise ModelError(
            f"{file.path}: {' and '.join(BOTH)} hold {len(vectors[0])} and {len(vectors[1])} "
            "vectors; they must be as many"
        )
    named = not of_two and keys[0] != "emb_params"
    return (keys[0] if named else file.path.stem), vectors


def _vectors(file: AdapterFile, key: str) -> Tensor:
    vectors = file.tensors[key].float()
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    if vectors.ndim != 2 or not len(vectors):
        raise ModelError(f"{file.path}: {key!r} is not a list of vectors; copy it again")
    return vectors


def _expand(tokenizer: Any, word: str, pieces: str) -> None:
    """Make the tokenizer read ``pieces`` for a word, with the word's own place in the text."""
    from tokenizers import normalizers

    core = tokenizer.backend_tokenizer
    replace = normalizers.Replace(word, pieces)
    before = core.normalizer
    core.normalizer = normalizers.Sequence([replace, before] if before else [replace])
