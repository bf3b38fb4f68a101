"""Values as strict JSON holds them: undefined numbers, which Python writes as NaN, become null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any, *, decimals: int | None = 6) -> Any:
    """The same with lists for tuples and None for undefined numbers; others rounded, or not."""
    if isinstance(value, Mapping):
        return {key: plain(item, decimals=decimals) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, decimals=decimals) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, float) and decimals is not None:
        return round(value, decimals)
    return value
