"""How far single noise draws agree with the result that is made of all of them.

At every timestep noise is drawn ``N`` times, and attention is averaged over the draws. Draw ``n``
is the ``n``-th noise of every timestep. From its attention alone, by the same options, follow a
score and boxes, without another evaluation of the network.

The draws are exchangeable: given the image, the phrase and the model they differ by their noise
only. So whatever the distribution, a further draw falls between the lowest and the highest of ``N``
with probability ``(N - 1) / (N + 1)``: 1/2 for 3 draws, 7/9 for 8. Minimum and maximum are given,
for they claim nothing more; of two draws they would say too little to be worth their time. They say
how far the noise matters, not how far the answer is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from cxrg.attention.watch import AttentionMaps
from cxrg.geometry import Box, Frame
from cxrg.heatmap.boxes import boxes_above
from cxrg.heatmap.from_attention import heatmap_of
from cxrg.options import Options

FEWEST = 3
"""Fewer draws are not compared."""

AGREE_FROM = 0.5
"""The intersection over union from which a draw's box counts as the same, as in COCO and VOC."""

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxDraws:
    """Where one box is in single draws.

    Attributes:
        agree: how many draws have a box that overlaps it by `AGREE_FROM` at least.
        x0: minimum and maximum of the left edge over the draws that agree, in pixels of the source
            image; None where none agrees.
        y0: of the top edge.
        x1: of the right edge.
        y1: of the bottom edge.
    """

    agree: int
    x0: Interval | None = None
    y0: Interval | None = None
    x1: Interval | None = None
    y1: Interval | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """What single noise draws give, each read alone by the same options.

    Attributes:
        scores: the presence score of each draw, in the order in which they were drawn.
        found: how many draws have a box.
        boxes: for each box of the result, where it is in the draws.
    """

    scores: tuple[float, ...]
    found: int
    boxes: tuple[BoxDraws, ...]

    @property
    def mean(self) -> float:
        """Mean of the scores. It tends to lie above the result's score, the peak of a mean."""
        return fmean(self.scores)

    @property
    def minimum(self) -> float:
        return min(self.scores)

    @property
    def maximum(self) -> float:
        return max(self.scores)


def compare_draws(
    maps: AttentionMaps,
    frame: Frame,
    options: Options,
    boxes: Sequence[Box],
    *,
    count: int,
    marks: bool,
    least: float | None,
) -> Draws | None:
    """What single draws give; None where there are fewer than `FEWEST`.

    Args:
        maps: the phrase's attention, all draws of a timestep one after the other.
        frame: where the image is on the square.
        options: all knobs.
        boxes: those of the result of all draws, in source pixels.
        count: draws of each timestep.
        marks: whether what is found is marked.
        least: the score below which nothing is found.
    """
    if count < FEWEST:
        return None
    scores, found = [], []
    for draw in range(count):
        heat, _, score = heatmap_of(maps.every(count, draw), frame, options)
        scores.append(score)
        found.append(boxes_above(heat, score, frame, options, least=least)[0] if marks else ())
    return Draws(
        scores=tuple(scores),
        found=sum(map(bool, found)),
        boxes=tuple(_agreement(box, found) for box in boxes),
    )


def _agreement(box: Box, found: Sequence[Sequence[Box]]) -> BoxDraws:
    """Where a box is in draws, of which each has found some boxes."""
    nearest = [max(some, key=box.iou) for some in found if some]
    same = [each for each in nearest if box.iou(each) >= AGREE_FROM]
    if not same:
        return BoxDraws(agree=0)
    edges = zip(*((each.x0, each.y0, each.x1, each.y1) for each in same), strict=True)
    x0, y0, x1, y1 = ((min(edge), max(edge)) for edge in edges)
    return BoxDraws(agree=len(same), x0=x0, y0=y0, x1=x1, y1=y1)
