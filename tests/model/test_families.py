"""Families beyond one U-Net with one text encoder: prompts, attention, files, commands, refusals.

Heatmaps of all families are compared with the published procedure in `test_ground.py`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.models.transformers.sana_transformer import SanaTransformer2DModel
from PIL import Image
from transformers import T5Config, T5EncoderModel

from cxrg.attention.layers import choose_layers, cross_attention_layers
from cxrg.attention.watch import AllRead, watch
from cxrg.errors import ModelError
from cxrg.grounding import ground
from cxrg.model.card import Card
from cxrg.model.conditioning import Conditioning
from cxrg.model.families import family_of
from cxrg.model.load import load
from cxrg.model.microbatch import row_bytes
from cxrg.model.model import Model
from cxrg.phrase.encode import encode_phrase
from cxrg.plan import check_folder
from tests.fakes import tiny_models
from tests.model.test_inspect import edit, run
from tests.oracles import naive
from tests.test_grounding import PHRASE, picture

NEW = ("sdxl", "radedit", "pixart", "sana")
TRANSFORMERS = ("pixart", "sana")
TEXTS = ["", "left opacity", "a Small left apical pneumothorax "]


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Model]:
    return {name: load(folders[name], device="cpu") for name in NEW}


def pipeline(model: Model) -> Any:
    """diffusers' own pipeline, from a prompt to the denoiser's inputs."""
    parts: dict[str, Any] = {"vae": model.vae, "tokenizer": model.tokenizer, "scheduler": None}
    parts |= {"text_encoder": model.text_encoder}
    if model.second is not None:
        from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
            StableDiffusionXLPipeline,
        )

        second: dict[str, Any] = {
            "text_encoder_2": model.second.network,
            "tokenizer_2": model.second.tokenizer,
        }
        return StableDiffusionXLPipeline(**parts, **second, unet=model.denoiser)
    name = type(model.denoiser).__name__
    if name == "PixArtTransformer2DModel":
        from diffusers.pipelines.pixart_alpha.pipeline_pixart_sigma import PixArtSigmaPipeline

        return PixArtSigmaPipeline(**parts, transformer=model.denoiser)
    if name == "SanaTransformer2DModel":
        from diffusers.pipelines.sana.pipeline_sana import SanaPipeline

        return SanaPipeline(**parts, transformer=model.denoiser)
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    rest: dict[str, Any] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    return StableDiffusionPipeline(**parts, **rest, unet=model.denoiser)


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_transformers_get_the_pipelines_embeddings_and_mask(family, models) -> None:
    model = models[family]
    embeds, mask, empty, empty_mask = pipeline(model).encode_prompt(
        TEXTS[1], device=torch.device("cpu"), negative_prompt=""
    )
    found = model.encode_text(TEXTS[:2])
    torch.testing.assert_close(found.embeds[1:], embeds)
    torch.testing.assert_close(found.embeds[:1], empty)
    assert found.mask is not None
    assert torch.equal(found.mask.long(), torch.cat([empty_mask, mask]))
    assert 0 < found.mask[1].sum() < 300
    # The pipelines make prompts lower-case, which these tokenizers do not by themselves.
    loud = pipeline(model).encode_prompt(" LEFT opacity ", False, device=torch.device("cpu"))
    torch.testing.assert_close(model.encode_text(["LEFT Opacity "]).embeds, loud[0])
    torch.testing.assert_close(loud[0], embeds)


def test_xl_gets_the_pipelines_embeddings(models, folders) -> None:
    model = models["sdxl"]
    pipe = pipeline(model)
    embeds, empty, pooled, empty_pooled = pipe.encode_prompt(TEXTS[1], device="cpu")
    found = model.encode_text(TEXTS[:2])
    assert found.pooled is not None
    torch.testing.assert_close(found.embeds, torch.cat([empty, embeds]))
    torch.testing.assert_close(found.pooled, torch.cat([empty_pooled, pooled]))
    assert found.mask is None
    assert not found.embeds[0].any()
    # Where the pipeline does not force zeros, the empty prompt is read like any other.
    assert model.second is not None
    second = replace(model.second, zeros_for_empty=False)
    plain = replace(model, second=second).encode_text([""])
    spoken = pipe.encode_prompt("a", device="cpu", negative_prompt="")
    torch.testing.assert_close(plain.embeds, spoken[1])
    torch.testing.assert_close(plain.pooled, spoken[3])


def test_what_the_empty_prompt_is_belongs_to_the_model(models, folders, tmp_path) -> None:
    folder = shutil.copytree(folders["sdxl"], tmp_path / "sdxl")
    assert load(folder, device="cpu").identity == models["sdxl"].identity
    edit("model_index.json", force_zeros_for_empty_prompt=False)(folder)
    other = load(folder, device="cpu")
    assert other.identity != models["sdxl"].identity
    assert other.encode_text([""]).embeds.any()
    (folder / "model_index.json").unlink()
    second = load(folder, device="cpu").second
    assert second is not None
    assert second.zeros_for_empty


def test_xl_gets_the_pipelines_sizes(models) -> None:
    model = models["sdxl"]
    width = model.second.network.config.projection_dim
    sizes = pipeline(model)._get_add_time_ids(
        (64, 64), (0, 0), (64, 64), torch.float32, text_encoder_projection_dim=width
    )
    given = model.family.conditions(model, model.encode_text(TEXTS))["added_cond_kwargs"]
    assert given["time_ids"].tolist() == sizes.tolist() * 3


def test_radedit_gets_the_pipelines_embeddings(models) -> None:
    model = models["radedit"]
    pipe = pipeline(model)
    # Its card passes BERT no mask over padding, as StableDiffusionPipeline passes none.
    pipe.tokenizer.model_max_length = 32
    embeds, empty = pipe.encode_prompt(TEXTS[1], "cpu", 1, True, negative_prompt="")
    torch.testing.assert_close(model.encode_text(TEXTS[:2]).embeds, torch.cat([empty, embeds]))


def hooks(module: torch.nn.Module) -> int:
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules())


def names_of(model: Model) -> list[str]:
    return [layer.name for layer in cross_attention_layers(model.denoiser, 8)]


@pytest.mark.parametrize("family", NEW)
def test_recovered_probabilities_equal_diffusers_own(family, models, folders) -> None:
    """Three prompts of different lengths, each with its own timestep, on an oblong grid."""
    model, other = models[family], load(folders[family], device="cpu")
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, model.denoiser.config.in_channels, 8, 16, generator=generator)
    times = torch.tensor([10, 400, 800])
    conditioning = model.encode_text(TEXTS)
    weights = torch.rand(conditioning.embeds.shape[:2], generator=generator)
    plain = model.denoise(z, times, conditioning)
    with watch(model.denoiser, names_of(model), weights) as recorder:
        assert hooks(model.denoiser) == 4 * len(names_of(model))
        watched = model.denoise(z, times, conditioning)
    assert torch.equal(plain, watched)
    assert hooks(model.denoiser) == 0
    labels = times if family != "sana" else 3000 * (times + 1) / (1000 + 2 * (times + 1))
    given = naive.conditions(other, TEXTS)
    with naive.explicit_attention(other.denoiser) as seen:
        output = other.denoiser(z, timestep=labels, **given).sample
    torch.testing.assert_close(plain, output[:, : z.shape[1]], atol=1e-5, rtol=1e-4)
    assert len(seen) == len(recorder.maps) == len(names_of(model))
    for name, probability in zip(names_of(model), seen, strict=True):
        expected = (probability.mean(1) * weights[:, None]).sum(-1)
        recovered = recorder.maps[name]
        assert recovered.shape[2] == 2 * recovered.shape[1]
        torch.testing.assert_close(recovered.flatten(1), expected, atol=1e-6, rtol=1e-5)
        if family in TRANSFORMERS:
            assert probability[1, ..., 30:].max() == 0


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_padding_gets_no_attention(family, models) -> None:
    model = models[family]
    conditioning = model.encode_text(TEXTS)
    mask = conditioning.mask
    assert mask is not None
    z = torch.zeros(3, model.denoiser.config.in_channels, 8, 8)
    sums = []
    for weights in (mask.float(), 1 - mask.float()):
        with watch(model.denoiser, names_of(model), weights) as recorder:
            model.denoise(z, 500, conditioning)
        sums.append(torch.stack(list(recorder.maps.values())))
    torch.testing.assert_close(sums[0], torch.ones_like(sums[0]))
    assert sums[1].max() == 0


@pytest.mark.parametrize(("family", "side"), [("pixart", 4), ("sana", 8)])
def test_layers_of_a_transformer(family, side, models) -> None:
    model = models[family]
    layers = cross_attention_layers(model.denoiser, model.side // model.factor)
    assert [layer.name for layer in layers] == [f"transformer_blocks.{i}.attn2" for i in range(6)]
    assert {layer.side for layer in layers} == {side}
    assert choose_layers(model, "paper") == tuple(f"transformer_blocks.{i}.attn2" for i in (2, 3))
    assert choose_layers(model, ("transformer_blocks.5",)) == ("transformer_blocks.5.attn2",)
    assert choose_layers(model, side) == tuple(layer.name for layer in layers)


PIXART_SIZE = {"sample_size": 64, "caption_channels": 4096, "use_additional_conditions": False}
SANA_SIZE = {
    "num_attention_heads": 36,
    "num_cross_attention_heads": 16,
    "cross_attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "num_layers": 28,
}


@pytest.mark.parametrize(
    ("kind", "settings", "parameters"),
    [
        # CheXGenBench's file holds four bytes for each of these, and 68104 for its header.
        (PixArtTransformer2DModel, PIXART_SIZE, 610_856_096),
        (SanaTransformer2DModel, SANA_SIZE, 591_747_872),
    ],
)
def test_the_published_sizes(kind, settings, parameters, models) -> None:
    with torch.device("meta"):
        network = kind(**settings)
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    layers = cross_attention_layers(network, network.config.sample_size)
    assert {layer.side for layer in layers} == {32}
    read = family_of(network).published([layer.name for layer in layers])
    assert read == tuple(f"transformer_blocks.{index}.attn2" for index in range(9, 19))
    card = Card(name="x", side=network.config.sample_size * 8)
    full = replace(models["pixart"], denoiser=network, card=card)
    # 110 and 80 MB were measured.
    assert row_bytes(full) == pytest.approx(118e6, rel=0.01)


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_a_pass_stops_after_the_last_watched_block(family, models) -> None:
    model, ran = models[family], []
    later = [
        block.register_forward_pre_hook(lambda _, args, i=index: ran.append(i))
        for index, block in enumerate(model.denoiser.transformer_blocks)
    ]
    conditioning = model.encode_text(TEXTS[:1])
    z = torch.zeros(1, model.denoiser.config.in_channels, 8, 8)
    layers = choose_layers(model, "paper")
    try:
        with (
            watch(model.denoiser, layers, torch.ones(1, 300), stop_early=True),
            pytest.raises(AllRead),
        ):
            model.denoise(z, 500, conditioning)
    finally:
        for hook in later:
            hook.remove()
    assert ran == [0, 1, 2, 3]


def test_spans_hold_the_phrase_alone(models) -> None:
    starts = {"sdxl": 1, "radedit": 1, "pixart": 0, "sana": 1}
    for family, start in starts.items():
        prompt = encode_phrase(models[family], "  Left apex", "word:left")
        assert prompt.span.start == start
        assert prompt.selected_tokens[-1].strip("▁").removesuffix("</w>") == "left"
        assert len(prompt.embeds) == models[family].text_length
    cut = encode_phrase(models["sana"], "opacity " * 80 + "heart")
    assert cut.span == slice(1, 300)
    assert "heart" in cut.warnings[0]


def test_rows_are_joined_repeated_and_taken() -> None:
    embeds, mask, pooled = torch.rand(3, 5, 2), torch.rand(3, 5) > 0.5, torch.rand(3, 4)
    whole = Conditioning(embeds=embeds, mask=mask, pooled=pooled)
    again = Conditioning.join([whole.row(index) for index in range(3)])
    for name in ("embeds", "mask", "pooled"):
        assert torch.equal(getattr(again, name), getattr(whole, name))
        repeated = getattr(whole.row(1).repeat(4), name)
        assert torch.equal(repeated, torch.stack([getattr(whole, name)[1]] * 4))
    bare = Conditioning.join([Conditioning(embeds=embeds), Conditioning(embeds=embeds)])
    assert (len(bare), bare.mask, bare.pooled) == (6, None, None)


@pytest.mark.parametrize("family", NEW)
def test_several_phrases_and_steps_share_evaluations(family, models) -> None:
    image, model, phrases = picture(), models[family], [PHRASE, "left"]
    together = ground(image, phrases, model=model, mask="none", batch=5)
    for phrase, result in zip(phrases, together, strict=True):
        alone = ground(image, phrase, model=model, mask="none", batch=1)
        np.testing.assert_allclose(result.canonical, alone.canonical, atol=1e-4)
    assert np.abs(together[0].canonical - together[1].canonical).max() > 1e-2


@pytest.mark.parametrize("family", NEW)
@pytest.mark.parametrize(
    "preset", [("fast",), ("paper", "--set", "steps=25", "--set", "window=9:13")]
)
def test_the_command_grounds(family, preset, folders, tmp_path, monkeypatch, capsys) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (96, 80), dtype=np.uint8)
    Image.fromarray(grey).resize((320, 384)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    name, *knobs = preset
    arguments = ["ground", "image.png", PHRASE, "--model", str(folders[family]), "--preset", name]
    code, out, err = run(monkeypatch, capsys, *arguments, *knobs, "--json", "--device", "cpu")
    record = json.loads(out)
    assert code == 0, err
    assert (record["image"]["width"], record["image"]["height"]) == (320, 384)
    assert record["model"]["name"] == family
    # 12 steps lead to the window's last index, where four are read.
    assert record["evaluations"] == (6 if name == "fast" else 12 + 4)
    assert all((tmp_path / file).is_file() for file in record["files"].values())


# What is published under these names differs from what diffusers writes today.


def test_pixarts_files_of_diffusers_0_27_are_read(folders, tmp_path, models) -> None:
    """CheXGenBench's checkpoint names the class as it was called before."""
    folder = shutil.copytree(folders["pixart"], tmp_path / "old")
    old: dict[str, Any] = {"_class_name": "Transformer2DModel", "norm_type": "ada_norm_single"}
    unknown: dict[str, Any] = {
        "only_cross_attention": False,
        "num_vector_embeds": None,
        "activation_dropout": 0,
    }
    edit("transformer/config.json", **old, **unknown)(folder)
    report = check_folder(folder)
    assert report.problems == ()
    assert report.family.startswith("PixArt, a diffusion transformer with text cross-attention")
    z, conditioning = torch.ones(1, 4, 8, 8), models["pixart"].encode_text(TEXTS[1:2])
    model = load(folder, device="cpu")
    assert torch.equal(
        model.denoise(z, 5, conditioning), models["pixart"].denoise(z, 5, conditioning)
    )


def test_a_sentencepiece_vocabulary_is_read(folders, tmp_path) -> None:
    """The published T5 comes with spiece.model alone."""
    spm = pytest.importorskip("sentencepiece")
    folder = shutil.copytree(folders["pixart"], tmp_path / "spiece")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with (folder / "tokenizer" / "spiece.model").open("wb") as file:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter([*tiny_models.CORPUS, "effusion in the right lung"] * 5),
            model_writer=file,
            vocab_size=40,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    assert check_folder(folder).problems == ()
    prompt = encode_phrase(load(folder, device="cpu"), "Left basal opacity")
    own = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer" / "spiece.model"))
    assert list(prompt.tokens) == own.encode("left basal opacity", out_type=str)


def test_a_sentencepiece_vocabulary_wants_its_package(folders, tmp_path, monkeypatch) -> None:
    folder = shutil.copytree(folders["pixart"], tmp_path / "spiece")
    (folder / "tokenizer" / "tokenizer.json").rename(folder / "tokenizer" / "spiece.model")
    monkeypatch.setattr("cxrg.model.checkpoint.text.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs sentencepiece; pip install 'cxrg\[t5\]'"):
        load(folder)
    assert any("cxrg[t5]" in problem for problem in check_folder(folder).problems)


def test_cxr_bert_is_read_without_its_code(folders, models, tmp_path) -> None:
    model = models["radedit"]
    assert type(model.text_encoder).__name__ == "BertModel"
    (part,) = [part for part in check_folder(folders["radedit"]).parts if "encoder" in part.name]
    assert part.kind == "CXRBertModel"
    assert part.notes == (
        "1 weights are not used, such as cls_projection_head.dense_to_hidden.weight",
    )
    folder = shutil.copytree(folders["radedit"], tmp_path / "short")
    from safetensors.torch import load_file, save_file

    path = folder / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    del weights["bert.encoder.layer.0.attention.self.query.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing, such as (bert\.)?encoder"):
        load(folder)
    assert "1 weights are missing" in " ".join(check_folder(folder).problems)


def other_tokens(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer_2")
    tiny_models._bert(folder / "other")
    shutil.copytree(folder / "other" / "tokenizer", folder / "tokenizer_2")


def narrow_text(folder: Path) -> None:
    config = T5Config.from_pretrained(folder / "text_encoder")
    config.d_model = 16
    T5EncoderModel(config).save_pretrained(folder / "text_encoder")


@pytest.mark.parametrize(
    ("family", "spoil", "message"),
    [
        ("sana", edit("transformer/config.json", qk_norm="rms"), "with qk_norm is not handled"),
        (
            "sana",
            edit("transformer/config.json", guidance_embeds=True),
            "with guidance_embeds is not handled",
        ),
        ("pixart", narrow_text, "width 32 but the text encoder gives 16"),
        ("sana", edit("transformer/config.json", in_channels=4), "takes 4 channels"),
        (
            "sana",
            edit("scheduler/scheduler_config.json", use_dynamic_shifting=True),
            "use a fixed flow_shift",
        ),
        (
            "pixart",
            edit("transformer/config.json", use_additional_conditions=True),
            "with use_additional_conditions is not handled",
        ),
        (
            "pixart",
            lambda folder: shutil.rmtree(folder / "text_encoder"),
            "no text_encoder/config.json",
        ),
        (
            "sdxl",
            lambda folder: shutil.rmtree(folder / "text_encoder_2"),
            "no text_encoder_2/config.json",
        ),
        ("sdxl", other_tokens, "differ; copy them again"),
    ],
)
def test_faults_are_named(family, spoil, message, folders, tmp_path) -> None:
    folder = shutil.copytree(folders[family], tmp_path / family)
    spoil(folder)
    report = check_folder(folder)
    assert any(message in problem for problem in report.problems), report.problems
    with pytest.raises(ModelError, match=re.escape(message)):
        load(folder)


@pytest.mark.slow
def test_the_compact_model_imports_no_other_familys_encoders() -> None:
    program = """
import sys
from cxrg import load
load("compact", device="cpu").encode_text(["heart"])
loaded = [name for name in sys.modules if name.startswith("transformers.models.")]
print([n for n in loaded if any(f in n for f in (".t5.model", ".gemma2.", ".clip.model"))])
print([name for name in sys.modules if name.startswith("diffusers.pipelines.s")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"], done.stderr
