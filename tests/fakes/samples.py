"""Made-up images and groundings, for tests of what is written and told about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrg.attention.watch import AttentionMaps
from cxrg.geometry import Box, Frame
from cxrg.image.read import CxrImage
from cxrg.options import Options
from cxrg.phrase.intent import read_intent
from cxrg.result import Grounding, ModelRef

REFERENCE: dict[str, Any] = {
    "weights": "sha256:0123",
    "preset": "fast",
    "images": 40,
    "of": "held-out normals",
    "quantiles": [0.25, 0.5, 0.75],
    "scores": {"opacity": [0.2, 0.3, 0.5]},
}
"""Scores of healthy chests, as a model's card has them."""

NOT_FOUND: dict[str, Any] = {
    "status": "not found",
    "boxes": (),
    "places": (),
    "edge": None,
    "score": 0.01,
}
"""What differs in a result of that status."""


def image(
    height: int = 640,
    width: int = 640,
    *,
    side: int = 64,
    aspect: float = 1.0,
    options: Options | None = None,
    path: Path = Path("folder/DOE^JANE.png"),
    sha256: str = "ab" * 32,
) -> CxrImage:
    """A picture of dark, distinct patches."""
    options = options or Options()
    coarse = np.random.default_rng(7).random((10, 10)) * 0.6
    rows, columns = np.arange(height) * 10 // height, np.arange(width) * 10 // width
    grey = coarse[rows][:, columns].astype(np.float32)
    frame = Frame.fit((height, width), side, options.fit, aspect)
    return CxrImage(
        pixels=frame.sample(grey),
        frame=frame,
        grey=grey,
        path=path,
        sha256=sha256,
        kind="png",
        uid=None,
        window="full range",
        warnings=(),
    )


def spot(frame: Frame, x: float, y: float, radius: float) -> NDArray[np.float32]:
    """A canonical map that is 1 in a disc about (x, y) in canonical pixels and 0 elsewhere."""
    yy, xx = np.mgrid[: frame.side, : frame.side] + 0.5
    return ((xx - x) ** 2 + (yy - y) ** 2 <= radius**2).astype(np.float32)


def grounding(of: CxrImage, phrase: str = "left basal opacity", **changes: Any) -> Grounding:
    """A result on that image: one disc and its box, low on the patient's left."""
    canonical = spot(of.frame, 44, 44, 8)
    box = of.frame.to_source(Box(36, 36, 52, 52, 0.9))  # None in a very narrow image
    facts: dict[str, Any] = {
        "image": of,
        "phrase": phrase,
        "asked": phrase,
        "intent": read_intent(phrase),
        "status": "found",
        "score": 0.42,
        "presence": None,
        "heatmap": of.frame.restore(canonical),
        "canonical": canonical,
        "canonical_attention": canonical / 2,
        "maps": AttentionMaps(layers={"mid_block": canonical[None]}, timesteps=(100,)),
        "boxes": (box,) if box else (),
        "places": ("left lower zone",),
        "edge": 0.5,
        "tokens": ("left", "basal", "opacity"),
        "layers": ("mid_block",),
        "options": Options(),
        "model": ModelRef(name="tiny", identity="sha256:0123"),
        "evaluations": 6,
        "warnings": (),
        "timings": {"read": 0.1},
    }
    return Grounding(**{**facts, **changes})
