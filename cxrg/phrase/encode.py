"""From a phrase to a prompt: embeddings, and which of its tokens to watch.

The span holds the phrase's own tokens, without start, end and padding tokens (as in the released
code of arXiv 2404.12920: positions 1 .. L-2). Within it either all tokens count, or those of some
words (`cxrg.phrase.words`), or of each word its first (arXiv 2507.12236). A phrase is encoded as
`cxrg.phrase.normalise` spells it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cxrg.errors import PhraseError
from cxrg.model.conditioning import Conditioning
from cxrg.model.model import Model
from cxrg.phrase.normalise import normalise
from cxrg.phrase.words import WORD, Spans, tagged_words


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prompt:
    """A phrase as the network is given it.

    Attributes:
        text: the phrase as given.
        asked: the text that was encoded: the phrase, normalised.
        conditioning: what the network is conditioned on, one row.
        span: positions of the phrase's own tokens in ``embeds``.
        tokens: the tokens of the span, as the tokenizer writes them.
        selected: positions in ``embeds`` whose attention is read.
        warnings: what a reader should know, such as words that were cut.
    """

    text: str
    asked: str
    conditioning: Conditioning
    span: slice
    tokens: tuple[str, ...]
    selected: tuple[int, ...]
    warnings: tuple[str, ...]

    @property
    def embeds(self) -> Tensor:
        """An embedding per token, float32 ``(L, D)``."""
        return self.conditioning.embeds[0]

    @property
    def selected_tokens(self) -> tuple[str, ...]:
        return tuple(self.tokens[index - self.span.start] for index in self.selected)


def encode_phrase(
    model: Model,
    text: str,
    tokens: str | tuple[int, ...] = "all",
    *,
    subject: str | None = None,
) -> Prompt:
    """Tokenise and embed a phrase.

    Args:
        model: the model whose text encoder reads it.
        text: the phrase.
        tokens: option ``tokens``, see `Options`.
        subject: what to encode in its place, such as the finding that the phrase denies.

    Raises:
        PhraseError: the phrase is empty, has no such word, or has no such token.
        UsageError: the tagger that ``tokens`` names is not installed.
    """
    asked = normalise(text if subject is None else subject)
    span, own, selected, warnings = _parse(model, asked, tokens)
    return Prompt(
        text=text,
        asked=asked,
        conditioning=model.embedding(asked),
        span=span,
        tokens=own,
        selected=selected,
        warnings=warnings,
    )


def check_phrase(model: Model, text: str, tokens: str | tuple[int, ...] = "all") -> None:
    """Raise what `encode_phrase` would raise, without running the text encoder."""
    _parse(model, normalise(text), tokens)


def _parse(
    model: Model, text: str, tokens: str | tuple[int, ...]
) -> tuple[slice, tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """Span, the span's tokens, selected positions and warnings of a prompt."""
    if not text:
        raise PhraseError("the phrase is empty; name what to look for, such as 'left effusion'")
    ids, places = _tokenise(model.tokenizer, text)
    if not ids:
        raise PhraseError(f"phrase {text!r} has no token that the model reads; use words")
    before, after = _special_tokens(model.tokenizer, ids, text)
    kept = min(len(ids), model.text_length - before - after)
    chosen, warnings = _select(text, places[:kept], tokens)
    if kept < len(ids):
        cut = text[places[kept][0] :].strip()
        limit = f"the {kept} tokens that the model reads"
        warnings = (*warnings, f"phrase is longer than {limit}; cut: {cut!r}")
    own = tuple(model.tokenizer.convert_ids_to_tokens(ids[:kept]))
    return slice(before, before + kept), own, tuple(before + i for i in chosen), warnings


def _tokenise(tokenizer: Any, text: str) -> tuple[list[int], Spans]:
    """The phrase's own token ids and the characters ``[start, stop)`` that each stands for."""
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
    )
    return list(encoded["input_ids"]), [tuple(pair) for pair in encoded["offset_mapping"]]


def _special_tokens(tokenizer: Any, ids: list[int], text: str) -> tuple[int, int]:
    """How many tokens the tokenizer sets before and after a phrase."""
    framed = list(tokenizer(text, truncation=False, verbose=False)["input_ids"])
    extra = len(framed) - len(ids)
    before = next(n for n in range(extra + 1) if framed[n : n + len(ids)] == ids)
    return before, extra - before


def _select(
    text: str, places: Spans, tokens: str | tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Indices of the chosen tokens within the span, and warnings."""
    if not isinstance(tokens, str):
        return _indices(text, tokens, len(places)), ()
    if tokens == "all":
        return tuple(range(len(places))), ()
    kind, _, name = tokens.partition(":")
    if kind == "tagged":
        first = {k for word in tagged_words(text, name) for k in _covering(places, [word])[:1]}
        if first:
            return tuple(sorted(first)), ()
        return tuple(range(len(places))), ("phrase has no content words; all its tokens are read",)
    word = name.strip()
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    chosen = _covering(places, [match.span() for match in pattern.finditer(text)])
    if not chosen:
        known = ", ".join(dict.fromkeys(WORD.findall(text)))
        raise PhraseError(f"phrase {text!r}, as far as it is read, has no {word!r}; it has {known}")
    return chosen, ()


def _indices(text: str, wanted: tuple[int, ...], count: int) -> tuple[int, ...]:
    unknown = [index for index in wanted if not 0 <= index < count]
    if unknown:
        raise PhraseError(f"phrase {text!r} has no token {unknown[0]}; use 0 to {count - 1}")
    return tuple(sorted(set(wanted)))


def _covering(places: Spans, words: Spans) -> tuple[int, ...]:
    """Tokens that share a character with one of the words."""
    return tuple(
        index
        for index, (start, stop) in enumerate(places)
        if any(start < end and begin < stop for begin, end in words)
    )
