"""Tokenizer and text encoder of the compact model, made for report language from scratch.

The tokenizer is byte-level BPE, so no word is unknown to it. The encoder is a small BERT: it reads
in both directions, so that *left* in "left basal opacity" knows what it is the left of.
"""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from cxrg.learn.train.config import TextConfig
from cxrg.phantom.language import corpus

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")


def train_tokenizer(config: TextConfig, seed: int) -> PreTrainedTokenizerFast:
    """Learn a lower-case byte-level BPE vocabulary from generated report language."""
    core = Tokenizer(models.BPE(unk_token="[UNK]"))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(corpus(Random(seed), config.sentences), trainer)
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers has no types
        tokenizer_object=core,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_max_length=config.length,
    )


def new_text_encoder(config: TextConfig, vocabulary: int) -> BertModel:
    """An untrained encoder; its last hidden state is ``(B, length, width)``."""
    return BertModel(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
            max_position_embeddings=config.length,
            type_vocab_size=1,
            pad_token_id=0,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        add_pooling_layer=False,
    )


def tokens_of(tokenizer: Any, phrases: list[str], length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, padding mask and the phrase's own tokens (no start, end, padding), each (B, L)."""
    made = tokenizer(
        phrases, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    ids, mask = made["input_ids"], made["attention_mask"]
    own = (mask == 1) & (ids != tokenizer.cls_token_id) & (ids != tokenizer.sep_token_id)
    return ids, mask, own.to(torch.float32)
