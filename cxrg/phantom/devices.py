"""Tubes, lines and leads: bright thin objects in their usual places."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrg.chest.lung import extent
from cxrg.phantom.findings import Chest, Finding
from cxrg.phantom.noise import Array

DEVICES = (
    "endotracheal tube",
    "central venous line",
    "nasogastric tube",
    "leads",
    "pacemaker",
)


def draw_device(rng: np.random.Generator, chest: Chest, kind: str) -> tuple[Array, Finding | None]:
    """Draw one device of ``DEVICES``; None where the chest gives no place for it."""
    paths, side_name = _paths(rng, chest, kind)
    if not paths:
        return chest.image, None
    layer = np.zeros(chest.image.shape, np.uint8)
    width = {"endotracheal tube": 0.012, "pacemaker": 0.006}.get(kind, rng.uniform(0.004, 0.008))
    for path in paths:
        points = np.round(path * 16).astype(np.int32)
        thick = max(round(width * chest.side), 1)
        cv2.polylines(layer, [points], False, 255, thick, cv2.LINE_AA, 4)
    if kind == "pacemaker":
        centre = paths[0][0]
        axes = (round(0.055 * chest.side), round(0.04 * chest.side))
        cv2.ellipse(layer, (int(centre[0]), int(centre[1])), axes, 20, 0, 360, 255, -1)
    strength = rng.uniform(0.06, 0.2) * (2.0 if kind == "pacemaker" else 1.0)
    cover = cv2.GaussianBlur(layer.astype(np.float32) / 255, (0, 0), 0.4)
    image = chest.image + cover * np.float32(strength * chest.tissue())
    grown = cv2.dilate(layer, np.ones((3, 3), np.uint8), iterations=max(chest.side // 64, 1))
    mask = grown > 60
    found = Finding(kind=kind, side=side_name, zone=None, size="small", mask=mask)
    return np.asarray(image, np.float32), found


def _curve(points: list[tuple[float, float]], rng: np.random.Generator) -> NDArray[np.float64]:
    """A smooth path through a few points, slightly shaken."""
    shaken = np.array(points) + rng.normal(0, 1.0, (len(points), 2))
    return smooth_curve(shaken)


def smooth_curve(points: ArrayLike) -> NDArray[np.float64]:
    """A smooth path through a few points ``(n, 2)`` (Catmull-Rom)."""
    p = np.asarray(points, np.float64)
    p = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    t = np.linspace(0, 1, 12)[:, None]
    pieces = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        cubic = (-a + 3 * b - 3 * c + d) * t**3 + (2 * a - 5 * b + 4 * c - d) * t**2
        pieces.append(0.5 * (cubic + (c - a) * t + 2 * b))
    return np.vstack(pieces)


def _paths(
    rng: np.random.Generator, chest: Chest, kind: str
) -> tuple[list[NDArray[np.float64]], str | None]:
    """Where the device runs, in pixels, and on which side it is named."""
    right, left = extent(chest.regions["right lung"]), extent(chest.regions["left lung"])
    if right is None or left is None:
        return [], None
    n = float(chest.side)
    middle = (right[0] + left[2]) / 2
    top, low = float(min(right[1], left[1])), float(max(right[3], left[3]))
    tall = low - top
    if kind == "endotracheal tube":
        carina = top + rng.uniform(0.1, 0.28) * tall
        points = [(middle, -2.0), (middle, top), (middle + rng.normal(0, 1), carina)]
        return [_curve(points, rng)], None
    if kind == "nasogastric tube":
        stomach = (middle + rng.uniform(0.08, 0.22) * n, low + rng.uniform(0.02, 0.12) * n)
        heart = (middle + rng.normal(0, 0.01) * n, top + 0.6 * tall)
        points = [(middle, -2.0), (middle, top), heart, (middle + 3, low - 2), stomach]
        return [_curve(points, rng)], None
    if kind == "central venous line":
        return _venous_line(rng, n, middle, top, tall)
    if kind == "pacemaker":
        body = (middle + 0.28 * n, top + rng.uniform(0.12, 0.25) * tall)
        vein = (middle + 0.08 * n, top + 0.1 * tall)
        atrium = (middle - 0.03 * n, top + 0.4 * tall)
        return [_curve([body, vein, atrium, (middle + 0.1 * n, low - 0.1 * tall)], rng)], "left"
    paths = []
    for _ in range(int(rng.integers(2, 5))):
        start = (rng.uniform(0, n), rng.choice([0.0, n]))
        via = (rng.uniform(0.2, 0.8) * n, rng.uniform(0.2, 0.9) * n)
        paths.append(_curve([start, via, (rng.uniform(0.2, 0.8) * n, top + 0.3 * tall)], rng))
    return paths, None


def _venous_line(
    rng: np.random.Generator, n: float, middle: float, top: float, tall: float
) -> tuple[list[NDArray[np.float64]], str]:
    """From the neck or under the clavicle into the superior vena cava."""
    side = "right" if rng.random() < 0.6 else "left"
    sign = -1 if side == "right" else 1
    cava = (middle - 0.04 * n, top + rng.uniform(0.35, 0.5) * tall)
    start = (middle + sign * 0.07 * n, -2.0)
    if rng.random() < 0.5:
        start = (middle + sign * rng.uniform(0.2, 0.32) * n, top + 0.12 * tall)
    return [_curve([start, (middle + sign * 0.05 * n, top + 0.14 * tall), cava], rng)], side
