"""The scale of latents: as diffusers' image-to-image pipeline encodes, by hand, and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_img2img as img2img

from cxrg.errors import ModelError
from cxrg.model.latent_scale import read_latent_scale
from cxrg.model.load import load
from cxrg.plan import check_folder
from tests.model.test_inspect import edit

STATISTICS: dict[str, Any] = {
    "latents_mean": [0.5, -1.0, 0.2, 0.3],
    "latents_std": [2.0, 1.5, 3.0, 0.7],
}


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """Stable Diffusion XL whose autoencoder names the statistics of its latents."""
    copy = shutil.copytree(folders["sdxl"], tmp_path / "sdxl")
    edit("vae/config.json", **STATISTICS)(copy)
    return copy


def test_latents_are_those_of_diffusers_image_to_image(folder, folders, monkeypatch) -> None:
    model = load(folder, device="cpu")
    assert model.second is not None
    monkeypatch.setattr(img2img, "retrieve_latents", lambda out, **_: out.latent_dist.mean)
    pipe = img2img.StableDiffusionXLImg2ImgPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        text_encoder_2=model.second.network,
        tokenizer=model.tokenizer,
        tokenizer_2=model.second.tokenizer,
        unet=model.denoiser,
        scheduler=cast(Any, None),
    )
    grey = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    picture = (grey * 2 - 1).expand(1, 3, -1, -1)
    theirs = pipe.prepare_latents(picture, None, 1, 1, torch.float32, "cpu", add_noise=False)
    torch.testing.assert_close(model.encode(grey), theirs)
    plain = load(folders["sdxl"], device="cpu")
    assert (plain.encode(grey) - theirs).abs().max() > 0.05
    # The other way round they are the same picture.
    torch.testing.assert_close(
        model.decode(theirs), plain.decode(plain.encode(grey)), atol=1e-5, rtol=1e-5
    )
    deviation = torch.tensor(STATISTICS["latents_std"])[:, None, None]
    torch.testing.assert_close(
        model.posterior(grey)[1], plain.posterior(grey)[1] / deviation, atol=1e-7, rtol=1e-5
    )


def test_the_scale_by_hand() -> None:
    raw = torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)
    plain = read_latent_scale({"scaling_factor": 0.5, "shift_factor": 1.0, "latents_mean": None})
    assert plain.scale(raw).flatten().tolist() == [1.0, 2.0]
    assert plain.scale_deviation(raw).flatten().tolist() == [1.5, 2.5]
    each = read_latent_scale(
        {
            "scaling_factor": 0.5,
            "latent_channels": 2,
            "latents_mean": [1.0, 1.0],
            "latents_std": [2.0, 4.0],
        }
    )
    assert each.scale(raw).flatten().tolist() == [0.5, 0.5]
    assert each.unscale(each.scale(raw)).flatten().tolist() == [3.0, 5.0]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"latents_mean": None}, "has latents_std without latents_mean; correct it"),
        ({"latents_std": None}, "has latents_mean without latents_std; correct it"),
        ({"shift_factor": 0.1}, "has latents_mean together with shift_factor; correct it"),
        ({"latents_mean": [0.0]}, "latents_mean must list 4 numbers"),
        ({"latents_std": [1.0, 1.0, 0.0, 1.0]}, "latents_std must hold numbers, and deviations"),
        ({"latents_mean": ["a"] * 4}, "latents_mean must hold numbers"),
        ({"scaling_factor": 0}, "must be numbers, the first not 0"),
        ({"scaling_factor": "x"}, "must be numbers, the first not 0"),
    ],
)
def test_contradictions_are_refused(facts: dict[str, Any], message: str, folder: Path) -> None:
    edit("vae/config.json", **facts)(folder)
    (problem,) = check_folder(folder).problems
    assert message in problem
    with pytest.raises(ModelError, match=message):
        load(folder, device="cpu")
