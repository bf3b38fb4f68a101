from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cxrg.batch.task import Job
from cxrg.cli import app
from cxrg.output import formats
from cxrg.output.record import SCHEMA_FILE
from tests.fakes import samples


def test_every_format_writes_a_file_that_begins_as_it_should(tmp_path: Path) -> None:
    image = samples.image()
    files = formats.paths(tmp_path, "x", formats.DEFAULT_FORMATS)
    formats.write(samples.grounding(image), image, files)
    begins = {"json": b"{", "png": b"\x89PNG", "npz": b"PK"}
    assert {path.name for path in tmp_path.iterdir()} == {f"x.{name}" for name in begins}
    for name, start in begins.items():
        assert files[name].read_bytes().startswith(start)


def test_the_schema_of_a_line_knows_every_format() -> None:
    files = json.loads(SCHEMA_FILE.read_text())["properties"]["files"]
    assert set(files["propertyNames"]["enum"]) == {*formats.FORMATS, "sheet"}


def test_only_the_given_formats_are_written(tmp_path: Path) -> None:
    image = samples.image()
    formats.write(samples.grounding(image), image, formats.paths(tmp_path, "x", ["npz"]))
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_a_run_writes_the_default_formats_unless_some_are_chosen(tmp_path: Path) -> None:
    assert Job(model="m", preset="p", out=tmp_path).formats == ("json", "png", "npz")


def test_an_unknown_format_is_refused_with_the_known_ones(
    capfd: pytest.CaptureFixture[str],
) -> None:
    result = CliRunner().invoke(app, ["ground", "a.png", "heart", "--format", "bmp"])
    assert result.exit_code != 0
    text = f"{result.output} {result.exception}"
    assert f"format 'bmp' is unknown; use some of {', '.join(formats.FORMATS)}" in text
