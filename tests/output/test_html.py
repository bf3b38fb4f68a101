"""Pages from templates: escaped, complete or not written."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from cxrg.about import NOTICE
from cxrg.output.html import write_page


def test_a_page_holds_the_notice_and_its_context(tmp_path: Path) -> None:
    write_page("tuning.html", tmp_path / "a.html", plots=[Markup("<svg></svg>")], steps=7)
    page = (tmp_path / "a.html").read_text()
    assert NOTICE in page.replace("Research", "research")
    assert "<svg></svg>" in page
    assert "7 steps" in page


def test_what_is_no_markup_is_escaped(tmp_path: Path) -> None:
    write_page("tuning.html", tmp_path / "a.html", plots=["<script>"], steps="<b>")
    page = (tmp_path / "a.html").read_text()
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt; steps" in page


def test_a_name_missing_from_the_context_leaves_no_page(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="steps"):
        write_page("tuning.html", tmp_path / "a.html", plots=[])
    assert list(tmp_path.iterdir()) == []


def test_templates_mark_nothing_as_safe() -> None:
    templates = list(files("cxrg.output").joinpath("templates").iterdir())
    assert len(templates) == 7
    for template in templates:
        text = template.read_text(encoding="utf-8")
        assert "safe" not in text, template.name
        assert "autoescape" not in text, template.name
