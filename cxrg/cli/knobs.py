"""``--set KNOB=VALUE``, as several commands take it."""

from __future__ import annotations

from collections.abc import Sequence

from cxrg.errors import UsageError


def read_knobs(given: Sequence[str]) -> dict[str, str]:
    """Names and values of knobs, as text.

    Raises:
        UsageError: one is not of that form.
    """
    pairs = [text.partition("=") for text in given]
    bad = [text for text, (name, mark, _) in zip(given, pairs, strict=True) if not (name and mark)]
    if bad:
        raise UsageError(f"--set {bad[0]!r} is not KNOB=VALUE; write it such as tokens=content")
    return {name.strip(): value.strip() for name, _, value in pairs}
