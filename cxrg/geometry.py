"""Boxes, and the one place where source pixels and the model's square meet.

Coordinates are continuous pixel coordinates: the pixel in column ``c`` covers ``c <= x < c + 1``,
so an image of width ``W`` spans ``0..W`` and a box is half-open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.errors import UsageError

Fit = Literal["pad", "crop"]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle ``[x0, x1) x [y0, y1)`` in pixels, with an optional score in [0, 1]."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float | None = None

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        return max(self.width, 0.0) * max(self.height, 0.0)

    def intersection(self, other: Box) -> Box | None:
        """The overlap of two boxes with this box's score, or None where they do not overlap."""
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        x1, y1 = min(self.x1, other.x1), min(self.y1, other.y1)
        return Box(x0, y0, x1, y1, self.score) if x0 < x1 and y0 < y1 else None

    def iou(self, other: Box) -> float:
        """Intersection over union; 0 where both boxes are empty."""
        overlap = self.intersection(other)
        shared = overlap.area if overlap else 0.0
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Frame:
    """How the model's square of ``side`` pixels covers a source image of ``(H, W)`` pixels.

    ``crop`` is the part of the source plane that the square shows, in source pixels. It reaches
    beyond the image where the square is padded, and is not square where source pixels are not.
    """

    source: tuple[int, int]
    crop: Box
    side: int

    @classmethod
    def fit(cls, source: tuple[int, int], side: int, how: Fit, pixel_aspect: float = 1.0) -> Frame:
        """Lay the square over the image, centred.

        Args:
            source: image height and width in pixels.
            side: side of the model's square in pixels.
            how: ``pad`` shows the whole image with margins; ``crop`` fills the square with the
                middle of the image (shorter side).
            pixel_aspect: height of a source pixel divided by its width.

        Raises:
            UsageError: ``how`` is neither of the two.
        """
        height, width = source
        tall = height * pixel_aspect
        if how == "pad":
            extent = max(tall, float(width))
        elif how == "crop":
            extent = min(tall, float(width))
        else:
            raise UsageError(f"fit {how!r} is not known; use pad or crop")
        half_x, half_y = extent / 2, extent / pixel_aspect / 2
        mid_x, mid_y = width / 2, height / 2
        crop = Box(mid_x - half_x, mid_y - half_y, mid_x + half_x, mid_y + half_y)
        return cls(source, crop, side)

    @property
    def scale(self) -> tuple[float, float]:
        """Source pixels per canonical pixel, (horizontally, vertically)."""
        return self.crop.width / self.side, self.crop.height / self.side

    def to_source(self, box: Box) -> Box | None:
        """A canonical box in source pixels, clipped to the image; None where nothing is left."""
        sx, sy = self.scale
        moved = replace(
            box,
            x0=self.crop.x0 + box.x0 * sx,
            y0=self.crop.y0 + box.y0 * sy,
            x1=self.crop.x0 + box.x1 * sx,
            y1=self.crop.y0 + box.y1 * sy,
        )
        height, width = self.source
        return moved.intersection(Box(0, 0, width, height))

    def to_canonical(self, box: Box) -> Box | None:
        """A source box in canonical pixels, clipped to the square; None where nothing is left."""
        sx, sy = self.scale
        moved = replace(
            box,
            x0=(box.x0 - self.crop.x0) / sx,
            y0=(box.y0 - self.crop.y0) / sy,
            x1=(box.x1 - self.crop.x0) / sx,
            y1=(box.y1 - self.crop.y0) / sy,
        )
        return moved.intersection(Box(0, 0, self.side, self.side))

    def sample(self, pixels: NDArray[np.float32], fill: float = 0.0) -> NDArray[np.float32]:
        """Resample a source-sized array ``(H, W)`` to the square ``(side, side)``.

        Area averaging where the square is coarser than the source, bilinear where it is finer;
        ``fill`` stands where the square reaches beyond the image.
        """
        sx, sy = self.scale
        image = np.ascontiguousarray(pixels, dtype=np.float32)
        # Averaging first keeps fine structure from aliasing: warpAffine alone samples points.
        shrink_x, shrink_y = max(sx, 1.0), max(sy, 1.0)
        height, width = self.source
        small_w, small_h = max(round(width / shrink_x), 1), max(round(height / shrink_y), 1)
        if (small_h, small_w) != (height, width):
            small = cv2.resize(image, (small_w, small_h), interpolation=cv2.INTER_AREA)
            image = np.asarray(small, dtype=np.float32)
        kx, ky = small_w / width, small_h / height
        matrix = np.array(
            [
                [sx * kx, 0.0, (self.crop.x0 + 0.5 * sx) * kx - 0.5],
                [0.0, sy * ky, (self.crop.y0 + 0.5 * sy) * ky - 0.5],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (self.side, self.side)
        border = cv2.BORDER_REPLICATE
        square = cv2.warpAffine(image, matrix, size, flags=flags, borderMode=border)
        square[~self._inside()] = fill
        return np.asarray(square, dtype=np.float32)

    def restore(self, square: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a canonical array ``(side, side)`` back to ``(H, W)``; NaN where never seen."""
        height, width = self.source
        sx, sy = self.scale
        matrix = np.array(
            [
                [1 / sx, 0.0, (0.5 - self.crop.x0) / sx - 0.5],
                [0.0, 1 / sy, (0.5 - self.crop.y0) / sy - 0.5],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        full = cv2.warpAffine(
            np.ascontiguousarray(square, dtype=np.float32),
            matrix,
            (width, height),
            flags=flags,
            borderMode=cv2.BORDER_REPLICATE,
        )
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
        seen_x = (x >= self.crop.x0) & (x < self.crop.x1)
        seen_y = (y >= self.crop.y0) & (y < self.crop.y1)
        return np.where(seen_y[:, None] & seen_x[None, :], full, np.float32(np.nan))

    def _inside(self) -> NDArray[np.bool_]:
        """Which canonical pixels have their centre on the image."""
        sx, sy = self.scale
        x = self.crop.x0 + (np.arange(self.side) + 0.5) * sx
        y = self.crop.y0 + (np.arange(self.side) + 0.5) * sy
        height, width = self.source
        return ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]


def mask_boxes(mask: Mask, *, min_share: float = 0.02) -> tuple[Box, ...]:
    """Bounding boxes of the connected parts of a mask; parts below a share of it are left out."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    total = np.count_nonzero(mask)
    parts = [[int(number) for number in stats[i]] for i in range(1, count)]
    return tuple(
        Box(x, y, x + width, y + height)
        for x, y, width, height, area in parts
        if area >= min_share * total
    )
