"""One training example of the view network: a picture of 64 x 64 pixels, its kind, its polarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from cxrg.anatomy.view import KINDS, SIDE
from cxrg.learn.view import others
from cxrg.learn.view.others import Grey

_SHARES = (0.34, 0.1, 0.13, 0.1, 0.33)  # of KINDS in a batch
_UPSIDE_DOWN, _OTHER = KINDS.index("upside down"), KINDS.index("other")
_NEGATIVE = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """Pictures to draw examples from, all 96 x 96 pixels.

    Attributes:
        chests: upright frontal chest X-rays ``(N, 96, 96)`` of each source; one source is as likely
            as another.
        slices: slices and lateral projections of a CT ``(M, 96, 96)``.
    """

    chests: tuple[Grey, ...]
    slices: Grey


class Example(NamedTuple):
    """A picture ``(64, 64)`` in [0, 1], the index of its kind, and whether it is a negative."""

    picture: NDArray[np.float32]
    kind: int
    negative: bool


def draw(pictures: Pictures, rng: Generator) -> Example:
    """An example at random."""
    kind = int(rng.choice(len(KINDS), p=_SHARES))
    if kind == _OTHER:
        picture = _other(pictures, rng)
        turn, zoom, stretch = rng.choice([0, 0, 90, 180, 270]) + rng.normal(0, 8), 0.15, 0.1
    else:
        picture = _chest(pictures, rng)
        # Upside down is turned by 180 degrees, or mirrored at a horizontal line.
        if kind == _UPSIDE_DOWN and rng.random() < 0.5:
            picture = picture[::-1]
        else:
            picture = np.rot90(picture, -kind)
        turn, zoom, stretch = rng.normal(0, 6), 0.28, 0.15
    picture = _placed(np.ascontiguousarray(picture), rng, turn=turn, zoom=zoom, stretch=stretch)
    shown = _exposed(picture, rng)
    negative = bool(rng.random() < _NEGATIVE)
    return Example(1 - shown if negative else shown, kind, negative)


def _other(pictures: Pictures, rng: Generator) -> Grey:
    kind = int(rng.integers(8))
    if kind == 0:
        return others.shuffled(_chest(pictures, rng), rng)
    if kind == 1:
        return others.part(_raw(pictures, rng), rng)
    if kind == 2:
        last = _slice(pictures, rng) if rng.random() < 0.4 else _chest(pictures, rng)
        return others.joined([*(_chest(pictures, rng) for _ in range(3)), last][::-1], rng)
    if kind == 3:
        return _slice(pictures, rng)
    return (others.shapes, others.spectrum, others.limbs, others.text)[kind - 4](rng)


def _raw(pictures: Pictures, rng: Generator) -> Grey:
    source = pictures.chests[int(rng.integers(len(pictures.chests)))]
    picture: Grey = source[int(rng.integers(len(source)))]
    return picture


def _slice(pictures: Pictures, rng: Generator) -> Grey:
    picture: Grey = pictures.slices[int(rng.integers(len(pictures.slices)))]
    return picture


def _chest(pictures: Pictures, rng: Generator) -> Grey:
    """An upright chest, half of them mirrored, most with bright and dark patches or a letter."""
    picture = _raw(pictures, rng)
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    if rng.random() < 0.7:
        picture = _with_patches(picture, rng)
    return _with_margin(picture, rng) if rng.random() < 0.25 else picture


def _with_patches(picture: Grey, rng: Generator) -> Grey:
    """Soft ellipses, so that opacities do not make a chest another kind, and a letter."""
    side = len(picture)
    shown = picture.astype(np.float32)
    for _ in range(int(rng.integers(0, 4))):
        patch = np.zeros(picture.shape, np.float32)
        centre, axes = rng.uniform(0.15, 0.85, 2) * side, rng.uniform(0.03, 0.22, 2) * side + 1
        turn = rng.uniform(0, 180)
        cv2.ellipse(patch, others.point(centre), others.point(axes), turn, 0, 360, 1.0, -1)
        shown += cv2.GaussianBlur(patch, (0, 0), rng.uniform(1, 8)) * rng.uniform(-30, 120)
    grey = np.asarray(shown.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        x, y = rng.integers(0, side - 14, 2)
        letter = "RLAP"[int(rng.integers(4))]
        cv2.putText(grey, letter, (int(x), int(y) + 12), 0, rng.uniform(0.3, 0.6), 255, 1)
    return grey


def _with_margin(picture: Grey, rng: Generator) -> Grey:
    """A frame of one grey, as collimation and scanned films have it."""
    top, bottom, left, right = rng.integers(0, 14, 4)
    framed = np.full_like(picture, rng.choice([0, 255, int(rng.integers(256))]))
    inside = slice(top, len(picture) - bottom), slice(left, len(picture) - right)
    framed[inside] = picture[inside]
    return framed


def _placed(picture: Grey, rng: Generator, *, turn: float, zoom: float, stretch: float) -> Grey:
    """A picture turned by degrees, zoomed, stretched and moved on the square of 64 pixels."""
    angle, size = np.deg2rad(turn), SIDE / len(picture) * np.exp(rng.uniform(-zoom, zoom))
    across, down = size * np.exp(rng.uniform(-stretch, stretch, 2))
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = matrix @ np.diag([across, down])
    middle = np.full(2, len(picture) / 2)
    move = SIDE / 2 - matrix @ middle + rng.uniform(-0.08, 0.08, 2) * SIDE
    # Averaged first: warpAffine alone samples points.
    blurred = cv2.GaussianBlur(picture, (0, 0), max(0.4 / size, 0.3))
    placed = cv2.warpAffine(blurred, np.column_stack([matrix, move]), (SIDE, SIDE))
    return np.asarray(placed, np.uint8)


def _exposed(picture: Grey, rng: Generator) -> NDArray[np.float32]:
    """Random window, gamma, blur and noise; float32 in [0, 1]."""
    low, high = rng.uniform(-0.15, 0.2), rng.uniform(0.75, 1.15)
    shown = ((picture.astype(np.float32) / 255 - low) / (high - low)).clip(0, 1)
    shown = shown ** np.exp(rng.uniform(-0.8, 0.8))
    if rng.random() < 0.3:
        shown = np.asarray(cv2.GaussianBlur(shown, (0, 0), rng.uniform(0.3, 1.5)))
    if rng.random() < 0.4:
        shown = shown + rng.normal(0, rng.uniform(0, 0.08), shown.shape)
    return shown.clip(0, 1).astype(np.float32)
