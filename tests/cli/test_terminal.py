"""Standard streams as users have them: narrow, closed, full, or in another encoding."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cxrg.cli import terminal

HEAD = ("", "image", "phrase", "status", "score", "x0 y0 x1 y1", "where")
ROWS = [
    [
        "1",
        "a.png",
        "heart",
        "found",
        "0.98",
        "91 82 177 181\n101 102 203 204",
        "left lower\nmidline",
    ],
    ["2", "a.png", "left basal opacity", "found", "0.87", "126 109 169 176", "left lower"],
]
FIRM = ("status", "score", "x0 y0 x1 y1", "where")


@pytest.mark.parametrize("width", [20, 30, 40, 50, 60, 80, 120])
def test_no_width_of_a_terminal_cuts_a_cell(width: int, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    terminal.table(HEAD, ROWS, firm=FIRM)
    out = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert all(len(line.rstrip()) <= width for line in out.splitlines())
    letters = "".join(out.split())
    if width >= 40:
        for number in ("91 82 177 181", "101 102 203 204", "126 109 169 176", "0.98", "0.87"):
            assert number in out  # on one line
        for word in ("found", "left lower", "mid"):
            assert word in out
    for row in ROWS:  # folding leaves all letters in order
        lines = [line for cell in row[3:] for line in cell.splitlines()]
        assert all("".join(line.split()) in letters for line in lines)


def test_letters_that_an_encoding_lacks_are_replaced(monkeypatch) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, "cp1252", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.repair_streams()
    terminal.table(("image", "phrase"), [["\u80ba.png", "\u0153d\u00e8me"]])
    text = written.getvalue().decode("cp1252")
    assert "?.png" in text
    assert "\u0153d\u00e8me" in text


def shell(command: str, folder: Path) -> tuple[int, str, str]:
    """Run ``cxrg`` in a shell; exit code, standard output, standard error."""
    root = Path(__file__).parents[2]
    line = f"PYTHONPATH='{root}' '{sys.executable}' -m cxrg {command}"
    done = subprocess.run(
        ["sh", "-c", line], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["models >&-", "models 2>&-", "--version >&- 2>&- <&-"])
def test_closed_streams_do_no_harm(command: str, tmp_path: Path) -> None:
    code, out, err = shell(command, tmp_path)
    assert (code, err) == (0, "")
    assert bool(out) is (">&-" not in command.replace("2>&-", ""))


@pytest.mark.parametrize("command", ["models", "models --json", "--version", "ground --help"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_full_device_is_one_line(command: str, tmp_path: Path) -> None:
    code, _, err = shell(f"{command} >/dev/full", tmp_path)
    assert code == 1
    assert err == (
        "cxrg: standard output: cannot be written (No space left on device); make room, "
        "or redirect it\n"
    )


def test_a_closed_standard_input_is_one_line(tmp_path: Path) -> None:
    code, _, err = shell("ground - -p heart <&-", tmp_path)
    assert code == 3
    assert err == ("cxrg: standard input is closed; pipe a list of images to it, or name files\n")
