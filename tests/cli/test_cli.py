"""The command line as a process: what it imports, pipes, the other commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import cxrg
from cxrg.cli import main
from cxrg.errors import UsageError
from cxrg.model.card import known_cards
from cxrg.options import KNOBS

HEAVY = ("torch", "diffusers", "transformers")


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


# Exit codes of commands that show help or are refused.
COMMANDS: list[tuple[list[str], int]] = [
    (["--help"], 0),
    (["--version"], 0),
    (["ground", "--help"], 0),
    (["phantom", "--help"], 0),
    (["evaluate", "--help"], 0),
    (["compare", "--help"], 0),
    (["train", "--help"], 0),
    (["bench", "--help"], 0),
    (["models"], 0),
    (["models", "--json"], 0),
    (["models", "show", "roentgen"], 0),
    (["models", "show", "no such model"], 4),
    (["models", "check", "--help"], 0),
    (["models", "check"], 2),
    (["models", "import"], 2),
    (["models", "import", "monai", "--help"], 0),
    (["models", "import", "monai", "--out", "x"], 2),
    ([], 2),
    (["no-such-command"], 2),
    (["ground"], 2),
    (["ground", "one argument"], 2),
    (["ground", "x.png", "opacity", "--no-such-option"], 2),
    (["ground", "x.png", "opacity", "--preset", "slow"], 2),
    (["ground", "x.png", "opacity", "--set", "steps=many"], 2),
    (["ground", "x.png", "opacity", "--set", "window=9:3"], 2),
    (["ground", "x.png", "opacity", "--dtype", "int8"], 2),
    (["ground", "x.png", "opacity", "--device", "tpu"], 2),
    (["ground", "x.png", "opacity", "--format", "pdf"], 2),
    (["ground", "x.png", "opacity"], 3),
    (["phantom", "--count", "0"], 2),
    (["train"], 2),
    (["tune", "--help"], 0),
    (["tune", "--set", "stepps=1"], 2),
    (["tune", "--config", "none.toml"], 3),
    (["ground", "x.png", "opacity", "--adapter", "none.safetensors"], 4),
    (["evaluate", "phantoms", "--adapter", "none.safetensors"], 4),
    (["bench", "--preset", "slow"], 2),
    (["bench", "--batch", "many"], 2),
    (["options"], 0),
    (["options", "--json"], 0),
    (["evaluate"], 2),
    (["compare"], 2),
]
# Runs each command and says, after a mark, its exit code and which heavy packages are loaded. One
# process serves all: a package that one of them loads stays loaded, and is named after it.
PROBE = f"""
import json, sys
from cxrg.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as ended:
        print("\\n@", ended.code or 0, *(name for name in {HEAVY!r} if name in sys.modules))
"""


def test_help_and_usage_errors_import_nothing_heavy(tmp_path: Path) -> None:
    done = python("-c", PROBE, json.dumps([given for given, _ in COMMANDS]), cwd=tmp_path)
    ends = [line[2:] for line in done.stdout.splitlines() if line.startswith("@ ")]
    expected = {" ".join(given): str(code) for given, code in COMMANDS}
    assert dict(zip(expected, ends, strict=True)) == expected, done.stderr
    assert "Traceback" not in done.stderr


def test_python_without_docstrings_is_refused_in_one_line() -> None:
    ended = python("-OO", "-m", "cxrg", "models")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("cxrg: does not run under python -OO")
    assert ended.stderr.count("\n") == 1
    assert python("-O", "-m", "cxrg", "models").returncode == 0


def test_import_is_light_and_names_load_on_use() -> None:
    probe = f"import sys, cxrg; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert python("-c", probe).stdout.strip() == "[]"
    assert set(cxrg.__all__) <= set(dir(cxrg))
    for name in cxrg.__all__:
        assert getattr(cxrg, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'grounds'"):
        cxrg.grounds  # noqa: B018


def test_ground_is_the_function_whatever_was_imported_first() -> None:
    # One process imports the package three times; torch, which takes seconds, only once.
    probe = """
import sys
for first in (
    "import cxrg.grounding", "from cxrg.grounding import Grounding", "from cxrg import load"
):
    for name in [name for name in sys.modules if name.partition(".")[0] == "cxrg"]:
        del sys.modules[name]
    exec(first)
    from cxrg import ground
    print(ground is sys.modules["cxrg.grounding"].ground)
"""
    done = python("-c", probe)
    assert done.stdout.split() == ["True"] * 3, done.stderr


def test_module_runs_as_the_command() -> None:
    done = python("-m", "cxrg", "--version")
    assert (done.returncode, done.stdout) == (0, f"cxrg {cxrg.__version__}\n")


def test_closed_pipe_ends_quietly() -> None:
    command = [sys.executable, "-m", "cxrg", "models", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr.read() == b""


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["cxrg", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def test_options_lists_every_knob_with_its_defaults(monkeypatch, capsys) -> None:
    code, out, _ = run(monkeypatch, capsys, "options")
    assert code == 0
    _, told, _ = run(monkeypatch, capsys, "options", "--json")
    rows = json.loads(told)
    assert [row["knob"] for row in rows] == list(KNOBS)
    flat = " ".join(out.split())
    assert all(f" {row['knob']} " in f" {flat}" for row in rows)
    (steps,) = (row for row in rows if row["knob"] == "steps")
    assert steps["defaults"] == {"fast": 300, "paper": 300, "gen2ground": 50}
    assert steps["values"] == "whole numbers from 1 to 1000"


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_threads_sleep_while_they_wait_unless_the_user_chooses(monkeypatch, given: Any) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "restored after the test")
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    else:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr("sys.argv", ["cxrg", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ["OMP_WAIT_POLICY"] == (given or "PASSIVE")


def test_presets_are_completed() -> None:
    from cxrg.cli.knobs import _presets

    assert _presets("p") == ["paper"]


def test_models_lists_name_licence_and_title(monkeypatch, capsys) -> None:
    code, out, _ = run(monkeypatch, capsys, "models")
    assert code == 0
    flat = "".join(out.split())
    for card in known_cards().values():
        for text in (card.name, card.licence, card.title):
            assert "".join(text.split())[:20] in flat, text
    _, out, _ = run(monkeypatch, capsys, "models", "--json")
    assert [card["name"] for card in json.loads(out)] == list(known_cards())


def test_models_show_tells_every_known_fact(monkeypatch, capsys) -> None:
    code, out, _ = run(monkeypatch, capsys, "models", "show", "monai-cxr")
    assert code == 0
    for text in ("MONAI", "0..1", "down_blocks.2.attentions.1", "cxrg models import monai"):
        assert text in out
    assert ["revision", "unknown"] in [line.split() for line in out.splitlines()]
    assert "paper: the defaults of `cxrg options`" in out
    assert "attribution" in out
    _, out, _ = run(monkeypatch, capsys, "models", "show", "compact")
    assert "fast: timesteps=250,350,450,550; " in out
    _, out, _ = run(monkeypatch, capsys, "models", "show", "radedit")
    assert "attribution" not in out  # nothing is known of it
    _, out, _ = run(monkeypatch, capsys, "models", "show", "monai-cxr", "--json")
    assert json.loads(out)["image_range"] == "0..1"
    code, _, err = run(monkeypatch, capsys, "models", "show", "nothing")
    assert code == 4
    assert err.startswith("cxrg: model 'nothing' is not known; known are ")


def test_train_hands_over_what_was_asked(monkeypatch, capsys) -> None:
    asked: dict[str, Any] = {}

    def fake(settings: Any, *, out: Path, resume: bool, progress) -> Path:
        progress("autoencoder", 3, 10)
        asked.update(name=settings.name, steps=settings.diffusion.steps, out=out, resume=resume)
        return out / "model"

    monkeypatch.setattr(import_module("cxrg.learn.train.run"), "run", fake)
    recipe = str(Path(cxrg.__file__).parent / "learn" / "train" / "compact.toml")
    changes = ["--set", "name=mine", "--set", "diffusion.steps=7"]
    code, out, _ = run(
        monkeypatch, capsys, "train", "--config", recipe, "--out", "o", "--resume", *changes
    )
    assert (code, out) == (0, "o/model\n")
    assert asked == {"name": "mine", "steps": 7, "out": Path("o"), "resume": True}


def test_a_phrase_beside_those_of_options_is_not_taken_for_an_image() -> None:
    from cxrg.cli.inputs import split_arguments

    for phrase in ("left basal opacity", "heart", "no effusion"):
        with pytest.raises(UsageError, match=f"{phrase} is no file, but reads as a phrase"):
            split_arguments(["a.png", phrase], ["nodule"])
    for image in ("missing.png", "scans/heart.png", "heart/*.png", "archive"):
        assert split_arguments(["a.png", image], ["nodule"]) == (["a.png", image], ["nodule"])


def test_an_empty_phrase_is_not_taken_for_this_folder() -> None:
    from cxrg.cli.inputs import split_arguments

    with pytest.raises(UsageError, match="the phrase is empty"):
        split_arguments(["a.png", ""], [])
