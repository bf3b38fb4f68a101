"""Show a picture where the user is: in a notebook's cell, or in the desktop's viewer."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from PIL import Image

from cxrg.output.page import png_bytes
from cxrg.output.text import Pixels


def show_picture(picture: Pixels) -> None:
    """Show RGB, uint8 (H, W, 3)."""
    if _in_notebook():
        # It has no types, and is there only in a notebook.
        display: Any = import_module("IPython.display")
        display.display(display.Image(data=png_bytes(picture)))
    else:
        Image.fromarray(picture).show()


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this program.

    Pillow itself prefers the desktop's viewer wherever there is one.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")
