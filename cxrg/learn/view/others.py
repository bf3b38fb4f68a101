"""Pictures that are no whole frontal chest X-ray, 96 x 96 pixels, drawn at random.

What a picture shows cannot be listed, so these cover kinds of structure instead: parts of a chest
in the wrong order, a part alone, several X-rays in one picture, slices of a CT, overlapping shapes
of all sizes (a dead-leaves model, which has the statistics of photographs; A. Lee, D. Mumford and
J. Huang, 2001), noise with a power-law spectrum, soft cylinders with a bright core, and text.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
SIDE = 96


def shuffled(picture: Grey, rng: Generator) -> Grey:
    """A picture cut into equal squares in random order."""
    count = int(rng.integers(2, 7))
    side = SIDE // count
    tiles = [
        picture[row * side : (row + 1) * side, column * side : (column + 1) * side]
        for row in range(count)
        for column in range(count)
    ]
    order = rng.permutation(len(tiles))
    rows = [
        np.hstack([tiles[i] for i in order[k : k + count]]) for k in range(0, len(tiles), count)
    ]
    return resized(np.vstack(rows))


def part(picture: Grey, rng: Generator) -> Grey:
    """A part of a picture, at most 54 % of one of its sides."""
    width, height = int(rng.integers(24, 52)), int(rng.integers(24, SIDE))
    if rng.random() < 0.5:
        width, height = height, width
    x, y = int(rng.integers(0, SIDE - width + 1)), int(rng.integers(0, SIDE - height + 1))
    return squared(picture[y : y + height, x : x + width])


def joined(pictures: list[Grey], rng: Generator) -> Grey:
    """Two pictures beside or above each other, or four in a square."""
    if rng.random() < 0.3:
        first, second, third, fourth = pictures
        return resized(np.vstack([np.hstack([first, second]), np.hstack([third, fourth])]))
    join = np.hstack if rng.random() < 0.7 else np.vstack
    return squared(join(pictures[:2]))


def shapes(rng: Generator) -> Grey:
    """Overlapping ellipses, polygons and lines with sizes of a power law."""
    picture = np.full((SIDE, SIDE), rng.integers(256), np.uint8)
    radii = np.sort((rng.pareto(1.5, int(rng.integers(3, 120))) + 0.3) * 4)[::-1].clip(max=60)
    for radius in radii:
        centre = rng.uniform(0, SIDE, 2)
        grey, kind = int(rng.integers(256)), rng.random()
        if kind < 0.5:
            axes = int(radius) + 1, int(radius * rng.uniform(0.2, 1)) + 1
            cv2.ellipse(picture, point(centre), axes, rng.uniform(0, 180), 0, 360, grey, -1)
        elif kind < 0.8:
            corners = centre + rng.normal(0, radius, (int(rng.integers(3, 7)), 2))
            cv2.fillPoly(picture, [corners.astype(np.int32)], grey)
        else:
            end = rng.uniform(0, SIDE, 2)
            cv2.line(picture, point(centre), point(end), grey, int(rng.integers(1, 8)))
    if rng.random() < 0.35:
        half = SIDE // 2
        picture[:, half:] = picture[:, half - 1 :: -1]
    if rng.random() < 0.5:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 5)), np.uint8)
    if rng.random() < 0.5:
        picture = (picture * (0.5 + spectrum(rng) / 255)).clip(0, 255).astype(np.uint8)
    return picture


def spectrum(rng: Generator) -> Grey:
    """Noise whose amplitude falls with a random power of the frequency."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE))) + 1e-3
    white = np.fft.fft2(rng.normal(size=(SIDE, SIDE)))
    noise = np.fft.ifft2(white * frequency ** -rng.uniform(0, 2.5)).real
    return stretched(noise)


def limbs(rng: Generator) -> Grey:
    """Soft cylinders with a bright core, as arms, legs and fingers appear."""
    picture = np.zeros((SIDE, SIDE), np.float32)
    direction = rng.uniform(0, 180)
    for _ in range(int(rng.integers(1, 6))):
        angle = np.deg2rad(direction + rng.normal(0, 15))
        reach = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(15, 60)
        centre, width = rng.uniform(15, 80, 2), rng.uniform(4, 22)
        ends = point(centre - reach), point(centre + reach)
        soft, bone = np.zeros_like(picture), np.zeros_like(picture)
        cv2.line(soft, *ends, 0.45, int(width * 2))
        cv2.line(bone, *ends, 0.5, max(int(width * rng.uniform(0.4, 0.9)), 1))
        body = np.maximum(picture, cv2.GaussianBlur(soft, (0, 0), width / 3))
        picture = np.asarray(body + cv2.GaussianBlur(bone, (0, 0), 1), np.float32)
    return np.asarray((picture.clip(0, 1) * 255).astype(np.uint8))


def text(rng: Generator) -> Grey:
    """A page of letters."""
    side = 4 * SIDE
    page = np.full((side, side), 255, np.uint8)
    y = int(rng.integers(5, 40))
    while y < side:
        letters = rng.integers(97, 123, int(rng.integers(5, 60)))
        letters[rng.random(letters.size) < 0.15] = 32
        size, ink = rng.uniform(0.3, 0.9), int(rng.integers(120))
        at = int(rng.integers(2, 40)), y
        cv2.putText(page, bytes(letters.tolist()).decode(), at, 0, size, ink, 1)
        y += int(rng.integers(10, 30))
    return resized(page)


def squared(picture: Grey) -> Grey:
    """A picture on a black square of 96 pixels, its longer side filled."""
    height, width = picture.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side), np.uint8)
    square[top : top + height, left : left + width] = picture
    return resized(square)


def resized(picture: Grey) -> Grey:
    """A square picture at 96 pixels."""
    return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def stretched(values: NDArray[np.floating]) -> Grey:
    """Values as grey levels from 0 to 255."""
    low, high = values.min(), values.max()
    return np.asarray(((values - low) / max(high - low, 1e-6) * 255).astype(np.uint8))


def point(at: NDArray[np.float64]) -> tuple[int, int]:
    """Coordinates as OpenCV takes them."""
    return int(at[0]), int(at[1])
