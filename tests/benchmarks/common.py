"""What the benchmarks share: a picture, data sets, the tests' oracle, and a table."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cxrg.evaluate.datasets import Dataset, read_dataset
from cxrg.evaluate.metrics.bootstrap import Mean
from cxrg.evaluate.phantoms import phantoms
from cxrg.geometry import Frame
from cxrg.image.read import CxrImage
from cxrg.phantom.sample import render

PHRASES = (
    "left basal opacity",
    "right pleural effusion",
    "enlarged heart",
    "left apical pneumothorax",
    "right upper opacity",
    "left pleural effusion",
    "heart",
    "small nodule in the right lung",
)


def picture(model_side: int, *, seed: int = 0, side: int | None = None) -> CxrImage:
    """A square phantom as the model sees it, rendered with ``side`` pixels (the model's own)."""
    grey = render(seed, side=side or model_side).image
    frame = Frame.fit(grey.shape, model_side, "pad")
    return CxrImage(
        pixels=frame.sample(grey),
        frame=frame,
        grey=np.asarray(grey, dtype=np.float32),
        path=Path(f"phantom-{seed}.png"),
        sha256=f"{seed:064x}",
        kind="png",
        uid=None,
        window="full range",
        warnings=(),
    )


def peak_mebibytes() -> float:
    """Highest resident memory of this process so far."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest / (2**20 if sys.platform == "darwin" else 2**10)


def read_data(name: str, count: int, seed: int) -> Dataset:
    """The data set of a manifest, or so many ``phantoms``."""
    return phantoms(count, seed) if name == "phantoms" else read_dataset(Path(name))


def signed(mean: Mean) -> str:
    """A difference with its interval."""
    return f"{mean.value:+.3f} ({mean.low:+.3f} to {mean.high:+.3f})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
