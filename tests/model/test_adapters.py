"""Adapters: exact where they must change nothing, diffusers' own result where it is theirs."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import jsonschema
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cxrg.batch.task import Job
from cxrg.batch.work import expected_setting, open_worker
from cxrg.chest.matcher import Matcher, places
from cxrg.errors import ModelError
from cxrg.evaluate.method import LatentDiffusion
from cxrg.grounding import ground
from cxrg.model.adapters.attach import attach
from cxrg.model.adapters.file import read_adapter
from cxrg.model.adapters.prompt_vectors import (
    CARD,
    PromptVectors,
    read_card,
    read_vectors,
    write_vectors,
)
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import resolve
from cxrg.output.record import SCHEMA_FILE, record
from tests.fakes import samples, tiny_models

WIDTH = tiny_models.WIDTH
TERMS = {
    "locations": {"left lung": ("left lung", "left"), "left base": ("left base", "left basal")},
    "findings": {"effusion": ("pleural effusion", "effusion")},
}
PHRASE = "left basal opacity with pleural effusion"


def fresh(folder: Path, adapter: Path | None = None) -> Model:
    return load(folder, device="cpu", dtype="float32", adapter=adapter)


def vectors(*, prefix: int = 3, gate: float = 0.0, residual: float = 0.0) -> PromptVectors:
    generator = torch.Generator().manual_seed(1)
    return PromptVectors(
        prefix=torch.randn(prefix, WIDTH, generator=generator),
        gate=torch.full((prefix,), gate),
        residuals=residual * torch.randn(3, WIDTH, generator=generator),
        terms=TERMS,
    )


def written(path: Path, model: Model, its: PromptVectors, **card: Any) -> Path:
    base = {"name": model.card.name, "identity": model.identity, "width": WIDTH}
    write_vectors(path, its, {"base": base, **card})
    return path


# --- words ----------------------------------------------------------------------------------------


def test_the_longest_term_counts_and_words_are_whole() -> None:
    find = Matcher(TERMS["locations"])

    def names(text: str) -> list[tuple[str, str]]:
        return [(m.name, text[m.start : m.stop]) for m in find(text)]

    assert names("Left-Basal opacity") == [("left base", "Left-Basal")]
    assert names("left lung, left  base") == [
        ("left lung", "left lung"),
        ("left base", "left  base"),
    ]
    assert names("leftover basal") == []
    assert Matcher({})("left") == ()


def test_tokens_belong_to_the_mention_that_they_share_letters_with() -> None:
    find = Matcher(TERMS["locations"])
    offsets = [(0, 0), (0, 3), (3, 4), (4, 10), (10, 13), (0, 0)]
    assert places(offsets, find("left basal")) == [None, 0, 0, 0, None, None]


# --- vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd1", "compact"])
def test_zero_gates_and_residuals_change_no_bit(family: str, folders, tmp_path: Path) -> None:
    plain = fresh(folders[family])
    tuned = fresh(folders[family], written(tmp_path / "zero.safetensors", plain, vectors()))
    texts = [PHRASE, "", "no findings " * 30]
    assert torch.equal(plain.encode_text(texts).embeds, tuned.encode_text(texts).embeds)
    image = samples.image(side=plain.side, options=resolve("fast"))
    one, other = (ground(image, PHRASE, model=each, draws=1) for each in (plain, tuned))
    assert np.array_equal(one.canonical, other.canonical)
    assert one.score == other.score
    assert one.model.identity != other.model.identity


@pytest.mark.parametrize("family", ["sd1", "compact"])
def test_vectors_go_where_words_and_padding_are(family: str, folders, tmp_path: Path) -> None:
    plain = fresh(folders[family])
    its = vectors(gate=0.25, residual=1.0)
    tuned = fresh(folders[family], written(tmp_path / "some.safetensors", plain, its))
    before, after = (each.encode_text([PHRASE]).embeds[0] for each in (plain, tuned))
    padded = plain.tokenizer(
        PHRASE, padding="max_length", max_length=plain.text_length, return_offsets_mapping=True
    )
    expected = before.clone()
    for k, (start, stop) in enumerate(padded["offset_mapping"]):
        covered = PHRASE[start:stop].strip()
        if covered and stop <= len("left basal"):
            expected[k] += its.residuals[1]
        elif covered and start >= PHRASE.index("pleural") - 1:
            expected[k] += its.residuals[2]
    for i in range(3):
        k = plain.text_length - 3 + i
        assert not padded["attention_mask"][k]
        expected[k] = 0.75 * before[k] + 0.25 * its.prefix[i]
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, expected)


def test_the_empty_prompt_and_a_full_one_take_no_prefix(folders, tmp_path: Path) -> None:
    plain = fresh(folders["sd1"])
    path = written(tmp_path / "p.safetensors", plain, vectors(gate=1.0))
    tuned = fresh(folders["sd1"], path)
    for text in ("", "opacity " * 80):
        assert torch.equal(plain.encode_text([text]).embeds, tuned.encode_text([text]).embeds)
    # 73 letters, start and end leave two positions: the last two vectors take them.
    text = "a " * 73
    bent = tuned.encode_text([text]).embeds[0]
    torch.testing.assert_close(bent[-2:], vectors().prefix[-2:])
    assert torch.equal(bent[:-2], plain.encode_text([text]).embeds[0, :-2])


def test_what_is_written_is_what_is_read(folders, tmp_path: Path) -> None:
    its = vectors(gate=0.5, residual=0.1)
    file = read_adapter(written(tmp_path / "a.safetensors", fresh(folders["sd1"]), its, gain=0.2))
    card = read_card(file)
    assert card is not None
    assert card["gain"] == 0.2
    found = read_vectors(file, card, width=WIDTH)
    for name in ("prefix", "gate", "residuals"):
        assert torch.equal(getattr(found, name), getattr(its, name))
    assert {t: {n: tuple(w) for n, w in v.items()} for t, v in found.terms.items()} == TERMS


def test_another_model_is_refused_by_the_name_of_the_right_one(folders, tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", fresh(folders["sd1"]), vectors())
    with pytest.raises(
        ModelError, match=r"made for model sd1 \(sha256:\w+\), not compact.*--model"
    ):
        fresh(folders["compact"], path)


def test_damaged_vectors_are_refused(folders, tmp_path: Path) -> None:
    model = fresh(folders["sd1"])
    good = written(tmp_path / "good.safetensors", model, vectors())
    file = read_adapter(good)
    path = tmp_path / "bad.safetensors"
    for change, message in (
        ({"surplus": torch.zeros(1)}, "unknown tensor surplus"),
        ({"gate": None}, "'gate' is missing"),
        ({"residuals": torch.zeros(2, WIDTH)}, r"residuals is \(2, 32\) but must be \(3, 32\)"),
    ):
        tensors = {k: v for k, v in {**file.tensors, **change}.items() if v is not None}
        save_file(tensors, path, metadata=dict(file.metadata))
        with pytest.raises(ModelError, match=message):
            attach(model, path)
    for card, message in (("{", "card cannot be read"), ('{"format": "cxrg.adapter/2"}', "update")):
        save_file(dict(file.tensors), path, metadata={CARD: card})
        with pytest.raises(ModelError, match=message):
            attach(model, path)


def test_what_is_no_safetensors_file_is_refused(folders, tmp_path: Path) -> None:
    model = fresh(folders["sd1"])
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    (tmp_path / "b.safetensors").write_bytes(b"no such thing")
    save_file({}, tmp_path / "c.safetensors")
    save_file({"x": torch.zeros(1, WIDTH), "y": torch.zeros(1)}, tmp_path / "d.safetensors")
    key = "unet.x.lora_A.weight"
    damaged = {
        "nan": {key: torch.full((2, 2), torch.nan)},
        "whole": {key: torch.ones((2, 2), dtype=torch.int64)},
        "void": {key: torch.zeros((0, 2))},
        "alphas": {"unet.x.alpha": torch.ones(5)},
    }
    for name, tensors in damaged.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    for name, message in (
        ("nan.safetensors", "lora_A.weight is not finite"),
        ("whole.safetensors", "lora_A.weight is torch.int64, not floating point"),
        ("void.safetensors", "lora_A.weight is empty"),
        ("alphas.safetensors", "alpha is not one number"),
        ("a.pt", "can run code"),
        ("b.safetensors", "not a readable safetensors"),
        ("c.safetensors", "holds nothing"),
        ("d.safetensors", "2 tensors, such as 'x'"),
        ("none.safetensors", "no such adapter"),
        (".", "give the adapter's file"),
    ):
        with pytest.raises(ModelError, match=message):
            attach(model, tmp_path / name)


# --- identity -------------------------------------------------------------------------------------


def test_records_runs_and_ledgers_carry_the_adapter(folders, tmp_path: Path) -> None:
    plain = fresh(folders["sd1"])
    path = written(tmp_path / "mine.safetensors", plain, vectors())
    tuned = fresh(folders["sd1"], path)
    assert tuned.identity.startswith(f"{plain.identity}+sha256:")
    with pytest.raises(ModelError, match="has adapter mine"):
        attach(tuned, path)
    image = samples.image(side=plain.side, options=resolve("fast"))
    written_record = record(ground(image, PHRASE, model=tuned, draws=1))
    assert written_record["model"] == {
        "name": "sd1",
        "identity": tuned.identity,
        "precision": "float32",
        "adapter": "mine",
    }
    jsonschema.validate(written_record, json.loads(SCHEMA_FILE.read_text()))
    facts = LatentDiffusion(model=tuned, options=resolve("fast")).facts
    assert (facts["adapter"], facts["identity"]) == ("mine", tuned.identity)
    assert "adapter" not in LatentDiffusion(model=plain, options=resolve("fast")).facts
    job = Job(model=str(folders["sd1"]), preset="fast", out=tmp_path, device="cpu", adapter=path)
    assert open_worker(job).setting.identity == tuned.identity
    assert open_worker(replace(job, adapter=None)).setting.identity == plain.identity
    for each in (job, replace(job, adapter=None), replace(job, dtype="bfloat16")):
        assert expected_setting(each) == open_worker(each).setting


# --- textual inversion ----------------------------------------------------------------------------


def pipeline(folder: Path) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    model = fresh(folder)
    return StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.denoiser,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["diffusers", "a1111"])
def test_a_learnt_word_is_embedded_as_by_diffusers(
    kind: str, count: int, folders, tmp_path: Path
) -> None:
    word, path = "<lesion>", tmp_path / "<lesion>.safetensors"
    learnt = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(5))
    save_file({word if kind == "diffusers" else "emb_params": learnt}, path)
    pipe = pipeline(folders["sd1"])
    pipe.load_textual_inversion(str(path), token=None if kind == "diffusers" else word)
    text = "small <lesion> in the left base"
    expected, _ = pipe.encode_prompt(text, "cpu", 1, False)
    tuned = fresh(folders["sd1"], path)
    torch.testing.assert_close(tuned.encode_text([text]).embeds, expected)
    unknown = fresh(folders["sd1"]).encode_text([text]).embeds
    assert not torch.allclose(unknown, expected)
    # The word's own place in the phrase is kept, whatever it became.
    found = ground(
        samples.image(side=tuned.side, options=resolve("fast")),
        text,
        model=tuned,
        draws=1,
        tokens="word:<lesion>",
    )
    assert len(found.tokens) == count


def test_words_for_another_encoder_are_refused_by_its_name(folders, tmp_path: Path) -> None:
    model, path = fresh(folders["sd1"]), tmp_path / "w.safetensors"
    save_file({"<w>": torch.zeros(1, 1024)}, path)
    with pytest.raises(ModelError, match=r"width 1024 \(Stable Diffusion 2.x\), not 32 as in sd1"):
        attach(model, path)
    save_file({"clip_l": torch.zeros(1, 768), "clip_g": torch.zeros(1, 1280)}, path)
    with pytest.raises(ModelError, match="Stable Diffusion XL"):
        attach(model, path)
    save_file({"a</w>": torch.zeros(1, WIDTH)}, path)
    with pytest.raises(ModelError, match="token 'a</w>' already"):
        attach(model, path)


def xl_pipeline(folder: Path) -> Any:
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
        StableDiffusionXLPipeline,
    )

    model = fresh(folder)
    assert model.second is not None
    return StableDiffusionXLPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        text_encoder_2=model.second.network,
        tokenizer=model.tokenizer,
        tokenizer_2=model.second.tokenizer,
        unet=model.denoiser,
        scheduler=cast(Any, None),
    )


@pytest.mark.parametrize("count", [1, 3])
def test_a_word_for_two_encoders_is_embedded_as_by_diffusers(count, folders, tmp_path) -> None:
    word, path = "basalstreak", tmp_path / "basalstreak.safetensors"
    generator = torch.Generator().manual_seed(5)
    learnt = {
        "clip_l": torch.randn(count, WIDTH, generator=generator),
        "clip_g": torch.randn(count, 48, generator=generator),
    }
    save_file(learnt, path)
    pipe = xl_pipeline(folders["sdxl"])
    for key, part in (("clip_l", ""), ("clip_g", "_2")):
        pipe.load_textual_inversion(
            learnt[key],
            token=word,
            text_encoder=getattr(pipe, f"text_encoder{part}"),
            tokenizer=getattr(pipe, f"tokenizer{part}"),
        )
    text = "small basalstreak left"
    embeds, _, pooled, _ = pipe.encode_prompt(text, device="cpu")
    tuned = fresh(folders["sdxl"], path)
    found = tuned.encode_text([text])
    torch.testing.assert_close(found.embeds, embeds)
    torch.testing.assert_close(found.pooled, pooled)
    assert not torch.allclose(fresh(folders["sdxl"]).encode_text([text]).embeds, embeds)
    image = samples.image(side=tuned.side, options=resolve("fast"))
    result = ground(image, text, model=tuned, draws=1, tokens=f"word:{word}")
    assert len(result.tokens) == count


def test_a_word_must_be_for_as_many_encoders_as_there_are(folders, tmp_path: Path) -> None:
    model, path = fresh(folders["sdxl"]), tmp_path / "w.safetensors"
    for tensors, message in (
        (
            {"<w>": torch.zeros(1, WIDTH)},
            "for one text encoder, and sdxl has two; give a file with",
        ),
        ({"clip_l": torch.zeros(1, WIDTH), "clip_g": torch.zeros(2, 48)}, "hold 1 and 2 vectors"),
        ({"clip_l": torch.zeros(1, WIDTH), "clip_g": torch.zeros(1, 1280)}, "width 1280 .*not 48"),
    ):
        save_file(tensors, path)
        with pytest.raises(ModelError, match=message):
            attach(model, path)
    assert len(model.tokenizer) == len(fresh(folders["sdxl"]).tokenizer)


# --- LoRA -----------------------------------------------------------------------------------------

QUERY = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"
CONV = "down_blocks.1.resnets.0.conv1"
TEXT = "text_model.encoder.layers.0.self_attn.q_proj"


def changes(model: Model, rank: int = 2) -> dict[str, tuple[Tensor, Tensor]]:
    """Small random changes of a projection, a convolution and the text encoder."""
    generator = torch.Generator().manual_seed(7)

    def pair(layer: Any) -> tuple[Tensor, Tensor]:
        shape = layer.weight.shape
        down = torch.randn(rank, *shape[1:], generator=generator)
        tail = (1, 1) if len(shape) == 4 else ()
        return down, torch.randn(shape[0], rank, *tail, generator=generator)

    unet, text = model.denoiser, model.text_encoder
    return {
        f"unet.{QUERY}": pair(unet.get_submodule(QUERY)),
        f"unet.{CONV}": pair(unet.get_submodule(CONV)),
        f"text_encoder.{TEXT}": pair(text.get_submodule(TEXT.removeprefix("text_model."))),
    }


def lora_file(path: Path, of: dict[str, tuple[Tensor, Tensor]], **metadata: str) -> Path:
    tensors: dict[str, Any] = {}
    for name, (down, up) in of.items():
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(tensors, path, metadata=metadata)
    return path


def outputs(denoiser: nn.Module, model: Model) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(1, 4, 8, 8, generator=generator)
    conditioning = model.encode_text([PHRASE]).embeds
    return denoiser(z, torch.tensor(300), encoder_hidden_states=conditioning, return_dict=False)[
        0
    ], conditioning


def test_merged_weights_do_what_low_rank_branches_do(folders, tmp_path: Path) -> None:
    """The oracle: ``y = W x + alpha / r B (A x)`` beside the layer, not merged."""
    plain = fresh(folders["sd1"])
    of = changes(plain)
    alpha = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.r": 2})}
    tuned = fresh(folders["sd1"], lora_file(tmp_path / "l.safetensors", of, **alpha))
    unet, text = plain.denoiser, plain.text_encoder

    def beside(down: Tensor, up: Tensor, scale: float) -> Any:
        def hook(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if down.ndim == 4:
                low = nn.functional.conv2d(args[0], down, padding=module.padding)
                return output + scale * nn.functional.conv2d(low, up)
            return output + scale * (args[0] @ down.T @ up.T)

        return hook

    for name, (down, up) in of.items():
        network, scale = (unet, 3.0) if name.startswith("unet") else (text, 1.0)
        module = name.split(".", 1)[1].removeprefix("text_model.")
        network.get_submodule(module).register_forward_hook(beside(down, up, scale))
    for found, expected in zip(outputs(tuned.denoiser, tuned), outputs(unet, plain), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    untouched = outputs(fresh(folders["sd1"]).denoiser, fresh(folders["sd1"]))
    assert not torch.allclose(untouched[0], outputs(tuned.denoiser, tuned)[0], atol=1e-3)


needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="peft is the oracle")


@needs_peft
@pytest.mark.filterwarnings("ignore")  # peft's and its dependencies' own
def test_a_lora_gives_what_diffusers_gives(folders, tmp_path: Path) -> None:
    of = {k: v for k, v in changes(fresh(folders["sd1"])).items() if k.startswith("unet")}
    config = {"unet.r": 2, "unet.lora_alpha": 5, "unet.target_modules": ["to_q", "conv1"]}
    path = lora_file(
        tmp_path / "l.safetensors", of, format="pt", lora_adapter_metadata=json.dumps(config)
    )
    pipe = pipeline(folders["sd1"])
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
    tuned = fresh(folders["sd1"], path)
    expected = outputs(pipe.unet, tuned)[0]
    torch.testing.assert_close(outputs(tuned.denoiser, tuned)[0], expected, atol=2e-5, rtol=1e-4)


def test_all_namings_of_a_lora_are_the_same_lora(folders, tmp_path: Path) -> None:
    model = fresh(folders["sd1"])
    down, up = changes(model)[f"unet.{QUERY}"]
    expected = model.denoiser.get_submodule(QUERY).weight + 0.5 * up @ down
    layer, name = f"unet.{QUERY}", QUERY.removesuffix(".to_q")
    half = torch.tensor(1.0)  # alpha 1 at rank 2
    peft = tmp_path / "peft"
    peft.mkdir()
    (peft / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 1}))
    own = {
        "new": {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up},
        "old": {f"{layer}.lora.down.weight": down, f"{layer}.lora.up.weight": up},
        "oldest": {
            f"unet.{name}.processor.to_q_lora.down.weight": down,
            f"unet.{name}.processor.to_q_lora.up.weight": up,
        },
    }
    for kind, tensors in own.items():
        save_file({**tensors, f"{layer}.alpha": half}, tmp_path / f"{kind}.safetensors")
    bare = {f"base_model.model.{QUERY}.lora_{k}.weight": v for k, v in (("A", down), ("B", up))}
    save_file(bare, peft / "adapter_model.safetensors")
    for path in (*(tmp_path / f"{kind}.safetensors" for kind in own), peft):
        merged = fresh(folders["sd1"], path).denoiser.get_submodule(QUERY).weight
        torch.testing.assert_close(merged, expected)


def test_a_lora_that_does_not_fit_changes_nothing(folders, tmp_path: Path) -> None:
    model = fresh(folders["sd1"])
    of = changes(model)
    before = {name: value.clone() for name, value in model.denoiser.state_dict().items()}
    down, up = of[f"unet.{QUERY}"]
    path = tmp_path / "l.safetensors"
    for tensors, metadata, message in (
        (
            {"unet.nowhere.lora_A.weight": down, "unet.nowhere.lora_B.weight": up},
            {},
            "another model",
        ),
        ({f"unet.{QUERY}.lora_A.weight": down}, {}, "lacks lora_B"),
        ({f"unet.{QUERY}.lora_A.weight": torch.zeros(2, 99)}, {}, "lacks"),
        ({f"unet.{QUERY}.lora_magnitude_vector": up}, {}, "unknown tensor"),
        ({"lora_unet_down.lora_down.weight": down}, {}, "kohya"),
        (
            {f"unet.{QUERY}.lora_A.weight": torch.zeros(2, 99), f"unet.{QUERY}.lora_B.weight": up},
            {},
            r"one whose .*to_q is \(\d+, 99\) and not",
        ),
        (
            {f"unet.{QUERY}.lora_A.weight": down, f"unet.{QUERY}.lora_B.weight": up},
            {"lora_adapter_metadata": '{"unet.use_dora": true}'},
            "use_dora is not handled",
        ),
    ):
        good = {
            f"unet.{CONV}.lora_{k}.weight": v for k, v in zip("AB", of[f"unet.{CONV}"], strict=True)
        }
        save_file({**good, **tensors}, path, metadata=metadata)
        with pytest.raises(ModelError, match=message):
            attach(model, path)
    for name, value in model.denoiser.state_dict().items():
        assert torch.equal(value, before[name])


# --- LoRA configurations --------------------------------------------------------------------------


MORE_SETTINGS: list[dict[str, Any]] = [
    {},
    {"lora_alpha": 3, "use_rslora": True},
    {"alpha_pattern": {"attn2.to_q": 5, ".*to_q": 11}},
    {
        "alpha_pattern": {"to_q": 1, "up_blocks.1.attentions.0.transformer_blocks.0.attn1": 9},
        "rank_pattern": {"attn1.to_k": 1},
    },
    {"layers_to_transform": [0], "layers_pattern": "attentions", "lora_dropout": 0.3},
    {"init_lora_weights": "gaussian", "fan_in_fan_out": True},
    {"exclude_modules": ["mid_block.attentions.0.transformer_blocks.0.attn2.to_q"]},
]


@needs_peft
@pytest.mark.filterwarnings("ignore")  # peft's and its dependencies' own
@pytest.mark.parametrize(
    "settings",
    [
        {"alpha_pattern": {r".*attn2\.to_k": 32, "^down_blocks.*to_q": 16}, "lora_alpha": 2},
        {"rank_pattern": {r"mid_block.*": 3, "to_k": 5}, "r": 2, "use_rslora": True},
        *(pytest.param(settings, marks=pytest.mark.slow) for settings in MORE_SETTINGS),
    ],
)
def test_configured_loras_are_merged_as_by_peft(settings, folders, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = fresh(folders["sd1"])
    config = peft.LoraConfig(**{"target_modules": ["to_q", "to_k", "conv1"], **settings})
    wrapped = peft.get_peft_model(fresh(folders["sd1"]).denoiser, config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    wrapped.save_pretrained(str(tmp_path))
    tuned = fresh(folders["sd1"], tmp_path).denoiser.state_dict()
    # Read back: in the file patterns are in alphabetical order, whatever they were before.
    read = peft.PeftModel.from_pretrained(fresh(folders["sd1"]).denoiser, str(tmp_path))
    expected = cast(Any, read).merge_and_unload().state_dict()
    assert tuned.keys() == expected.keys()
    for name, value in tuned.items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)
    assert not torch.equal(tuned[f"{QUERY}.weight"], model.denoiser.state_dict()[f"{QUERY}.weight"])


def configured(path: Path, model: Model, config: dict[str, Any]) -> Path:
    """A folder as peft writes one, of rank 2, with a configuration."""
    down, up = changes(model)[f"unet.{QUERY}"]
    tensors = {f"base_model.model.{QUERY}.lora_{k}.weight": v for k, v in (("A", down), ("B", up))}
    path.mkdir(exist_ok=True)
    save_file(tensors, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type is not handled; train a plain LoRA"),
        ({"bias": "all"}, "bias is not handled"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is not handled"),
        ({"init_lora_weights": {"loftq": 1}}, "init_lora_weights is not handled"),
        ({"use_dora": True}, "use_dora is not handled"),
        ({"lora_bias": True}, "lora_bias is not handled"),
        ({"modules_to_save": ["conv_in"]}, "modules_to_save is not handled"),
        ({"layer_replication": [[0, 1]]}, "layer_replication is not handled"),
        ({"target_parameters": ["weight"]}, "target_parameters is not handled"),
        ({"a_setting_of_tomorrow": 1}, "a_setting_of_tomorrow is not handled"),
        ({"r": 4}, "has rank 2, but its configuration says 4; copy both files again"),
        ({"r": 2, "rank_pattern": {"to_q": 3}}, "its configuration says 3"),
        ({"lora_alpha": [1, 2]}, r"lora_alpha or a pattern of its configuration cannot be read"),
        ({"alpha_pattern": {"(": 1}}, "a pattern of its configuration cannot be read"),
        ({"alpha_pattern": [1]}, "a pattern of its configuration cannot be read"),
    ],
)
def test_configurations_that_change_what_tensors_mean_are_refused(
    config: dict[str, Any], message: str, folders, tmp_path: Path
) -> None:
    model = fresh(folders["sd1"])
    before = model.denoiser.get_submodule(QUERY).weight.clone()
    with pytest.raises(ModelError, match=message):
        attach(model, configured(tmp_path / "peft", model, config))
    assert torch.equal(model.denoiser.get_submodule(QUERY).weight, before)


@needs_peft
def test_no_default_of_peft_is_refused(folders, tmp_path: Path) -> None:
    """Whatever settings its version has: of those a plain LoRA was trained with none matters."""
    peft = pytest.importorskip("peft")
    model = fresh(folders["sd1"])
    plain = {**peft.LoraConfig().to_dict(), "r": 2, "target_modules": ["to_q"], "revision": "main"}
    plain = json.loads(json.dumps(plain, default=str))
    attach(model, configured(tmp_path / "peft", model, plain))


@needs_peft
@pytest.mark.filterwarnings("ignore")  # peft's and its dependencies' own
def test_a_lora_of_both_text_encoders_gives_what_diffusers_gives(folders, tmp_path: Path) -> None:
    pipe = xl_pipeline(folders["sdxl"])
    generator = torch.Generator().manual_seed(6)
    tensors = {}
    for name, inside, outside in (
        (f"unet.{QUERY}", 16, 16),
        (f"text_encoder.{TEXT}", WIDTH, WIDTH),
        (f"text_encoder_2.{TEXT}", 48, 48),
    ):
        tensors[f"{name}.lora_A.weight"] = torch.randn(2, inside, generator=generator) * 0.3
        tensors[f"{name}.lora_B.weight"] = torch.randn(outside, 2, generator=generator) * 0.3
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name)
    embeds, _, pooled, _ = pipe.encode_prompt(PHRASE, device="cpu")
    tuned, plain = fresh(folders["sdxl"], path), fresh(folders["sdxl"])
    found, before = (each.encode_text([PHRASE]) for each in (tuned, plain))
    torch.testing.assert_close(found.embeds, embeds, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found.pooled, pooled, atol=2e-5, rtol=1e-4)
    assert before.pooled is not None
    for part in (slice(0, WIDTH), slice(WIDTH, None)):
        assert not torch.allclose(found.embeds[..., part], before.embeds[..., part], atol=1e-3)
    with pytest.raises(ModelError, match="with a second text encoder; give such a model"):
        fresh(folders["sd1"], path)


def test_a_layer_that_both_text_encoders_have_must_be_named(folders, tmp_path: Path) -> None:
    model = fresh(folders["sdxl"])
    down, up = torch.zeros(2, WIDTH), torch.zeros(WIDTH, 2)
    tensors = {f"base_model.model.{TEXT}.lora_A.weight": down}
    tensors[f"base_model.model.{TEXT}.lora_B.weight"] = up
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="is in both text encoders; save the adapter with"):
        attach(model, tmp_path / "a.safetensors")
