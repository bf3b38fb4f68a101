"""Preset gen2ground: against the released procedure done by its whole tensor, and its parts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from skimage.metrics import structural_similarity

from cxrg.attention.free_run import FreeRun, free_run
from cxrg.attention.layers import choose_layers
from cxrg.attention.read import ReadSettings, token_weights
from cxrg.attention.watch import AttentionMaps
from cxrg.errors import ModelError, UsageError
from cxrg.geometry import Frame
from cxrg.grounding import ground
from cxrg.heatmap.bias_merging import agreement, merge
from cxrg.heatmap.mixture import mixture_mask
from cxrg.image.read import CxrImage
from cxrg.latents.resample import leading_timesteps
from cxrg.latents.route import route_of
from cxrg.model.load import load
from cxrg.model.microbatch import Microbatch
from cxrg.model.model import Model
from cxrg.options import PRESETS, resolve
from cxrg.phrase.encode import encode_phrase
from tests.fakes import tiny_models
from tests.oracles import naive_gen2ground as naive

PHRASE = "there is a small left apical pneumothorax"
WORDS = (4, 5, 6, 7)  # small left apical pneumo, where [CLS] is 0
PLAIN: dict[str, Any] = {"preset": "gen2ground", "mask": "none"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tiny_models.gen2ground(tmp_path_factory.mktemp("m") / "gen2ground"), device="cpu")


@pytest.fixture(scope="module")
def image() -> CxrImage:
    coarse = np.random.default_rng(0).random((16, 16))
    grey = np.kron(coarse, np.ones((8, 8))).astype(np.float32)
    frame = Frame.fit((128, 128), 128, "crop")
    return CxrImage(
        pixels=frame.sample(grey),
        frame=frame,
        grey=grey,
        path=Path("picture.png"),
        sha256="5" * 64,
        kind="png",
        uid=None,
        window="full range",
        warnings=(),
    )


@pytest.fixture(scope="module")
def ddim() -> DDIMScheduler:
    return naive.scheduler(tiny_models.STABLE_DIFFUSION_1)


@pytest.fixture(scope="module")
def passes(model: Model, image: CxrImage, ddim: DDIMScheduler) -> tuple[np.ndarray, ...]:
    """The whole tensors of both passes, 50 x 16 x 77 x 16 x 16."""
    real = naive.real_maps(model, ddim, image.pixels, PHRASE, seed=0)
    free = naive.free_maps(model, ddim, PHRASE, seed=0)
    assert real.shape == free.shape == (50, 16, 77, 16, 16)
    return real, free


def spread(heat: np.ndarray) -> np.ndarray:
    return np.kron(heat, np.ones((8, 8)))


def test_its_timesteps_are_those_of_stable_diffusion_15(ddim: DDIMScheduler) -> None:
    assert leading_timesteps(50) == sorted(ddim.timesteps.tolist())
    assert leading_timesteps(50)[:2] == [1, 21]
    assert leading_timesteps(50)[-1] == 981
    with pytest.raises(UsageError, match="1 to 500"):
        leading_timesteps(600)


def test_the_preset_is_the_published_procedure() -> None:
    options = PRESETS["gen2ground"]
    assert (options.path, options.steps, options.window) == ("resample", 50, (0, 40))
    assert (options.layers, options.tokens, options.bbm) == ("all", "tagged", "paper")
    assert (options.mask, options.threshold, options.fit) == ("mixture", "mixture", "crop")
    assert options.enlarge == "nearest"


def test_the_words_read_are_the_published_ones(model: Model) -> None:
    prompt = encode_phrase(model, PHRASE, "tagged")
    assert prompt.selected == WORDS
    assert prompt.selected_tokens == ("small", "left", "apical", "pneumo")
    assert prompt.embeds.shape == (77, tiny_models.WIDTH)


@pytest.mark.parametrize("bbm", ["off", "paper"])
def test_equals_the_whole_tensor(bbm: str, model: Model, image: CxrImage, passes) -> None:
    real, free = passes
    expected = naive.heatmap(real, None if bbm == "off" else free, WORDS)
    result = ground(image, PHRASE, model=model, bbm=bbm, **PLAIN)
    assert np.ptp(expected) == 1
    # u8 rounds down: where a value is whole but for its last digit, a step of 1/255 may differ.
    np.testing.assert_allclose(result.canonical, spread(expected), atol=0.005)
    assert np.abs(result.canonical - spread(expected)).mean() < 1e-4
    assert len(result.layers) == 16
    assert result.evaluations == (40 if bbm == "off" else 50 + 2 * 50)


def test_merging_changes_the_map(model: Model, image: CxrImage) -> None:
    plain, merged = (
        ground(image, PHRASE, model=model, bbm=bbm, **PLAIN).canonical for bbm in ("off", "paper")
    )
    # Far more than what the oracle is met to.
    assert np.abs(plain - merged).mean() > 1e-3


def test_attention_is_that_before_biases_are_merged(model: Model, image: CxrImage) -> None:
    plain = ground(image, PHRASE, model=model, normalise="none", bbm="off", **PLAIN)
    found = ground(image, PHRASE, model=model, preset="gen2ground")
    np.testing.assert_allclose(found.canonical_attention, plain.canonical, atol=1e-6)
    assert not np.allclose(found.canonical, plain.canonical, atol=1e-2)


def test_the_mask_and_its_box_are_the_published_ones(model: Model, image: CxrImage) -> None:
    shown = ground(image, PHRASE, model=model, bbm="off", **PLAIN)
    cut = ground(image, PHRASE, model=model, preset="gen2ground", bbm="off")
    fine = np.kron(shown.canonical[::8, ::8], np.ones((4, 4)))
    expected = naive.mask(fine.astype(np.float64))
    grid = torch.from_numpy(expected.astype(np.float32))[None, None]
    large = torch.nn.functional.interpolate(grid, size=(128, 128), mode="bilinear")[0, 0] > 0.5
    np.testing.assert_array_equal(mixture_mask(shown.canonical), large)
    np.testing.assert_array_equal(cut.canonical, np.where(large, shown.canonical, 0))
    rows, columns = (np.flatnonzero(large.any(axis)) for axis in (1, 0))
    (box,) = cut.boxes
    assert (box.x0, box.y0) == (columns[0], rows[0])
    assert (box.x1, box.y1) == (columns[-1] + 1, rows[-1] + 1)


def test_every_step_has_its_own_draws(model: Model) -> None:
    mean = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    std = torch.full_like(mean, 0.5)
    options = resolve("gen2ground", bbm="off")
    latents = list(route_of(options, model.schedule).latents(model, mean, std))
    assert [t for t, _ in latents] == leading_timesteps(50)[:40]
    noises = []
    for t, z in latents:
        alpha = model.schedule.alpha[t].item() ** 2
        noises.append((z - alpha**0.5 * mean) / (alpha * 0.25 + 1 - alpha) ** 0.5)
    whole = torch.stack(noises)
    assert whole.mean().item() == pytest.approx(0, abs=0.02)
    assert whole.std().item() == pytest.approx(1, abs=0.02)
    assert abs(torch.corrcoef(whole[:, 0].flatten(1)) - torch.eye(40)).max() < 0.15
    # The same for every image and for every window; another with another seed.
    torch.testing.assert_close(whole[:, 0], whole[:, 1], atol=1e-4, rtol=0)
    part = list(route_of(replace(options, window=(7, 9)), model.schedule).latents(model, mean, std))
    assert torch.equal(part[0][1], latents[7][1])
    other = next(route_of(replace(options, seed=1), model.schedule).latents(model, mean, std))
    assert not torch.equal(other[1], latents[0][1])
    merged = list(route_of(PRESETS["gen2ground"], model.schedule).latents(model, mean, std))
    assert len(merged) == 50
    assert torch.equal(merged[39][1], latents[39][1])


def test_a_phrases_free_run_serves_every_image(model: Model, image: CxrImage) -> None:
    rows = []
    count = model.denoiser.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    knobs: dict[str, Any] = {"preset": "gen2ground", "steps": 10, "window": (0, 8)}
    try:
        first = ground(image, "left effusion", model=model, **knobs)
        assert sum(rows) == first.evaluations == 10 + 20
        rows.clear()
        again = ground(image, "left effusion", model=model, **knobs)
        assert sum(rows) == 10
    finally:
        count.remove()
    np.testing.assert_array_equal(first.canonical, again.canonical)


def test_one_row_at_a_time_samples_the_same(model: Model) -> None:
    prompt = encode_phrase(model, PHRASE, "tagged")
    layers = choose_layers(model, 16)
    options = resolve("gen2ground", steps=4)
    both = free_run(model, prompt, layers, options, Microbatch(8))
    alone = free_run(model, prompt, layers, replace(options, seed=0, steps=4), Microbatch(1))
    assert both is alone
    fresh = free_run(replace(model), prompt, layers, options, Microbatch(1))
    for name in layers:
        assert fresh.maps.layers[name].shape == (4, 16, 16)
        np.testing.assert_allclose(fresh.maps.layers[name], both.maps.layers[name], rtol=1e-4)


# --- merging --------------------------------------------------------------------------------------


def maps_of(layers: dict[str, np.ndarray]) -> AttentionMaps:
    layers = {name: each.astype(np.float32) for name, each in layers.items()}
    return AttentionMaps(layers=layers, timesteps=(1,), extra={"start": layers})


def test_agreeing_biases_are_trusted_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    bias, plain = rng.random((1, 16, 16)), rng.random((16, 16)).astype(np.float32)
    plain = (plain - plain.min()) / np.ptp(plain)
    agreeing = FreeRun(maps=maps_of({"a": bias}), side=16, evaluations=0)
    same = merge(plain, maps_of({"a": bias}), agreeing)
    product = naive.minmax(naive.to_bytes(bias[0] @ bias[0]).astype(np.float64))
    np.testing.assert_allclose(same, product, atol=1e-5)
    against = FreeRun(maps=maps_of({"a": 1 - bias}), side=16, evaluations=0)
    np.testing.assert_array_equal(merge(plain, maps_of({"a": bias}), against), plain)


def test_products_at_a_layers_own_resolution_are_those_of_repeated_maps() -> None:
    rng = np.random.default_rng(1)
    real = {"a": rng.random((3, 4, 4)), "b": rng.random((3, 16, 16))}
    free = {name: 0.7 * each + 0.3 * rng.random(each.shape) for name, each in real.items()}
    plain = np.zeros((16, 16), np.float32)

    def whole(maps: dict[str, np.ndarray]) -> np.ndarray:
        big = maps["a"].repeat(4, axis=1).repeat(4, axis=2)
        return np.stack([big, maps["b"]], axis=1)[:, :, None].astype(np.float32)

    # Both the start token (position 0) and the word are the only token here.
    stacked = np.tile(whole(real), (1, 1, 2, 1, 1)), np.tile(whole(free), (1, 1, 2, 1, 1))
    merged = merge(plain, maps_of(real), FreeRun(maps=maps_of(free), side=16, evaluations=0))
    s = max(0.0, naive.ssim(*(naive.to_bytes(x[:, :, 0].mean((0, 1))) for x in stacked)))
    total: Any = sum(
        one @ two
        for one, two in zip(
            stacked[0][:, :, 0].reshape(-1, 16, 16).astype(np.float64),
            stacked[1][:, :, 1].reshape(-1, 16, 16).astype(np.float64),
            strict=True,
        )
    )
    m = naive.minmax(naive.to_bytes(total).astype(np.float64))
    assert 0.3 < s < 0.99
    np.testing.assert_allclose(merged, s**2 * m + s * (1 - s) * m, atol=0.005)


def test_agreement_is_the_structural_similarity() -> None:
    rng = np.random.default_rng(2)
    one, other = (rng.random((20, 20)).astype(np.float32) for _ in range(2))
    blend = (0.8 * one + 0.2 * other).astype(np.float32)
    bytes_of = [naive.to_bytes(x.astype(np.float64)) for x in (one, blend)]
    assert agreement(one, blend) == pytest.approx(naive.ssim(*bytes_of), abs=1e-3)
    assert agreement(one, blend) == pytest.approx(
        structural_similarity(*bytes_of, data_range=255), abs=1e-3
    )
    assert agreement(one, one) == pytest.approx(1)
    assert agreement(one, 1 - one) == 0


def test_constant_maps_give_zeros_and_no_division() -> None:
    flat = maps_of({"a": np.full((1, 16, 16), 0.3)})
    zero = np.zeros((16, 16), np.float32)
    assert (merge(zero, flat, FreeRun(maps=flat, side=16, evaluations=0)) == 0).all()
    assert agreement(zero, zero) == 1


def test_the_check_of_a_folder_tells_how_the_preset_reads(model: Model) -> None:
    from cxrg.plan import _describe_preset

    told = _describe_preset(model, PRESETS["gen2ground"])
    assert told.startswith("resamples latent and noise at 40 of 50 DDIM steps (t = 1 to 781)")
    assert told.count("attentions") == 16


# --- refusals -------------------------------------------------------------------------------------


def test_what_cannot_be_merged_is_refused(model: Model, image: CxrImage, monkeypatch) -> None:
    with pytest.raises(UsageError, match="needs path=resample"):
        resolve("gen2ground", path="noise")
    with pytest.raises(UsageError, match="begin it with 0"):
        ground(image, PHRASE, model=model, preset="gen2ground", window=(5, 20))
    prompt = encode_phrase(model, PHRASE)
    headless = replace(prompt, span=slice(0, prompt.span.stop))
    with pytest.raises(ModelError, match="no token before"):
        token_weights(headless, ReadSettings(extra=("start",)))
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setattr("cxrg.heatmap.bias_merging.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"cxrg\[gen2ground\]"):
        ground(image, PHRASE, model=model, preset="gen2ground")
    assert ground(
        image, PHRASE, model=model, preset="gen2ground", bbm="off", steps=4, window=(0, 2)
    )


def test_the_tiny_card_hides_padding_from_the_text_encoder_only(model: Model) -> None:
    assert model.card.pass_attention_mask
    assert model.text_length == 77
    masks = []
    see = model.text_encoder.register_forward_pre_hook(
        lambda _, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    try:
        model.encode_text(["left effusion"])
    finally:
        see.remove()
    assert masks[0].sum().item() == 4
    assert masks[0].shape == (1, 77)
