"""Self-attention completion: against the explicit matrix, and a seed that fills its own region."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from cxrg.attention.completion import Projections, complete, complete_iterated
from cxrg.attention.layers import choose_layers, self_attention_layers
from cxrg.attention.read import ReadSettings, read_attention
from cxrg.errors import UsageError
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import Completion, resolve
from cxrg.phrase.encode import encode_phrase
from tests.fakes import tiny_models
from tests.oracles.naive import Explicit


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tiny_models.sd2(tmp_path_factory.mktemp("models") / "sd2"), device="cpu")


def test_the_finest_self_attention_is_taken(model: Model) -> None:
    names = self_attention_layers(model)
    assert len(names) == 5
    assert all(name.endswith(".attn1") for name in names)
    assert {name.split(".")[0] + name.split(".")[1] for name in names} == {
        *("down_blocks1", "up_blocks1")
    }


@torch.no_grad()
def test_equals_the_explicit_matrix(model: Model) -> None:
    prompt = encode_phrase(model, "left opacity")
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    layers = choose_layers(model, "all")  # more maps than a head is wide
    self_attention = self_attention_layers(model)
    how = ReadSettings(completion="self-attention", self_attention=self_attention)
    (found,) = read_attention(model, [(300, z)], [prompt], layers, how=how)
    (plain,) = read_attention(model, [(300, z)], [prompt], layers)

    seen: list[torch.Tensor] = []
    before = dict(model.denoiser.attn_processors)
    explicit = Explicit(seen)
    wanted = {f"{name}.processor" for name in self_attention}
    model.denoiser.set_attn_processor(
        {name: explicit if name in wanted else AttnProcessor() for name in before}
    )
    try:
        model.denoise(z, 300, prompt.conditioning)
    finally:
        model.denoiser.set_attn_processor(before)
    matrix = torch.stack([each[0].mean(0) for each in seen]).mean(0)
    assert matrix.shape == (16, 16)
    assert len(seen) == 5
    for name in layers:
        grid = torch.from_numpy(plain.layers[name])[None]
        wide = torch.nn.functional.interpolate(grid, size=(4, 4), mode="bilinear")
        expected = (matrix @ wide.flatten()).view(4, 4)
        np.testing.assert_allclose(found.layers[name][0], expected, rtol=2e-5)
        assert not np.allclose(found.layers[name][0], wide[0, 0], rtol=1e-3)


def test_a_seed_fills_the_region_that_looks_alike() -> None:
    # Two regions with opposite features; a layer with 2 heads, and more maps than a head is wide.
    region = torch.zeros(6, 6, dtype=torch.bool)
    region[1:4, 2:6] = True
    features = torch.where(region.flatten()[:, None], 5.0, -5.0).expand(36, 4)[None]
    layer = Projections(query=features, key=features, heads=2, scale=1.0, grid=(6, 6))
    seed = torch.zeros(1, 3, 6, 6)
    seed[0, 0, 2, 3] = 1
    seed[0, 1, 0, 0] = 1
    done = complete({"a": seed, "b": 2 * seed}, [layer, layer])
    expected = region / region.sum()
    torch.testing.assert_close(done["a"][0, 0], expected.float())
    torch.testing.assert_close(done["a"][0, 1], (~region) / (~region).sum().float())
    assert (done["a"][0, 2] == 0).all()
    torch.testing.assert_close(done["b"], 2 * done["a"])


def noisy_regions() -> tuple[Projections, torch.Tensor]:
    """A layer where two regions look alike within, and a little across; and the first region."""
    generator = torch.Generator().manual_seed(2)
    region = torch.zeros(6, 6, dtype=torch.bool)
    region[1:4, 2:6] = True
    features = torch.where(region.flatten()[:, None], 0.9, -0.9).expand(36, 4)[None]
    features = features + 0.1 * torch.randn(features.shape, generator=generator)
    return Projections(query=features, key=features, heads=2, scale=1.0, grid=(6, 6)), region


def test_iterations_equal_the_released_recipe_in_plain_numpy() -> None:
    layer, _ = noisy_regions()
    maps = torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(4))
    found = complete_iterated({"a": maps}, [layer, layer])["a"]
    heads = np.split(layer.query[0].numpy().astype(np.float64), 2, axis=1)
    scores = [np.exp(h @ h.T) for h in heads]
    matrix = np.mean([s / s.sum(1, keepdims=True) for s in scores], axis=0)
    matrix /= matrix.max(0)
    matrix = np.maximum(matrix + 0.015 * np.log10(2.718 * matrix), 0)
    matrix /= matrix.sum(1, keepdims=True)
    wide = torch.nn.functional.interpolate(maps, size=(6, 6), mode="bilinear")[0].double().numpy()
    for k in range(2):
        c = wide[k].ravel()
        for _ in range(10):
            c = matrix @ c
            c -= c.min()
            c /= c.sum()
        np.testing.assert_allclose(found[0, k].ravel(), c, rtol=2e-3, atol=1e-5)


def test_iterations_keep_a_seed_in_its_region_better_than_one_completion() -> None:
    layer, region = noisy_regions()
    seed = torch.zeros(1, 1, 6, 6)
    seed[0, 0, 2, 3] = 1
    once = complete({"a": seed}, [layer])["a"][0, 0]
    often = complete_iterated({"a": seed}, [layer])["a"][0, 0]
    assert often[region].sum() / often.sum() > once[region].sum() / once.sum() + 0.02
    flat = complete_iterated({"a": torch.zeros(1, 1, 6, 6)}, [layer])["a"]
    assert (flat == 0).all()


def test_it_is_switched_on_by_an_option(model: Model) -> None:
    assert ReadSettings.of(model, resolve("fast")).self_attention == ()
    assert ReadSettings.of(model, resolve("fast", completion="self-attention")).self_attention
    with pytest.raises(UsageError, match="off, self-attention, iterated"):
        resolve("fast", completion="iseg")


# Ten iterations, the least taken off in each, enlarge what float32 rounds off.
@pytest.mark.parametrize(("completion", "tolerance"), [("self-attention", 0.0), ("iterated", 1e-4)])
def test_rows_of_one_evaluation_are_completed_by_themselves(
    completion: Completion, tolerance: float, model: Model
) -> None:
    prompts = [encode_phrase(model, text) for text in ("left opacity", "effusion")]
    generator = torch.Generator().manual_seed(0)
    latents = [(t, torch.randn(1, 4, 8, 8, generator=generator)) for t in (100, 500)]
    layers = choose_layers(model, 2)
    self_attention = self_attention_layers(model)
    how = ReadSettings(completion=completion, self_attention=self_attention, readout="entmax15")
    alone = read_attention(model, latents, prompts, layers, how=how, batch=1)
    together = read_attention(model, latents, prompts, layers, how=how, batch=8)
    for one, other in zip(alone, together, strict=True):
        for name in layers:
            assert one.layers[name].shape == (2, 4, 4)
            np.testing.assert_allclose(
                one.layers[name], other.layers[name], rtol=1e-4, atol=tolerance
            )
