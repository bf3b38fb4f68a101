"""``cxrg explain``: arguments in, a page and a picture out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrg.cli import main


def run(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["cxrg", "explain", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("DOE^JANE.png", "others/a.png")):
        Path(name).parent.mkdir(exist_ok=True)
        grey = np.random.default_rng(number).integers(0, 255, (64, 64), np.uint8)
        Image.fromarray(grey).save(name)
    return tmp_path


def test_files_and_reasons_come_out(monkeypatch, capsys, place: Path, folders) -> None:
    flags = ["--model", folders["compact"], "--device", "cpu", "--out", "why"]
    flags += ["--set", "timesteps=400", "--controls", "others", "--any-image"]
    code, out, err = run(monkeypatch, capsys, "DOE^JANE.png", "left opacity", *flags)
    assert code == 0, err
    *reasons, page, picture = out.splitlines()
    assert reasons[0].startswith("UNCALIBRATED: the score is ")
    assert any("In 1 other chests" in line or "In 1 other chest" in line for line in reasons)
    assert Path(page).suffix == ".html"
    assert Path(picture).suffix == ".png"
    assert Path(page).exists()
    assert Path(picture).exists()
    assert "JANE" not in out


@pytest.mark.parametrize(
    ("phrase", "message"),
    [("opacity " * 250, "is a whole report"), (" ", "the phrase is empty")],
)
def test_a_phrase_is_refused_as_ground_does(
    phrase, message, monkeypatch, capsys, place: Path
) -> None:
    code, _, err = run(monkeypatch, capsys, "DOE^JANE.png", phrase)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--controls", "nowhere"], "nowhere: no folder with images"),
        (["--device", "abacus"], "device 'abacus' is unknown"),
        (["--set", "mask"], "is not KNOB=VALUE"),
    ],
)
def test_mistakes_are_one_line(flags, message, monkeypatch, capsys, place: Path, folders) -> None:
    code, out, err = run(monkeypatch, capsys, "DOE^JANE.png", "left opacity", *flags)
    assert (code, out) != (0, "")
    assert message in err
    assert len(err.splitlines()) == 1
