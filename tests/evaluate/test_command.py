"""``cxrg evaluate`` and ``cxrg compare`` with a tiny random model, and phantoms as a data set."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cxrg.cli import evaluate as command
from cxrg.errors import InputError, UsageError
from cxrg.evaluate.method import LatentDiffusion
from cxrg.evaluate.phantoms import FIRST_SEED, SIDE, opener, phantoms
from cxrg.evaluate.record import load
from cxrg.evaluate.sample import pseudonym
from cxrg.model.model import Model
from cxrg.options import resolve
from cxrg.phantom.sample import render
from tests.fakes import tiny_models
from tests.fakes.evaluate import manifest

VERDICT = "finding: The model "
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(command.evaluate)
app.command()(command.compare)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.compact(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    from cxrg.model.load import load as load_model

    return load_model(folder, device="cpu", dtype="float32")


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_model_options_reach_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def fake(name: str, **keywords: Any) -> Any:
        asked.update(name=name, **keywords)
        raise UsageError("enough")

    monkeypatch.setattr("cxrg.model.load.load", fake)
    labels, adapter = manifest(tmp_path, patients=2), tmp_path / "a.safetensors"
    adapter.touch()
    call("evaluate", labels, "--model", "some", "--adapter", adapter, "--offline", "-q")
    assert asked.pop("adapter") == adapter
    rest = {"device": "auto", "dtype": "auto", "revision": None, "offline": True}
    assert asked == {"name": "some", **rest}


@pytest.mark.slow
def test_evaluate_and_compare_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    labels, out = manifest(tmp_path, patients=2), tmp_path / "out"
    told = call("evaluate", labels, "--model", folder, "--out", out, "--set", "draws=1")
    assert told.exit_code == 0, told.output
    for word in ("mean_box_side", "Nodule", "presence_auroc", "NOT BETTER", "report.html", VERDICT):
        assert word in told.stdout
    report = json.loads((out / "report.json").read_text())
    assert report["method"]["options"]["draws"] == 1
    assert report["counts"]["samples"] == 8
    assert (out / "report.csv").is_file()
    assert "<svg" in (out / "report.html").read_text()

    other = tmp_path / "other"
    more = ("--set", "sigma=0.1", "--set", "draws=1", "-q")
    told = call("evaluate", labels, "--model", folder, "--out", other, *more)
    assert (told.exit_code, told.stdout) == (0, "")
    told = call("compare", out, other, "--json")
    compared = json.loads(told.stdout)
    assert compared["shared"] == 6
    ours, theirs = load(out / "samples.jsonl"), load(other / "samples.jsonl")
    gaps = [
        a.values["method"]["auc_roc"] - b.values["method"]["auc_roc"]
        for a, b in zip(ours, theirs, strict=True)
        if a.present
    ]
    micro = compared["parts"]["all"]["auc_roc"]["micro"]["value"]
    assert micro == pytest.approx(np.mean(gaps))
    assert micro != 0
    assert compared["methods"] == {"sigma": ["0.0048828125", "0.1"]}
    shown = call("compare", out, other).stdout
    assert "6 phrases in both" in shown
    assert "what differs" in shown
    assert "A (" in call("compare", out, out).stdout


@pytest.mark.slow
def test_phantoms_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("evaluate", "phantoms", "--count", 2, "--seed", 3, "--model", folder, "--out", out)
    told = call(*words, "--no-controls", "--set", "draws=1")
    assert told.exit_code == 0, told.output
    report = json.loads((out / "report.json").read_text())
    assert report["dataset"]["format"] == "phantoms"
    assert "No controls were run" in (out / "report.html").read_text()


def test_problems_end_with_an_exit_code(folder: Path, tmp_path: Path) -> None:
    labels = manifest(tmp_path, patients=2)
    (tmp_path / "i1.png").unlink()
    words = ("evaluate", labels, "--model", folder, "--out", tmp_path / "out", "--no-controls")
    told = call(*words, "-q", "--set", "draws=1")
    assert told.exit_code == 1
    assert "4 x missing image" in told.stderr


def test_files_of_an_own_manifest_name_no_path_and_no_patient(folder: Path, tmp_path: Path) -> None:
    labels = manifest(tmp_path, patients=3)
    images = tmp_path / "DOE^JANE 1950-01-01"
    images.mkdir()
    text = labels.read_text()
    for number in range(3):
        (tmp_path / f"i{number}.png").rename(images / f"DOE {number}.png")
        text = text.replace(f"i{number}.png", f"{images.name}/DOE {number}.png")
        text = text.replace(f",p{number}\n", f",DOE^JANE {number}\n")
    labels.write_text(text)
    (images / "DOE 1.png").unlink()
    (images / "DOE 2.png").write_bytes((images / "DOE 2.png").read_bytes()[:300])
    words = ("evaluate", labels, "--model", folder, "--no-controls", "-q", "--set", "draws=1")
    for measure in ("grounding", "leakage"):
        out = tmp_path / measure
        assert call(*words, "--out", out, "--measure", measure).exit_code == 1
        for file in out.iterdir():
            # An embedded picture in base64 may hold any three letters.
            assert b"DOE" not in re.sub(rb'"data:[^"]*"', b"", file.read_bytes()), file.name
    (line, *_) = (tmp_path / "grounding/samples.jsonl").read_text().splitlines()
    assert json.loads(line)["image"] == pseudonym(f"{images.name}/DOE 0.png")


def ms_cxr(folder: Path, count: int = 9) -> Path:
    """A label file of MS-CXR whose images are in another folder, ``mimic``."""
    rows = ["dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height"]
    for i in range(count):
        path = f"files/p10/p1000{i:04}/s5/{i}.png"
        image = folder / "mimic" / path
        image.parent.mkdir(parents=True)
        noise = np.random.default_rng(i).integers(20, 200, (64, 64), dtype=np.uint8)
        cv2.imwrite(str(image), noise)
        rows.append(f"{i},Atelectasis,left lower atelectasis,{path},40,30,20,20,64,64")
    labels = folder / "labels" / "MS_CXR.csv"
    labels.parent.mkdir()
    labels.write_text("\n".join(rows) + "\n")
    return labels


@pytest.mark.parametrize("measure", ["grounding", "leakage", "classification"])
def test_missing_images_are_named_before_the_model_loads(
    measure: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, out = ms_cxr(tmp_path), tmp_path / "out"
    words: tuple[object, ...] = ("evaluate", labels, "--model", folder, "--out", out)
    words = (*words, "--measure", measure, "-q", "--set", "draws=1")
    with monkeypatch.context() as patched:
        patched.setattr("cxrg.model.load.load", lambda *_, **__: pytest.fail("it loads"))
        refusal = call(*words)
    assert isinstance(refusal.exception, InputError)
    assert str(refusal.exception) == (
        f"{labels}: no phrase can be scored: 9 x missing image, such as "
        "files/p10/p10000000/s5/0.png left lower atelectasis: no files/p10/p10000000/s5/0.png "
        f"below labels/; looked in {labels.parent}; --images names the folder that the file's "
        "paths start from"
    )
    assert not out.exists()
    corrected = call(*words, "--images", tmp_path / "mimic", "--no-controls")
    assert isinstance(corrected.exception, SystemExit | None), corrected.output
    assert (out / f"{'report' if measure == 'grounding' else measure}.json").is_file()


WRONG = {
    "no rows": ("image,phrase", "holds no phrase in the format manifest; check --format"),
    "no images": ("image,phrase\nset.csv,heart", "--images names the folder"),
    "no images but sizes": (
        "image,phrase,boxes,width,height\nset.csv,heart,[],64,64",
        "none of its files below .* is a DICOM, PNG, JPEG or TIFF image; --images names the folder",
    ),
    "no boxes": ('image,phrase,boxes\nok.png,heart,"[[1, 2]]"', "1 x bad row.*correct the file"),
    "own paths": ("image,phrase\nDOE/JANE.png,heart", "row 1: the image is not below"),
}


@pytest.mark.parametrize(("text", "problem"), WRONG.values(), ids=list(WRONG))
def test_data_that_cannot_be_scored_is_refused_before_the_model_loads(
    text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxrg.model.load.load", lambda *_, **__: pytest.fail("it loads"))
    labels = tmp_path / "set.csv"
    cv2.imwrite(str(tmp_path / "ok.png"), np.full((64, 64), 60, np.uint8))
    labels.write_text(text + "\n")
    refusal = call("evaluate", labels, "--out", tmp_path / "out", "-q")
    assert isinstance(refusal.exception, InputError)
    assert re.search(problem, str(refusal.exception)), refusal.exception
    assert "DOE" not in str(refusal.exception)
    assert not (tmp_path / "out").exists()


def test_a_run_that_scored_nothing_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    labels = ms_cxr(tmp_path, 1)
    (image,) = (tmp_path / "mimic").rglob("*.png")
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    words: tuple[object, ...] = (
        "evaluate",
        labels,
        "--images",
        tmp_path / "mimic",
        "--model",
        folder,
        "-q",
    )
    words = (*words, "--out", tmp_path / "out", "--no-controls", "--set", "draws=1")
    refusal = call(*words)
    assert "no sample of MS_CXR could be scored (1 cannot be" in str(refusal.exception)
    assert not (tmp_path / "out").exists()
    image.write_bytes(whole)
    assert call(*words).exit_code == 0


REFUSED = {
    ("x.csv", "--count", "3"): "--count is for phantoms",
    ("x.csv", "--set", "draws"): "KNOB=VALUE",
    ("x.csv", "--set", "drows=2"): "did you mean draws",
    ("x.csv", "--preset", "slow"): "paper",
    ("x.csv", "--outside", "drop"): "exclude or zero",
    ("x.csv", "--device", "gpu"): "cuda",
    ("phantoms", "--count", "0"): "--count of at least 1",
}


def test_usage_errors_come_before_torch() -> None:
    script = (
        "import json, sys, typer\n"
        "from cxrg.cli import evaluate\n"
        "from cxrg.errors import UsageError\n"
        "app = typer.Typer(pretty_exceptions_enable=False)\n"
        "app.command()(evaluate.evaluate)\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        app(words, standalone_mode=False)\n"
        "    except UsageError as error:\n"
        "        print(error)\n"
        "    assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules), words\n"
    )
    command = [sys.executable, "-c", script, json.dumps(list(REFUSED))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for line, expected in zip(done.stdout.splitlines(), REFUSED.values(), strict=True):
        assert expected in line


def test_image_only_is_the_start_tokens_map(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxrg import ground as ground_function
    from cxrg.phrase.encode import encode_phrase

    method = LatentDiffusion(model=model, options=resolve("fast", model.card.presets, draws=1))
    image = method.read(manifest(tmp_path, patients=1).parent / "i0.png")
    found, bare = method.ground_with_control(image, ["finding"])
    assert bare is not None
    plain = method.ground(image, ["finding"])[0].heatmap
    np.testing.assert_allclose(found[0].heatmap, plain, atol=1e-5)
    assert not np.array_equal(bare, plain)

    def start(model: Model, text: str, tokens: object, **_: object) -> Any:
        prompt = encode_phrase(model, text)
        return replace(prompt, selected=(0,), span=slice(0, prompt.span.stop))

    module = sys.modules[ground_function.__module__]
    monkeypatch.setattr(module, "encode_phrase", start)
    np.testing.assert_allclose(bare, method.ground(image, ["finding"])[0].heatmap, atol=1e-5)


def test_the_image_only_control_shares_the_inversion(model: Model, tmp_path: Path) -> None:
    options = resolve("paper", model.card.presets, steps=50, window=(20, 26))
    method = LatentDiffusion(model=model, options=options)
    image = method.read(manifest(tmp_path, patients=1).parent / "i0.png")
    rows: list[int] = []
    hook = model.denoiser.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        method.ground(image, ["left nodule", "heart"])
        assert sum(rows) == 25 + 2 * 6
        rows.clear()
        method.ground_with_control(image, ["left nodule", "heart"])
        assert sum(rows) == 25 + 3 * 6
    finally:
        hook.remove()


def test_the_facts_of_a_method_name_what_ran(model: Model) -> None:
    facts = LatentDiffusion(model=model, options=resolve("fast", model.card.presets)).facts
    assert facts["precision"] == "float32"
    assert not {"device", "dtype", "batch"} & set(facts["options"])
    assert facts["identity"] == model.identity
    json.dumps(facts)


def test_phantoms_are_the_same_again_and_others_by_seed() -> None:
    first = phantoms(3, 0).samples
    assert first == phantoms(3, 0).samples
    assert first == phantoms(4, 0).samples[: len(first)]
    assert first != phantoms(3, 1).samples
    assert len({sample.id for sample in first}) == len(first)
    with pytest.raises(UsageError, match="--count"):
        phantoms(0, 0)


def test_phantoms_have_masks_of_what_is_asked() -> None:
    data = phantoms(12, 5)
    asked = {True: 0, False: 0}
    for sample in data.samples:
        asked[sample.present] += 1
        if not sample.present:
            continue
        mask = sample.truth((SIDE, SIDE))
        assert isinstance(mask, np.ndarray)
        assert mask.any()
        if sample.side in ("left", "right"):
            # The patient's left is the right half of the picture.
            columns = np.flatnonzero(mask.any(0)).mean()
            assert (columns > SIDE / 2) == (sample.side == "left"), sample
    assert asked[False] >= 6
    assert asked[True] >= 24


def test_phantom_images_come_from_seeds_that_training_leaves_alone() -> None:
    sample = phantoms(2, 7).samples[-1]
    image = opener(7, 64)(sample)
    expected = render(FIRST_SEED + 7 * 10**6 + 1, side=SIDE).image
    np.testing.assert_allclose(image.grey, expected)
    assert image.pixels.shape == (64, 64)
    assert FIRST_SEED == 2**40
