"""Codes of findings and places in public coding schemes, as DICOM files hold them (PS3.3 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Code(NamedTuple):
    """A concept in a coding scheme, such as ``SCT``, ``36118008``, ``Pneumothorax``."""

    scheme: str
    value: str
    meaning: str


def code_of(entry: Mapping[str, Any]) -> Code | None:
    """Return the code of an entry of ``findings.toml`` or ``places.toml``; None without one."""
    return Code(*entry["code"]) if "code" in entry else None
