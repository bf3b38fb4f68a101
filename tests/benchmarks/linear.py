"""Show that time grows linearly with phrases and images, and memory not at all.

``python -m tests.benchmarks.linear [--model NAME] [--counts 1 10 100 1000]``

Distinct phrases on one image, then small images with one phrase each, all with preset ``fast``
and handed over one by one. Peak memory is the process's highest so far: flat where the next line
does not raise it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch

from cxrg.grounding import ground_each
from cxrg.image.read import CxrImage
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import resolve
from tests.benchmarks.common import markdown, peak_mebibytes, picture

SMALL = 256  # pixels of a small image


@dataclass(frozen=True)
class Cost:
    """What ``count`` phrases or images took."""

    count: int
    seconds: float
    peak: float


def phrase(number: int) -> str:
    """A phrase that no other number has."""
    side, place = ("left", "right")[number % 2], ("upper", "middle", "lower")[number // 2 % 3]
    return f"{side} {place} opacity {number}"


def images(model: Model, count: int) -> Iterator[CxrImage]:
    """Small images that differ, made when they are asked for and let go after."""
    few = [picture(model.side, seed=seed, side=SMALL) for seed in range(4)]
    for number in range(count):
        image = few[number % len(few)]
        grey = image.grey * np.float32(1 - number / 4000)
        yield replace(image, grey=grey, pixels=image.frame.sample(grey))


def measure(model: Model, kind: str, count: int) -> Cost:
    """Ground ``count`` phrases in one image, or one phrase in ``count`` images."""
    options = resolve("fast", model.card)
    if kind == "phrases":
        one = picture(model.side, side=SMALL)
        asked = iter([(one, [phrase(number) for number in range(count)])])
    else:
        asked = ((image, ["left basal opacity"]) for image in images(model, count))
    start = perf_counter()
    done = sum(1 for _ in ground_each(asked, model=model, options=options))
    assert done == count
    return Cost(count, perf_counter() - start, peak_mebibytes())


def table(costs: Sequence[Cost]) -> str:
    rows = [
        [str(c.count), f"{c.seconds:.2f}", f"{1000 * c.seconds / c.count:.1f}", f"{c.peak:.0f}"]
        for c in costs
    ]
    return markdown(["count", "s", "ms each", "peak MiB so far"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="compact")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 100, 1000])
    asked = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = load(asked.model)
    measure(model, "phrases", 1)  # the first evaluation of a process is slow
    for kind in ("phrases", "images"):
        costs = [measure(model, kind, count) for count in asked.counts]
        print(f"\n{kind}\n\n{table(costs)}")


if __name__ == "__main__":
    main()
