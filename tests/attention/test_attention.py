"""Watching attention: right numbers, untouched output, clean modules, clear refusals."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention

from cxrg.attention.layers import choose_layers, cross_attention_layers
from cxrg.attention.read import read_attention
from cxrg.attention.watch import AllRead, watch
from cxrg.errors import ModelError, UsageError
from cxrg.model.conditioning import Conditioning
from cxrg.model.families import UNET
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.phrase.encode import encode_phrase
from tests.fakes import tiny_models
from tests.oracles import naive


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tiny_models.sd2(tmp_path_factory.mktemp("models") / "sd2"), device="cpu")


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    """Three rows with different latents, timesteps and conditionings, on an oblong grid."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 4, 8, 16, generator=generator)
    conditioning = torch.randn(3, 9, tiny_models.WIDTH, generator=generator)
    return z, torch.tensor([10, 400, 800]), Conditioning(embeds=conditioning)


def hooks(module: torch.nn.Module) -> int:
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in module.modules())


def all_names(model: Model) -> list[str]:
    return [layer.name for layer in cross_attention_layers(model.denoiser, 8)]


def test_recovered_probabilities_equal_diffusers_own(model, inputs) -> None:
    z, times, conditioning = inputs
    weights = torch.rand(3, 9, generator=torch.Generator().manual_seed(1))
    explicit = naive.capture(model.denoiser, z, times, encoder_hidden_states=conditioning.embeds)
    with watch(model.denoiser, all_names(model), weights) as recorder:
        model.denoise(z, times, conditioning)
    assert len(explicit) == len(recorder.maps) == 11
    assert {probability.shape[1] for probability in explicit} == {2, 4}
    for name, probability in zip(all_names(model), explicit, strict=True):
        expected = (probability.mean(1) * weights[:, None]).sum(-1)
        recovered = recorder.maps[name]
        assert recovered.shape[2] == 2 * recovered.shape[1]
        torch.testing.assert_close(recovered.flatten(1), expected, atol=1e-6, rtol=1e-5)


def test_several_weights_give_several_maps(model, inputs) -> None:
    z, times, conditioning = inputs
    weights = torch.rand(3, 2, 9, generator=torch.Generator().manual_seed(1))
    maps = {}
    for kind, each in {"both": weights, "first": weights[:, 0], "second": weights[:, 1]}.items():
        with watch(model.denoiser, all_names(model), each) as recorder:
            model.denoise(z, times, conditioning)
        maps[kind] = recorder.maps
    for name, both in maps["both"].items():
        torch.testing.assert_close(both[:, 0], maps["first"][name])
        torch.testing.assert_close(both[:, 1], maps["second"][name])
        assert not torch.allclose(both[:, 0], both[:, 1])


def test_the_output_is_bit_identical_and_nothing_stays(model, inputs) -> None:
    z, times, conditioning = inputs
    plain = model.denoise(z, times, conditioning)
    with watch(model.denoiser, all_names(model), torch.ones(3, 9)):
        assert hooks(model.denoiser) == 4 * 11
        watched = model.denoise(z, times, conditioning)
    assert torch.equal(plain, watched)
    assert hooks(model.denoiser) == 0


def test_no_hook_stays_after_an_exception(model, inputs) -> None:
    z, times, conditioning = inputs
    with (
        pytest.raises(RuntimeError, match=r"shape|size"),
        watch(model.denoiser, all_names(model), torch.ones(3, 9)),
    ):
        model.denoise(z, times, Conditioning(embeds=conditioning.embeds[..., :-1]))
    assert hooks(model.denoiser) == 0


def test_a_pass_stops_after_the_last_watched_layer(model, inputs) -> None:
    z, times, conditioning = inputs
    ran = []
    later = model.denoiser.up_blocks[1].register_forward_pre_hook(lambda *_: ran.append("later"))
    middle = model.denoiser.mid_block.register_forward_pre_hook(lambda *_: ran.append("middle"))
    names = choose_layers(model, ("down_blocks.1", "up_blocks.0"))
    try:
        with watch(model.denoiser, names, torch.ones(3, 9), stop_early=True) as recorder:
            with pytest.raises(AllRead):
                model.denoise(z, times, conditioning)
            assert set(recorder.maps) == set(names)
    finally:
        later.remove()
        middle.remove()
    assert ran == ["middle"]
    assert hooks(model.denoiser) == 0
    # The network is as it was.
    assert model.denoise(z, times, conditioning).shape == z.shape


def test_eleven_layers_in_the_order_of_the_forward_pass(model) -> None:
    layers = cross_attention_layers(model.denoiser, 64)
    places = [layer.name.split(".")[0] for layer in layers]
    assert places == ["down_blocks"] * 4 + ["mid_block"] + ["up_blocks"] * 6
    assert [layer.side for layer in layers] == [32, 32, 16, 16, 16, 16, 16, 16, 32, 32, 32]
    names = [layer.name for layer in layers]
    assert UNET.published(names) == tuple(names[index] for index in (3, 4, 6, 7))


def test_stable_diffusion_has_sixteen_layers_of_which_its_16s_are_chosen() -> None:
    # Its last down block has no attention, and its middle is one level below the 16 x 16 maps.
    down = [f"down_blocks.{b}.attentions.{a}" for b in range(3) for a in range(2)]
    up = [f"up_blocks.{b}.attentions.{a}" for b in range(1, 4) for a in range(3)]
    names = [f"{p}.transformer_blocks.0.attn2" for p in (*down, "mid_block.attentions.0", *up)]
    assert len(names) == 16
    chosen = [name.split(".transformer")[0] for name in UNET.published(names)]
    assert chosen == [
        "down_blocks.2.attentions.1",
        "mid_block.attentions.0",
        "up_blocks.1.attentions.1",
        "up_blocks.1.attentions.2",
    ]


def test_layers_are_chosen_by_name_side_or_card(model) -> None:
    names = all_names(model)
    assert choose_layers(model, "card") == choose_layers(model, "paper")
    assert choose_layers(model, 4) == tuple(names[i] for i in (0, 1, 8, 9, 10))
    assert choose_layers(model, ("up_blocks.1.attentions.0", names[4])) == (names[4], names[8])
    with pytest.raises(UsageError, match="use 2, 4"):
        choose_layers(model, 3)
    with pytest.raises(UsageError, match=r"there are down_blocks\.1\.attentions\.0"):
        choose_layers(model, ("up_blocks.2",))
    # A name is no prefix of another one.
    with pytest.raises(UsageError, match=r"up_blocks\.1\.att'"):
        choose_layers(model, ("up_blocks.1.att",))


def test_phrases_and_latents_keep_their_places_in_any_batch(model) -> None:
    prompts = [encode_phrase(model, text) for text in ("left opacity", "effusion", "right mass")]
    generator = torch.Generator().manual_seed(0)
    latents = [(t, torch.randn(1, 4, 8, 8, generator=generator)) for t in (100, 500)]
    layers = choose_layers(model, "paper")
    alone = [
        [read_attention(model, [latent], [prompt], layers)[0].layers for latent in latents]
        for prompt in prompts
    ]
    for batch in (1, 4, 100):
        together = read_attention(model, latents, prompts, layers, batch=batch)
        for maps, expected in zip(together, alone, strict=True):
            assert maps.timesteps == (100, 500)
            assert list(maps.layers) == list(layers)
            for name in layers:
                stacked = np.concatenate([each[name] for each in expected])
                np.testing.assert_allclose(maps.layers[name], stacked, rtol=1e-5)
    # Places differ by more than that.
    first = [each[layers[0]] for phrase in alone for each in phrase]
    assert min(abs(a - b).max() / a.max() for a, b in itertools.combinations(first, 2)) > 1e-4


def test_tokens_are_summed(model) -> None:
    prompt = encode_phrase(model, "left opacity", (0, 1, 2))
    latents = [(300, torch.zeros(1, 4, 8, 8))]
    layers = choose_layers(model, "paper")
    single = [replace(prompt, selected=(index,)) for index in prompt.selected]
    total, *each = read_attention(model, latents, [prompt, *single], layers)
    for name in layers:
        torch.testing.assert_close(
            torch.from_numpy(total.layers[name]),
            torch.from_numpy(sum(maps.layers[name] for maps in each)),
        )
    everything = replace(prompt, selected=tuple(range(len(prompt.embeds))))
    (whole,) = read_attention(model, latents, [everything], layers)
    for name in layers:
        torch.testing.assert_close(
            torch.from_numpy(whole.layers[name]), torch.ones(whole.layers[name].shape)
        )


@pytest.mark.parametrize(
    ("why", "settings"),
    [
        ("norm_q", {"qk_norm": "layer_norm"}),
        ("shared between heads", {"kv_heads": 1}),
        ("added key projections", {"added_kv_proj_dim": 8}),
        ("fused", {}),
    ],
)
def test_unusual_attention_is_refused(why: str, settings: dict[str, Any]) -> None:
    attention = Attention(8, cross_attention_dim=8, heads=2, dim_head=4, **settings)
    attention.fused_projections = not settings
    unet = torch.nn.ModuleDict({"attn2": attention})
    with pytest.raises(ModelError, match=why), watch(unet, ["attn2"], torch.ones(1, 1)):
        pass
    assert hooks(unet) == 0


def test_a_mask_over_tokens_is_applied(model, inputs) -> None:
    """U-Nets are never given one here, but where one is given it counts."""
    z, times, conditioning = inputs
    mask = torch.ones(3, 9)
    mask[1, 4:] = 0
    given: dict[str, Any] = {
        "encoder_hidden_states": conditioning.embeds,
        "encoder_attention_mask": mask,
    }
    explicit = naive.capture(model.denoiser, z, times, **given)
    weights = torch.zeros(3, 9)
    weights[:, 3] = 1
    with watch(model.denoiser, all_names(model), weights) as recorder:
        model.denoiser(z, times, **given)
    for name, probability in zip(all_names(model), explicit, strict=True):
        torch.testing.assert_close(
            recorder.maps[name].flatten(1), probability[..., 3].mean(1), atol=1e-6, rtol=1e-5
        )
        assert probability[1, ..., 4:].max() == 0
    assert hooks(model.denoiser) == 0


def test_layers_of_a_network_without_a_middle() -> None:
    unet = SimpleNamespace(
        named_modules=lambda: [("down_blocks.0.attentions.0.transformer_blocks.0.attn2", None)],
        config=SimpleNamespace(down_block_types=("CrossAttnDownBlock2D",)),
    )
    (layer,) = cross_attention_layers(unet, 16)
    assert layer.side == 16
    assert UNET.published([layer.name]) == (layer.name,)
