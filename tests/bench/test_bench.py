"""The bench: right counts of operations, stages that add up, a table and JSON, and refusals."""

from __future__ import annotations

import json
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from cxrg.attention.layers import cross_attention_layers
from cxrg.bench.machine import Operation, least_seconds, operations, total_flops
from cxrg.bench.measure import STAGES, Bench, Evaluation, Timed, bench, evaluate_once
from cxrg.bench.random_model import RANDOM, random_model, unet_without_weights
from cxrg.errors import UsageError
from cxrg.model.convert import monai
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import RunSettings, resolve
from tests.cli.test_cli import run
from tests.fakes import tiny_models

EXAMPLE = Path(__file__).parents[2] / "examples" / "left_basal_opacity.dcm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.compact(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, device="cpu")


def test_operations_are_counted_by_shape_and_by_hand() -> None:
    conv = torch.nn.Conv2d(3, 8, 3, padding=1)
    linear = torch.nn.Linear(16, 4, bias=False)
    x = torch.randn(2, 3, 16, 16)
    found = operations(lambda: (linear(conv(x)), conv(x)))
    by_flops = {each.flops: each.count for each in found}
    assert by_flops == {2 * 2 * 8 * 3 * 9 * 256: 2, 2 * (2 * 8 * 16) * 16 * 4: 1}
    assert total_flops(found) == sum(flops * count for flops, count in by_flops.items())


def test_a_cpus_fused_attention_counts_too() -> None:
    q = torch.randn(1, 2, 64, 8)
    attend = torch.nn.functional.scaled_dot_product_attention
    (found,) = operations(lambda: attend(q, q, q))
    assert found.flops == 2 * (2 * 2 * 64 * 64 * 8)


def test_stable_diffusion_has_860_million_parameters_and_677_gflop_beside_attention() -> None:
    unet = unet_without_weights("sd15")
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(860e6, rel=0.002)
    z = torch.randn(1, 4, 64, 64, device="meta")
    context = torch.randn(1, 77, 768, device="meta")
    step = torch.ones(1, device="meta")
    found = operations(lambda: unet(z, step, encoder_hidden_states=context))
    dense = [o for o in found if str(o.call).split(".")[1] in ("convolution", "addmm", "mm")]
    assert total_flops(dense) == pytest.approx(677e9, rel=0.01)
    # Two products of positions by positions and by 77 tokens: layers, positions, width.
    sizes = [(5, 64**2, 320), (5, 32**2, 640), (5, 16**2, 1280), (1, 8**2, 1280)]
    attention = sum(count * 4 * n * (n + 77) * width for count, n, width in sizes)
    assert total_flops(found) - total_flops(dense) == attention


def test_alone_is_weighted_by_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"a": 0.5, "b": 0.25}
    monkeypatch.setattr(Operation, "seconds", lambda self: seconds[self.call])
    found = [Operation(name, (), None, 10, count) for name, count in (("a", 2), ("b", 4))]
    assert least_seconds(found) == 2.0


def test_an_operation_runs_on_its_own_layout() -> None:
    wide = torch.randn(6, 4).t()
    row = torch.randn(1, 6).expand(5, 6)
    (one,) = operations(lambda: row @ wide.t())
    (shape, other) = one.inputs
    assert (shape.filled().stride(), other.filled().stride()) == (row.stride(), (1, 4)[::-1])
    assert one.seconds() > 0


def test_the_stopwatch_counts_passes_that_end_early() -> None:
    def network(latents: torch.Tensor) -> None:
        time.sleep(0.02)
        raise ValueError

    watched = Timed(network, torch.device("cpu"))
    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011 - the network's own
            watched(torch.zeros(3, 1))
    assert watched.rows == 6
    assert 0.04 <= watched.seconds < 300  # of a busy machine, and no time of day


@pytest.mark.slow
def test_stages_of_an_image(model: Model) -> None:
    told: list[str] = []
    options = resolve("fast", model.card.presets)
    found = bench(model, EXAMPLE, ["left", "heart"], options, repeats=2, report=told.append)
    assert tuple(found.seconds) == STAGES
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert found.evaluations == 2 * 6
    assert 0 < found.denoiser < found.seconds["attend"] + found.seconds["invert"]
    assert found.total == pytest.approx(sum(found.seconds.values()))
    assert found.evaluation.rows == 6
    assert found.evaluation.achieved > 0
    assert found.peak_memory is None or found.peak_memory > 2**26
    assert told[0] == "warming up"
    assert told[1:3] == ["grounding, 1 of 2", "grounding, 2 of 2"]
    with pytest.raises(UsageError, match="repeat 0"):
        bench(model, EXAMPLE, ["left"], options, repeats=0)


@pytest.mark.slow
def test_one_evaluation_has_the_rows_of_a_reading_pass(model: Model) -> None:
    one = evaluate_once(model, resolve("fast", model.card.presets), RunSettings(batch=2))
    four = evaluate_once(model, resolve("paper", model.card.presets), RunSettings(batch=4))
    assert (one.rows, four.rows) == (2, 4)
    assert four.flops == 2 * one.flops
    assert one.peak == one.flops / one.least_seconds


def test_the_table_and_json_hold_what_was_measured(monkeypatch, capsys, folder: Path) -> None:
    asked: dict[str, Any] = {}

    def fake(model, image, phrases, options, *, settings, repeats, warm, report) -> Bench:
        asked.update(phrases=phrases, options=options, repeats=repeats, warm=warm)
        assert image.is_file()
        evaluation = Evaluation(
            rows=6, flops=8 * 10**9, seconds=0.5, least_seconds=0.25, watching=0.02
        )
        return Bench(
            model=model.card.name,
            note="a note",
            device="cpu",
            dtype="float32",
            threads=2,
            preset=options.preset,
            phrases=len(phrases),
            repeats=repeats,
            evaluations=48,
            seconds=dict.fromkeys(STAGES, 0.5),
            denoiser=1.5,
            evaluation=evaluation,
            peak_memory=3 * 2**20,
            peak_device_memory=None,
        )

    monkeypatch.setattr(import_module("cxrg.bench.measure"), "bench", fake)
    arguments = ["bench", "--model", str(folder), "--set", "draws=3", "--device", "cpu"]
    code, out, _ = run(monkeypatch, capsys, *arguments, "-p", "left", "-p", "right")
    assert code == 0
    flat = " ".join(out.split())
    for text in (
        "tiny (a note)",
        "evaluations per image: 48",
        "post-process 0.5000 16.7 %",
        "all 3.0000",
    ):
        assert text in flat
    for text in ("denoiser 1.5000 50.0 %", "reached 16.0 GFLOP/s", "peak 32.0 GFLOP/s"):
        assert text in flat
    assert "denoiser and autoencoder 2.0000 66.7 %" in flat
    assert "share of the peak 50 %" in flat
    assert "+2.0 %" in flat
    assert "3 MiB" in flat
    assert asked["phrases"] == ["left", "right"]
    assert (asked["options"].draws, asked["repeats"], asked["warm"]) == (3, 5, True)
    code, out, _ = run(monkeypatch, capsys, *arguments, "--json")
    told = json.loads(out)
    assert told["seconds"] == dict.fromkeys(STAGES, 0.5)
    assert (told["total"], told["evaluation"]["achieved"]) == (3.0, 16e9)


@pytest.mark.parametrize(
    ("load", "least", "watching", "words"),
    [
        (0.2, 0.25, 0.02, []),
        (None, 0.25, -0.01, []),
        (0.9, 0.5, 0.02, []),
        (3.0, 0.25, 0.02, ["load 3.0 of 2 processors"]),
        (0.2, 3.5, 0.02, ["faster than its operations alone"]),
        (0.2, 0.25, -0.17, ["watching attention seems to save time"]),
    ],
)
def test_impossible_figures_and_a_busy_machine_carry_a_caveat(
    capsys, load: float | None, least: float, watching: float, words: list[str]
) -> None:
    found = Bench(
        model="tiny",
        note="",
        device="cpu",
        dtype="float32",
        threads=1,
        preset="fast",
        phrases=1,
        repeats=1,
        evaluations=8,
        seconds=dict.fromkeys(STAGES, 0.5),
        denoiser=1.5,
        evaluation=Evaluation(
            rows=1, flops=10**9, seconds=0.5, least_seconds=least, watching=watching
        ),
        peak_memory=None,
        peak_device_memory=None,
        load=load,
        processors=2,
    )
    assert len(found.caveats) == len(words)
    assert found.as_json()["caveats"] == list(found.caveats)
    import_module("cxrg.cli.bench")._show(found)
    shown = [line for line in capsys.readouterr().out.splitlines() if "caveat" in line]
    assert len(shown) == len(words)
    assert all(word in line for word, line in zip(words, shown, strict=True))


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--preset", "slow"], "use fast or paper"),
        (["--set", "draws"], "KNOB=VALUE"),
        (["--set", "batch=2"], "use --batch"),
        (["--batch", "none"], "or auto"),
        (["--random", "sd9"], "use sd15"),
        (["--random", "sd15", "--dtype", "float16", "--device", "cpu"], "use float32"),
    ],
)
def test_what_cannot_be_meant_is_one_line(monkeypatch, capsys, arguments, remedy) -> None:
    code, out, err = run(monkeypatch, capsys, "bench", *arguments)
    assert (code, out) == (2, "")
    assert remedy in err
    assert len(err.splitlines()) == 1


def test_the_random_monai_model_has_the_published_sizes() -> None:
    vae, unet = RANDOM["monai"].vae, unet_without_weights("monai")
    assert monai.is_published(vae, unet.config)
    layers = cross_attention_layers(unet, 1)
    assert (
        len(layers) == 11
    )  # arXiv 2404.12920: two and two down, one in the middle, three and three up
    with torch.device("meta"):
        z, context, step = torch.randn(1, 3, 64, 64), torch.randn(1, 77, 1024), torch.ones(1)
    assert unet(z, step, encoder_hidden_states=context).sample.shape == z.shape


@pytest.mark.slow
def test_a_random_model_grounds() -> None:
    model = random_model("sd15", device="cpu")
    options = resolve("fast", model.card.presets, timesteps=(500,), draws=1)
    found = bench(model, EXAMPLE, ["left basal opacity"], options, repeats=1, warm=False)
    assert found.evaluations == 1
    assert "speed only" in found.note
    # 677 GFLOP of convolutions and matrix products, 126 of attention.
    assert found.evaluation.flops == pytest.approx(803e9, rel=0.01)
