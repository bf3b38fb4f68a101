"""Loading: four families, the latent's formula, the schedule, and every refusal."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from cxrg.errors import ModelError, UsageError
from cxrg.model import load as loading
from cxrg.model.card import Card
from cxrg.model.checkpoint import identity
from cxrg.model.checkpoint.identity import fingerprint
from cxrg.model.load import choose_device, choose_dtype, load
from cxrg.model.schedule import FLOW, read_schedule
from cxrg.plan import check_folder
from tests.fakes import tiny_models

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def broken(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the Stable Diffusion 1.x folder to damage."""
    return shutil.copytree(folders["sd1"], tmp_path / "broken")


def edit(path: Path, **facts: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


@pytest.mark.parametrize(
    ("family", "channels", "prediction", "length"),
    [
        ("sd1", 4, "epsilon", 77),
        ("sd2", 4, "v_prediction", 77),
        ("monai", 3, "v_prediction", 77),
        ("compact", 8, "v_prediction", 24),
    ],
)
def test_a_family_is_read(family, channels, prediction, length, folders, capfd) -> None:
    loaded = load(folders[family], device="cpu")
    assert (loaded.side, loaded.factor) == (64, 8)
    assert loaded.schedule.prediction_type == prediction
    assert loaded.text_length == length
    assert loaded.dtype == torch.float32
    latent = loaded.encode(np.zeros((64, 64), dtype=np.float32))
    assert latent.shape == (1, channels, 8, 8)
    assert loaded.decode(latent).shape == (1, 64, 64)
    conditioning = loaded.encode_text(["", "left opacity"])
    assert conditioning.embeds.shape == (2, length, tiny_models.WIDTH)
    output = loaded.denoise(latent.expand(2, -1, -1, -1), torch.tensor([1, 500]), conditioning)
    assert output.shape == (2, channels, 8, 8)
    for network in (loaded.vae, loaded.denoiser, loaded.text_encoder):
        assert not network.training
        assert not any(weight.requires_grad for weight in network.parameters())
    # A library does not print, and its dependencies neither.
    assert capfd.readouterr() == ("", "")


@torch.no_grad()
def test_averaged_weights_are_taken_where_training_left_them(tmp_path: Path) -> None:
    folder = tiny_models.gen2ground(tmp_path / "model")
    plain = load(folder, device="cpu")
    average = EMAModel(
        plain.denoiser.parameters(),
        model_cls=UNet2DConditionModel,
        model_config=plain.denoiser.config,
    )
    average.shadow_params = [weight + 1 for weight in average.shadow_params]
    average.save_pretrained(folder / "unet_ema")
    loaded = load(folder, device="cpu")
    assert loaded.identity != plain.identity
    for weight, before in zip(
        loaded.denoiser.parameters(), plain.denoiser.parameters(), strict=True
    ):
        assert torch.equal(weight, before + 1)
    assert not check_folder(folder).problems


def test_the_latent_is_the_scaled_posterior_mean(folders) -> None:
    pixels = np.random.default_rng(0).random((2, 64, 64)).astype(np.float32)
    loaded = load(folders["sd1"], device="cpu")
    image = torch.from_numpy(pixels)[:, None].repeat(1, 3, 1, 1) * 2 - 1
    mean = loaded.vae.encode(image).latent_dist.mode()
    torch.testing.assert_close(loaded.encode(pixels), mean * 0.18215)
    loaded.vae.register_to_config(shift_factor=0.25)
    torch.testing.assert_close(loaded.encode(pixels), (mean - 0.25) * 0.18215)
    decoded = loaded.vae.decode(mean).sample.mean(1)
    expected = ((decoded + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(loaded.decode((mean - 0.25) * 0.18215), expected)


def test_the_card_says_the_image_range(folders) -> None:
    pixels = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    loaded = load(folders["monai"], device="cpu")
    mean = loaded.vae.encode(torch.from_numpy(pixels)[None, None]).latent_dist.mean
    torch.testing.assert_close(loaded.encode(pixels), mean * 0.3)
    compact = load(folders["compact"], device="cpu")
    latent = compact.vae.encode(torch.from_numpy(pixels)[None, None] * 2 - 1).latent
    torch.testing.assert_close(compact.encode(pixels), latent * 0.7)
    torch.testing.assert_close(compact.encode(pixels), compact.encode(pixels[None]))


def test_sides_that_the_autoencoder_cannot_halve_are_refused(folders) -> None:
    loaded = load(folders["sd1"], device="cpu")
    with pytest.raises(UsageError, match="multiples of 8"):
        loaded.encode(np.zeros((60, 64), dtype=np.float32))
    with pytest.raises(UsageError, match="multiples of 8"):
        loaded.encode(np.zeros((1, 1, 64, 64), dtype=np.float32))


def test_an_oblong_sample_size_is_refused_unless_the_card_names_a_side(broken: Path) -> None:
    edit(broken / "unet" / "config.json", sample_size=[8, 16])
    loaded = load(broken, device="cpu")
    with pytest.raises(ModelError, match=r"sample_size \[8, 16\] is not one side; set side in"):
        _ = loaded.side
    assert replace(loaded, card=replace(loaded.card, side=64)).side == 64


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
        {"trained_betas": list(np.linspace(0.001, 0.02, 50)), "num_train_timesteps": 50},
    ],
)
def test_the_schedule_is_diffusers(config: dict[str, object]) -> None:
    schedule = read_schedule({"_class_name": "DDIMScheduler", **config})
    expected = DDIMScheduler(**config).alphas_cumprod.double()
    assert schedule.alpha.dtype == torch.float64
    assert schedule.prediction_type == "epsilon"
    torch.testing.assert_close(schedule.alpha**2, expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(schedule.sigma**2, 1 - schedule.alpha**2)


def test_the_published_schedules_values() -> None:
    config = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0205}
    bar = read_schedule(config).alpha ** 2
    assert [round(float(bar[t]), 4) for t in (0, 999)] == [0.9985, 0.0001]
    assert [round(float(bar[t]), 3) for t in (360, 537)] == [0.289, 0.078]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "EDMEulerScheduler"}, "EDMEuler"),
        ({"prediction_type": "sample"}, "prediction type 'sample'"),
        ({"prediction_type": "trigflow"}, "prediction type 'trigflow'"),
        ({"prediction_type": "flow_prediction"}, "with use_flow_sigmas"),
        ({"beta_schedule": "sigmoid"}, "beta schedule 'sigmoid'"),
        ({"use_flow_sigmas": True}, "flow sigmas with epsilon"),
        ({"_class_name": FLOW[0], "use_dynamic_shifting": True}, "use a fixed shift"),
        ({"_class_name": FLOW[1], "invert_sigmas": True}, "invert_sigmas"),
    ],
)
def test_other_schedules_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_schedule(config)


def test_identity_follows_weights_and_configuration(broken: Path, folders) -> None:
    first = fingerprint(broken)
    assert first == fingerprint(folders["sd1"]) == load(broken, device="cpu").identity
    data = bytearray((broken / UNET).read_bytes())
    data[-1] ^= 1
    (broken / UNET).write_bytes(data)
    second = fingerprint(broken)
    edit(broken / "scheduler" / "scheduler_config.json", beta_end=0.013)
    assert len({first, second, fingerprint(broken)}) == 3
    # Notes beside the networks are no part of the model.
    (broken / "README.md").write_text("note")
    assert fingerprint(broken) == fingerprint(broken)


def test_blocks_of_a_large_file_are_spread_over_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(identity, "BLOCK", 4)
    monkeypatch.setattr(identity, "BLOCKS", 3)
    (tmp_path / "large").write_bytes(bytes(range(40)))
    blocks = [block[0] for block in identity._blocks(tmp_path / "large")]
    assert blocks == [0, 16, 36]
    (tmp_path / "small").write_bytes(bytes(range(10)))
    assert b"".join(identity._blocks(tmp_path / "small")) == bytes(range(10))


def unsafe_only(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def truncated(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-1000])


def one_weight_short(folder: Path) -> None:
    weights = load_file(folder / UNET)
    weights.pop("conv_out.bias")
    save_file(weights, folder / UNET, metadata={"format": "pt"})


def wide_text(folder: Path) -> None:
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    config.hidden_size = 64
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


def many_words(folder: Path) -> None:
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    config.vocab_size = 10
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


def joint_transformer(folder: Path) -> None:
    (folder / "unet").rename(folder / "transformer")
    edit(folder / "transformer" / "config.json", _class_name="SD3Transformer2DModel")


def not_finite(folder: Path) -> None:
    weights = load_file(folder / UNET)
    weights["conv_out.bias"][0] = float("nan")
    save_file(weights, folder / UNET, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (not_finite, "1 weights are not finite, such as conv_out.bias; get another copy"),
        (
            lambda f: edit(f / "unet" / "config.json", layers_per_block=10**9),
            "asks for layers_per_block 1000000000, but there are",
        ),
        (
            lambda f: edit(f / "text_encoder" / "config.json", num_hidden_layers=-3),
            "asks for num_hidden_layers -3",
        ),
        (
            lambda f: edit(f / "unet" / "config.json", attention_head_dim="x"),
            "unet: .*copy the folder again",
        ),
        (unsafe_only, r"only diffusion_pytorch_model\.bin.*safe_serialization"),
        (truncated, "unet.*: broken .*copy it again"),
        (one_weight_short, "1 weights are missing, such as conv_out.bias"),
        (
            joint_transformer,
            "SD3Transformer2DModel .* jointly.* not handled yet",
        ),
        (lambda f: (f / UNET).unlink(), "no weights"),
        (lambda f: shutil.rmtree(f / "vae"), "no vae/config.json"),
        (lambda f: shutil.rmtree(f / "tokenizer"), "no tokenizer/tokenizer_config.json"),
        (lambda f: (f / "tokenizer" / "tokenizer.json").unlink(), "no vocabulary"),
        (
            lambda f: edit(
                f / "tokenizer" / "tokenizer_config.json",
                tokenizer_class="Strange",
                auto_map={"AutoTokenizer": ["unknown.Tokenizer", None]},
            ),
            "tokenizer: .*trust_remote_code|tokenizer: .*copy",
        ),
        (wide_text, "width 32 but the text encoder gives 64"),
        (many_words, "the text encoder knows 10"),
        (lambda f: (f / "unet" / "config.json").write_text("{"), "not a JSON object"),
        (lambda f: (f / "unet" / "config.json").write_text("3"), "not a JSON object"),
        (lambda f: edit(f / "vae" / "config.json", _class_name="VQModel"), "autoencoder VQModel"),
        (lambda f: edit(f / "unet" / "config.json", _class_name="UNetX"), "denoiser UNetX"),
        (
            lambda f: edit(f / "unet" / "config.json", addition_embed_type="text_image"),
            "with addition_embed_type is not handled",
        ),
        (
            lambda f: edit(f / "unet" / "config.json", addition_embed_type="text_time"),
            "no text_encoder_2/config.json",
        ),
        (lambda f: edit(f / "unet" / "config.json", in_channels=9), "takes 9 channels"),
        (
            lambda f: edit(
                f / "scheduler" / "scheduler_config.json", prediction_type="flow_prediction"
            ),
            "flow_prediction",
        ),
        (lambda f: (f / "cxrg.json").write_text('{"name": "x", "size": 3}'), "unknown fact size"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(damage, message, broken: Path, capfd) -> None:
    damage(broken)
    capfd.readouterr()
    with pytest.raises(ModelError, match=message) as refusal:
        load(broken, device="cpu")
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_a_prompt_length_must_be_known(broken: Path) -> None:
    loaded = load(broken, device="cpu")
    loaded.tokenizer.model_max_length = 10**30
    assert loaded.text_length == 77
    boundless = SimpleNamespace(config=SimpleNamespace())
    with pytest.raises(ModelError, match="set text_length in"):
        _ = replace(loaded, text_encoder=boundless).text_length


def test_a_half_precision_variant_is_read(broken: Path) -> None:
    (broken / UNET).rename(broken / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert load(broken, device="cpu").dtype == torch.float32


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(ModelError, match="a single file; give the diffusers folder"):
        load(tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match=r"neither a folder nor one of .*stable-diffusion-1\.5"):
        load("no-such-model")
    with pytest.raises(ModelError, match="cannot be fetched: a MONAI bundle"):
        load("monai-cxr")
    with pytest.raises(ModelError, match="neither a folder"):
        load(tmp_path / "nowhere" / "deep")


@pytest.mark.parametrize("name", ["stable-diffusion-1.5", "some-owner/some-model"])
def test_offline_says_so(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="the run is offline and it is not in the cache"):
        load(name, offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="the run is offline"):
        load(name)


def test_the_pinned_revision_is_requested_from_the_hub(
    folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: dict[str, Any] = {}

    def snapshot(hub_id: str, **settings: object) -> str:
        requests.update(settings, hub_id=hub_id)
        return str(folders["sd1"])

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    loaded = load("stable-diffusion-1.5", revision="abc", device="cpu")
    assert requests["hub_id"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert requests["revision"] == "abc"
    assert requests["local_files_only"] is False
    assert not any(
        ".bin" in pattern or ".ckpt" in pattern for pattern in requests["allow_patterns"]
    )
    # The package's card counts where the folder has none, also by hub id.
    assert loaded.card.name == "stable-diffusion-1.5"
    assert load("stable-diffusion-v1-5/stable-diffusion-v1-5", device="cpu").card == loaded.card
    assert requests["revision"] is None


def test_parts_that_the_hub_has_as_variants_only_are_fetched_too(folders, monkeypatch, tmp_path):
    requests: list[dict[str, Any]] = []
    folder = shutil.copytree(folders["sd1"], tmp_path / "sd1")
    half = (folder / UNET).rename(tmp_path / "diffusion_pytorch_model.fp16.safetensors")

    def snapshot(hub_id: str, **settings: Any) -> str:
        requests.append(settings)
        if len(requests) == 2:
            shutil.move(half, folder / "unet")
        return str(folder)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    load("o/n", device="cpu")
    name = "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors"
    for settings, fetched in zip(requests, (False, True), strict=True):
        ignored = any(fnmatch(name, pattern) for pattern in settings["ignore_patterns"])
        allowed = any(fnmatch(name, pattern) for pattern in settings["allow_patterns"])
        assert (allowed and not ignored) is fetched
    assert not any(fnmatch("vae/x.safetensors", each) for each in requests[1]["allow_patterns"])


def failing(error: Exception) -> object:
    def snapshot(*_: object, **__: object) -> str:
        raise error

    return snapshot


def test_what_the_hub_answers_becomes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for error, message in (
        (LocalEntryNotFoundError("no\nway"), "the hub cannot be reached"),
        (OSError("disk\nfull"), "o/n: disk; try again"),
    ):
        monkeypatch.setattr("huggingface_hub.snapshot_download", failing(error))
        with pytest.raises(ModelError, match=message) as refusal:
            load("o/n")
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "address", "message"),
    [
        (
            "ALL_PROXY",
            "socks5://127.0.0.1:9",
            r"socksio.*; correct or unset ALL_PROXY, or|be reached",
        ),
        ("HTTPS_PROXY", "foo://bar", "Unknown scheme.*; correct or unset HTTPS_PROXY, or give"),
        ("HTTPS_PROXY", "http://u:secret", r"called \(an address is not valid\); correct or"),
        ("HF_ENDPOINT", "hub.example", "missing an 'http://'.*; correct or unset HF_ENDPOINT, or"),
    ],
)
def test_addresses_that_the_hubs_client_refuses_become_one_line(
    name: str, address: str, message: str, tmp_path: Path
) -> None:
    """In a process of its own: the client reads its environment once."""
    known = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "HF_ENDPOINT", "HF_HUB_OFFLINE")
    rest = {key: value for key, value in os.environ.items() if key.upper() not in known}
    program = """
from cxrg.errors import ModelError
from cxrg.model.checkpoint.hub import fetch
try:
    fetch("some-owner/some-model", revision=None, offline=False)
except ModelError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**rest, "HF_HOME": str(tmp_path), name: address},
        capture_output=True,
        text=True,
    )
    assert len(done.stdout.splitlines()) == 1, done.stderr
    assert re.search(message, done.stdout), done.stdout
    assert "secret" not in done.stdout


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    for name, message in (
        ("gpu", "not known"),
        ("cuda:99", "not on this machine"),
        ("meta", "not on this machine"),
    ):
        with pytest.raises(UsageError, match=message):
            choose_device(name)


def test_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    plain, checked = Card(name="x"), Card(name="x", dtype="bfloat16")
    assert choose_dtype("auto", cpu, plain) == torch.float32
    for has, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(loading, "_has_bfloat16", lambda _, has=has: has)
        assert choose_dtype("auto", cpu, checked) == expected
    assert choose_dtype("bfloat16", cpu, plain) == torch.bfloat16
    with pytest.raises(UsageError, match="use float32 or bfloat16"):
        choose_dtype("float16", cpu, plain)
    with pytest.raises(UsageError, match="not on cuda; use float32 or float16"):
        choose_dtype("bfloat16", torch.device("cuda"), plain)
    with pytest.raises(UsageError, match="not known"):
        choose_dtype("float8", cpu, plain)
    with pytest.raises(UsageError, match="gpu"):
        load("compact", device="gpu")
