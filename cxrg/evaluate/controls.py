"""Controls: heatmaps that know nothing of the finding, scored by the same code as the method.

Chest findings have strong position priors, so a number means little alone. Without a model:

* ``uniform``: one value everywhere;
* ``centre``: a Gaussian in the middle of the image;
* ``lungs``: two boxes where lungs usually are;
* ``mean_box`` and ``mean_box_side``: the mean truth of the same category (and side) over all
  samples of *other patients*: leave-one-out, by patient so that a second image doesn't leak.

With the model: ``shuffled``, its heatmap for the phrase of another sample; ``image_only``, its
heatmap for the start token, which carries no phrase; and ``other_image``, its heatmap for the same
phrase on the image of another patient. A method that does not beat the first two has not shown that
it reads the phrase; one that does not beat the last, that it sees the image. Mean boxes know what
both know by habit.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.evaluate.metrics.heatmaps import Truth, as_mask, box_mask
from cxrg.geometry import Box
from cxrg.heatmap.mixture import shrink

MAP_CONTROLS = ("uniform", "centre", "lungs", "mean_box", "mean_box_side")
OTHER_IMAGE = "other_image"
TO_BEAT = ("mean_box", "mean_box_side", "shuffled", "image_only", OTHER_IMAGE)
"""Controls that a method has to beat to show that it reads the phrase and sees the image."""

GRID = 64
LUNG_BOXES = (Box(0.12, 0.12, 0.46, 0.82), Box(0.54, 0.12, 0.88, 0.82))
"""Usual extent of the right and left lung on a frontal film, in shares of width and height."""


def uniform(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A constant map (H, W). .75 is above every threshold of ``miou``: every pixel is marked."""
    return np.full(shape, 0.75, dtype=np.float32)


def centre_gaussian(shape: tuple[int, int], sigma: float = 0.25) -> NDArray[np.float32]:
    """A Gaussian (H, W) in the middle, peak 1; ``sigma`` in shares of height and of width."""
    y, x = (((np.arange(n) + 0.5) / n - 0.5) / sigma for n in shape)
    return np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / 2).astype(np.float32)


def lung_boxes(shape: tuple[int, int]) -> NDArray[np.float32]:
    """1 in :data:`LUNG_BOXES` and 0 elsewhere, (H, W)."""
    height, width = shape
    boxes = [Box(b.x0 * width, b.y0 * height, b.x1 * width, b.y1 * height) for b in LUNG_BOXES]
    return box_mask(boxes, shape).astype(np.float32)


@dataclass(slots=True)
class _Sum:
    """Truth grids added up, exactly, in 1/255."""

    grid: NDArray[np.int64] = field(default_factory=lambda: np.zeros((GRID, GRID), np.int64))
    count: int = 0

    def add(self, grid: NDArray[np.int64]) -> None:
        self.grid += grid
        self.count += 1


_Key = tuple[str, str | None]


@dataclass(slots=True)
class MeanBox:
    """The mean truth per category, and per category and side, without one owner's own samples.

    Fill it with :meth:`add`, then ask with :meth:`heatmap`. ``owner`` is the patient (or, where
    that isn't known, the image).
    """

    _all: dict[_Key, _Sum] = field(default_factory=lambda: defaultdict(_Sum))
    _own: dict[tuple[_Key, str], _Sum] = field(default_factory=lambda: defaultdict(_Sum))

    def add(
        self, owner: str, category: str, side: str | None, truth: Truth, shape: tuple[int, int]
    ) -> None:
        """Count one sample's truth: boxes in pixels of ``shape`` (H, W), or a mask (H, W)."""
        share = shrink(as_mask(truth, shape).astype(np.float32), GRID)
        grid = np.round(share * 255).astype(np.int64)
        for key in {(category, None), (category, side)}:
            self._all[key].add(grid)
            self._own[key, owner].add(grid)

    def others(self, owner: str, category: str, side: str | None = None) -> int:
        """How many samples of other owners a map would be the mean of."""
        key = (category, side)
        own = self._own.get((key, owner))
        return (self._all[key].count if key in self._all else 0) - (own.count if own else 0)

    def heatmap(
        self, owner: str, category: str, side: str | None, shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """The mean over other owners, enlarged to (H, W) and scaled to a peak of 1.

        Without a sample of that side the category is taken, without one of the category the
        uniform map.
        """
        keys: tuple[_Key, ...] = ((category, side), (category, None))
        for key in keys:
            if not self.others(owner, *key):
                continue
            own = self._own.get((key, owner))
            total = self._all[key].grid - (own.grid if own else 0)
            height, width = shape
            mean = np.asarray(total / self.others(owner, *key), dtype=np.float32)
            full = cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR)
            peak = float(full.max())
            if peak > 0:
                return np.asarray(full / peak, dtype=np.float32)
        return uniform(shape)


def map_control(
    name: str,
    shape: tuple[int, int],
    prior: MeanBox,
    *,
    owner: str,
    category: str,
    side: str | None,
) -> NDArray[np.float32]:
    """The heatmap (H, W) of one of :data:`MAP_CONTROLS` for one sample."""
    if name == "uniform":
        return uniform(shape)
    if name == "centre":
        return centre_gaussian(shape)
    if name == "lungs":
        return lung_boxes(shape)
    return prior.heatmap(owner, category, side if name == "mean_box_side" else None, shape)


def shuffled_phrases(phrases: Sequence[str], owners: Sequence[str], seed: int = 0) -> list[str]:
    """For each sample the phrase of another sample: of another owner and with another text.

    Where no such phrase exists (all phrases alike), any other text serves, and else the own one.
    """
    rng = random.Random(seed)
    pool = sorted(set(zip(phrases, owners, strict=True)))
    texts = [phrase.strip().lower() for phrase in phrases]
    drawn = []
    for phrase, text, owner in zip(phrases, texts, owners, strict=True):
        drawn.append(_draw(phrase, text, owner, pool, rng))
    return drawn


def _draw(
    phrase: str, text: str, owner: str, pool: Sequence[tuple[str, str]], rng: random.Random
) -> str:
    """One phrase from the pool; tries at random first, as nearly every draw will do."""
    for _ in range(50):
        other, other_owner = rng.choice(pool)
        if other_owner != owner and other.strip().lower() != text:
            return other
    differing: Iterable[str] = sorted({p for p, _ in pool if p.strip().lower() != text})
    return rng.choice(list(differing) or [phrase])
