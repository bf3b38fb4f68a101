"""How names are compared, and the two sides of the patient."""

from __future__ import annotations

import re

SIDES = ("left", "right")
"""The patient's sides: *left* is the right half of the picture."""

_BETWEEN = re.compile(r"[\s_-]+")


def plain(name: str) -> str:
    """Return a name in lower case with single blanks for "_", "-" and blanks."""
    return _BETWEEN.sub(" ", name).strip().lower()
