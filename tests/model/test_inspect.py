"""What `cxrg models check` finds in a folder: the truth where it is whole, all faults where not."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cxrg import load
from cxrg.cli import main
from cxrg.errors import CxrgError, ModelError
from cxrg.model.card import WEIGHTS
from cxrg.model.inspect import inspect_folder
from tests.fakes import tiny_models


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of Stable Diffusion 2.x in small, to be spoilt."""
    return shutil.copytree(folders["sd2"], tmp_path / "model")


@pytest.mark.parametrize("family", [*tiny_models.FAMILIES, "shipped"])
def test_a_whole_folder_is_described_as_load_finds_it(family: str, folders) -> None:
    place = WEIGHTS / "compact" if family == "shipped" else folders[family]
    report = inspect_folder(place)
    model = load(place)
    assert report.problems == ()
    counted = {part.name: part.parameters for part in report.parts}
    for name, network in (
        ("vae", model.vae),
        ("unet" if model.family.attends_to_padding else "transformer", model.denoiser),
        ("text_encoder", model.text_encoder),
    ):
        # All of an encoder's numbers but its pooler's, which are not always saved.
        ours = sum(p.numel() for key, p in network.named_parameters() if "pooler" not in key)
        heads = 16 * tiny_models.WIDTH if family == "radedit" else 0
        assert ours <= counted[name] <= sum(p.numel() for p in network.parameters()) + heads


def test_families_are_recognised(folders) -> None:
    families = {name: inspect_folder(place).family for name, place in folders.items()}
    assert families["sd1"] == "Stable Diffusion 1.x layout"
    assert families["sd2"] == "Stable Diffusion 2.x layout"
    assert "deep-compression autoencoder and BertModel" in families["compact"]
    assert families["sdxl"] == "Stable Diffusion XL layout"
    assert families["radedit"] == "Stable Diffusion 1.x layout with CXRBertModel"
    assert families["pixart"].startswith(
        "PixArt, a diffusion transformer with text cross-attention"
    )
    assert families["sana"].startswith("Sana, a diffusion transformer with text cross-attention")


def edit(path: str, **facts: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / path).read_text())
        (folder / path).write_text(json.dumps(config | facts))

    return change


def remove(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def reweigh(part: str, how: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = next((folder / part).glob("*.safetensors"))
        weights = load_file(path)
        how(weights)
        save_file(weights, path, {"format": "pt"})

    return change


def pickled(part: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = next((folder / part).glob("*.safetensors"))
        torch.save(load_file(path), path.with_suffix(".bin"))
        path.unlink()

    return change


def without(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(weights: dict[str, torch.Tensor]) -> None:
        for key in [key for key in weights if name in key]:
            del weights[key]

    return change


def halved(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[name] = weights[name][: len(weights[name]) // 2].clone()

    return change


def truncated(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def renamed(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_name("weights.safetensors"))


UNET = "unet/config.json"
TEXT = "text_encoder/config.json"
TOKENS = "tokenizer/tokenizer.json"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove("vae/config.json"), "no vae/config.json"),
        (
            lambda folder: (folder / UNET).write_text('{"a":' * 100_000),
            "config.json: not a JSON object",
        ),
        (remove("scheduler/scheduler_config.json"), "no scheduler/scheduler_config.json"),
        (remove("tokenizer/tokenizer_config.json"), "no tokenizer/tokenizer_config.json"),
        (remove("tokenizer/tokenizer.json"), "no vocabulary"),
        (remove("text_encoder/model.safetensors"), "no weights"),
        (pickled("unet"), "can run code when read; save the model with save_pretrained"),
        (pickled("text_encoder"), "can run code when read; save the model with save_pretrained"),
        (truncated, "broken"),
        (renamed, "no diffusion_pytorch_model.safetensors"),
        (reweigh("unet", without("attn2.to_k")), "11 weights are missing, such as down_blocks.1"),
        (reweigh("vae", without("quant_conv.bias")), "2 weights are missing, such as post_quant"),
        (reweigh("text_encoder", without("k_proj")), "4 weights are missing"),
        (reweigh("unet", halved("conv_in.weight")), "conv_in.weight is (4, 4, 3, 3) and should be"),
        (edit(UNET, block_out_channels=[8, 16]), "config.json does not describe a network"),
        (edit(UNET, _class_name="UNet2DModel"), "denoiser UNet2DModel is not handled"),
        (edit(UNET, addition_embed_type="text_image"), "with addition_embed_type is not handled"),
        (edit(UNET, addition_embed_type="text_time"), "no text_encoder_2/config.json"),
        (
            edit(UNET, time_cond_proj_dim=256),
            "UNet2DConditionModel with time_cond_proj_dim is not handled",
        ),
        (edit(UNET, num_class_embeds=3), "with num_class_embeds is not handled"),
        (edit(UNET, encoder_hid_dim=8), "with encoder_hid_dim is not handled"),
        (edit(UNET, dual_cross_attention=True), "with dual_cross_attention is not handled"),
        (edit(UNET, cross_attention_dim=[32, 32, 32]), "with cross_attention_dim is not handled"),
        (edit("vae/config.json", in_channels=4), "takes 4 channels; grey or RGB images"),
        (edit("vae/config.json", _class_name="VQModel"), "autoencoder VQModel is not handled"),
        (
            edit("scheduler/scheduler_config.json", _class_name="EDMX"),
            "scheduler EDMX is not handled",
        ),
        (lambda folder: (folder / "cxrg.json").write_text("{"), "not valid JSON"),
        (edit(TEXT, architectures=5, hidden_size=None), "text_encoder: "),
        (edit(TEXT, max_position_embeddings="77"), "max_position_embeddings"),
        (edit(TEXT, quantization_config={"quant_method": "x"}), "text_encoder: quantised weights"),
        (edit(UNET, quantization_config={"quant_method": "x"}), "unet: quantised weights"),
        (lambda folder: (folder / TOKENS).write_text("[" * 100_000), "tokenizer: "),
        (lambda folder: (folder / TOKENS).write_text("[1]"), "tokenizer: "),
    ],
)
def test_every_fault_is_named(spoil, message: str, folder: Path) -> None:
    spoil(folder)
    report = inspect_folder(folder)
    assert report.model is None
    assert any(message in problem for problem in report.problems), report.problems
    with pytest.raises(CxrgError):
        load(folder)


def test_all_faults_are_found_at_once(folder: Path) -> None:
    for spoil in (pickled("vae"), remove("scheduler/scheduler_config.json"), truncated):
        spoil(folder)
    problems = " ".join(inspect_folder(folder).problems)
    assert all(text in problems for text in ("can run code", "no scheduler/", "broken"))


def test_what_does_no_harm_is_a_note(folder: Path) -> None:
    def more(weights: dict[str, torch.Tensor]) -> None:
        weights["lora.down"] = torch.zeros(2)

    reweigh("unet", more)(folder)
    reweigh("text_encoder", lambda weights: weights.update(position_ids=torch.zeros(3)))(folder)
    report = inspect_folder(folder)
    assert report.problems == ()
    notes = {part.name: part.notes for part in report.parts}
    assert notes["unet"] == ("1 weights are not used, such as lora.down",)
    # Old versions of diffusers had other settings; at these values they change nothing.
    edit(UNET, num_vector_embeds=None, activation_dropout=0)(folder)
    edit("vae/config.json", clamp_latents=True, gain=2)(folder)
    (vae, unet, *_) = inspect_folder(folder).parts
    assert unet.notes == notes["unet"]
    assert vae.notes == ("settings that AutoencoderKL ignores: clamp_latents, gain",)
    assert notes["text_encoder"] == ()


@pytest.mark.parametrize(
    "name",
    ["unet/x.json", "text_encoder/generation_config.json", "cxrg.json", "vae/model.safetensors"],
)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink(path, path)])
def test_pipes_and_links_to_nowhere_are_refused_and_not_waited_for(
    make: Callable[[Path], None], name: str, folder: Path
) -> None:
    make(folder / name)
    message = rf"{name}: a pipe, a device or a broken link.*remove it"
    with pytest.raises(ModelError, match=message):
        load(str(folder))
    (problem,) = inspect_folder(folder).problems
    assert re.search(message, problem)


@pytest.mark.parametrize("name", ["unet/x.json", "text_encoder/generation_config.json"])
def test_a_folder_named_like_a_file_does_no_harm(name: str, folder: Path) -> None:
    (folder / name).mkdir()
    assert inspect_folder(folder).problems == ()


def test_old_names_and_half_precision_are_no_faults(folder: Path) -> None:
    """Stable Diffusion 1.5's own files: the autoencoder's attention under its first names."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    shutil.rmtree(folder / "vae")
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        latent_channels=4,
    )
    vae.save_pretrained(folder / "vae")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if "attentions" in name]:
            for new, first in old.items():
                if f".{new}." in name:
                    weights[name.replace(new, first)] = weights.pop(name)

    reweigh("vae", rename)(folder)
    half = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = {name: value.half() for name, value in load_file(half).items()}
    save_file(weights, half.with_name("diffusion_pytorch_model.fp16.safetensors"))
    half.unlink()
    report = inspect_folder(folder)
    assert report.problems == ()
    assert {part.name: part.precision for part in report.parts}["unet"] == "float16"
    load(folder)


def test_shards_are_put_together_and_missed(folder: Path) -> None:
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(whole)
    names = sorted(weights)
    shards = {
        f"diffusion_pytorch_model-0000{i + 1}-of-00002.safetensors": part
        for i, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]))
    }
    for shard, part in shards.items():
        save_file({name: weights[name] for name in part}, whole.with_name(shard), {"format": "pt"})
    index = {name: shard for shard, part in shards.items() for name in part}
    whole.with_name(f"{whole.name}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    whole.unlink()
    report = inspect_folder(folder)
    assert report.problems == ()
    whole.with_name(next(iter(shards))).unlink()
    assert "00001-of-00002.safetensors is missing" in " ".join(inspect_folder(folder).problems)


@pytest.mark.parametrize(
    ("name", "family", "message"),
    [
        ("SD3Transformer2DModel", "joint attention of image and text", "jointly"),
        ("FluxTransformer2DModel", "joint attention of image and text", "jointly"),
        ("DiTTransformer2DModel", "a diffusion model of another kind", "not handled"),
    ],
)
def test_families_that_are_not_handled_are_named(name, family, message, folder: Path) -> None:
    (folder / "unet").rename(folder / "transformer")
    edit("transformer/config.json", _class_name=name)(folder)
    # Its other parts are of other kinds as well, and no fault of their own.
    shutil.rmtree(folder / "text_encoder")
    report = inspect_folder(folder)
    assert family in report.family
    assert name in report.family
    (problem,) = report.problems
    assert message in problem
    assert "use one of Stable Diffusion 1.x, 2.x and XL, PixArt-Sigma and Sana" in problem
    with pytest.raises(ModelError, match=f"{name}.*{message}.*PixArt-Sigma and Sana"):
        load(folder)


def test_other_folders_are_explained(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert "none of its parts" in inspect_folder(tmp_path).problems[0]
    (tmp_path / "sd.safetensors").touch()
    assert "a single-file checkpoint (sd.safetensors)" in inspect_folder(tmp_path).problems[0]
    (tmp_path / "models" / "diffusion_model.pth").touch()
    assert "cxrg models import monai" in inspect_folder(tmp_path).problems[0]
    with pytest.raises(ModelError, match="no such folder"):
        inspect_folder(tmp_path / "nothing")


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["cxrg", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    output = capsys.readouterr()
    return int(ended.value.code or 0), output.out, output.err


def test_the_command_shows_the_report(folders, monkeypatch, capsys) -> None:
    place = str(folders["sd2"])
    code, out, err = run(monkeypatch, capsys, "models", "check", place)
    assert (code, err) == (0, "")
    for text in (
        *("Stable Diffusion 2.x layout", "CLIPTextModel", "float32", "v_prediction"),
        *("64 x 64 pixels in -1..1", "4 x 8 x 8", "mid_block.attentions.0", "t = 360 to 537"),
    ):
        assert text in out
    code, out, _ = run(monkeypatch, capsys, "models", "check", place, "--json")
    facts = json.loads(out)
    assert (code, facts["usable"], facts["plan"]["side"]) == (0, True, 64)


def test_the_command_ends_with_4_where_a_folder_cannot_be_used(folder, monkeypatch, capsys) -> None:
    pickled("unet")(folder)
    code, out, err = run(monkeypatch, capsys, "models", "check", str(folder))
    assert code == 4
    assert "usable  no" in out
    assert "Traceback" not in err
    assert "can run code when read" in err
    code, out, _ = run(monkeypatch, capsys, "models", "check", str(folder), "--json")
    assert (code, json.loads(out)["usable"]) == (4, False)


def test_the_command_shows_a_folders_card(folders, monkeypatch, capsys) -> None:
    code, out, _ = run(monkeypatch, capsys, "models", "show", str(folders["monai"]))
    assert (code, "0..1" in out) == (0, True)
    code, _, err = run(monkeypatch, capsys, "models", "show", str(folders["sd2"]))
    assert code == 4
    assert "no cxrg.json; `cxrg models check" in err
