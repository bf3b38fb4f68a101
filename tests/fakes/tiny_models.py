"""Tiny random checkpoints in diffusers' layout, one per family that `cxrg.load` reads.

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
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.models.transformers.sana_transformer import SanaTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
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
    _save(folder, vae=_dc(channels=1), unet=_unet(8, heads=2))
    _bert(folder)
    _card(folder, pass_attention_mask=True, text_length=24)
    return _scheduler(
        folder, "DDIMScheduler", beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    )


def sdxl(folder: Path) -> Path:
    """Stable Diffusion XL: two text encoders of different widths, pooled text, sizes, depth 2."""
    torch.manual_seed(5)
    unet = _unet(
        4,
        heads=(2, 4, 2),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=WIDTH + 48,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    _save(folder, vae=_kl(channels=3, latent=4, factor=0.13025), unet=unet)
    _clip(folder, pad="<|endoftext|>")
    _clip(folder, pad="!", part="_2", hidden_size=48, projection_dim=24)
    index = {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True}
    (folder / "model_index.json").write_text(json.dumps(index))
    return _scheduler(
        folder,
        "EulerDiscreteScheduler",
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="epsilon",
    )


def radedit(folder: Path) -> Path:
    """RadEdit: the SDXL autoencoder, and CXR-BERT in its own files, which name remote code."""
    torch.manual_seed(6)
    _save(folder, vae=_kl(channels=3, latent=4, factor=0.13025), unet=_unet(4, heads=2))
    _cxr_bert(folder)
    _card(folder, text_length=32)
    return _scheduler(
        folder,
        "DDIMScheduler",
        beta_schedule="linear",
        clip_sample=False,
        prediction_type="epsilon",
        timestep_spacing="trailing",
        steps_offset=1,
    )


def pixart(folder: Path) -> Path:
    """PixArt-Sigma: patches of two, learned variance, T5, a padding mask, epsilon."""
    torch.manual_seed(7)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=6,
        cross_attention_dim=16,
        sample_size=8,
        caption_channels=WIDTH,
        norm_num_groups=4,
    )
    _save(folder, vae=_kl(channels=3, latent=4, factor=0.13025), transformer=_lively(transformer))
    _t5(folder)
    return _scheduler(
        folder,
        "DPMSolverMultistepScheduler",
        beta_schedule="linear",
        beta_start=0.0001,
        beta_end=0.02,
        prediction_type="epsilon",
    )


def sana(folder: Path) -> Path:
    """Sana: linear self-attention, deep-compression autoencoder, Gemma 2, rectified flow."""
    torch.manual_seed(8)
    transformer = SanaTransformer2DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=4,
        attention_head_dim=4,
        num_layers=6,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=8,
    )
    _save(folder, vae=_dc(channels=3), transformer=_lively(transformer))
    _gemma(folder)
    return _scheduler(
        folder,
        "DPMSolverMultistepScheduler",
        beta_schedule="linear",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=3.0,
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

BUILDERS = (sd1, sd2, monai, compact, sdxl, radedit, pixart, sana)
FAMILIES: dict[str, Builder] = {build.__name__: build for build in BUILDERS}


def _unet(latent: int, *, heads: int | tuple[int, ...], **more: Any) -> Any:
    """Three levels with attention at the lower two, as arXiv 2404.12920's: eleven layers."""
    settings = {
        "sample_size": 8,
        "in_channels": latent,
        "out_channels": latent,
        "down_block_types": DOWN,
        "up_block_types": UP,
        "block_out_channels": (8, 16, 16),
        "layers_per_block": 2,
        "norm_num_groups": 4,
        "cross_attention_dim": WIDTH,
        # diffusers took this name for the count of heads, and kept it.
        "attention_head_dim": heads,
    }
    return UNet2DConditionModel(**settings | more)


def _lively(transformer: Any) -> Any:
    """The same with larger cross-attention weights: maps that differ, unlike small random ones."""
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if ".attn2.to_q." in name or ".attn2.to_k." in name:
                weight.mul_(4)
    return transformer


def _dc(*, channels: int) -> Any:
    return AutoencoderDC(
        in_channels=channels,
        latent_channels=8,
        encoder_block_out_channels=(8, 16, 16, 16),
        decoder_block_out_channels=(8, 16, 16, 16),
        encoder_layers_per_block=(0, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        scaling_factor=0.7,
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


def _clip(folder: Path, *, pad: str, part: str = "", **more: Any) -> None:
    # CLIP's alphabet: each byte alone and at the end of a word, then merges, then two marks.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: Any = [("l", "e"), ("f", "t</w>"), ("le", "ft</w>"), ("p", "n"), ("e", "u")]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(m) for m in merges)]
    vocab = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=77)
    tokenizer.save_pretrained(folder / f"tokenizer{part}")
    settings = {
        "vocab_size": len(vocab),
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": vocab["<|startoftext|>"],
        "eos_token_id": vocab["<|endoftext|>"],
    }
    config = CLIPTextConfig(**settings | more)
    kind = CLIPTextModelWithProjection if part else CLIPTextModel
    kind(config).save_pretrained(folder / f"text_encoder{part}")


def _cxr_bert(folder: Path) -> None:
    """BERT's weights one level down, beside heads; classes that only remote code has."""
    config = BertConfig(
        vocab_size=64,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    place = folder / "text_encoder"
    BertModel(config, add_pooling_layer=False).save_pretrained(place)
    weights = load_file(place / "model.safetensors")
    weights = {f"bert.{name}": value for name, value in weights.items()}
    weights["cls_projection_head.dense_to_hidden.weight"] = torch.ones(16, WIDTH)
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    remote = {"AutoModel": "modeling_cxrbert.CXRBertModel"}
    named = {"architectures": ["CXRBertModel"], "model_type": "cxr-bert", "auto_map": remote}
    facts = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**facts, **named, "projection_size": 16}))
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", *letters]
    words += [f"##{letter}" for letter in letters]
    (tokenizer / "vocab.txt").write_text("\n".join(words))
    told = {
        "tokenizer_class": "CXRBertTokenizer",
        "auto_map": {"AutoTokenizer": ["configuration_cxrbert.CXRBertTokenizer", None]},
        "do_lower_case": True,
        "model_max_length": 128,
    }
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(told))


def _t5(folder: Path) -> None:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁left", -4.0)]
    words += [(letter, -5.0) for letter in [*letters, *"ABL,;."]]
    tokenizer = T5Tokenizer(vocab=words, model_max_length=512)
    tokenizer.save_pretrained(folder / "tokenizer")
    config = T5Config(
        vocab_size=192,  # more than tokens, as the published one
        d_model=WIDTH,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    T5EncoderModel(config).save_pretrained(folder / "text_encoder")


def _gemma(folder: Path) -> None:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    merges: Any = [("l", "e"), ("f", "t"), ("le", "ft"), ("▁", "left")]
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *letters, *"ABL,;."]
    words += ["".join(merge) for merge in merges]
    vocab = {word: index for index, word in enumerate(words)}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)
    tokenizer.save_pretrained(folder / "tokenizer")
    config = Gemma2Config(
        vocab_size=len(vocab),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        sliding_window=256,
    )
    Gemma2Model(config).save_pretrained(folder / "text_encoder")


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
