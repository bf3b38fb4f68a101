"""The accuracy check of bfloat16: the shipped model finds the same with it as with float32."""

from __future__ import annotations

import numpy as np
import pytest

from cxrg.geometry import Box
from cxrg.grounding import ground
from cxrg.model.load import load
from cxrg.result import Grounding

PHRASES = ["left basal opacity", "heart", "right lung"]


def best_iou(box: Box, others: tuple[Box, ...]) -> float:
    return max((box.iou(other) for other in others), default=0.0)


@pytest.mark.slow
def test_bfloat16_finds_what_float32_finds(root) -> None:
    image = root / "examples" / "left_basal_opacity.dcm"
    found: dict[str, list[Grounding]] = {}
    for dtype in ("float32", "bfloat16"):
        model = load("compact", device="cpu", dtype=dtype)
        found[dtype] = ground(image, PHRASES, model=model, mask="none", absent_below="none")
    boxes = 0
    for exact, coarse in zip(found["float32"], found["bfloat16"], strict=True):
        assert coarse.model.precision == "bfloat16"
        assert not np.array_equal(exact.canonical, coarse.canonical)
        correlation = np.corrcoef(exact.canonical.ravel(), coarse.canonical.ravel())[0, 1]
        assert correlation > 0.99
        for box in exact.boxes:
            boxes += 1
            assert best_iou(box, coarse.boxes) > 0.85
    assert boxes >= len(PHRASES)
