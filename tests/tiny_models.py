"""Tiny random checkpoints in diffusers' layout, one per family that `cxrg.model.load` reads.

Every UNet has more than one head somewhere, unlike the published backbone, so that a test that
mixes up heads and rows fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
)

WIDTH = 32
DOWN = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
UP = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
CORPUS = [
    "small left apical pneumothorax",
    "left basal opacity with pleural effusion",
    "there is no right lower lobe consolidation",
]
Builder = Callable[[Path], Path]


def sd1(folder: Path) -> Path:
    """Stable Diffusion 1.x: three channels, CLIP, epsilon, `num_attention_heads` as a count."""
    torch.manual_seed(1)
    _save(folder, vae=_kl(channels=3, latent=4, factor=0.18215), unet=_unet(4, heads=2))
    _clip(folder, pad="<|endoftext|>")
    # 1.x names no prediction type: it is epsilon by default.
    return _scheduler(
        folder, "PNDMScheduler", beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    )


def sd2(folder: Path) -> Path:
    """Stable Diffusion 2.x: v-prediction, linear projections, heads per level, padding with "!"."""
    torch.manual_seed(2)
    unet = _unet(4, heads=(2, 4, 2), use_linear_projection=True)
    _save(folder, vae=_kl(channels=3, latent=4, factor=0.18215), unet=unet)
    _clip(folder, pad="!")
    return _scheduler(
        folder,
        "DDIMScheduler",
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
    )


def monai(folder: Path) -> Path:
    """The backbone of arXiv 2404.12920 in small: one channel in [0, 1], v-prediction, 0.3."""
    torch.manual_seed(3)
    _save(folder, vae=_kl(channels=1, latent=3, factor=0.3), unet=_unet(3, heads=(1, 2, 2)))
    _clip(folder, pad="!")
    _card(folder, image_range="0..1")
    return _scheduler(
        folder,
        "DDIMScheduler",
        beta_schedule="scaled_linear",
        beta_start=0.0015,
        beta_end=0.0205,
        prediction_type="v_prediction",
    )


def compact(folder: Path) -> Path:
    """Like the shipped model: deep-compression autoencoder, BERT, byte-level BPE with a mask."""
    torch.manual_seed(4)
    vae = AutoencoderDC(
        in_channels=1,
        latent_channels=8,
        encoder_block_out_channels=(8, 16, 16, 16),
        decoder_block_out_channels=(8, 16, 16, 16),
        encoder_layers_per_block=(0, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        scaling_factor=0.7,
    )
    _save(folder, vae=vae, unet=_unet(8, heads=2))
    _bert(folder)
    _card(folder, pass_attention_mask=True, text_length=24)
    return _scheduler(
        folder, "DDIMScheduler", beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    )


def gen2ground(folder: Path) -> Path:
    """arXiv 2507.12236 in small: Stable Diffusion 1.5's sixteen layers, BERT with a mask."""
    torch.manual_seed(5)
    unet = UNet2DConditionModel(
        sample_size=16,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=2,
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
    )
    _save(folder, vae=_kl(channels=3, latent=4, factor=0.18215), unet=unet)
    pieces = ["left", "apical", "pneumo", "##thorax", "a", "is", "there", "small", "effusion"]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
    tokenizer = BertTokenizer(vocab={piece: index for index, piece in enumerate(vocab)})
    tokenizer.save_pretrained(folder / "tokenizer")
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder / "text_encoder")
    _card(folder, pass_attention_mask=True, text_length=77)
    return _scheduler(folder, "PNDMScheduler", **STABLE_DIFFUSION_1)


STABLE_DIFFUSION_1 = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""What the published scheduler configuration says, and nothing of its prediction type."""

FAMILIES: dict[str, Builder] = {"sd1": sd1, "sd2": sd2, "monai": monai, "compact": compact}


def _unet(latent: int, *, heads: int | tuple[int, ...], **more: Any) -> Any:
    """Three levels with attention at the lower two, as arXiv 2404.12920's: eleven layers."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=latent,
        out_channels=latent,
        down_block_types=DOWN,
        up_block_types=UP,
        block_out_channels=(8, 16, 16),
        layers_per_block=2,
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        # diffusers took this name for the count of heads, and kept it.
        attention_head_dim=heads,
        **more,
    )


def _kl(*, channels: int, latent: int, factor: float) -> Any:
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        latent_channels=latent,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        mid_block_add_attention=False,
        scaling_factor=factor,
    )


def _save(folder: Path, **networks: Any) -> None:
    for part, network in networks.items():
        network.save_pretrained(folder / part)


def _clip(folder: Path, *, pad: str) -> None:
    # CLIP's alphabet: each byte alone and at the end of a word, then merges, then two marks.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("l", "e"), ("f", "t</w>"), ("le", "ft</w>"), ("p", "n"), ("e", "u")]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(m) for m in merges)]
    vocab = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=77)
    tokenizer.save_pretrained(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=vocab["<|startoftext|>"],
        eos_token_id=vocab["<|endoftext|>"],
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


def _bert(folder: Path) -> None:
    core = Tokenizer(models.BPE(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    config = BertConfig(
        vocab_size=core.get_vocab_size(),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder / "text_encoder")


def _card(folder: Path, **facts: Any) -> None:
    facts = {"name": folder.name, **facts}
    (folder / "cxrg.json").write_text(json.dumps(facts), encoding="utf-8")


def _scheduler(folder: Path, kind: str, **facts: Any) -> Path:
    (folder / "scheduler").mkdir(parents=True)
    facts = {"_class_name": kind, "num_train_timesteps": 1000, **facts}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder
