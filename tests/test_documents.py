"""The documents are true: generated references, links, and a Python block that runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cxrg import errors
from cxrg.options import PRESETS
from cxrg.output.record import record
from tests.fakes import samples

LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def test_readme_names_every_preset(readme: str) -> None:
    assert all(f"| `{preset}`" in readme for preset in PRESETS)


def test_readme_fits_two_hundred_lines(readme: str) -> None:
    assert len(readme.splitlines()) <= 200


def test_every_exit_code_has_a_meaning() -> None:
    codes = {value for name, value in vars(errors).items() if re.match(r"EXIT_(?!MEANINGS)", name)}
    assert set(errors.EXIT_MEANINGS) == codes


def test_references_are_those_of_the_code(root: Path) -> None:
    command = [sys.executable, str(root / ".ci" / "reference.py"), "--check"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_record_reference_names_every_field(root: Path) -> None:
    reference = (root / "cxrg" / "output" / "RECORD.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([^`]+)` \|", reference, re.MULTILINE))
    line = record(samples.grounding(samples.image()))
    assert {*line, *(f"image.{name}" for name in line["image"])} <= named
    assert {f"boxes[].{name}" for name in line["boxes"][0]} <= named


def test_links_lead_to_files(root: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=root, capture_output=True, text=True, check=False
    )
    pages = [root / name for name in listed.stdout.split()] or [root / "README.md"]
    missing = [
        f"{page.relative_to(root)}: {link}"
        for page in pages
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in link and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert not missing


def test_the_notebook_is_small_and_without_outputs(root: Path) -> None:
    """CI runs it; outputs in it would be of an earlier version, and some megabytes."""
    notebook = json.loads((root / "examples" / "notebook.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    for cell in cells:
        compile("".join(cell["source"]), "notebook", "exec")


@pytest.mark.slow
def test_python_block_runs(readme: str, root: Path) -> None:
    (block,) = re.findall(r"<!-- python -->\n```python\n(.*?)```", readme, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("found", "not found"))
