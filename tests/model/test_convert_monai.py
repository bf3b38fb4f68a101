"""MONAI's published model as a diffusers folder, against what MONAI's own networks give."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cxrg.attention.layers import cross_attention_layers
from cxrg.cli import main
from cxrg.errors import ModelError
from cxrg.geometry import Frame
from cxrg.grounding import ground
from cxrg.image.read import CxrImage
from cxrg.model.card import known_cards
from cxrg.model.conditioning import Conditioning
from cxrg.model.convert import monai_keys as keys
from cxrg.model.convert.monai import import_monai, is_published, map_autoencoder, map_unet
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import resolve
from tests.fakes import tiny_models
from tests.oracles import monai_oracle as oracle
from tests.oracles import naive

PACKAGES = tuple(oracle.PACKAGES)


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.sd2(tmp_path_factory.mktemp("sd2") / "sd2")


@pytest.fixture(scope="module", params=PACKAGES)
def package(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def files(package: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """State dicts as the package's small networks save them."""
    folder = tmp_path_factory.mktemp(package)
    shapes, _ = oracle.stored(package)
    for name, kind in (("autoencoder", "small_autoencoder"), ("diffusion", "small_unet")):
        torch.save(oracle.weights(shapes[kind]), folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in ("autoencoder", "diffusion")}


@pytest.fixture(scope="module")
def imported(files, text_encoder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "cxr"
    return import_monai(**files, text_encoder=text_encoder, out=out).folder


@pytest.fixture(scope="module")
def model(imported: Path) -> Model:
    return load(imported, device="cpu")


def need(package: str) -> None:
    if not oracle.installed(package):
        pytest.skip(f"{oracle.NEEDED[package]} is not installed")


def close(given: Tensor, wanted: Tensor) -> None:
    assert wanted.abs().mean() > 0.1  # not a comparison of nothing with nothing
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_autoencoder_gives_what_monai_gives(package: str, model: Model) -> None:
    _, wanted = oracle.stored(package)
    image = oracle.inputs()["image"]
    posterior = model.vae.encode(image).latent_dist
    close(posterior.mean, wanted["mean"])
    close(posterior.std, wanted["sigma"])
    close(model.vae.decode(wanted["mean"]).sample, wanted["decoded"])
    # The published recipe: an image in [0, 1] as it is, the mean, times 0.3.
    close(model.encode(image[0, 0]), wanted["mean"] * 0.3)


@torch.no_grad()
def test_the_unet_gives_what_monai_gives(package: str, model: Model) -> None:
    _, wanted = oracle.stored(package)
    given = oracle.inputs()
    conditioning = Conditioning(embeds=given["context"])
    close(model.denoise(given["latents"], given["timesteps"], conditioning), wanted["unet"])


@torch.no_grad()
def test_more_heads_can_be_said(package: str, files) -> None:
    _, wanted = oracle.stored(package)
    given = oracle.inputs()
    part = map_unet(torch.load(files["diffusion"]), origin="here", heads=(1, 2, 3))
    net = part.kind(**part.config).eval()
    net.load_state_dict(part.weights)
    result = net(given["latents"], given["timesteps"], given["context"]).sample
    close(result, wanted["unet_many_heads"])
    assert (wanted["unet"] - wanted["unet_many_heads"]).abs().max() > 0.1


def test_the_published_architecture_fits_key_by_key(package: str) -> None:
    shapes, _ = oracle.stored(package)
    states = {
        kind: {name: torch.empty(shape, device="meta") for name, shape in shapes[kind].items()}
        for kind in ("published_autoencoder", "published_unet")
    }
    assert keys.writer(states["published_unet"], origin="here") == package
    vae = map_autoencoder(states["published_autoencoder"], origin="here")
    unet = map_unet(states["published_unet"], origin="here")
    for part, kind in ((vae, "published_autoencoder"), (unet, "published_unet")):
        assert part.parameters == sum(value.numel() for value in states[kind].values())
    assert is_published(vae.config, unet.config)
    assert (vae.config["scaling_factor"], vae.config["norm_num_groups"]) == (0.3, 32)
    assert (unet.config["norm_eps"], unet.config["norm_num_groups"]) == (1e-6, 32)
    with torch.device("meta"):
        network = unet.kind(**unet.config)
    layers = cross_attention_layers(network, 64)
    # methods.md 1.6: eleven layers, one head, indices 3, 4, 6, 7 are read.
    assert [layer.side for layer in layers] == [32, 32, 16, 16, 16, 16, 16, 16, 32, 32, 32]
    assert {network.get_submodule(layer.name).heads for layer in layers} == {1}
    read = known_cards()["monai-cxr"].layers
    assert [layers[i].name.split(".transformer_blocks")[0] for i in (3, 4, 6, 7)] == list(read)


def test_the_folder_says_what_it_is(package: str, imported: Path, model: Model) -> None:
    card = json.loads((imported / "cxrg.json").read_text())
    assert card["note"] == f"imported from files that {package} wrote; not of the published sizes"
    assert (card["image_range"], card["side"], card["text_length"]) == ("0..1", 512, 77)
    assert "MIMIC-CXR" in card["trained_on"]
    assert "layers" not in card  # the published rule holds for any size
    assert model.schedule.prediction_type == "v_prediction"
    # methods.md 1.2: sanity values of the schedule.
    at = (model.schedule.alpha[[0, 360, 537, 999]] ** 2).tolist()
    assert at == pytest.approx([0.9985, 0.289, 0.078, 0.0001], abs=5e-4)
    assert {path.name for path in imported.iterdir()} == {
        *("vae", "unet", "scheduler", "text_encoder", "tokenizer", "cxrg.json")
    }


def test_plain_diffusers_does_not_take_the_autoencoder_for_its_own(imported: Path) -> None:
    config = json.loads((imported / "vae" / "config.json").read_text())
    assert config["_class_name"] == "MonaiAutoencoderKL"


def small(imported: Path, folder: Path, side: int = 64) -> Model:
    """The imported model for a square that takes seconds, not minutes."""
    shutil.copytree(imported, folder)
    facts = json.loads((folder / "cxrg.json").read_text())
    (folder / "cxrg.json").write_text(json.dumps(facts | {"side": side}))
    return load(folder, device="cpu")


def picture(side: int = 64) -> CxrImage:
    coarse = np.random.default_rng(0).random((side // 8, side // 8))
    grey = np.kron(coarse, np.ones((8, 8))).astype(np.float32)
    return CxrImage(
        pixels=grey,
        frame=Frame.fit((side, side), side, "crop"),
        grey=grey,
        path=Path("picture.png"),
        sha256="5" * 64,
        kind="png",
        uid=None,
        window="full range",
        warnings=(),
    )


PHRASE = "small left apical pneumothorax"
SHORT: dict[str, Any] = {"steps": 25, "window": (10, 13)}


def test_preset_paper_is_the_published_procedure(imported: Path, tmp_path: Path) -> None:
    model, image = small(imported, tmp_path / "small"), picture()
    scheduler = json.loads((imported / "scheduler" / "scheduler_config.json").read_text())
    wanted = naive.heatmap(model, scheduler, image.pixels, PHRASE, **SHORT)
    result = ground(
        image, PHRASE, model=model, options=resolve("paper", model.card.presets, **SHORT)
    )
    assert 0 < (wanted > 0).mean() < 1
    np.testing.assert_allclose(result.canonical, wanted, atol=1e-4)
    published = resolve("paper", model.card.presets)
    assert (published.steps, published.window, published.fit) == (300, (120, 180), "crop")


def test_preset_paper_is_what_monai_itself_would_have_given(
    imported: Path, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The naive procedure with MONAI's own networks and their own attention matrices."""
    if package != "monai":
        pytest.skip("attention is kept by MONAI's own blocks only")
    need(package)
    own = {name: getattr(oracle, name)("monai", **oracle.SMALL[name]) for name in oracle.SMALL}
    for network in own.values():
        network.load_state_dict(oracle.weights(oracle.shapes_of(network)))

    stages = (own["unet"].down_blocks, own["unet"].middle_block, own["unet"].up_blocks)
    named = [each for stage in stages for each in stage.named_modules()]
    blocks = [block for name, block in named if name.endswith("attn2")]
    for block in blocks:
        block.save_attn = True
    seen: list[Tensor] = []

    def denoise(z: Tensor, *, timestep: Tensor, encoder_hidden_states: Tensor) -> Any:
        sample = own["unet"](z, timesteps=timestep, context=encoder_hidden_states)
        seen.extend(block.att_mat for block in blocks)
        return SimpleNamespace(sample=sample)

    model, image = small(imported, tmp_path / "small"), picture()
    monkeypatch.setattr(naive, "explicit_attention", lambda _: nullcontext(seen))
    vae = SimpleNamespace(
        config=SimpleNamespace(in_channels=1, scaling_factor=0.3),
        encode=lambda x: SimpleNamespace(latent=own["autoencoder"].encode(x)[0]),
    )
    parts = ("text_encoder", "tokenizer", "card")
    theirs = SimpleNamespace(
        vae=vae,
        denoiser=denoise,
        second=None,
        **{name: getattr(model, name) for name in parts},
    )
    scheduler = json.loads((imported / "scheduler" / "scheduler_config.json").read_text())
    wanted = naive.heatmap(theirs, scheduler, image.pixels, PHRASE, **SHORT)
    result = ground(
        image, PHRASE, model=model, options=resolve("paper", model.card.presets, **SHORT)
    )
    np.testing.assert_allclose(result.canonical, wanted, atol=1e-4)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_stored_answers_are_the_packages_own(package: str) -> None:
    need(package)
    shapes, wanted = oracle.stored(package)
    assert oracle.shapes(package) == shapes
    for name, value in oracle.outputs(package).items():
        close(value, wanted[name])


# What is refused, and what the message says.


def change(
    files: dict[str, Path], folder: Path, what: str, how: Callable[[Any], Any]
) -> dict[str, Any]:
    """The same files, but for one whose state dict was changed."""
    changed = folder / f"{what}.pth"
    torch.save(how(torch.load(files[what])), changed)
    return {**files, what: changed}


def without(pattern: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {name: value for name, value in state.items() if pattern not in name}


def also(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, name: torch.zeros(4)}


def twice(state: dict[str, Any]) -> dict[str, Any]:
    old, new = ("out_proj", "to_out.0") if any("out_proj" in name for name in state) else (
        "to_out.0",
        "out_proj",
    )  # fmt: skip
    return state | {name.replace(old, new): value for name, value in state.items()}


def narrower(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, name: state[name][:-1]}


@pytest.mark.parametrize(
    ("what", "how", "message"),
    [
        ("diffusion", without("down_blocks.2.attentions.1.proj_out"), "2 weights are missing"),
        ("diffusion", without("attn2.to_v"), r"11 weights are missing, such as down_blocks\.1"),
        ("diffusion", also("class_embedding.weight"), "class_embedding.weight has no counterpart"),
        ("diffusion", also("conv_in.conv.scale"), "conv_in.conv.scale has no counterpart"),
        ("diffusion", also("down_blocks.1.attentions.0.to_q.weight"), "has no counterpart|of both"),
        ("diffusion", without("up_blocks"), "are missing, such as up_blocks"),
        ("diffusion", without("blocks"), "of neither"),
        ("diffusion", twice, "names of both MONAI and monai-generative"),
        ("diffusion", narrower("middle_block.resnet_1.conv1.conv.weight"), "another shape"),
        ("diffusion", without("attn"), "attn2.to_k.weight is missing"),
        ("autoencoder", without("encoder.blocks.4.conv2"), "2 weights are missing"),
        ("autoencoder", without("quant_conv_log_sigma"), "quant_conv.bias"),
        ("autoencoder", also("encoder.blocks.12.to_q.weight"), "AutoencoderKL without attention"),
        ("autoencoder", also("encoder.blocks.12.attn.to_q.weight"), "without attention"),
        ("autoencoder", also("discriminator.weight"), "discriminator.weight has no counterpart"),
        ("autoencoder", narrower("encoder.blocks.3.conv.conv.bias"), "have another shape"),
        ("autoencoder", lambda state: {"epoch": 3, "state_dict": state}, "a dict with epoch"),
        ("autoencoder", lambda state: list(state), "not a state dict"),
        ("autoencoder", lambda state: {"x": Path("y")}, "could run code"),
    ],
)
def test_what_is_not_exactly_the_model_is_refused(
    what, how, message, files, text_encoder, tmp_path
) -> None:
    changed = change(files, tmp_path, what, how)
    out = tmp_path / "out" / "cxr"
    with pytest.raises(ModelError, match=message) as refused:
        import_monai(**changed, text_encoder=text_encoder, out=out)
    assert str(changed[what]) in str(refused.value)
    assert not out.exists()
    assert not list(out.parent.iterdir())  # nothing half-written either


def test_other_files_are_refused(files, text_encoder, tmp_path) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(files["diffusion"].read_bytes()[:5000])
    out = tmp_path / "out"
    for path, message in (
        (broken, "broken, or not written by torch.save; copy it again"),
        (tmp_path / "no.pth", "no such"),
    ):
        with pytest.raises(ModelError, match=message):
            import_monai(**files | {"diffusion": path}, text_encoder=text_encoder, out=out)
    swapped: dict[str, Any] = {"autoencoder": files["diffusion"], "diffusion": files["autoencoder"]}
    with pytest.raises(ModelError, match="no counterpart"):
        import_monai(**swapped, text_encoder=text_encoder, out=out)
    out.mkdir()
    with pytest.raises(ModelError, match="exists already"):
        import_monai(**files, text_encoder=text_encoder, out=out)


def test_a_text_encoder_that_does_not_fit_is_refused(files, text_encoder, tmp_path) -> None:
    def given(name: str) -> Path:
        return shutil.copytree(text_encoder, tmp_path / name)

    other, pickles, empty = given("other"), given("pickles"), tmp_path / "empty"
    config = other / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": 48}))
    weights = pickles / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    empty.mkdir()
    for folder, message in (
        (other, "48 wide but the U-Net takes 32"),
        (pickles, "can run code when read"),
        (empty, "no text_encoder/config.json"),
    ):
        with pytest.raises(ModelError, match=message):
            import_monai(**files, text_encoder=folder, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_the_older_file_format_of_torch_is_read(files, text_encoder, tmp_path) -> None:
    state = torch.load(files["autoencoder"])
    old = tmp_path / "old.pth"
    torch.save(state, old, _use_new_zipfile_serialization=False)
    done = import_monai(
        **files | {"autoencoder": old}, text_encoder=text_encoder, out=tmp_path / "cxr"
    )
    assert done.parameters == sum(
        value.numel() for path in files.values() for value in torch.load(path).values()
    )


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["cxrg", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    output = capsys.readouterr()
    return int(ended.value.code or 0), output.out, output.err


def test_the_command_imports_and_names_what_it_read(
    package, files, text_encoder, tmp_path, monkeypatch, capsys
) -> None:
    out = tmp_path / "cxr"
    given = [f"--autoencoder={files['autoencoder']}", f"--diffusion={files['diffusion']}"]
    given += [f"--text-encoder={text_encoder}", f"--out={out}"]
    code, stdout, warned = run(monkeypatch, capsys, "models", "import", "monai", *given)
    assert code == 0
    assert stdout.startswith(f"{out}: ")
    assert f"files of {package}" in stdout
    assert "not of the published sizes" in warned
    code, stdout, warned = run(monkeypatch, capsys, "models", "import", "monai", *given)
    assert (code, stdout) == (4, "")
    assert "exists already" in warned
