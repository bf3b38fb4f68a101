"""HTML pages that need no other file, from the templates beside this module.

Everything that a template prints is escaped unless it is `markupsafe.Markup`, and a name that the
context lacks is an error, so that a page is complete or not written.
"""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from cxrg.about import NOTICE
from cxrg.files import atomic_write


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


_TEMPLATES = Environment(
    loader=PackageLoader("cxrg.output"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.globals["notice"] = NOTICE
_TEMPLATES.filters["data_url"] = _data_url


def fragment(template: str, **context: object) -> str:
    """A piece of HTML for a page of somebody else's, such as a notebook."""
    return _TEMPLATES.get_template(template).render(context)


def write_page(template: str, path: Path, **context: object) -> None:
    """Write the page that a template makes of its context.

    Raises:
        WriteError: the page cannot be written.
    """
    text = _TEMPLATES.get_template(template).render(context)
    with atomic_write(path) as file:
        file.write(text.encode())
