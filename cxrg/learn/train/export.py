"""Write a trained model as a diffusers-format folder with its card."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from transformers import PreTrainedTokenizerFast

from cxrg.learn.train.config import TrainConfig
from cxrg.learn.train.diffusion import Pair, new_scheduler, watched_layers


def export(
    folder: Path,
    *,
    vae: AutoencoderDC,
    pair: Pair,
    tokenizer: PreTrainedTokenizerFast,
    settings: TrainConfig,
    step: int,
) -> Path:
    """Write the networks in half precision, tokenizer, scheduler and ``cxrg.json``."""
    building = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    for name, network in (
        ("vae", vae),
        ("unet", pair.unet),
        ("text_encoder", pair.text_encoder),
    ):
        # A copy: the run may go on in float32 after a checkpoint was exported.
        half = torch.nn.Module.to(copy.deepcopy(network), dtype=torch.float16)
        if isinstance(half, ConfigMixin):
            # A network that was read notes its folder, which is nobody's business.
            half.register_to_config(_name_or_path=settings.name)  # type: ignore[no-untyped-call]  # no types
        half.save_pretrained(building / name)
    # Each use leaves its padding in the tokenizer.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(building / "tokenizer")
    new_scheduler().save_pretrained(building / "scheduler")
    card = card_facts(settings, list(watched_layers(pair.unet)), step)
    text = json.dumps(card, indent=2, ensure_ascii=False)
    (building / "cxrg.json").write_text(text + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    return folder


def card_facts(settings: TrainConfig, layers: list[str], step: int) -> dict[str, object]:
    """The facts of the trained model's card; see `cxrg.model.card.Card`."""
    data, seen = settings.data, step * settings.diffusion.batch
    drawn = f" and {data.drawn_on_real} pictures drawn into real X-rays"
    pool = f"{data.phantoms} phantoms{drawn if data.drawn_on_real else ''}"
    return {
        "name": settings.name,
        "title": settings.title,
        "licence": settings.licence,
        "attribution": " ".join(settings.attribution),
        "trained_on": f"{pool}; {seen} images seen",
        "weights": "trained",
        "image_range": "-1..1",
        "side": data.side,
        "text_length": settings.text.length,
        "text_encoder": "BERT trained from scratch on generated report language",
        "pass_attention_mask": True,
        "layers": layers,
        "presets": {"fast": settings.reading},
    }
