"""Synthetic X-rays as a data set: phrases with exact masks, never seen in training.

The samples of a phantom: up to two findings or devices that are present, one part of the anatomy,
and one finding that isn't there.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxrg.errors import UsageError
from cxrg.evaluate.datasets import Dataset
from cxrg.evaluate.sample import Problems, Sample, encode
from cxrg.geometry import Frame, mask_boxes

if TYPE_CHECKING:
    from cxrg.anatomy import Source, Structures
    from cxrg.image.read import CxrImage
    from cxrg.phantom.queries import Answer
    from cxrg.phantom.sample import Phantom

FIRST_SEED = 2**40
"""Training takes seeds below this one, so that no phantom is in both."""
SIDE = 128


def phantoms(count: int, seed: int) -> Dataset:
    """The samples of ``count`` phantoms; the same seed gives the same.

    Raises:
        UsageError: not at least one phantom, or a negative seed.
    """
    if count < 1 or seed < 0:
        raise UsageError("phantoms need --count of at least 1 and --seed of at least 0")
    samples: list[Sample] = []
    for number in range(count):
        samples += ask(number, seed)
    return Dataset(
        name=f"phantoms-{count}-{seed}",
        format="phantoms",
        samples=tuple(samples),
        problems=Problems(),
    )


def ask(number: int, seed: int) -> list[Sample]:
    """The samples of one phantom."""
    from cxrg.phantom import queries

    phantom = _render(number, seed)
    rng = np.random.default_rng([FIRST_SEED, seed, number])
    here = queries.present(phantom)
    rng.shuffle(here)
    chosen: dict[str, Answer] = {}
    for found in here:
        chosen.setdefault(found.query.concept, found)
    parts = queries.anatomy(phantom)
    answers = [
        *list(chosen.values())[:2],
        *(parts[i] for i in rng.permutation(len(parts))[:1]),
        *queries.absent(phantom, rng, 1),
    ]
    words = random.Random(f"{seed} {number}")
    return [_sample(found, number, i, words) for i, found in enumerate(answers)]


def _sample(found: Answer, number: int, index: int, words: random.Random) -> Sample:
    from cxrg.phantom.language import say

    there = bool(found.mask.any())
    return Sample(
        id=f"phantom {number} {index}",
        image=Path(f"phantom-{number}.png"),
        phrase=say(found.query, words),
        category=found.query.concept.title(),
        patient=str(number),
        boxes=mask_boxes(found.mask) if there else (),
        region=encode(found.mask) if there else None,
        space=(float(SIDE), float(SIDE)),
        side=found.query.side,
        zone=found.query.zone,
    )


@lru_cache(maxsize=4)
def _render(number: int, seed: int) -> Phantom:
    from cxrg.phantom.sample import render

    return render(FIRST_SEED + seed * 10**6 + number, side=SIDE)


def opener(seed: int, side: int) -> Callable[[Sample], CxrImage]:
    """How the image of a phantom's sample is made for a model's square of ``side`` pixels."""

    def open_phantom(sample: Sample) -> CxrImage:
        from cxrg.image.read import CxrImage

        grey = np.asarray(_render(int(sample.patient), seed).image, dtype=np.float32)
        frame = Frame.fit((SIDE, SIDE), side, "pad")
        return CxrImage(
            pixels=frame.sample(grey),
            frame=frame,
            grey=grey,
            path=sample.image,
            sha256=hashlib.sha256(grey.tobytes()).hexdigest(),
            kind="png",
            uid=None,
            window="rendered",
            warnings=(),
        )

    return open_phantom


def exact_anatomy(seed: int) -> Source:
    """The source of a phantom's exact structures, for images that :func:`opener` made."""
    from cxrg.phantom.structures import of_phantom

    def find(image: CxrImage) -> Structures:
        return of_phantom(_render(int(image.path.stem.removeprefix("phantom-")), seed))

    return find


def drawn(sample: Sample, seed: int) -> tuple[str, ...]:
    """The kinds of all findings and devices in the phantom of a sample, named by its phrases or
    not.
    """
    return tuple(finding.kind for finding in _render(int(sample.patient), seed).findings)
