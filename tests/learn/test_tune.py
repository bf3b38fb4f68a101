"""Tuning: terms as defined, gradients on the vectors alone, resume, and a planted association."""

from __future__ import annotations

import csv
import json
import math
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from cxrg.anatomy import LOCATIONS, locate
from cxrg.anatomy.folder import mask_folder
from cxrg.attention.layers import cross_attention_layers
from cxrg.chest.vocabulary import FINDINGS, finding_named, locations_of, matcher, opposite
from cxrg.cli import main
from cxrg.errors import InputError, UsageError
from cxrg.learn.tune import losses, phantoms
from cxrg.learn.tune.config import TuneConfig, read_config
from cxrg.learn.tune.objective import PhraseBatch, StudySampler, forward, terms, token_weights
from cxrg.learn.tune.recipe import NAMES, Tuning, as_vectors, learning_rate, new_vectors
from cxrg.learn.tune.run import ADAPTER, CURVES, LOG, tune
from cxrg.learn.tune.study import Study, Triple, coarse_locations, plain
from cxrg.model.adapters.prompt_vectors import PromptVectors
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.phantom.sample import render
from tests.fakes import tiny_models

SIDE, GRID = 64, 8


@pytest.fixture(scope="module")
def model(folders: dict[str, Path]) -> Model:
    return load(folders["compact"], device="cpu", dtype="float32")


def config(**changes: str) -> TuneConfig:
    small: dict[str, Any] = {
        "prefix": "2",
        "batch": "4",
        "steps": "4",
        "warmup": "0",
        "check_every": "2",
    }
    return read_config(None, {**small, **changes})


def planted(count: int = 12) -> list[Study]:
    """Pictures dark on one side and bright on the other, and one finding on either side."""
    ramp = np.linspace(0, 255, SIDE)[None].repeat(SIDE, 0)
    halves = np.zeros((2, SIDE, SIDE), bool)
    halves[0, :, : SIDE // 2] = halves[1, :, SIDE // 2 :] = True
    masks = coarse_locations({"right lung": halves[0], "left lung": halves[1]}, GRID)
    rng = np.random.default_rng(0)
    said = tuple(
        Triple(location=f"{side} lung", finding=finding, phrases=())
        for side, finding in (("left", "pneumonia"), ("right", "edema"))
    )
    return [
        Study(
            pixels=(ramp + rng.normal(0, 8, ramp.shape)).clip(0, 255).astype(np.uint8),
            masks=masks,
            triples=said,
            patient=str(number),
        )
        for number in range(count)
    ]


def sampler(model: Model, studies: list[Study]) -> StudySampler:
    pixels = np.stack([study.pixels for study in studies]).astype(np.float32) / np.float32(255)
    with torch.no_grad():
        return StudySampler(studies=studies, latents=model.encode(pixels), template=1.0)


def tuning(model: Model, settings: TuneConfig) -> Tuning:
    studies = planted()
    layers = [each.name for each in cross_attention_layers(model.denoiser, GRID) if each.side >= 4]
    return Tuning(
        model=model,
        config=settings,
        layers=layers,
        times=(100, 400),
        learn=sampler(model, studies[:8]),
        held_out=sampler(model, studies[8:]),
    )


def nothing(*_: Any) -> None:
    """Hears progress, losses and checkpoints."""


# --- settings -------------------------------------------------------------------------------------


def test_settings_are_defaults_then_the_file_then_those_on_top(tmp_path: Path) -> None:
    plain = read_config()
    assert (plain.prefix, plain.steps, plain.batch, plain.learning_rate) == (8, 5000, 16, 1e-3)
    told = [getattr(plain.loss, name) for name in ("inside", "outside", "dice", "nce")]
    assert told == [1.0, 0.5, 0.5, 0.1]
    path = tmp_path / "mine.toml"
    path.write_text('steps = 7\n[data]\ntable = "t.csv"\n[loss]\nnce = 0\n', encoding="utf-8")
    mine = read_config(path, {"steps": "9", "layers": '["mid_block"]'})
    assert (mine.steps, mine.loss.nce, mine.layers) == (9, 0, ("mid_block",))
    assert mine.data.table == str(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stepps": "1"}, "'stepps' is unknown"),
        ({"loss.out": "1"}, "'out' is unknown"),
        ({"loss": "1"}, "'loss' is unknown"),
        ({"steps": "many"}, "steps 'many' is not valid; use a number"),
        ({"steps": "0"}, "whole number from 1"),
        ({"steps": "true"}, "steps True is not valid"),
        ({"ema": "2"}, "from 0 to 1"),
        ({"loss.nce": "-1"}, "use 0 or more"),
        ({"learning_rate": "0"}, "above 0"),
        ({"timesteps": "[500, 300]"}, "first, last"),
        ({"prefix": "0", "residuals": "false"}, "nothing is trained"),
        ({"data.phantoms": "0"}, "no data"),
        ({"data.anatomy": "drawn"}, "exact or geometric"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_config(None, changes)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("steps =", encoding="utf-8")
    for name in ("c.toml", "none.toml"):
        with pytest.raises(InputError, match=name):
            read_config(tmp_path / name)


# --- words and places -----------------------------------------------------------------------------


def test_there_are_twenty_places_and_eight_findings() -> None:
    assert (len(LOCATIONS), len(FINDINGS)) == (20, 8)
    assert {opposite(name) for name in LOCATIONS} == {None, *LOCATIONS} - {"heart", "mediastinum"}
    for table, names in (("locations", LOCATIONS), ("findings", FINDINGS)):
        for name in names:
            assert [m.name for m in matcher(table)(name)] == [name]


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("left basilar consolidation", "left lung base"),
        ("opacity in the right upper lobe", "right upper zone"),
        ("left-sided effusion", "left lung"),
        ("blunting of the left costophrenic angle", "left costophrenic angle"),
        ("the cardiac silhouette is enlarged", "heart"),
        ("apex of the right lung", "right apex"),
    ],
)
def test_report_words_name_places(text: str, location: str) -> None:
    assert [mention.name for mention in matcher("locations")(text)] == [location]


def test_a_finding_without_a_zone_lies_where_it_usually_does() -> None:
    assert locations_of("pleural effusion", "left", None) == ("left costophrenic angle",)
    assert locations_of("pneumothorax", "right", None) == ("right apex",)
    assert locations_of("cardiomegaly", None, None) == ("heart",)
    assert locations_of("pneumonia", "bilateral", "basal") == ("left lung base", "right lung base")
    assert locations_of("pneumonia", None, "basal") == ()
    assert locations_of("pneumonia", "left", "retrocardiac") == ()
    assert finding_named("ground-glass opacity") == "lung opacity"
    assert finding_named("nodule") is None


def test_only_phrases_that_name_just_the_triple_are_kept() -> None:
    said = ("left lung pneumonia", "pneumonia", "left pneumonia and edema", "left basal pneumonia")
    assert plain("left lung", "pneumonia", said) == ("left lung pneumonia",)


def test_cells_hold_the_share_of_a_mask() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:4, :2] = True
    cells = coarse_locations({"heart": mask}, 2)
    index = LOCATIONS.index("heart")
    assert np.abs(cells[index].astype(int) - [[128, 0], [0, 0]]).max() <= 1
    assert not np.delete(cells, index, 0).any()


# --- phantoms -------------------------------------------------------------------------------------


def test_phantoms_are_kept_and_read_as_they_were(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(phantoms, "SHARD", 2)
    path = tmp_path / "phantoms-64-8-3-000000.npz"
    phantoms._render((0, path), phantoms._Settings(seed=3, side=SIDE, grid=GRID))
    told: list[tuple[int, int]] = []
    keep: dict[str, Any] = {"seed": 3, "side": SIDE, "grid": GRID, "folder": tmp_path}
    studies = phantoms.render_studies(
        2, **keep, anatomy="exact", report=lambda *at: told.append(at)
    )
    assert len(studies) == 2
    assert not told
    phantom = render(phantoms.FIRST_SEED + 3 * 10**6 + 1, side=SIDE)
    np.testing.assert_array_equal(studies[1].pixels, np.round(phantom.image * 255))
    lung = studies[1].masks[LOCATIONS.index("left lung")]
    assert lung[:, GRID // 2 :].sum() > 10 * lung[:, : GRID // 2].sum()  # the patient's left
    assert abs(lung.mean() / 255 - phantom.regions["left lung"].mean()) < 0.01
    again = phantoms.phantom_triples(phantom, studies[1].masks, Random("3 1"))
    assert studies[1].triples == again
    for triple in (t for study in studies for t in study.triples):
        assert triple.phrases == plain(triple.location, triple.finding, triple.phrases)
    ruled = phantoms.render_studies(2, **keep, anatomy="geometric", report=nothing)[1].masks
    lungs = {name: phantom.regions[name] for name in ("left lung", "right lung")}
    expected = coarse_locations(dict(zip(LOCATIONS, locate(lungs), strict=True)), GRID)
    np.testing.assert_array_equal(ruled, expected)
    assert not np.array_equal(ruled, studies[1].masks)


# --- terms ----------------------------------------------------------------------------------------


def test_terms_are_what_they_say() -> None:
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, 0], maps[0, 0, 1], maps[0, 3, 3] = 2.0, 1.0, 1.0
    mask = torch.zeros(1, 4, 4)
    mask[0, 0, 0], mask[0, 0, 1] = 1.0, 0.5
    assert losses.energy(maps, mask).item() == pytest.approx(0.5 + 0.25 * 0.5)
    assert losses.inside(maps, mask).item() == pytest.approx(-math.log(0.625 + 1e-6))
    # One position on, the mask reaches half a share of column 2 and row 1; (3, 3) is out.
    assert losses.outside(maps, mask).item() == pytest.approx(0.25)
    # minmax: 1, .5, .5; overlap 1 + .25; sums 2 and 1.5
    assert losses.dice(maps, mask).item() == pytest.approx(1 - 2 * 1.25 / 3.5)


def test_contrast_joins_equal_rows() -> None:
    seen = torch.eye(3)
    said = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    same = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    high = math.exp(1 / losses.TEMPERATURE)
    expected = [
        -math.log(2 * high / (2 * high + 1)),
        -math.log(high / (high + 2)),
        -math.log(2 / 3),
    ]
    assert losses.nce(seen, said, same).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_weights_are_on_the_tokens_of_place_and_finding(model: Model) -> None:
    text = "left lung base pleural effusion"
    padded = model.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    for table, words in (("locations", "left lung base"), ("findings", "pleural effusion")):
        weights = token_weights(model, [text, "no words"], table)
        covered = [text[slice(*padded[k])].strip() for k in weights[0].nonzero()[:, 0]]
        assert "".join(covered) == words.replace(" ", "")
        assert weights.sum(1).tolist() == pytest.approx([1.0, 0.0])


def reading_of(model: Model, vectors: PromptVectors) -> tuple[Any, PhraseBatch, Tuning]:
    its = tuning(model, config())
    batch = its.learn.draw(np.array(its.learn.pairs[:5]), Random(0))
    noise = torch.randn(batch.z0.shape, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([100, 200, 300, 400, 250])
    return forward(model, vectors, batch, its.layers, times=times, noise=noise), batch, its


@pytest.mark.parametrize("family", ["sd1", "compact"])
def test_only_the_vectors_get_gradients(family: str, folders: dict[str, Path]) -> None:
    model = load(folders[family], device="cpu", dtype="float32")
    settings = config()
    vectors = new_vectors(model, settings)
    with torch.no_grad():
        vectors.gate.fill_(0.1)  # behind a gate at 0 the prefix itself has none yet
    reading, batch, _ = reading_of(model, vectors)
    made = terms(reading, batch, vectors, settings.loss)
    assert set(made) == {"inside", "outside", "dice", "nce", "diffusion", "residual"}
    for name, term in made.items():
        if name != "residual":
            (moved,) = torch.autograd.grad(term, [vectors.prefix], retain_graph=True)
            assert moved.abs().max() > 0, name
    torch.autograd.backward(torch.stack(list(made.values())).sum())
    for name in NAMES:
        gradient = getattr(vectors, name).grad
        assert gradient is not None
        assert gradient.abs().max() > 0
    told = [i for i, name in enumerate((*LOCATIONS, *FINDINGS)) if gradient_of(vectors, i) > 0]
    named = {n for t in batch.triples for n in (t.location, t.finding)}
    assert {(*LOCATIONS, *FINDINGS)[i] for i in told} == named
    for network in (model.denoiser, model.text_encoder, model.vae):
        assert all(p.grad is None for p in network.parameters())
        assert not any(each._forward_hooks for each in network.modules())


def gradient_of(vectors: PromptVectors, index: int) -> float:
    gradient = vectors.residuals.grad
    assert gradient is not None
    return float(gradient[index].abs().max())


def test_terms_without_weight_are_not_computed(model: Model) -> None:
    vectors = new_vectors(model, config())
    reading, batch, _ = reading_of(model, vectors)
    off = config(**{"loss.nce": "0", "loss.diffusion": "0", "loss.inside": "0"})
    assert set(terms(reading, batch, vectors, off.loss)) == {"outside", "dice", "residual"}


def test_the_first_step_is_the_frozen_model(model: Model) -> None:
    """The reading with untouched vectors is that without any, bit for bit."""
    none = PromptVectors(
        prefix=torch.zeros(0, tiny_models.WIDTH),
        gate=torch.zeros(0),
        residuals=torch.zeros(0, tiny_models.WIDTH),
        terms={"locations": {}, "findings": {}},
    )
    one, _, _ = reading_of(model, new_vectors(model, config()))
    other, _, _ = reading_of(model, none)
    for name in ("location", "finding", "error"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_the_prefix_begins_as_the_configured_words(model: Model) -> None:
    made = new_vectors(model, config(prefix="40")).prefix
    text = config().prefix_text
    own = range(model.text_length - 2)  # the tiny tokenizer makes more tokens of it
    expected = model.encode_text([text]).embeds[0, 1 : 1 + len(own)]
    torch.testing.assert_close(made[: len(own)], expected)
    torch.testing.assert_close(made[len(own) : 2 * len(own)], expected[: 40 - len(own)])


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    settings = config(steps="100", warmup="10", learning_rate="1.0")
    rates = [learning_rate(settings, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


# --- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("off", "word"), [(("outside",), "location"), (("inside", "dice"), "finding")]
)
def test_a_planted_association_is_learnt_and_leakage_drops(
    off: tuple[str, ...], word: str, model: Model, tmp_path: Path
) -> None:
    """Words of place and finding one by one: of a position's attention they take each other's."""
    # An untrained model hardly tells one position from another: it takes long vectors.
    far: dict[str, Any] = {"learning_rate": "1.0", "loss.residual": "0", "loss.diffusion": "0"}
    without: dict[str, Any] = {f"loss.{term}": "0" for term in (*off, "nce")}
    settings = config(steps="12", batch="8", check_every="6", **far, **without)
    its = tuning(model, settings)
    vectors = new_vectors(model, settings)
    found = its.run(vectors, nothing, checkpoint=tmp_path / "checkpoint.pt").energies
    frozen, tuned = found[0], found[12]
    assert abs(frozen[word] - 0.5) < 0.05  # an untrained model knows no side
    assert 1 - tuned[word] < 0.9 * (1 - frozen[word])
    if word == "finding":
        assert tuned["other side"] < 0.9 * frozen["other side"]


def test_without_residuals_only_the_prefix_is_learnt(model: Model, tmp_path: Path) -> None:
    settings = config(residuals="false", learning_rate="0.1")
    vectors = new_vectors(model, settings)
    selection = tuning(model, settings).run(vectors, nothing, checkpoint=tmp_path / "a.pt")
    assert as_vectors(selection.best, vectors).residuals.shape == (0, tiny_models.WIDTH)
    assert vectors.gate.abs().max() > 0
    without = config(prefix="0")
    tuning(model, without).run(new_vectors(model, without), nothing, checkpoint=tmp_path / "b.pt")
    stored = torch.load(tmp_path / "b.pt", weights_only=True)
    assert [len(group["params"]) for group in stored["optimiser"]["param_groups"]] == [1]


# --- runs -----------------------------------------------------------------------------------------


def table(folder: Path, count: int = 6) -> dict[str, str]:
    """Pictures, reports and masks of real images' kind."""
    (folder / "masks").mkdir(parents=True)
    right, left = np.zeros((2, 96, 80), np.uint8)
    right[:, :40], left[:, 40:] = 255, 255
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, ["image", "report", "patient"])
        rows.writeheader()
        for number in range(count):
            grey = np.random.default_rng(number).integers(0, 255, (96, 80), np.uint8)
            (folder / f"{number}.png").write_bytes(cv2.imencode(".png", grey)[1].tobytes())
            (folder / "masks" / str(number)).mkdir()
            for name, lung in (("left_lung", left), ("right_lung", right)):
                coded = cv2.imencode(".png", lung)[1].tobytes()
                (folder / "masks" / str(number) / f"{name}.png").write_bytes(coded)
            report = "Left-sided pneumonia. No right pneumothorax. Possible edema on the left."
            rows.writerow({"image": f"{number}.png", "report": report, "patient": f"p{number}"})
    return {"data.table": str(folder / "t.csv"), "data.masks": str(folder / "masks")}


def on_table(folder: Path, **changes: str) -> TuneConfig:
    return config(**{"data.phantoms": "0", "data.held_out": "0.4", **table(folder), **changes})


def test_reports_and_masks_become_studies(model: Model, tmp_path: Path) -> None:
    on_table(tmp_path)
    from cxrg.learn.tune.table import read_studies

    keep: dict[str, Any] = {"side": SIDE, "grid": GRID, "report": nothing}
    studies = read_studies(tmp_path / "t.csv", mask_folder(tmp_path / "masks"), **keep)
    assert len(studies) == 6
    for study in studies:
        (triple,) = study.triples  # what is denied or only possible is not learnt from
        assert (triple.location, triple.finding) == ("left lung", "pneumonia")
        cells = study.masks[LOCATIONS.index("left lung")]
        assert cells[:, GRID // 2 : -1].min() > 240
        assert cells[:, : GRID // 2].max() < 15


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: (f / "t.csv").write_text("image,text\na,b\n"), "needs the columns"),
        (lambda f: (f / "masks" / "1" / "left_lung.png").write_bytes(b"no"), "no grey PNG"),
        (lambda f: (f / "masks" / "1" / "left_lung.png").unlink(), "no left lung"),
        (lambda f: (f / "t.csv").write_text("image,report\n0.png,Clear lungs.\n"), "no report"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(harm: Any, told: str, tmp_path: Path) -> None:
    on_table(tmp_path)
    from cxrg.learn.tune.table import read_studies

    harm(tmp_path)
    source = mask_folder(tmp_path / "masks")
    with pytest.raises(InputError, match=told):
        read_studies(tmp_path / "t.csv", source, side=SIDE, grid=GRID, report=nothing)


class Stopped(Exception):  # noqa: N818 - what a user does
    pass


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    settings = on_table(tmp_path / "data", steps="6", learning_rate="0.05")
    how: dict[str, Any] = {"model": str(folders["compact"]), "device": "cpu"}

    def stop(stage: str, step: int, steps: int) -> None:
        if stage == "loss" and step == 5:  # the checkpoint is of step 4
            raise Stopped

    whole, parted = tmp_path / "whole", tmp_path / "parted"
    done = tune(settings, out=whole, **how)
    with pytest.raises(Stopped):
        tune(settings, out=parted, progress=stop, **how)
    assert not (parted / ADAPTER).exists()
    with pytest.raises(UsageError, match="--resume"):
        tune(settings, out=parted, **how)
    again = tune(settings, out=parted, resume=True, **how)
    assert again.tuned == done.tuned
    assert (parted / ADAPTER).read_bytes() == (whole / ADAPTER).read_bytes()
    with pytest.raises(UsageError, match="other settings"):
        tune(read_config(), out=parted, resume=True, **how)
    assert "<svg" in (whole / CURVES).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in (whole / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines if line["stage"] == "held out"] == [0, 2, 4, 6]


def test_the_adapter_tells_what_it_is_and_names_no_file(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from cxrg.model.adapters.file import read_adapter
    from cxrg.model.adapters.prompt_vectors import read_card

    settings = on_table(tmp_path / "DOE^JANE", steps="2")
    done = tune(settings, model=str(folders["sd1"]), device="cpu", out=tmp_path / "out")
    card = read_card(read_adapter(done.adapter))
    assert card is not None
    assert card["vocabulary"]["locations"] == list(LOCATIONS)
    assert card["gain"]["frozen"] == done.frozen
    assert "DOE" not in json.dumps(card)
    tuned = load(folders["sd1"], device="cpu", adapter=done.adapter)
    assert card["base"]["identity"] == tuned.identity.partition("+")[0]


# --- command line ---------------------------------------------------------------------------------


def test_arguments_in_settings_out(monkeypatch, capsys, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def fake(settings: TuneConfig, **keywords: Any) -> Any:
        asked.update(settings=settings, **keywords)
        from cxrg.learn.tune.run import Tuned

        energies = {"location": 0.5}
        return Tuned(adapter=tmp_path / ADAPTER, frozen=energies, tuned=energies, step=3)

    monkeypatch.setattr(import_module("cxrg.learn.tune.run"), "tune", fake)
    words = ["cxrg", "tune", "--model", "tiny", "--set", "steps=3", "--set", "loss.nce=0"]
    monkeypatch.setattr("sys.argv", [*words, "--resume", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert (asked["settings"].steps, asked["settings"].loss.nce) == (3, 0)
    assert (asked["model"], asked["resume"], asked["out"]) == ("tiny", True, tmp_path)
    told = capsys.readouterr().out
    assert "Research use only" in told
    assert "location" in told


def test_a_gradient_reaches_no_other_row() -> None:
    """The row of zeros that unmarked tokens take is no parameter."""
    embeds = torch.randn(1, 3, 2)
    residuals = torch.zeros(1, 2, requires_grad=True)
    vectors = PromptVectors(
        prefix=torch.zeros(0, 2), gate=torch.zeros(0), residuals=residuals, terms={}
    )
    from cxrg.model.adapters.prompt_vectors import TokenSlots

    slots = TokenSlots(
        residual=torch.tensor([[1, 0, 1]]), prefix=torch.zeros(1, 3, dtype=torch.long)
    )
    bent: Tensor = vectors.apply(embeds, slots)
    (gradient,) = torch.autograd.grad(bent.sum(), [residuals])
    assert gradient.tolist() == [[1.0, 1.0]]
