"""Tokenizers, and whether tokenizer, text encoder and denoiser belong together."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cxrg.errors import ModelError
from cxrg.model.checkpoint import layout
from cxrg.model.checkpoint.networks import BUILD_FAILURES, first_line
from cxrg.model.families import family_of

# Vocabularies that transformers reads by itself, and those that need the package sentencepiece.
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt")
SENTENCEPIECE = ("spiece.model", "tokenizer.model")
# Published classes that would be remote code, and the known class that they only rename.
RENAMED = {"CXRBertTokenizer": "BertTokenizer"}


def read_tokenizer(part: Path, config: Mapping[str, Any], *, lower: bool = False) -> Any:
    """Read the tokenizer in a folder.

    Args:
        part: the folder.
        config: its configuration.
        lower: make it lower and strip the text, as the pipelines of PixArt and Sana do.

    Raises:
        ModelError: it cannot be read.
    """
    import transformers

    _check_vocabulary(part)
    name = RENAMED.get(str(config.get("tokenizer_class")))
    kind: Any = getattr(transformers, name) if name else transformers.AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(part, local_files_only=True, trust_remote_code=False)
    except BUILD_FAILURES as error:
        raise ModelError(f"{part}: {first_line(error)}; copy it again") from error
    if lower:
        _lower(tokenizer)
    tokenizer.padding_side = "right"  # Gemma's own is left; positions are counted from the left
    return tokenizer


def _check_vocabulary(part: Path) -> None:
    """Check that the vocabulary is there: without it a tokenizer loads, but knows no word."""
    if any((part / name).is_file() for name in VOCABULARIES):
        return
    if not any((part / name).is_file() for name in SENTENCEPIECE):
        known = ", ".join((*VOCABULARIES, *SENTENCEPIECE))
        raise ModelError(f"{part}: no vocabulary ({known}); copy it again")
    if not (find_spec("sentencepiece") and find_spec("google.protobuf")):
        raise ModelError(f"{part}: its vocabulary needs sentencepiece; pip install 'cxrg[t5]'")


def _lower(tokenizer: Any) -> None:
    from tokenizers import normalizers

    # In the tokenizer and not before it, so that offsets are those of the phrase as given.
    core = tokenizer.backend_tokenizer
    steps = [normalizers.Lowercase(), normalizers.Strip()]
    core.normalizer = normalizers.Sequence([*steps, *filter(None, [core.normalizer])])


def check_text(folder: Path, parts: Mapping[str, Any]) -> None:
    """Check that the text encoders fit the denoiser and the tokenizers.

    Args:
        folder: the model's folder, for the message.
        parts: networks and tokenizers by name.

    Raises:
        ModelError: they do not fit.
    """
    denoiser = parts[layout.denoiser_part(folder)]
    family = family_of(denoiser)
    encoders = [part for part in parts if part.startswith("text_encoder")]
    wanted = family.text_width(denoiser.config)
    given = sum(parts[part].config.hidden_size for part in encoders)
    if wanted != given:
        raise ModelError(
            f"{folder}: the denoiser takes text embeddings of width {wanted} but the text "
            f"{'encoders give' if len(encoders) > 1 else 'encoder gives'} {given}; "
            "parts must belong together"
        )
    for part in encoders:
        tokenizer = parts[part.replace("text_encoder", "tokenizer")]
        if len(tokenizer) > parts[part].config.vocab_size:
            raise ModelError(
                f"{folder}: the tokenizer has {len(tokenizer)} tokens but the text encoder knows "
                f"{parts[part].config.vocab_size}; parts must belong together"
            )
    family.check_parts(folder, denoiser.config, parts)
