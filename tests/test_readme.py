"""The README says what is: commands, options, exit codes, and a Python block that runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cxrg import errors
from cxrg.cli import EXIT_CLOSED_PIPE, EXIT_INTERRUPTED
from cxrg.options import KNOBS, PRESETS
from cxrg.output.record import SCHEMA, record


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def test_every_knob_and_preset_is_told(readme: str) -> None:
    told = set(re.findall(r"`--([a-z-]+)", readme))
    assert {knob.replace("_", "-") for knob in KNOBS} <= told
    assert all(f"`{preset}`" in readme for preset in PRESETS)


def test_exit_codes_are_those_of_the_code(readme: str) -> None:
    section = readme.split("### Exit codes")[1].split("\n## ")[0]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    known = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert told == known | {EXIT_INTERRUPTED, EXIT_CLOSED_PIPE}


def test_every_field_of_the_record_is_told(readme: str) -> None:
    from tests.fakes import samples

    section = readme.split("\n## JSON")[1].split("\n## ")[0]
    told = set(re.findall(r"`([a-z0-9_]+)`", section))
    line = record(samples.grounding(samples.image()))
    fields = {*line, *line["image"], *line["boxes"][0], "files", "path"}
    assert fields <= told
    assert SCHEMA in section


def test_linked_files_exist(readme: str, root: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert links
    missing = [link for link in links if not (root / link).exists()]
    assert not missing


def test_python_block_runs(readme: str, root: Path) -> None:
    (block,) = re.findall(r"<!-- python -->\n```python\n(.*?)```", readme, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("found", "not found"))
