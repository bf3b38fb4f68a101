"""``cxrg ground``: arguments in, library keywords out; files, lines, exit codes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from cxrg.cli import main
from cxrg.errors import ModelError, PhraseError
from cxrg.heatmap.draws import BoxDraws, Draws
from cxrg.model.card import Card
from cxrg.options import Options, resolve
from cxrg.output.arrays import read_heatmap
from cxrg.output.record import SCHEMA_FILE, record
from tests.fakes import samples, tiny_models

SCHEMA = json.loads(SCHEMA_FILE.read_text())
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch, capsys) -> Run:
    """Run the command line; exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["cxrg", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return call


@dataclass
class Library:
    """Stands in for the library and notes what it was asked."""

    loads: list[dict[str, Any]] = field(default_factory=list)
    grounds: list[dict[str, Any]] = field(default_factory=list)
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    draws: Draws | None = None
    invalid: dict[str, PhraseError] = field(default_factory=dict)

    def load(self, name: str, **keywords: Any) -> SimpleNamespace:
        self.loads.append({"name": name, **keywords})
        return SimpleNamespace(
            side=64,
            card=Card(name="tiny", presets=self.presets),
            identity="sha256:0123",
            device=keywords["device"],
            precision="float32",
        )

    def phrase_errors(
        self, phrases: Sequence[str], model: Any, options: Options, settings: Any
    ) -> dict[str, PhraseError]:
        return {text: error for text, error in self.invalid.items() if text in phrases}

    def ground_each(
        self, image: Any, phrases: list[str], *, model: Any, options: Options, settings: Any
    ) -> list[Any]:
        call = {"path": image.path, "phrases": phrases, "options": options, "settings": settings}
        self.grounds.append(call)
        changes = {"options": options, "warnings": self.warnings, "draws": self.draws}
        return [samples.grounding(image, phrase, **changes) for phrase in phrases]


@pytest.fixture
def library(monkeypatch) -> Library:
    fake = Library()
    monkeypatch.setattr(import_module("cxrg.model.load"), "load", fake.load)
    monkeypatch.setattr(import_module("cxrg.cli.ground"), "expected_setting", lambda job: None)
    monkeypatch.setattr(import_module("cxrg.grounding"), "ground_each", fake.ground_each)
    monkeypatch.setattr(import_module("cxrg.grounding"), "phrase_errors", fake.phrase_errors)
    return fake


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """An empty working folder with one X-ray in it, ``DOE^JANE.png``."""
    monkeypatch.chdir(tmp_path)
    draw("DOE^JANE.png")
    return tmp_path


def draw(name: str, *, seed: int = 1) -> None:
    grey = np.random.default_rng(seed).integers(0, 255, (96, 80), np.uint8)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(cv2.imencode(".png", grey)[1].tobytes())


def lines_of(out: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in out.splitlines()]
    for line in lines:
        jsonschema.validate(line, SCHEMA, cls=jsonschema.Draft202012Validator)
    return lines


# --- arguments in, keywords out -------------------------------------------------------------------


def test_defaults(run: Run, library: Library, place: Path) -> None:
    code, _, _ = run("ground", "DOE^JANE.png", "left basal opacity")
    assert code == 0
    asked = {"device": "auto", "dtype": "auto", "revision": None, "offline": False, "adapter": None}
    assert library.loads == [{"name": "compact", **asked}]
    (call,) = library.grounds
    assert call["phrases"] == ["left basal opacity"]
    assert call["options"] == resolve()


def test_every_knob_reaches_the_options(run: Run, library: Library, place: Path) -> None:
    texts = {
        "path": "ddim",
        "steps": "50",
        "window": "0.4:0.6",
        "timesteps": "100,200",
        "draws": "3",
        "seed": "11",
        "layers": "16",
        "tokens": "word:opacity",
        "sparse": "entmax15",
        "normalise": "none",
        "bbm": "off",
        "sigma": "0.02",
        "mask": "none",
        "threshold": "quantile:0.9",
        "min_area": "0.01",
        "absent_below": "0.1",
        "fit": "crop",
    }
    flags = [part for knob, text in texts.items() for part in ("--set", f"{knob}={text}")]
    code, _, err = run("ground", "DOE^JANE.png", "opacity", "--preset", "paper", *flags)
    assert code == 0, err
    assert library.grounds[0]["options"] == Options(
        preset="paper",
        path="ddim",
        steps=50,
        window=(0.4, 0.6),
        timesteps=(100, 200),
        draws=3,
        seed=11,
        layers=16,
        tokens="word:opacity",
        sparse="entmax15",
        normalise="none",
        bbm="off",
        sigma=0.02,
        mask="none",
        threshold="quantile:0.9",
        min_area=0.01,
        absent_below=0.1,
        fit="crop",
    )
    assert set(texts) == set(Options.__dataclass_fields__) - {"preset"}


def test_daily_flags_are_knobs_and_settings(run: Run, library: Library, place: Path) -> None:
    flags = ["--threshold", "0.5", "--seed", "7", "--batch", "3", "--threads", "1"]
    flags += ["--set", "seed=8", "--draws", "5"]
    assert run("ground", "DOE^JANE.png", "opacity", *flags)[0] == 0
    (call,) = library.grounds
    assert (call["options"].threshold, call["options"].seed) == (0.5, 7)
    assert call["options"].draws == 5
    assert (call["settings"].batch, call["settings"].threads) == (3, 1)


def test_another_batch_size_finds_the_archive_done(run: Run, library: Library, place: Path) -> None:
    assert run("ground", "DOE^JANE.png", "opacity", "--batch", "1")[0] == 0
    files = {path.name for path in Path("cxrg-out").glob("*-*")}
    code, _, err = run("ground", "DOE^JANE.png", "opacity", "--batch", "2", "--threads", "2")
    assert (code, len(library.grounds)) == (0, 1)
    assert "1 done before" in err
    assert {path.name for path in Path("cxrg-out").glob("*-*")} == files


def test_help_fits_two_screens(run: Run, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run("ground", "--help")
    assert len(out.splitlines()) <= 48
    assert max(map(len, out.splitlines())) <= 80


def test_model_options_reach_load(run: Run, library: Library, place: Path) -> None:
    Path("a.safetensors").touch()
    flags = ["--model", "some/where", "--revision", "v1", "--offline", "--device", "cuda:1"]
    flags += ["--adapter", "a.safetensors", "--dtype", "bfloat16"]
    assert run("ground", "DOE^JANE.png", "opacity", *flags)[0] == 0
    asked = {"device": "cuda:1", "dtype": "bfloat16", "revision": "v1", "offline": True}
    asked["adapter"] = Path("a.safetensors")
    assert library.loads == [{"name": "some/where", **asked}]


def test_card_adapts_the_preset_and_the_command_line_wins(
    run: Run, library: Library, place: Path
) -> None:
    library.presets = {"fast": {"timesteps": [7], "draws": 9}}
    assert run("ground", "DOE^JANE.png", "opacity", "--set", "draws=1")[0] == 0
    options = library.grounds[0]["options"]
    assert (options.timesteps, options.draws) == ((7,), 1)


def test_with_phrase_options_every_argument_is_an_image(
    run: Run, library: Library, place: Path
) -> None:
    draw("b.png", seed=2)
    assert run("ground", "DOE^JANE.png", "b.png", "-p", "one", "--phrase", "two")[0] == 0
    assert [(call["path"].name, call["phrases"]) for call in library.grounds] == [
        ("DOE^JANE.png", ["one", "two"]),
        ("b.png", ["one", "two"]),
    ]
    assert len(library.loads) == 1


def test_folders_are_searched_by_content(run: Run, library: Library, place: Path) -> None:
    draw("study/b/deep.txt", seed=2)
    draw("study/a.png", seed=3)
    Path("study/notes.txt").write_text("no image")
    code, _, err = run("ground", "study", "opacity")
    assert (code, err) == (0, "cxrg: 2 inputs: 2 done\n")
    read = [str(call["path"]) for call in library.grounds]
    assert read == ["study/a.png", "study/b/deep.txt"]


# --- what comes out -------------------------------------------------------------------------------


def test_table_on_standard_output(run: Run, library: Library, place: Path) -> None:
    code, out, err = run("ground", "DOE^JANE.png", "left [basal] opacity")
    assert (code, err) == (0, "")
    for text in ("left [basal] opacity", "found", "0.42", "left lower", "46 54 70 78"):
        assert text in out, text
    (picture,) = Path("cxrg-out").glob("*.png")
    assert str(picture) in out.splitlines()


def test_json_is_one_valid_line_each_and_nothing_else(
    run: Run, library: Library, place: Path
) -> None:
    draw("b.png", seed=2)
    phrases = ["-p", "eins", "-p", "zwei\tund ü"]
    code, out, err = run("ground", "DOE^JANE.png", "b.png", *phrases, "--json")
    assert (code, err) == (0, "cxrg: 2 inputs: 2 done\n")
    lines = lines_of(out)
    assert [(line["image"]["path"], line["phrase"]) for line in lines] == [
        ("DOE^JANE.png", "eins"),
        ("DOE^JANE.png", "zwei\tund ü"),
        ("b.png", "eins"),
        ("b.png", "zwei\tund ü"),
    ]
    files = [Path(file) for line in lines for file in line["files"].values()]
    assert len(set(files)) == 12
    assert all(file.is_file() for file in files)


def test_files_do_not_tell_the_input_name(run: Run, library: Library, place: Path) -> None:
    assert run("ground", "DOE^JANE.png", "opacity", "--out", "results/new")[0] == 0
    written = sorted(Path("results/new").iterdir())
    assert [file.suffix for file in written] == [".json", ".npz", ".png", ".sqlite"]
    assert not any("DOE" in file.name or b"DOE" in file.read_bytes() for file in written)
    jsonschema.validate(json.loads(written[0].read_text()), SCHEMA)


@pytest.mark.parametrize(
    ("formats", "suffixes"), [("png", {".png"}), ("npz, json", {".json", ".npz"}), ("none", set())]
)
def test_only_the_formats_asked_for(
    run: Run, library: Library, place: Path, formats: str, suffixes: set[str]
) -> None:
    code, out, _ = run("ground", "DOE^JANE.png", "opacity", "--format", formats, "--json")
    assert code == 0
    assert {file.suffix for file in Path().glob("cxrg-out/*-*")} == suffixes
    assert {f".{kind}" for kind in lines_of(out)[0]["files"]} == suffixes


def test_warnings_are_told_once_per_image(run: Run, library: Library, place: Path) -> None:
    library.warnings = ("the view is\nnot known",)
    arguments = ["ground", "DOE^JANE.png", "-p", "one", "-p", "two"]
    _, _, err = run(*arguments)
    assert err == "cxrg: warning: DOE^JANE.png: the view is not known\n"
    _, out, err = run(*arguments, "--quiet")
    assert (out, err) == ("", "")


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["DOE^JANE.png"], 2, "DOE^JANE.png is a file or folder, so the phrase is missing"),
        (["opacity"], 2, "one argument is too few"),
        (
            ["DOE^JANE.png", "x", "--format", "pdf"],
            2,
            "format 'pdf' is unknown; use some of json, png",
        ),
        (["DOE^JANE.png", "x", "--preset", "slow"], 2, "preset 'slow' is unknown; use fast"),
        (["DOE^JANE.png", "x", "--threshold", "high"], 2, "threshold 'high' is not valid"),
        (["DOE^JANE.png", "x", "--device", "tpu"], 2, "device 'tpu' is unknown"),
        (["nothing.png", "x"], 3, "nothing.png: does not exist"),
        (["text.dcm", "x"], 3, "text.dcm: is not a DICOM, PNG, JPEG or TIFF file"),
        (["empty", "x"], 3, "empty: holds no image"),
    ],
)
def test_errors_are_one_line_with_their_code(
    run: Run, library: Library, place: Path, arguments: list[str], code: int, words: str
) -> None:
    Path("text.dcm").write_text("this is no image " * 100)
    Path("empty").mkdir()
    got, out, err = run("ground", *arguments)
    assert (got, out) == (code, "")
    assert err.startswith(f"cxrg: {words}")
    assert err.count("\n") == 1
    assert not library.loads
    assert not Path("cxrg-out").exists()


def test_debug_shows_where(run: Run, library: Library, place: Path) -> None:
    for arguments in (["ground", "no.png", "x", "--debug"], ["--debug", "ground", "no.png", "x"]):
        code, _, err = run(*arguments)
        assert code == 3
        assert "Traceback (most recent call last)" in err
        assert err.splitlines()[-1].startswith("cxrg: no.png: does not exist")


def raising(error: BaseException) -> Callable[..., Any]:
    def raise_it(*_: object, **__: object) -> None:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("module", "error", "code", "words"),
    [
        (
            "model.load",
            ModelError("model 'x' is not here;\n  fetch it"),
            4,
            "model 'x' is not here; fetch",
        ),
        (
            "grounding",
            PhraseError("the phrase is empty; name it"),
            3,
            "the phrase is empty; name it",
        ),
        ("grounding", KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_library_errors_end_with_their_code(
    run: Run, library: Library, place: Path, monkeypatch, module, error, code, words
) -> None:
    name = {"model.load": "load", "grounding": "ground_each"}[module]
    monkeypatch.setattr(import_module(f"cxrg.{module}"), name, raising(error))
    got, out, err = run("ground", "DOE^JANE.png", "-p", "x", "-p", "y")
    assert (got, out) == (code, "")
    assert err.startswith(f"cxrg: {words}")
    assert err.count("\n") == 1


def test_batch_goes_on_past_bad_files(run: Run, library: Library, place: Path) -> None:
    Path("bad.png").write_bytes(Path("DOE^JANE.png").read_bytes()[:200])
    draw("b.png", seed=2)
    inputs = ["bad.png", "DOE^JANE.png", "gone.png", "b.png"]
    code, out, err = run("ground", *inputs, "opacity", "--json", "--quiet")
    assert code == 1
    assert [line["image"]["path"] for line in lines_of(out)] == ["DOE^JANE.png", "b.png"]
    told = err.splitlines()
    assert len(told) == 3
    assert told[0].startswith("cxrg: bad.png: ")
    assert told[1].startswith("cxrg: gone.png: does not exist")
    assert told[2].startswith("cxrg: 2 of 4 inputs failed (")


def test_single_damaged_image_is_bad_input(run: Run, library: Library, place: Path) -> None:
    Path("bad.png").write_bytes(Path("DOE^JANE.png").read_bytes()[:200])
    code, out, err = run("ground", "bad.png", "opacity")
    assert (code, out) == (3, "")
    assert err.count("\n") == 1


def test_folder_that_cannot_be_written_ends_the_run(
    run: Run, library: Library, place: Path
) -> None:
    Path("taken").write_text("a file")
    code, out, err = run("ground", "DOE^JANE.png", "opacity", "--out", "taken")
    assert (code, out) == (1, "")
    assert err.startswith("cxrg: taken/")
    assert err.endswith("choose another folder\n")


# --- all of it, with a tiny model -----------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.compact(tmp_path_factory.mktemp("models") / "tiny")


def test_command_line_and_library_agree(run: Run, place: Path, tiny: Path) -> None:
    from cxrg import ground, load

    code, out, err = run(
        *("ground", "DOE^JANE.png", "basal opacity", "--model", tiny),
        *("--device", "cpu", "--json", "--seed", "3"),
    )
    assert (code, err) == (0, "")
    (line,) = lines_of(out)
    model = load(tiny, device="cpu")
    result = ground("DOE^JANE.png", "basal opacity", model=model, seed=3)
    files = line.pop("files")
    del line["image"]["path"]
    assert line == json.loads(json.dumps(record(result)))
    np.testing.assert_array_equal(read_heatmap(files["npz"]), result.heatmap)


def test_the_table_says_what_a_phrase_means_and_flags_sides(
    run: Run, library: Library, place: Path
) -> None:
    _, out, _ = run("ground", "DOE^JANE.png", "-p", "no opacity", "-p", "right opacity")
    assert "denies opacity" in out
    assert "! phrase: right" in out
    _, out, _ = run("ground", "DOE^JANE.png", "left opacity")
    assert "! phrase" not in out
    run("ground", "DOE^JANE.png", "left mass", "--force-ground")
    assert library.grounds[-1]["settings"].force_ground
    assert not library.grounds[-1]["settings"].mend


def test_the_table_shows_the_range_of_the_score(run: Run, library: Library, place: Path) -> None:
    _, out, _ = run("ground", "DOE^JANE.png", "opacity", "--format", "none")
    assert "0.25 to 0.75" not in out
    library.draws = Draws(scores=(0.5, 0.25, 0.75), found=3, boxes=(BoxDraws(agree=0),))
    _, out, _ = run("ground", "DOE^JANE.png", "opacity", "--format", "none")
    assert "0.25 to 0.75" in out


def test_a_mended_picture_is_computed_anew(run: Run, library: Library, place: Path) -> None:
    assert run("ground", "DOE^JANE.png", "opacity", "--any-image")[0] == 0
    assert run("ground", "DOE^JANE.png", "opacity", "--mend")[0] == 0
    assert len(library.grounds) == 2
    assert library.grounds[-1]["settings"].mend


def test_quiet_hides_the_hubs_progress_bars(run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "0")
    run("ground", tmp_path / "missing.png", "left")
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "0"
    run("ground", tmp_path / "missing.png", "left", "-q")
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
