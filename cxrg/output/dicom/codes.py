"""Codes of what a result is about, as pydicom and highdicom take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.sr.coding import Code

from cxrg.chest.codes import Code as ChestCode
from cxrg.chest.findings import Finding, entries

if TYPE_CHECKING:
    from cxrg.result import Grounding

SCHEME = "99CXRG"
"""Designator of cxrg's own codes, for what no public scheme has."""


def finding_of(grounding: Grounding) -> Finding | None:
    """Return the one finding that a phrase names; None for none or several."""
    names = {each.name for each in grounding.intent.stated if each.name}
    return entries().get(names.pop()) if len(names) == 1 else None


def finding_code(grounding: Grounding) -> Code | None:
    """Return the code of the one finding that a phrase names; None without one."""
    finding = finding_of(grounding)
    code = finding.code_in(grounding.phrase) if finding else None
    return pydicom_code(code) if code else None


def pydicom_code(code: ChestCode) -> Code:
    """Return a code of the vocabulary as pydicom has it."""
    return Code(code.value, code.scheme, code.meaning)
