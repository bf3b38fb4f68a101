"""Show that time grows linearly with phrases and images, and memory by the results kept alone.

``python -m tests.benchmarks.linear [--model NAME] [--counts 1 10 100 1000]``

Small images with one phrase each, whose results are dropped, then distinct phrases on one image,
whose results come back together; all with preset ``fast``. Peak memory is the process's highest so
far: flat where the next line does not raise it. Beside it is what the arrays of the results take.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch

from cxrg.grounding import ground
from cxrg.image.read import CxrImage
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import resolve
from cxrg.result import Grounding
from tests.benchmarks.common import markdown, peak_mebibytes, picture

SMALL = 256  # pixels of a small image


@dataclass(frozen=True)
class Cost:
    """Cost of ``count`` phrases or images; memory in MiB."""

    count: int
    seconds: float
    peak: float
    results: float


def phrase(number: int) -> str:
    """A phrase that no other number has."""
    side, place = ("left", "right")[number % 2], ("upper", "middle", "lower")[number // 2 % 3]
    return f"{side} {place} opacity {number}"


def images(model: Model, count: int) -> Iterator[CxrImage]:
    """Yield small images that differ, each made only when it is needed."""
    few = [picture(model.side, seed=seed, side=SMALL) for seed in range(4)]
    for number in range(count):
        image = few[number % len(few)]
        grey = image.grey * np.float32(1 - number / 4000)
        yield replace(image, grey=grey, pixels=image.frame.sample(grey))


def measure(model: Model, kind: str, count: int) -> Cost:
    """Ground ``count`` phrases in one image, or one phrase in ``count`` images."""
    options = resolve("fast", model.card.presets)
    if kind == "phrases":
        inputs = iter([(picture(model.side, side=SMALL), [phrase(n) for n in range(count)])])
    else:
        inputs = ((image, ["left basal opacity"]) for image in images(model, count))
    start, done, kept = perf_counter(), 0, 0.0
    for image, phrases in inputs:
        results = ground(image, phrases, model=model, options=options)
        done += len(results)
        kept = sum(map(mebibytes, results))
    assert done == count
    return Cost(count, perf_counter() - start, peak_mebibytes(), kept)


def mebibytes(result: Grounding) -> float:
    """Memory of the arrays of a result."""
    maps = (result.heatmap, result.canonical, result.canonical_attention)
    return sum(each.nbytes for each in maps) / 2**20


def table(costs: Sequence[Cost]) -> str:
    rows = [
        [
            str(c.count),
            f"{c.seconds:.2f}",
            f"{1000 * c.seconds / c.count:.1f}",
            f"{c.peak:.0f}",
            f"{c.results:.1f}",
        ]
        for c in costs
    ]
    return markdown(["count", "s", "ms each", "peak MiB so far", "MiB of results"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="compact")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 100, 1000])
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = load(options.model)
    measure(model, "phrases", 1)  # the first evaluation of a process is slow
    for kind in ("images", "phrases"):
        costs = [measure(model, kind, count) for count in options.counts]
        print(f"\n{kind}\n\n{table(costs)}")


if __name__ == "__main__":
    main()
