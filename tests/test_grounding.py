"""The whole way: against the published procedure done naively, and the promises of the result."""

from __future__ import annotations

import json
import re
import sys
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal, cast

import cv2
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image as PillowImage
from scipy import ndimage

from cxrg.batch.task import Job, Row, Task
from cxrg.batch.work import Unwritten, open_worker
from cxrg.errors import ImageError, PhraseError, UsageError
from cxrg.geometry import Box, Frame
from cxrg.grounding import ground, ground_each, ground_with_start_token
from cxrg.heatmap.boxes import boxes_from_heatmap
from cxrg.heatmap.from_attention import heatmap_of
from cxrg.heatmap.maps import aggregate
from cxrg.image.read import CxrImage
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import PRESETS, Options, RunSettings
from cxrg.output.formats import DEFAULT_FORMATS
from cxrg.output.picture import render
from cxrg.output.sheet import render_sheet
from cxrg.phantom.dx import write_dx
from cxrg.result import show
from tests.fakes import samples, tiny_models
from tests.oracles import naive

PHRASE = "small left apical pneumothorax"
SHORT = Options(preset="paper", steps=50, window=(20, 26))


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Model]:
    return {name: load(folder, device="cpu") for name, folder in folders.items()}


def picture(
    height: int = 64, width: int = 64, *, seed: int = 0, fit: Literal["pad", "crop"] = "pad"
) -> CxrImage:
    """A smooth random image read for the tiny models' square of 64 pixels."""
    coarse = np.random.default_rng(seed).random((8, 8))
    grey = np.kron(coarse, np.ones((-(-height // 8), -(-width // 8))))[:height, :width]
    grey = grey.astype(np.float32)
    frame = Frame.fit((height, width), 64, fit)
    return CxrImage(
        pixels=frame.sample(grey),
        frame=frame,
        grey=grey,
        path=Path("somewhere/picture.png"),
        sha256="5" * 64,
        kind="png",
        uid=None,
        window="full range",
        warnings=("an image's warning",),
    )


def scheduler(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scheduler" / "scheduler_config.json").read_text())


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_equals_the_published_procedure(family, folders, models) -> None:
    image = picture()
    expected = naive.heatmap(
        models[family], scheduler(folders[family]), image.pixels, PHRASE, steps=50, window=(20, 26)
    )
    result = ground(image, PHRASE, model=models[family], options=SHORT)
    assert 0 < (expected > 0).mean() < 1
    np.testing.assert_allclose(result.canonical, expected, atol=1e-4)
    # A square image fills the square: the source's pixels are the canonical ones.
    np.testing.assert_allclose(result.heatmap, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_equals_the_published_procedure_with_all_its_steps(family, folders, models) -> None:
    image = picture(seed=1)
    config = scheduler(folders[family])
    expected = naive.heatmap(models[family], config, image.pixels, PHRASE)
    result = ground(image, PHRASE, model=models[family], preset="paper")
    np.testing.assert_allclose(result.canonical, expected, atol=1e-4)
    # The published procedure spends 2 * 334.
    assert result.evaluations == 179 + 60


def test_several_phrases_are_read_as_one_by_one(models) -> None:
    phrases = [PHRASE, "right effusion", "opacity"]
    image, model = picture(), models["sd2"]
    together = ground(image, phrases, model=model, options=SHORT, batch=4)
    for phrase, result in zip(phrases, together, strict=True):
        alone = ground(image, phrase, model=model, options=SHORT, batch=1)
        assert result.phrase == phrase
        assert result.tokens == alone.tokens
        assert result.score == pytest.approx(alone.score, abs=1e-6)
        np.testing.assert_allclose(result.canonical, alone.canonical, atol=1e-4)
    assert not np.allclose(together[0].canonical, together[1].canonical, atol=1e-2)


def test_the_network_runs_as_often_as_reported_and_inverts_once(models) -> None:
    model = models["monai"]
    rows = []
    count = model.denoiser.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        results = ground(picture(), [PHRASE, "left"], model=model, options=SHORT)
        assert [result.evaluations for result in results] == [25 + 6, 25 + 6]
        assert sum(rows) == 25 + 2 * 6
        rows.clear()
        fast = ground(picture(), PHRASE, model=model)
    finally:
        count.remove()
    assert fast.options.preset == "fast"
    assert fast.evaluations == sum(rows) == 6


def test_noise_is_seeded_and_averaged_over_draws(models) -> None:
    image, model = picture(), models["compact"]
    first = ground(image, PHRASE, model=model, seed=3)
    again = ground(image, PHRASE, model=model, seed=3)
    other = ground(image, PHRASE, model=model, seed=4)
    assert np.array_equal(first.heatmap, again.heatmap)
    assert not np.allclose(first.heatmap, other.heatmap)


def test_several_draws_tell_their_spread_from_the_same_evaluations(models) -> None:
    image, model = picture(), models["compact"]
    rows = []
    count = model.denoiser.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        result = ground(image, PHRASE, model=model, draws=4, timesteps=(300, 500), seed=3)
    finally:
        count.remove()
    assert sum(rows) == result.evaluations == 8
    assert result.draws is not None
    assert result.maps.timesteps == (300,) * 4 + (500,) * 4
    for draw, score in enumerate(result.draws.scores):
        alone = replace(
            result.maps,
            layers={name: maps[[draw, 4 + draw]] for name, maps in result.maps.layers.items()},
            timesteps=(300, 500),
        )
        assert score == heatmap_of(alone, image.frame, result.options)[2]
    assert len(set(result.draws.scores)) == 4
    again = ground(image, PHRASE, model=model, draws=4, timesteps=(300, 500), seed=3)
    assert again.draws == result.draws
    assert len(result.draws.boxes) == len(result.boxes)


def test_a_route_without_draws_has_no_spread(models) -> None:
    result = ground(picture(), PHRASE, model=models["compact"], options=replace(SHORT, draws=8))
    assert result.draws is None
    assert result.to_dict()["draws"] is None


def test_probabilities_stay_absolute_without_normalisation(models) -> None:
    knobs: dict[str, Any] = {"normalise": "none", "mask": "none"}
    image, model = picture(), models["compact"]
    total = ground(image, PHRASE, model=model, **knobs)
    each = [
        ground(image, PHRASE, model=model, tokens=(k,), **knobs) for k in range(len(total.tokens))
    ]
    assert 0 < total.canonical.min() <= total.canonical.max() < 1
    np.testing.assert_allclose(total.canonical, sum(one.canonical for one in each), rtol=1e-4)
    assert total.score == pytest.approx(np.sort(total.canonical.ravel())[-16:].mean(), abs=1e-6)


@pytest.mark.parametrize("normalise", ["minmax", "final", "none"])
def test_attention_comes_with_every_heatmap(models, normalise) -> None:
    image, model = picture(40, 64), models["compact"]
    knobs: dict[str, Any] = {"tokens": "0", "draws": 1}
    plain = ground(image, PHRASE, model=model, normalise="none", mask="none", **knobs)
    found = ground(image, PHRASE, model=model, normalise=normalise, mask="otsu", **knobs)
    np.testing.assert_array_equal(found.canonical_attention, plain.canonical)
    np.testing.assert_array_equal(found.attention, plain.heatmap)
    assert found.attention.shape == (40, 64)
    assert not np.array_equal(found.canonical, plain.canonical)


def test_final_scales_the_last_map_and_nothing_before_it(models) -> None:
    image, model = picture(), models["compact"]
    plain = ground(image, PHRASE, model=model, normalise="none", mask="none")
    final = ground(image, PHRASE, model=model, normalise="final", mask="none")
    low, high = plain.canonical.min(), plain.canonical.max()
    expected = (plain.canonical - low) / (high - low)
    np.testing.assert_allclose(final.canonical, expected, atol=1e-6)
    each = ground(image, PHRASE, model=model, normalise="minmax", mask="none")
    assert not np.allclose(each.canonical, expected, atol=1e-3)
    assert final.score == plain.score


def test_sparse_reading_goes_with_any_preset(models) -> None:
    image, options = picture(), replace(SHORT, mask="none")
    for family in ("monai", "compact"):
        dense = ground(image, PHRASE, model=models[family], options=options)
        sparse = ground(
            image, PHRASE, model=models[family], options=replace(options, sparse="entmax15")
        )
        assert sparse.evaluations == dense.evaluations
        assert not np.allclose(sparse.canonical, dense.canonical, atol=0.05)


def test_a_phrase_below_the_presence_threshold_is_not_found(models) -> None:
    image, model = picture(), models["compact"]
    score = ground(image, PHRASE, model=model).score
    found = ground(image, PHRASE, model=model, absent_below=score * 0.99)
    absent = ground(image, PHRASE, model=model, absent_below=score * 1.01)
    unjudged, place = ground(image, [PHRASE, "heart"], model=model, absent_below=None)
    assert unjudged.status == "uncalibrated"
    assert unjudged.boxes == found.boxes
    assert place.status == "found"  # a place is always there
    assert found.status == "found"
    assert found.boxes
    assert absent.status == "not found"
    assert absent.boxes == ()
    assert absent.score == pytest.approx(score)
    # The map is shown all the same.
    assert np.array_equal(absent.heatmap, found.heatmap)


def test_margins_are_never_found_and_the_crop_is_honest(models) -> None:
    wide = ground(picture(40, 100), PHRASE, model=models["sd1"], mask="none")
    assert wide.heatmap.shape == (40, 100)
    assert not np.isnan(wide.heatmap).any()
    margin = np.r_[0:19, 45:64]
    assert (wide.canonical[margin] == 0).all()
    assert all(0 <= b.x0 < b.x1 <= 100 and 0 <= b.y0 < b.y1 <= 40 for b in wide.boxes)
    cropped = ground(picture(40, 100, fit="crop"), PHRASE, model=models["sd1"], fit="crop")
    assert np.isnan(cropped.heatmap[:, :30]).all()
    assert not np.isnan(cropped.heatmap[:, 30:70]).any()


def test_boxes_enclose_what_is_not_suppressed_and_is_large_enough(models) -> None:
    image, model = picture(), models["sd2"]
    result = ground(image, PHRASE, model=model, preset="fast", layers=4)
    regions, count = ndimage.label(result.canonical > 0, structure=np.ones((3, 3)))
    slices = {(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(regions)}
    assert {(b.x0, b.y0, b.x1, b.y1) for b in result.boxes} == slices
    areas = sorted(np.bincount(regions.ravel())[1:])
    assert count > 1
    # The background is judged as well: what is shown does not change what is found.
    knobs: dict[str, Any] = {"preset": "fast", "layers": 4, "threshold": "quantile:0.3"}
    shown, hidden = (ground(image, PHRASE, model=model, mask=m, **knobs) for m in ("none", "otsu"))
    expected = boxes_from_heatmap(shown.canonical, threshold="quantile:0.3")
    assert hidden.boxes == shown.boxes == expected
    # A floor just above the smallest region's area leaves the others.
    floor = (areas[0] + 0.5) / regions.size
    larger = ground(image, PHRASE, model=model, preset="fast", layers=4, min_area=floor)
    assert len(larger.boxes) == sum(area > areas[0] for area in areas) < count


def test_the_result_names_its_image_model_and_every_knob(models, folders) -> None:
    result = ground(picture(), PHRASE, model=models["sd1"], tokens="word:left", steps=7)
    assert result.image.path.name == "picture.png"
    assert result.image.sha256 == "5" * 64
    assert result.model.name == "sd1"
    assert result.model.identity == models["sd1"].identity
    assert result.tokens == ("left</w>",)
    assert len(result.layers) == 4
    assert (result.options.steps, result.options.tokens) == (7, "word:left")
    assert result.model.precision == "float32"
    assert "an image's warning" in result.warnings
    assert set(result.timings) >= {"read", "encode", "invert", "attend", "post-process"}


def test_images_in_memory_are_grounded_as_files(models, tmp_path: Path) -> None:
    samples = np.random.default_rng(3).integers(0, 256, (70, 90), np.uint8)
    path = tmp_path / "a.png"
    PillowImage.fromarray(samples).save(path)
    write_dx(tmp_path / "a.dcm", samples.astype(np.uint16) * 16, seed=1)
    model = models["sd1"]
    settings = RunSettings(any_image=True)
    expected = ground(path, PHRASE, model=model).canonical
    for source in (samples, PillowImage.fromarray(samples), samples / np.float64(255)):
        found = ground(source, PHRASE, model=model)
        np.testing.assert_allclose(found.canonical, expected, atol=1e-6)
        assert found.heatmap.shape == (70, 90)
        (each,) = ground_each(
            source, [PHRASE], model=model, options=found.options, settings=settings
        )
        np.testing.assert_array_equal(each.canonical, found.canonical)
        (first,), start = ground_with_start_token(
            source, [PHRASE], model=model, options=found.options, settings=settings
        )
        assert start is not None
        np.testing.assert_allclose(first.canonical, found.canonical, atol=1e-5)
    by_file = ground(tmp_path / "a.dcm", PHRASE, model=model)
    by_data = ground(pydicom.dcmread(tmp_path / "a.dcm"), PHRASE, model=model)
    np.testing.assert_array_equal(by_data.canonical, by_file.canonical)
    with pytest.raises(ImageError, match="scale them to"):
        ground(samples * 1.0, PHRASE, model=model)


def test_a_result_keeps_its_attention_by_layer_and_timestep(models) -> None:
    result = ground(picture(), PHRASE, model=models["sd1"], options=SHORT)
    assert tuple(result.maps.layers) == result.layers
    assert len(result.maps.timesteps) == 6
    assert all(len(maps) == 6 for maps in result.maps.layers.values())
    joined = aggregate(result.maps.layers, 64, how=result.options.enlarge)
    assert result.canonical_attention.mean() == pytest.approx(joined.mean(), rel=0.02)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_attention_is_split_by_layer_and_by_timestep(models, fit) -> None:
    image = picture(80, 64, fit=fit)
    result = ground(image, PHRASE, model=models["sd1"], options=replace(SHORT, fit=fit))
    for what, names in (("layer", result.layers), ("timestep", result.maps.timesteps)):
        parts = result.attention_by(cast(Any, what))
        assert tuple(parts) == names
        assert len(parts) > 1
        assert all(part.shape == (80, 64) for part in parts.values())
        mean = np.mean(list(parts.values()), axis=0)
        np.testing.assert_allclose(mean[2:-2], result.attention[2:-2], atol=1e-6)
        first, second, *_ = parts.values()
        assert not np.allclose(first, second, atol=1e-4, equal_nan=True)
    with pytest.raises(UsageError, match="use layer or timestep"):
        result.attention_by(cast(Any, "token"))


def test_noise_draws_of_a_timestep_are_one_part(models) -> None:
    result = ground(picture(), PHRASE, model=models["sd1"], preset="fast", draws=3)
    assert len(result.maps.timesteps) == 3 * len(set(result.maps.timesteps))
    parts = result.attention_by("timestep")
    assert set(parts) == set(result.maps.timesteps)
    mean = np.mean(list(parts.values()), axis=0)
    np.testing.assert_allclose(mean, result.attention, atol=1e-6)


def test_an_overlay_is_in_source_pixels() -> None:
    image = samples.image(500, 700)
    box = Box(100, 200, 300, 400, 0.9)
    overlay = samples.grounding(image, boxes=(box,)).overlay()
    assert overlay.shape == (500, 700, 3)
    assert overlay.dtype == np.uint8
    for x, y in [(100, 300), (299, 300), (200, 200), (200, 399)]:
        assert overlay[y, x].min() > 200  # half-open edges
    plain = samples.grounding(image, **samples.NOT_FOUND).overlay()
    np.testing.assert_array_equal(plain[:150], overlay[:150])
    unknown = replace(samples.grounding(image), heatmap=np.full((500, 700), np.nan, np.float32))
    grey = np.rint(image.grey * 255)
    np.testing.assert_array_equal(unknown.overlay(), np.stack([grey] * 3, -1))


def test_a_notebook_gets_a_picture_and_a_table_without_the_file_name() -> None:
    image = samples.image()
    result = samples.grounding(image, "<b>left</b> opacity", warnings=("a & b",))
    png = cv2.imdecode(np.frombuffer(result._repr_png_(), np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(png, render(result, image))
    html = result._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;left&lt;/b&gt; opacity: found · 1 box · presence score 0.42" in html
    assert "a &amp; b" in html
    assert "left lower zone" in html
    assert "DOE" not in html
    (coded,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    small = cv2.imdecode(np.frombuffer(b64decode(coded), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert small is not None
    assert small.shape[1] == 1000


def test_one_result_or_several_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[np.ndarray] = []
    monkeypatch.setattr(PillowImage.Image, "show", lambda self: shown.append(np.asarray(self)))
    one = samples.grounding(samples.image())
    show(one)
    show([one, one])
    np.testing.assert_array_equal(shown[0], render(one, one.image))
    np.testing.assert_array_equal(shown[1], render_sheet([one, one]))


def test_a_notebook_shows_pictures_in_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the desktop's viewer, which Pillow would start on the machine of the kernel."""
    shown: list[bytes] = []
    ipython = ModuleType("IPython")
    display = ModuleType("IPython.display")
    monkeypatch.setattr(ipython, "get_ipython", lambda: SimpleNamespace(kernel=1), raising=False)
    monkeypatch.setattr(display, "display", shown.append, raising=False)
    monkeypatch.setattr(display, "Image", lambda data: data, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(PillowImage.Image, "show", lambda self: pytest.fail("a viewer"))
    result = samples.grounding(samples.image())
    result.show()
    assert shown == [result._repr_png_()]


def test_a_result_saves_what_the_command_writes(models, folders, tmp_path: Path) -> None:
    path = tmp_path / "in" / "DOE^JANE.png"
    path.parent.mkdir()
    samples = np.random.default_rng(3).integers(0, 256, (70, 90), np.uint8)
    PillowImage.fromarray(samples).save(path)
    result = ground(path, PHRASE, model=models["sd1"])
    files = result.save(tmp_path / "out")
    job = Job(
        model=str(folders["sd1"]), preset="fast", out=tmp_path / "job", device="cpu", any_image=True
    )
    worker = open_worker(job)
    parts = worker.look(worker.read(Task(index=0, path=path, phrases=(PHRASE,))))
    rows = [worker.write(part) for part in parts if isinstance(part, Unwritten)]
    assert [row.stem for row in rows if isinstance(row, Row)] == [files["json"].stem]
    assert sorted(files) == sorted(DEFAULT_FORMATS)
    for name in ("json", "png"):
        assert files[name].read_bytes() == (tmp_path / "job" / files[name].name).read_bytes()
    assert json.loads(files["json"].read_text()) == json.loads(json.dumps(result.to_dict()))
    (only,) = result.save(str(tmp_path / "few"), formats=["png"]).values()
    assert [only] == list((tmp_path / "few").iterdir())
    with pytest.raises(UsageError, match="format 'pdf' is unknown; use some of json, png, npz"):
        result.save(tmp_path / "few", formats=["pdf"])


def test_a_result_shows_its_picture(models, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[np.ndarray] = []
    monkeypatch.setattr(
        PillowImage.Image, "show", lambda self: shown.append(np.asarray(self)), raising=True
    )
    result = ground(picture(), PHRASE, model=models["sd1"])
    result.show()
    np.testing.assert_array_equal(shown[0], render(result, result.image))


def test_results_and_models_print_as_one_line(models) -> None:
    result = ground(picture(), PHRASE, model=models["sd1"])
    number = len(result.boxes)
    assert repr(result) == (
        f"<Grounding: {PHRASE!r} {result.status}, score {result.score:.2f}, {number} "
        f"box{'' if number == 1 else 'es'}, model sd1, image sha256 55555555>"
    )
    assert repr(models["sd1"]) == "<Model: sd1, float32 on cpu, 64 x 64 pixels>"
    long = replace(result, phrase="a\nb" + "x" * 100)
    assert "\n" not in repr(long)
    assert len(repr(long)) < 200


def test_a_constant_map_has_no_boxes_and_a_warning(models) -> None:
    blind = load_blind(models["sd1"])
    result = ground(picture(), PHRASE, model=blind)
    assert result.status == "not found"
    assert (result.heatmap == 0).all()
    assert any("everywhere" in warning for warning in result.warnings)


def load_blind(model: Model) -> Model:
    """The same model whose keys are all alike, so that every token gets the same attention."""
    import copy

    unet = copy.deepcopy(model.denoiser)
    for name, module in unet.named_modules():
        if name.endswith("attn2.to_k"):
            module.weight.data.zero_()
    return replace(model, denoiser=unet)


@pytest.mark.parametrize("phrase", ["", "  \n"])
def test_an_empty_phrase_is_refused(phrase, models) -> None:
    with pytest.raises(PhraseError, match="empty"):
        ground(picture(), phrase, model=models["sd1"])


def test_what_does_not_fit_together_is_refused(models) -> None:
    model, image = models["sd1"], picture(40, 100)
    with pytest.raises(UsageError, match="side=64"):
        ground(replace(image, frame=Frame.fit((40, 100), 32, "pad")), PHRASE, model=model)
    with pytest.raises(UsageError, match="fit=crop"):
        ground(image, PHRASE, model=model, fit="crop")
    with pytest.raises(UsageError, match="fit=pad"):
        ground(picture(40, 100, fit="crop"), PHRASE, model=model)
    with pytest.raises(UsageError, match="dtype bfloat16"):
        ground(image, PHRASE, model=model, dtype="bfloat16")
    with pytest.raises(UsageError, match="exclude each other"):
        ground(image, PHRASE, model=model, options=PRESETS["fast"], steps=5)


def test_threads_are_set_and_change_no_result(models) -> None:
    before = torch.get_num_threads()
    try:
        one = ground(picture(), "heart", model=models["sd2"], threads=1)
        assert torch.get_num_threads() == 1
        two = ground(picture(), "heart", model=models["sd2"], threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert one.options == two.options
    np.testing.assert_allclose(one.heatmap, two.heatmap, atol=1e-4)


def test_a_model_may_be_named_and_bfloat16_stays_close(folders) -> None:
    exact = ground(picture(), PHRASE, model=folders["compact"], device="cpu", mask="none")
    coarse = ground(
        picture(), PHRASE, model=folders["compact"], device="cpu", dtype="bfloat16", mask="none"
    )
    assert coarse.model.precision == "bfloat16"
    correlation = np.corrcoef(exact.canonical.ravel(), coarse.canonical.ravel())[0, 1]
    assert 0.98 < correlation < 1
