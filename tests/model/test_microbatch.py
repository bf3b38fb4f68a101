"""Phrases of an image in shared network evaluations: same results, no more memory or work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cxrg.errors import ModelError, PhraseError, UsageError
from cxrg.grounding import ground
from cxrg.image.read import CxrImage
from cxrg.model import microbatch
from cxrg.model.families import UNET
from cxrg.model.load import load
from cxrg.model.microbatch import (
    MOST,
    Microbatch,
    fitting_rows,
    free_memory,
    is_out_of_memory,
    row_bytes,
)
from cxrg.model.model import Model
from cxrg.options import resolve
from tests.fakes import tiny_models
from tests.oracles import naive
from tests.test_grounding import PHRASE, SHORT, picture, scheduler

TEXTS = [[PHRASE, "right effusion"], ["opacity"], ["left", PHRASE, "no consolidation"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads differ between the layers: two, four and two."""
    return tiny_models.sd2(tmp_path_factory.mktemp("models") / "sd2")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, device="cpu")


@pytest.fixture
def images() -> list[CxrImage]:
    return [picture(seed=seed) for seed in range(3)]


@pytest.fixture
def rows(model: Model) -> Iterator[list[int]]:
    """How many rows each network evaluation had."""
    seen: list[int] = []
    hook = model.denoiser.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    yield seen
    hook.remove()


@pytest.mark.slow
def test_shared_evaluations_equal_the_published_procedure(folder, model, images) -> None:
    # Parts of five rows cut through phrases and steps.
    options = replace(SHORT, mask="none")
    for image, texts in zip(images, TEXTS, strict=True):
        results = ground(image, texts, model=model, options=options, batch=5, force_ground=True)
        assert [result.phrase for result in results] == texts
        for phrase, result in zip(texts, results, strict=True):
            how: dict[str, Any] = {"steps": 50, "window": (20, 26), "mask": False}
            expected = naive.heatmap(model, scheduler(folder), image.pixels, phrase, **how)
            np.testing.assert_allclose(result.canonical, expected, atol=1e-4)


def test_noise_does_not_depend_on_the_batch_or_the_other_phrases(model, images) -> None:
    options = resolve("fast", model.card.presets, mask="none", normalise="final")
    together = ground(images[2], TEXTS[2], model=model, options=options)
    for phrase, one in zip(TEXTS[2], together, strict=True):
        other = ground(images[2], phrase, model=model, options=options, batch=1)
        np.testing.assert_allclose(one.canonical, other.canonical, atol=1e-4)
        assert one.score == pytest.approx(other.score, rel=1e-5)
    first = ground(images[0], PHRASE, model=model, options=options)
    assert np.abs(first.canonical - together[1].canonical).max() > 5e-3


def test_an_image_is_inverted_once_for_all_its_phrases(model, images, rows) -> None:
    ground(images[2], TEXTS[2], model=model, options=SHORT, batch=8)
    # 25 steps lead to the window's last index; then 3 phrases at 6 latents.
    assert rows == [1] * 25 + [8, 8, 2]


def test_a_second_call_gives_the_same_maps_and_gradients_stay_on(model, images) -> None:
    options = resolve("fast", model.card.presets)
    first, second = (
        ground(images[0], PHRASE, model=model, options=options, batch=2) for _ in range(2)
    )
    np.testing.assert_array_equal(first.canonical, second.canonical)
    assert not torch.is_inference_mode_enabled()


def test_a_prompt_is_embedded_once_and_the_memory_of_them_is_bounded(
    model, images, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, encoded = replace(model), []
    encoder = model.text_encoder.register_forward_pre_hook(
        lambda _, args, kwargs: encoded.append(1), with_kwargs=True
    )
    try:
        ground(images[0], [PHRASE, "left", PHRASE], model=fresh, options=SHORT)
        ground(images[1], ["left"], model=fresh, options=SHORT)
        assert len(encoded) == 3  # two phrases and the empty prompt
        monkeypatch.setattr("cxrg.model.model.REMEMBERED_TEXTS", 3)
        for text in ("", "right", "left"):
            fresh.embedding(text)
        assert len(encoded) == 4
        fresh.embedding(PHRASE)  # the one used longest ago went when "right" came
        assert len(encoded) == 5
        assert len(fresh._texts) == 3
    finally:
        encoder.remove()
    torch.testing.assert_close(fresh.embedding("right").embeds, model.encode_text(["right"]).embeds)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
    ],
    ids=["cuda", "windows", "cpu", "mps", "python"],
)
def test_too_many_rows_are_halved(model, images, rows, error) -> None:
    expected = ground(images[0], TEXTS[2], model=model, options=SHORT)

    def refuse(_: object, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > 2:
            raise error

    narrow = model.denoiser.register_forward_pre_hook(refuse)
    rows.clear()
    try:
        found = ground(images[0], TEXTS[2], model=model, options=SHORT, batch=8)
    finally:
        narrow.remove()
    assert rows == [1] * 25 + [8, 4] + [2] * 9
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.canonical, other.canonical, atol=1e-4)


def test_too_little_memory_for_one_row_is_an_error_with_a_remedy(model, images) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    narrow = model.denoiser.register_forward_pre_hook(refuse)
    try:
        with pytest.raises(ModelError, match=r"memory does not suffice.*--dtype"):
            ground(images[0], PHRASE, model=model, options=SHORT)
    finally:
        narrow.remove()


def test_another_error_is_not_taken_for_missing_memory() -> None:
    def fail(part: list[int]) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        list(Microbatch(4).run(range(9), fail))
    assert not is_out_of_memory(RuntimeError("no"))


def test_parts_keep_the_order_and_rows_are_taken_late() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for row in range(7):
            taken.append(row)
            yield row

    parts = Microbatch(3).run(source(), list)
    assert next(parts) == [0, 1, 2]
    assert taken == [0, 1, 2]
    assert list(parts) == [[3, 4, 5], [6]]


def test_auto_takes_what_fits(model, monkeypatch: pytest.MonkeyPatch) -> None:
    one = row_bytes(model)
    assert one == 8 * 8 * 8 * 4 * UNET.maps_per_row
    for free, rows in ((0, 1), (one * 10, 5), (one * 1000, MOST["cpu"]), (None, MOST["cpu"])):
        monkeypatch.setattr(microbatch, "free_memory", lambda _, free=free: free)
        assert fitting_rows(model) == rows
        assert Microbatch.of(model, "auto").size == rows
    assert Microbatch.of(model, 50).size == 50


def test_free_memory_is_that_of_the_machine() -> None:
    free = free_memory(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**50


@pytest.mark.parametrize(
    ("knobs", "kind", "remedy"),
    [
        ({"preset": "paper", "window": (300, 400)}, UsageError, "use 0:334"),
        ({"preset": "paper", "window": (0.9999, 1.0)}, UsageError, "use 0:334"),
        ({"preset": "fast", "timesteps": (1000,)}, UsageError, "use 0 to 999"),
        ({"preset": "fast", "tokens": "word:heart"}, PhraseError, "it has left"),
        ({"preset": "slow"}, UsageError, "use fast or paper"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_invalid_options_are_refused_before_a_network_runs(
    knobs, kind, remedy, model, images, rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "encode", lambda *_: pytest.fail("the image was encoded"))
    with pytest.raises(kind, match=remedy) as refusal:
        ground(images[0], ["heart", "left"], model=model, **knobs)
    assert "\n" not in str(refusal.value)
    assert rows == []


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_precision_that_the_device_lacks_is_refused(dtype: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"use .*float32"):
        load(folder, device="cpu", dtype=dtype)
