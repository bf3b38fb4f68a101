"""One phrase in one image with its truth, and what went wrong while reading a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.errors import InputError
from cxrg.evaluate.metrics.heatmaps import Truth
from cxrg.geometry import Box, Mask

Point = tuple[float, float]
RELATIVE = (1.0, 1.0)
"""The space of coordinates that are shares of width and height."""
MOST_PIXELS = 2**28
"""The largest mask that is read; the largest radiographs have about a tenth of it."""


@dataclass(frozen=True, slots=True)
class Polygons:
    """Outlines, each a ring of (x, y) that encloses an area; their union is the region.

    Raises:
        ValueError: a ring is a point or a line. COCO's filler takes four numbers for a box.
    """

    rings: tuple[tuple[Point, ...], ...]

    def __post_init__(self) -> None:
        if not self.rings or not all(map(encloses_area, self.rings)):
            raise ValueError("an outline needs three points that are not on one line")


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask of ``size`` (H, W) in COCO's compressed run lengths."""

    size: tuple[int, int]
    counts: str


def pseudonym(name: str) -> str:
    """Return a short hash that stands for a path or patient in files of results."""
    return sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]


def without_path(text: str, path: Path) -> str:
    """Return a message about a file without the file's name."""
    for part in (f"{path}: ", str(path), path.name):
        text = text.replace(part, "" if part.endswith(": ") else "the file")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A phrase to look for in an image.

    ``boxes`` and ``region`` are in pixels of ``space`` (H, W), or of the image file where that is
    None. Without both, the phrase names something that isn't there (a negative). ``id``,
    ``image_id`` and ``patient`` are written to files of results; ``image`` is not. ``row`` is the
    place in a label file of the user's own, which names the sample in messages.
    """

    id: str
    image: Path
    phrase: str
    category: str
    patient: str
    boxes: tuple[Box, ...] = ()
    region: Polygons | Rle | None = None
    space: tuple[float, float] | None = None
    side: str | None = None
    zone: str | None = None
    image_id: str = ""
    row: str | None = None

    @property
    def present(self) -> bool:
        return bool(self.boxes) or self.region is not None

    def boxes_in(self, shape: tuple[int, int]) -> tuple[Box, ...]:
        """The boxes in pixels of an image of ``shape`` (H, W)."""
        return tuple(scaled(box, *self._scale(shape)) for box in self.boxes)

    def truth(self, shape: tuple[int, int]) -> Truth:
        """The truth in an image of ``shape`` (H, W): a mask where there is a region, else boxes."""
        if self.region is None:
            return self.boxes_in(shape)
        if isinstance(self.region, Rle):
            return decode(self.region, shape)
        return fill(self.region, shape, *self._scale(shape))

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whether an image of ``shape`` has the proportions of the space (to 2 %)."""
        sx, sy = self._scale(shape)
        return self.space == RELATIVE or abs(sx / sy - 1) <= 0.02

    def _scale(self, shape: tuple[int, int]) -> tuple[float, float]:
        height, width = self.space or shape
        return shape[1] / width, shape[0] / height


def scaled(box: Box, sx: float, sy: float) -> Box:
    """A box with its coordinates multiplied."""
    return replace(box, x0=box.x0 * sx, y0=box.y0 * sy, x1=box.x1 * sx, y1=box.y1 * sy)


def fill(region: Polygons, shape: tuple[int, int], sx: float, sy: float) -> Mask:
    """The union of polygons as a mask of ``shape`` (H, W), after scaling, as COCO fills them."""
    from faster_coco_eval.core import mask as coco  # type: ignore[import-untyped]  # no types

    height, width = shape
    flat = [[n for x, y in ring for n in (x * sx, y * sy)] for ring in region.rings]
    union = coco.decode(coco.merge(coco.frPyObjects(flat, height, width)))
    return np.asarray(union, dtype=bool)


def decode(region: Rle, shape: tuple[int, int]) -> Mask:
    """A run-length mask brought to ``shape`` (H, W) by nearest neighbour."""
    from faster_coco_eval.core import mask as coco

    mask: NDArray[np.uint8] = coco.decode(
        {"size": list(region.size), "counts": region.counts.encode()}
    )
    height, width = shape
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def encloses_area(ring: Sequence[Point]) -> bool:
    """Whether the points of a ring are finite and not all on one line."""
    if len(ring) < 3 or not np.isfinite(ring).all():
        return False
    return int(np.linalg.matrix_rank(np.subtract(ring[1:], ring[0]))) == 2


def read_run_lengths(coded: Mapping[str, Any]) -> Rle:
    """A mask from COCO's run-length object ``{"size": [h, w], "counts": ...}``.

    Args:
        coded: its counts are COCO's compressed text, or a list of whole numbers.

    Raises:
        KeyError, TypeError, ValueError: it is none, or its runs do not add up to its size.
    """
    from faster_coco_eval.core import mask as coco

    height, width = map(_whole, coded["size"])
    if not 0 < height * width <= MOST_PIXELS:
        raise ValueError(f"a mask of {height} x {width} pixels")
    counts = coded["counts"]
    try:
        if isinstance(counts, list):
            runs = {"size": [height, width], "counts": list(map(_whole, counts))}
            counts = coco.frPyObjects(runs, height, width)["counts"].decode()
        if not isinstance(counts, str):
            raise TypeError("counts is neither text nor a list of numbers")
        region = Rle((height, width), counts)
        decode(region, region.size)  # checks the runs
    except RuntimeError as error:
        raise ValueError("counts is damaged") from error
    return region


def _whole(number: Any) -> int:
    """A whole number of 0 or more from JSON.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(number, (int, float)) or not number >= 0 or number % 1:
        raise ValueError("a size or run is no whole number of pixels")
    return int(number)


def encode(mask: Mask) -> Rle:
    """A mask (H, W) as COCO's run lengths."""
    from faster_coco_eval.core import mask as coco

    height, width = mask.shape
    coded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return Rle((height, width), coded["counts"].decode())


def ring_box(ring: Sequence[Point]) -> Box:
    """The bounding box of a ring of points."""
    x, y = zip(*ring, strict=True)
    return Box(min(x), min(y), max(x), max(y))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a data set that could not be used as it stands."""

    kind: str
    where: str
    detail: str


@dataclass(slots=True)
class Problems:
    """Every problem found, in order; with ``strict`` the first one is raised instead.

    ``notes`` are rows that the format itself leaves out (a normal image without a phrase):
    counted too, but no problem.
    """

    strict: bool = False
    found: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def add(self, kind: str, where: str, detail: str) -> None:
        """Count and name a problem.

        Raises:
            InputError: always, where strict.
        """
        if self.strict:
            raise InputError(
                f"{where}: {kind}: {detail}; mend the data set or leave out --strict to go on"
            )
        self.found.append(Problem(kind, where, detail))

    def note(self, kind: str, where: str, detail: str) -> None:
        """Count something that is left out as the format means it."""
        self.notes.append(Problem(kind, where, detail))

    def counts(self) -> dict[str, int]:
        """How many problems of each kind."""
        return dict(Counter(problem.kind for problem in self.found))
