"""Training: batches tell the truth, losses are what they say, and a short run learns to look."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from cxrg.errors import InputError, UsageError
from cxrg.learn.cells import coarse
from cxrg.learn.train import batches, diffusion
from cxrg.learn.train.config import DEFAULT_SHARES, TrainConfig, read_config
from cxrg.learn.train.pool import (
    ABSENT,
    ANATOMY,
    DEVICE,
    PRESENT,
    Background,
    Pool,
    Sources,
    from_words,
    make_pool,
    peaked,
    read_pool,
    to_words,
)
from cxrg.learn.train.run import run
from cxrg.learn.train.text import new_text_encoder, tokens_of, train_tokenizer
from cxrg.phantom.sample import render

RECIPE = Path(__file__).parents[2] / "cxrg" / "learn" / "train" / "compact.toml"
TINY = {
    "side = 256": "side = 64",
    "grid = 32": "grid = 8",
    "side = 128": "side = 64",
    "phantoms = 6000": "phantoms = 60",
    "drawn_on_real = 18000": "drawn_on_real = 0",
    "sentences = 40000": "sentences = 1500",
    "vocabulary = 1500": "vocabulary = 500",
    "batch = 32": "batch = 16",
    "warmup = 200": "warmup = 10",
    "checkpoint_every = 200": "checkpoint_every = 15",
    "snapshots = [400, 1000, 2000, 4000, 7000]": "snapshots = [20]",
}

_DENIALS = ("no ", "not ", "without", "free of", "absen", "negative for")


def recipe(folder: Path, **changes: str) -> Path:
    """The shipped recipe made small; every change must apply."""
    text = RECIPE.read_text(encoding="utf-8")
    for old, new in {**TINY, **changes}.items():
        assert old in text, old
        text = text.replace(old, new)
    lines = [
        "steps = 8" if line.startswith("steps = ") else line
        for line in text.splitlines()
        if not line.startswith("backgrounds")
    ]
    path = folder / "tiny.toml"
    path.write_text("\n".join(lines).replace("[data]", '[data]\nbackgrounds = ""'), "utf-8")
    return path


def pool() -> Pool:
    """Two pictures, three answers: a finding, an absence, a lung."""
    mask = np.zeros((3, 4, 4), np.uint8)
    mask[0, 1, 1] = 255
    mask[2, :, :2] = 255
    box = np.zeros((3, 4, 4), np.uint8)
    box[0, 1:3, 1:3] = 255
    box[2, :, :2] = 255
    lungs = np.full((2, 4, 4), 255, np.uint8)
    return Pool(
        images=np.zeros((2, 8, 8), np.uint8),
        lungs=lungs,
        complete=np.array([False, True]),
        owner=np.array([0, 1, 1], np.int32),
        query=np.array(["opacity|left|lower", "pneumothorax|right|", "lung|right|"]),
        kind=np.array([PRESENT, ABSENT, ANATOMY], np.uint8),
        mask=mask,
        box=box,
    )


def test_the_shipped_recipe_can_be_read() -> None:
    settings = read_config(RECIPE)
    assert isinstance(settings, TrainConfig)
    assert settings.data.side // 8 == settings.data.grid


def test_a_config_with_a_misspelt_key_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(RECIPE.read_text().replace("caption_drop", "captiondrop"), "utf-8")
    with pytest.raises(InputError, match=r"captiondrop.*caption_drop"):
        read_config(path)


def test_settings_on_top_replace_those_of_the_file() -> None:
    settings = read_config(RECIPE, {"diffusion.attention_weight": "0", "name": "plain"})
    assert (settings.diffusion.attention_weight, settings.name) == (0, "plain")
    assert Path(settings.data.backgrounds).is_absolute()
    with pytest.raises(UsageError, match=r"'stepps' is unknown; see .*compact.toml"):
        read_config(RECIPE, {"diffusion.stepps": "1"})


def test_queries_survive_as_words() -> None:
    for words in ("opacity|left|lower", "pneumothorax||", "lung|right|"):
        assert to_words(from_words(words)) == words


@pytest.mark.parametrize(
    "shares", ["[0.5, 0.5]", "[0, 0, 0, 0]", "[1, -1, 1, 1]", "[1, true, 1, 1]"]
)
def test_shares_of_another_length_or_below_zero_are_refused(shares: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    whole = RECIPE.read_text(encoding="utf-8")
    recipe.write_text(whole.replace("[0.54, 0.22, 0.20, 0.04]", shares), "utf-8")
    with pytest.raises(UsageError, match=r"diffusion.shares .* use 4 numbers from 0"):
        read_config(recipe)


def test_drawing_on_real_chests_needs_a_folder_of_them(tmp_path: Path) -> None:
    settings = read_config("compact", {"data.backgrounds": "", "data.drawn_on_real": "1"})
    with pytest.raises(InputError, match=r"data.backgrounds '' is no folder; name one"):
        run(settings, out=tmp_path / "out", resume=False, progress=lambda *_: None)


def test_coarse_is_the_share_of_each_cell() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:4, :2] = True
    mask[4:, 4:] = True
    expected = np.array([[128, 0], [0, 255]])
    assert np.abs(coarse(mask, 2).astype(int) - expected).max() <= 1


def test_a_small_part_fills_its_cell_and_a_large_one_stays_its_share() -> None:
    mask = np.zeros((32, 32), bool)
    mask[2:5, 2:5] = True  # 9 of the 64 pixels of a cell: grows fourfold, no more
    mask[20, 16:24] = True  # 8 of 64
    mask[2:6, 16:32] = True  # half of two cells: to nine tenths
    found = peaked(mask, 4)
    assert found[0, 0] == pytest.approx(4 * 9 / 64 * 255, abs=3)
    assert found[2, 2] == pytest.approx(4 * 8 / 64 * 255, abs=3)
    assert found[0, 2] == found[0, 3] == 230
    assert np.count_nonzero(found) == 4
    large = np.zeros((32, 32), bool)
    large[0:24, 0:20] = True
    np.testing.assert_array_equal(peaked(large, 4), coarse(large, 4))


def drawn(
    made: Pool | None = None, *, balance: float = 0.0, size: int = 200, **changes: Any
) -> batches.Batch:
    made = made or pool()
    settings: dict[str, Any] = {"caption_drop": 0.0, "box_share": 0.6, **changes}
    sampler = batches.make_sampler(made, balance)
    return batches.draw(made, sampler, np.random.default_rng(0), Random(0), size=size, **settings)


def test_targets_are_mask_or_part_of_the_box() -> None:
    batch = drawn()
    finding = batch.target[[i for i, o in enumerate(batch.index) if o == 0]]
    shown = finding[finding.amax((1, 2)) > 0][0].numpy()
    assert shown[1, 1] == 1
    np.testing.assert_allclose(shown[1:3, 1:3].ravel(), [1, 0.6, 0.6, 0.6], atol=1e-6)


def test_thin_findings_have_no_box() -> None:
    made = pool()
    made = replace(made, query=np.array([w.replace("opacity", "pneumothorax") for w in made.query]))
    batch = drawn(made)
    finding = batch.target[[i for i, o in enumerate(batch.index) if o == 0]]
    shown = finding[finding.amax((1, 2)) > 0][0].numpy()
    np.testing.assert_allclose(shown[1:3, 1:3].ravel(), [1, 0, 0, 0], atol=1e-6)


def test_unlabelled_lungs_do_not_count_against_a_finding() -> None:
    batch = drawn()
    for i in np.flatnonzero(batch.index == 0):
        if batch.target[i].max() > 0:
            assert batch.weight[i][batch.target[i] < 0.05].max() == 0
            assert batch.weight[i][batch.target[i] > 0.5].min() == 1


def test_absent_and_negated_phrases_have_empty_targets_and_only_true_ones_describe() -> None:
    batch = drawn()
    for phrase, target, owner, described in zip(
        batch.phrases, batch.target, batch.index, batch.described, strict=True
    ):
        about_air = "pneumothora" in phrase.lower()
        if owner == 1 and about_air:
            assert target.max() == 0
            negated = any(cue in phrase.lower() for cue in _DENIALS)
            if not negated:
                assert described == 0


def test_words_alone_do_not_tell_whether_something_is_there() -> None:
    query = (
        ["opacity|left|"] * 6 + ["mass|right|"] * 2 + ["opacity|right|"] * 1 + ["mass|left|"] * 9
    )
    kind = [PRESENT] * 8 + [ABSENT] * 10
    empty = np.zeros((18, 4, 4), np.uint8)
    made = replace(
        pool(),
        complete=np.array([True, True]),
        owner=np.zeros(18, np.int32),
        query=np.array(query),
        kind=np.array(kind, np.uint8),
        mask=np.where(np.arange(18)[:, None, None] < 8, 255, empty).astype(np.uint8),
        box=empty,
    )
    sampler = batches.make_sampler(made)
    # Three opacities are there for each mass, so as many phrases about absent ones are.
    assert sampler.odds[ABSENT] == pytest.approx([0.75] + [0.25 / 9] * 9)
    assert sampler.blank.tolist() == [1]
    batch = drawn(made, size=400)
    blank = batch.index == 1
    assert 0.05 < blank.mean() < 0.25
    assert batch.target[blank].max() == 0
    assert batch.described[blank].sum() == sum(
        any(cue in p.lower() for cue in _DENIALS)
        for p, is_blank in zip(batch.phrases, blank, strict=True)
        if is_blank
    )


def test_balance_draws_the_rare_more_often_and_asks_devices_of_pictures_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_word", "negate"):
        monkeypatch.setattr(batches, name, lambda query, words: query.concept)
    query = ["opacity||"] * 16 + ["nodule||"] * 4 + ["pacemaker||", "leads||", "opacity||"]
    kind = [PRESENT] * 20 + [DEVICE] * 2 + [ABSENT]
    empty = np.zeros((23, 4, 4), np.uint8)
    made = replace(
        pool(),
        images=np.zeros((3, 8, 8), np.uint8),
        lungs=np.zeros((3, 4, 4), np.uint8),
        complete=np.array([True, True, True]),
        owner=np.array([0] * 20 + [1] * 2 + [0], np.int32),
        query=np.array(query),
        kind=np.array(kind, np.uint8),
        mask=empty,
        box=empty,
    )
    sampler = batches.make_sampler(made, 0.5)
    # 16 / sqrt(16) opacities for 4 / sqrt(4) nodules.
    assert sampler.odds[PRESENT] == pytest.approx([0.25 / 6] * 16 + [0.5 / 6] * 4)
    # The one pacemaker counts 1; leads are never the subject of a phrase about what is absent.
    assert sampler.missing.tolist() == list(range(21))
    assert sampler.missing_odds == pytest.approx([0.25 / 7] * 16 + [0.5 / 7] * 4 + [1 / 7])
    assert (sampler.blank.tolist(), sampler.bare.tolist()) == ([1, 2], [2])
    batch = drawn(made, balance=0.5, size=400, shares=(0.0, 1.0, 0.0, 0.0))
    pacemaker = np.array(batch.phrases) == "pacemaker"
    assert set(batch.index[pacemaker].tolist()) == {2}
    assert set(batch.index[~pacemaker].tolist()) == {0, 1, 2}


def test_dropped_captions_teach_no_attention() -> None:
    batch = drawn(caption_drop=1.0)
    assert set(batch.phrases) == {""}
    assert batch.weight.max() == 0


def test_attention_loss_is_smallest_for_the_right_map_and_ignores_weightless_rows() -> None:
    target = torch.zeros(2, 4, 4)
    target[0, 1:3, 1:3] = 1
    weight = torch.ones(2, 4, 4)

    def loss(share: torch.Tensor, counts: torch.Tensor = weight) -> float:
        return diffusion.attention_loss({"a": share, "b": share}, target, counts).item()

    right = target.clone()
    wrong = target.roll(2, dims=2)
    assert loss(right) < loss(0.5 * torch.ones_like(target)) < loss(wrong)
    second = weight.clone()
    second[1] = 0
    spoiled = right.clone()
    spoiled[1] = 1
    assert loss(spoiled, second) == pytest.approx(loss(right, second))
    assert loss(right, torch.zeros_like(weight)) == 0


@pytest.mark.parametrize("loss", [diffusion.attention_loss, diffusion.share_loss])
def test_a_word_that_nothing_listens_to_is_still_taught(
    loss: Callable[[dict[str, torch.Tensor], torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    logits = torch.full((1, 8, 8), -20.0, requires_grad=True)
    target = torch.zeros(1, 8, 8)
    target[0, 2, 3] = 1
    error = loss({"a": logits.sigmoid()}, target, torch.ones_like(target))
    (slope,) = torch.autograd.grad(error, logits)
    assert slope[0, 2, 3].item() < -0.01


def test_share_loss_equals_a_loop_and_skips_what_has_no_target_or_no_weight() -> None:
    rng = np.random.default_rng(4)
    share, target = rng.random((4, 6, 6)), rng.random((4, 6, 6))
    weight = (rng.random((4, 6, 6)) > 0.2).astype(float)
    target[2], weight[3] = 0, 0

    naive = []
    for s, t, w in zip(share[:2], target[:2], weight[:2], strict=True):
        naive.append(-np.log((s * t * w).sum() / (t * w).max() / (s * w).sum()))
    args = [torch.from_numpy(each) for each in (share, target, weight)]
    loss = diffusion.share_loss({"a": args[0], "b": args[0]}, *args[1:])
    assert loss.item() == pytest.approx(np.mean(naive), rel=1e-4)
    nothing = torch.zeros(4, 6, 6, dtype=torch.float64)
    assert diffusion.share_loss({"a": args[0]}, nothing, args[2]).item() == 0


def test_presence_loss_equals_a_loop_and_counts_each_phrase_once() -> None:
    torch.manual_seed(2)
    maps = {name: torch.rand(4, side, side) for name, side in (("a", 8), ("b", 4), ("unread", 8))}
    target, weight = torch.zeros(4, 8, 8), torch.ones(4, 8, 8)
    target[0, 2:5, 2:6] = 1.0  # there
    target[1, 3, 3] = 0.9  # there, in one position
    target[3, 1, 1] = 0.3  # neither
    weight[0, 2] = 0  # unknown
    loss = diffusion.presence_loss(maps, target, weight, ("a", "b"))
    large = functional.interpolate(maps["b"][:, None], (8, 8), mode="bilinear")[:, 0]
    mean = (maps["a"] + large) / 2
    scores = [
        sorted(mean[0, 3:5, 2:6].flatten().tolist())[-4:],
        [mean[1, 3, 3].item()],
        sorted(mean[2].flatten().tolist())[-4:],
    ]
    score = [sum(values) / len(values) for values in scores]
    expected = -(math.log(score[0]) + math.log(score[1]) + math.log(1 - score[2])) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert diffusion.presence_loss(maps, target, torch.zeros_like(weight), ("a",)).item() == 0


@pytest.mark.parametrize(("share", "there"), [(1e-9, True), (0.99, False)])
def test_presence_loss_moves_words_that_are_always_or_never_found(
    share: float, there: bool
) -> None:
    logit = torch.full((1, 32, 32), math.log(share / (1 - share)), requires_grad=True)
    target = torch.zeros(1, 32, 32)
    target[0, 4:6, 4:6] = float(there)
    loss = diffusion.presence_loss({"a": logit.sigmoid()}, target, torch.ones_like(target), ("a",))
    loss.backward()
    assert logit.grad is not None
    assert abs(logit.grad.sum().item()) > 0.9


def test_share_loss_asks_as_much_of_a_nodule_as_of_a_lung() -> None:
    flat = torch.full((1, 16, 16), 0.5, requires_grad=True)
    pull = []
    for size in (1, 8):
        target = torch.zeros(1, 16, 16)
        target[:, :size, :size] = 1
        loss = diffusion.share_loss({"a": flat}, target, torch.ones_like(target))
        (slope,) = torch.autograd.grad(loss, flat)
        pull.append(-(slope * target).sum().item())
    nodule, lung = pull
    assert 1 < nodule / lung < 2


def test_the_share_term_counts_from_its_step_on(tmp_path: Path) -> None:
    seen = []

    class Objective:
        config = replace(
            read_config(RECIPE).diffusion, steps=4, batch=2, share_weight=0.2, share_from=2
        )

        def __call__(
            self, pair: torch.nn.Linear, *given: object
        ) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(given[-1])
            return pair.weight.sum(), pair.weight.sum()

    diffusion.train_diffusion(
        cast(Any, torch.nn.Linear(1, 1)),
        pool(),
        np.zeros((2, 1, 4, 4), np.float16),
        cast(Any, Objective()),
        0,
        lambda *_: None,
        checkpoint=tmp_path / "checkpoint.pt",
        check=lambda _: None,
    )
    assert seen == [0, 0, 0.2, 0.2]


def test_learning_rate_rises_stays_and_falls_to_nothing() -> None:
    config = replace(
        read_config(RECIPE).diffusion, steps=1000, warmup=100, learning_rate=1.0, share_from=0
    )
    rates = [diffusion.learning_rate(config, step) for step in (0, 50, 100, 700, 850, 999)]
    assert rates == pytest.approx([1e-3, 0.5, 1, 1, 0.5, 1 / 300], abs=1e-3)
    config = replace(config, share_from=600)
    rates = [diffusion.learning_rate(config, step) for step in (300, 510, 600, 700, 880, 940)]
    assert rates == pytest.approx([1, 0.5, 1e-3, 1, 1, 0.5], abs=1e-3)


def test_own_tokens_are_neither_start_nor_end_nor_padding() -> None:
    settings = replace(read_config(RECIPE).text, sentences=800, vocabulary=400)
    tokenizer = train_tokenizer(settings, 0)
    phrases = ["left basal opacity", "", "zweites ünbekanntes Wort"]
    ids, mask, own = tokens_of(tokenizer, phrases, 24)
    for row in range(3):
        words = str(tokenizer.decode(ids[row][own[row] == 1])).strip()
        assert words == ["left basal opacity", "", "zweites ünbekanntes wort"][row]
        assert int(mask[row].sum()) == int(own[row].sum()) + 2
    assert tokenizer.unk_token_id not in ids


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    with pytest.raises(UsageError, match="--resume"):
        run(
            read_config(recipe(tmp_path)),
            out=tmp_path / "out",
            resume=False,
            progress=lambda *_: None,
        )


def test_backgrounds_without_two_plausible_lungs_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxrg.learn.train import backgrounds
    from cxrg.learn.train.segmenter import STRUCTURES, new_segmenter

    def two_lungs(_: object, image: np.ndarray) -> dict[str, np.ndarray]:
        masks = {name: np.zeros(image.shape, bool) for name in STRUCTURES}
        if image[0, 0] < 0.5:
            masks["right lung"][8:24, 4:12] = masks["left lung"][8:24, 20:28] = True
        return masks

    monkeypatch.setattr(backgrounds, "segment", two_lungs)
    with (tmp_path / "index.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["file", "labels"], ["0.png", "No Finding"], ["1.png", "Mass"]])
        rows.writerow(["2.png", "No Finding"])
    for index, corner in enumerate((10, 10, 240)):
        image = np.full((40, 40), 128, np.uint8)
        image[:12, :12] = corner
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    net = new_segmenter(32, (8, 8))
    kept = backgrounds.read_backgrounds(tmp_path, 64, net, lambda *_: None)
    assert [b.healthy for b in kept] == [True, False]
    assert kept[0].image.max() == pytest.approx(128 / 255, abs=1e-6)
    fewer = backgrounds.read_backgrounds(tmp_path, 64, net, lambda *_: None, held_out=2)
    assert [b.healthy for b in fewer] == [True]
    assert kept[0].image.shape == kept[0].masks["left lung"].shape == (64, 64)


class Interrupted(Exception):  # noqa: N818 - what a user does
    pass


def interrupt_after(steps: int) -> Callable[..., None]:
    def report(_: str, step: int, *rest: object) -> None:
        if step == steps:
            raise Interrupted

    return report


def autoencoder_stage(checkpoint: Path, report: Callable[..., None]) -> torch.nn.Module:
    from cxrg.learn.train import autoencoder

    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32)).astype(np.uint8)
    settings = replace(read_config(RECIPE).autoencoder, steps=5, batch=4)
    return autoencoder.train_autoencoder(images, settings, 1, report, checkpoint)


def segmenter_stage(checkpoint: Path, report: Callable[..., None]) -> torch.nn.Module:
    from cxrg.learn.train import segmenter

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 32, 32)).astype(np.uint8)
    masks = rng.random((8, 4, 32, 32)) < 0.5
    settings = replace(read_config(RECIPE).segmenter, steps=5, batch=4, channels=(8, 8))
    return segmenter.train_segmenter(images, masks, settings, report, checkpoint)


def denoiser_stage(checkpoint: Path, report: Callable[..., None]) -> torch.nn.Module:
    settings = read_config(RECIPE)
    config = replace(
        settings.diffusion,
        channels=(16, 16),
        attention=(True, True),
        self_attention=(False, True),
        head_width=8,
        batch=4,
        steps=5,
        share_from=2,
        checkpoint_every=2,
        snapshots=(),
    )
    text = replace(settings.text, sentences=200, vocabulary=300, width=16, layers=1, heads=2)
    tokenizer = train_tokenizer(text, 0)
    torch.manual_seed(3)
    unet = diffusion.new_unet(config, 8, 2, text.width)
    pair = diffusion.Pair(unet, new_text_encoder(text, len(tokenizer)))
    objective = diffusion.Objective(
        config=config,
        tokenizer=tokenizer,
        length=text.length,
        alphas=diffusion.new_scheduler().alphas_cumprod,
        layers=diffusion.watched_layers(unet),
        read=diffusion.watched_layers(unet)[-1:],
    )
    latents = np.random.default_rng(0).standard_normal((2, 2, 8, 8)).astype(np.float16)
    grid = {name: getattr(pool(), name).repeat(2, 1).repeat(2, 2) for name in GRIDS}
    trained = diffusion.train_diffusion(
        pair,
        replace(pool(), **grid),
        latents,
        objective,
        0,
        report,
        checkpoint=checkpoint,
        check=lambda _: None,
    )
    assert trained.step == 5
    return trained.average


GRIDS = ("lungs", "mask", "box")


def test_lungs_must_be_level_compact_and_as_tall_as_each_other() -> None:
    from cxrg.learn.train.segmenter import upright

    def lungs(**boxes: tuple[int, int, int, int]) -> dict[str, np.ndarray]:
        masks = {f"{side} lung": np.zeros((64, 64), bool) for side in ("right", "left")}
        for side, (x0, y0, x1, y1) in boxes.items():
            masks[f"{side} lung"][y0:y1, x0:x1] = True
        return masks

    right = (8, 12, 26, 44)
    assert upright(lungs(right=right, left=(36, 12, 54, 46)))
    assert not upright(lungs(right=right, left=(36, 30, 54, 48)))  # half as tall
    assert not upright(lungs(right=right, left=(36, 26, 54, 58)))  # not level
    thin = lungs(right=right, left=(36, 12, 54, 46))
    thin["left lung"][14:46, 36:50] = False
    assert not upright(thin)
    assert not upright(lungs(right=right))


SCENES = read_config("scenes").diffusion


def real_pool(folder: Path, **changes: Any) -> Pool:
    """A few pictures over a made-up healthy chest."""
    y, x = (np.mgrid[:64, :64] + 0.5) / 64
    outlines = {
        name: ((x - middle) / 0.16) ** 2 + ((y - 0.45) / 0.32) ** 2 < 1
        for name, middle in (("right lung", 0.27), ("left lung", 0.73))
    }
    lungs = outlines["right lung"] | outlines["left lung"]
    outlines["heart and mediastinum"] = (np.abs(x - 0.5) < 0.1) & (y > 0.3) & (y < 0.75) & ~lungs
    pixels = np.where(lungs, 60, 190).astype(np.uint8)
    pixels += np.random.default_rng(0).integers(0, 20, pixels.shape).astype(np.uint8)
    chest = Background(pixels=pixels, outlines=outlines, healthy=True)
    data = replace(
        read_config("scenes").data, side=64, grid=8, phantoms=0, drawn_on_real=24, **changes
    )
    sources = Sources(chests=(chest,), normals=(chest,))
    return read_pool(make_pool(data, lambda: sources, folder, lambda *_: None))


@pytest.mark.slow
def test_what_is_asked_over_healthy_chests_is_absent_as_often_as_present(tmp_path: Path) -> None:
    made = real_pool(tmp_path / "pool")
    sampler = batches.make_sampler(made, SCENES.balance)
    kinds = np.bincount(made.kind, minlength=4)
    assert kinds[ABSENT] > 0.4 * kinds[PRESENT]
    assert made.mask[made.kind == ABSENT].max() == 0
    # Where something is there it is asked for in full, at least in one cell.
    assert np.median(made.mask[made.kind == PRESENT].max((1, 2))) > 200
    assert 3 <= sampler.blank.size <= 14
    batch = batches.draw(
        made,
        sampler,
        np.random.default_rng(0),
        Random(0),
        size=600,
        caption_drop=0.0,
        box_share=0.9,
        shares=SCENES.shares,
        normal_share=SCENES.normal_share,
    )
    blank = np.isin(batch.index, sampler.blank)
    findings = [p.lower() for p, b in zip(batch.phrases, blank, strict=True) if b]
    assert any("clear" in p or "normal" in p or "unremarkable" in p for p in findings)
    empty = batch.target.amax((1, 2)) == 0
    assert 0.3 < empty.float().mean() < 0.6


@pytest.mark.slow
def test_a_blank_share_of_one_leaves_nothing_to_find(tmp_path: Path) -> None:
    made = real_pool(tmp_path / "pool", blank=1.0)
    assert not (made.kind == PRESENT).any()


def test_an_opacity_is_not_denied_where_something_dense_lies() -> None:
    from cxrg.learn.train.pool import _ambiguous
    from cxrg.phantom.findings import Finding
    from cxrg.phantom.language import Query
    from cxrg.phantom.sample import Phantom

    mask = np.ones((8, 8), bool)
    mass = Finding(kind="mass", side="left", zone=None, size="large", mask=mask)
    phantom = Phantom(image=np.zeros((8, 8), np.float32), regions={}, findings=(mass,))
    answers = {
        Query("opacity", "left"): True,
        Query("consolidation", None): True,
        Query("opacity", "right"): False,
        Query("pleural effusion", "left"): False,
    }
    for query, expected in answers.items():
        assert _ambiguous(phantom, query) == expected


def test_a_run_takes_up_a_models_weights_and_says_so_when_it_cannot(tmp_path: Path) -> None:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from cxrg.learn.train import run as training

    settings = read_config("scenes")
    start = Path(settings.diffusion.start)
    assert (start / "unet").is_dir()
    tokenizer = training._tokenizer(settings, tmp_path)
    assert not (tmp_path / "tokenizer").exists()
    pair = training._new_pair(settings, 16, settings.data.grid, len(tokenizer))
    before = pair.unet.conv_in.weight.detach().clone()
    training._take_up(pair, start)
    assert not torch.equal(pair.unet.conv_in.weight, before)
    kept = UNet2DConditionModel.from_pretrained(start / "unet")
    for name, tensor in kept.state_dict().items():
        assert torch.equal(pair.unet.state_dict()[name], tensor.float())
    with pytest.raises(InputError, match="start"):
        training._take_up(pair, tmp_path)


def test_scenes_differ_from_the_shipped_recipe_that_has_them_off() -> None:
    scenes, shipped = read_config("scenes"), read_config(RECIPE)
    assert not shipped.data.lifelike
    assert (shipped.data.normals, shipped.data.nodules, shipped.diffusion.start) == ("", "", "")
    assert shipped.diffusion.shares == DEFAULT_SHARES
    assert (scenes.segmenter, scenes.autoencoder) == (shipped.segmenter, shipped.autoencoder)
    assert scenes.data.backgrounds == shipped.data.backgrounds
    assert Path(scenes.data.normals).parent == Path(shipped.data.backgrounds).parent
    assert scenes.data.lifelike


@pytest.mark.parametrize("stage", [segmenter_stage, autoencoder_stage, denoiser_stage])
def test_an_interrupted_stage_resumes_to_the_same_weights(
    stage: Callable[..., torch.nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxrg.learn.trainer.CHECKPOINT_EVERY", 2)
    whole = stage(tmp_path / "whole.pt", lambda *_: None)
    with pytest.raises(Interrupted):
        stage(tmp_path / "parts.pt", interrupt_after(3))
    resumed_at: list[int] = []
    parts = stage(tmp_path / "parts.pt", lambda _, step, *rest: resumed_at.append(step))
    assert resumed_at[0] == 3
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_autoencoder_taught_on_small_pictures_codes_larger_ones(tmp_path: Path) -> None:
    from cxrg.learn.train import autoencoder

    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64)).astype(np.uint8)
    small = images.reshape(4, 32, 2, 32, 2).mean((2, 4))
    shrunk = autoencoder._shrunk(torch.from_numpy(images)[:, None].float(), 32)
    np.testing.assert_allclose(shrunk[:, 0].numpy(), small, atol=1e-4)
    settings = replace(read_config(RECIPE).autoencoder, side=32, steps=1, batch=2)
    model = autoencoder.train_autoencoder(images, settings, 1, lambda *_: None, tmp_path / "a.pt")
    assert autoencoder.encode_all(model, images).shape == (4, 16, 8, 8)


PLAIN = RECIPE.parents[3] / "tests" / "benchmarks" / "plain.toml"


def test_the_base_of_prompt_tuning_differs_from_the_shipped_recipe_as_it_says() -> None:
    plain, shipped = read_config(PLAIN), read_config(RECIPE)
    assert (plain.data.side, plain.data.grid, plain.diffusion.steps) == (128, 16, 1400)
    assert (plain.diffusion.attention_weight, plain.diffusion.share_weight) == (0, 0)
    assert plain.diffusion.channels == (64, 128, 192)
    assert (plain.reading["timesteps"], plain.reading["draws"]) == ([200, 300, 400], 2)
    assert plain.diffusion.snapshots == ()
    for table in ("segmenter", "autoencoder", "text", "licence", "attribution"):
        assert getattr(plain, table) == getattr(shipped, table)
    # The base's path starts from the base's folder.
    assert plain.data.backgrounds == shipped.data.backgrounds


def test_packaged_recipes_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxrg.learn.tune.config import read_config as read_tuning

    monkeypatch.chdir(tmp_path)
    assert read_config("compact") == read_config(RECIPE)
    assert read_tuning("default") == read_tuning()
    with pytest.raises(InputError, match=r"compakt: no such recipe; .* one of: compact"):
        read_config("compakt")


def test_a_base_needs_known_settings_and_no_base_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "compact"\n[diffusion]\nstepps = 3\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"mine\.toml: setting 'stepps' is unknown"):
        read_config(path)
    path.write_text('base = "compact"\n', encoding="utf-8")
    second = tmp_path / "second.toml"
    second.write_text('base = "mine.toml"\n', encoding="utf-8")
    with pytest.raises(InputError, match="has a base itself"):
        read_config(second)


def test_a_level_without_self_attention_attends_to_the_text_alone() -> None:
    settings = read_config(RECIPE).diffusion
    unet = diffusion.new_unet(settings, 16, 4, 24)
    widths = {
        name: unet.get_submodule(f"{name}.attentions.0.transformer_blocks.0.attn1.to_k").in_features
        for name in ("down_blocks.0", "down_blocks.1", "up_blocks.2", "up_blocks.3")
    }
    fine, coarse_ = settings.channels[:2]
    assert fine != 24
    assert widths == {
        "down_blocks.0": 24,
        "down_blocks.1": coarse_,
        "up_blocks.2": coarse_,
        "up_blocks.3": 24,
    }


@pytest.mark.slow
def test_a_short_run_learns_goes_on_and_loads(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from cxrg import ground, load

    changes = {"diffusion.steps": "120", "diffusion.learning_rate": "2e-3"}
    settings, out = read_config(recipe(tmp_path), changes), tmp_path / "out"
    assert settings.diffusion.steps == 120
    folder = run(settings, out=out, resume=False, progress=lambda *_: None)
    assert capfd.readouterr().err == ""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    look = [line["loss"] for line in lines if line["stage"] == "diffusion/attention"]
    assert np.mean(look[-3:]) < 0.93 * look[0]
    before = (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    again = run(settings, out=out, resume=True, progress=lambda *_: None)
    assert (again / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == before
    told = [path.read_text(encoding="utf-8") for path in again.rglob("*.json")]
    assert not any(str(tmp_path) in text for text in told)
    tokens = json.loads((again / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    assert (tokens["padding"], tokens["truncation"]) == (None, None)
    early = load(str(out / "model-20"))
    assert "320 images seen" in early.card.trained_on
    model = load(str(folder))
    assert model.card.weights == "trained"
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), np.tile(np.arange(90, dtype=np.uint8), (80, 1)))
    found = ground(path, "left basal opacity", model=model)
    assert found.heatmap.shape == (80, 90)
    # Localisation emerges: brighter inside than outside on phantoms that were never seen.
    contrasts = []
    for index in range(20):
        phantom = render(2**41 + index, side=64)
        cv2.imwrite(str(path), np.round(phantom.image * 255).astype(np.uint8))
        for phrase, name in (("heart", "heart"), ("right lung", "right lung")):
            heat, mask = ground(path, phrase, model=model).canonical, phantom.regions[name]
            contrasts.append(heat[mask].mean() - heat[~mask].mean())
    assert np.mean(contrasts) > 0.15
