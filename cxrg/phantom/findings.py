"""Findings drawn into a chest, phantom or real, with the mask of what was drawn.

An opacity replaces air by tissue: where ``c`` of the air is gone, brightness moves from what it
was towards the local level of soft tissue, ``I' = I + c (L - I)``. That one rule works on rendered
attenuation and on a real image's grey alike, because it needs only the picture and the lungs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.chest.findings import entries
from cxrg.chest.lung import NAMED_SHARE, THIRDS, extent, outward
from cxrg.geometry import Mask
from cxrg.phantom.noise import Array, fractal_noise, grid, smooth_noise, soft_step

OPACITIES = entries()["opacity"].covers


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Finding:
    """One drawn finding; ``mask`` is boolean ``(side, side)``, side and zone may be None."""

    kind: str
    side: str | None
    zone: str | None
    size: str
    mask: Mask


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Chest:
    """What a finding is drawn into: grey ``image`` (side, side) and its region masks."""

    image: Array
    regions: dict[str, Mask]

    @property
    def side(self) -> int:
        return int(self.image.shape[0])

    def tissue(self) -> float:
        """Grey level of soft tissue without air: bright part of the lungs' surroundings."""
        lungs = self.regions["lungs"]
        middle = self.regions.get("heart and mediastinum")
        if middle is not None and middle.any():
            return float(np.percentile(self.image[middle], 60))
        return float(np.percentile(self.image[lungs], 98))

    def contrast(self) -> float:
        """How much brighter soft tissue is than the lungs, at least 0.05."""
        return max(self.tissue() - float(np.median(self.image[self.regions["lungs"]])), 0.05)


Drawn = tuple[Array, Finding | None]


def _soft(mask: Mask, sigma: float) -> Array:
    side = mask.shape[0]
    return np.asarray(
        cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(sigma * side, 0.4)), np.float32
    )


def _fill(chest: Chest, cover: Array, level: float, *, thin: bool = True) -> Array:
    """Lose the share ``cover`` of the air; ribs and vessels on top stay visible.

    What is lost is the smooth air path ``level - S`` with ``S`` the image without its detail. Near
    the chest wall the lung is thin, so that less can be lost there (``thin``), unless by fluid
    that lies in front and behind as well.
    """
    smooth = cv2.GaussianBlur(chest.image, (0, 0), 0.025 * chest.side)
    lung = chest.regions["lungs"].astype(np.uint8)
    depth = cv2.distanceTransform(lung, cv2.DIST_L2, 3) / chest.side
    full = (
        np.float32(level)
        if not thin
        else np.float32(level) * (0.72 + 0.28 * (1 - np.exp(-depth / 0.06)))
    )
    return np.asarray(chest.image + cover * np.maximum(full - smooth, 0), np.float32)


def _inside(rng: np.random.Generator, lung: Mask) -> tuple[float, float] | None:
    """A random point of a mask (x, y in pixels); None where it is empty."""
    ys, xs = np.nonzero(lung)
    if not ys.size:
        return None
    pick = int(rng.integers(ys.size))
    return float(xs[pick]), float(ys[pick])


def size_of(share: float) -> str:
    return "small" if share < 0.12 else "moderate" if share < 0.35 else "large"


def nearest_side(chest: Chest, column: int) -> str:
    """The patient's side on which a column lies, seen from the middle between the lungs."""
    right, left = extent(chest.regions["right lung"]), extent(chest.regions["left lung"])
    middle = chest.side / 2 if right is None or left is None else (right[2] + left[0]) / 2
    return "right" if column < middle else "left"


def zone_of(mask: Mask, lung: Mask) -> str | None:
    """The third of the lung that holds at least 70 % of a mask, as readers would name it."""
    box = extent(lung)
    if box is None:
        return None
    rows = np.nonzero(mask)[0]
    third = np.clip((rows - box[1]) * 3 // max(box[3] - box[1], 1), 0, 2)
    counts = np.bincount(third.astype(int), minlength=3) / max(rows.size, 1)
    best = int(counts.argmax())
    return THIRDS[best] if counts[best] >= NAMED_SHARE else None


def _blob(rng: np.random.Generator, side: int, x: float, y: float, rx: float, ry: float) -> Array:
    """Irregular ellipse: 1 at its middle, 0 outside, its border pushed about by noise."""
    gx, gy = grid(side)
    angle = rng.uniform(-0.6, 0.6)
    dx, dy = gx * side - x, gy * side - y
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / rx
    v = (-dx * np.sin(angle) + dy * np.cos(angle)) / ry
    radius = np.sqrt(u**2 + v**2) + rng.uniform(0.05, 0.25) * smooth_noise(rng, side, 7)
    return soft_step(1 - radius, rng.uniform(0.3, 1.3))


def draw_opacity(rng: np.random.Generator, chest: Chest, side: str, kind: str) -> Drawn:
    """Consolidation, ground glass, pneumonia or infiltrate: an ill-defined patch of lost air."""
    lung = chest.regions[f"{side} lung"]
    box = extent(lung)
    weights = (("upper", 0.17), ("mid", 0.27), ("lower", 0.56))
    zone = str(rng.choice([z for z, _ in weights], p=[w for _, w in weights]))
    point = _inside(rng, chest.regions.get(f"{side} {zone}", lung))
    if box is None or point is None:
        return chest.image, None
    width, height = box[2] - box[0], box[3] - box[1]
    reach = rng.choice(4, p=[0.2, 0.3, 0.35, 0.15])  # a patch, a segment, a lobe, a whole lung
    share = rng.uniform((0.12, 0.2, 0.4, 0.7)[reach], (0.25, 0.4, 0.7, 1.1)[reach])
    rx, ry = width * share * rng.uniform(0.9, 1.6), height * share * rng.uniform(0.6, 1.0)
    cover = _blob(rng, chest.side, *point, max(rx, 3), max(ry, 3))
    for _ in range(int(rng.integers(0, 3))):
        near = (point[0] + rng.normal(0, rx), point[1] + rng.normal(0, ry * 0.8))
        extra = _blob(rng, chest.side, *near, max(rx * 0.6, 2), max(ry * 0.6, 2))
        cover = np.maximum(cover, extra * np.float32(rng.uniform(0.5, 1)))
    room = lung
    if rng.random() < 0.5:  # consolidation hides the border of heart and diaphragm it touches
        kernel = np.ones((3, 3), np.uint8)
        grown = cv2.dilate(lung.astype(np.uint8), kernel, iterations=max(chest.side // 40, 1))
        room = grown.astype(bool)
    cover = cover * _soft(room, 0.012)
    mask = (cover > 0.3) & room
    texture = 1 + rng.uniform(0.1, 0.5) * fractal_noise(
        rng, chest.side, int(rng.integers(8, 26)), 3
    )
    strength = (
        rng.uniform(0.22, 0.55) if kind == "ground-glass opacity" else rng.uniform(0.38, 0.95)
    )
    image = _fill(chest, np.clip(cover * texture, 0, 1) * np.float32(strength), chest.tissue())
    if mask.sum() < 6:
        return chest.image, None
    named = zone_of(mask, lung)
    size = size_of(float(mask.sum() / max(lung.sum(), 1)))
    return image, Finding(kind=kind, side=side, zone=named, size=size, mask=mask)


def draw_nodule(rng: np.random.Generator, chest: Chest, side: str, kind: str) -> Drawn:
    """A round opacity: nodule up to 3 cm, mass above (a chest is taken as 33 cm wide)."""
    lung = chest.regions[f"{side} lung"]
    point = _inside(rng, lung)
    if point is None:
        return chest.image, None
    low, high = (0.018, 0.045) if kind == "nodule" else (0.05, 0.11)
    radius = rng.uniform(low, high) * chest.side
    gx, gy = grid(chest.side)
    distance = np.hypot(gx * chest.side - point[0], (gy * chest.side - point[1]) / 1.05)
    wobble = rng.uniform(0.02, 0.14) * smooth_noise(rng, chest.side, 16) * radius
    disc = soft_step((radius - distance + wobble).astype(np.float32), radius * 0.5)
    image = _fill(chest, disc * np.float32(rng.uniform(0.35, 0.8)), chest.tissue())
    mask = disc > 0.4
    if mask.sum() < 3:
        return chest.image, None
    return image, Finding(kind=kind, side=side, zone=zone_of(mask, lung), size="small", mask=mask)


def draw_effusion(rng: np.random.Generator, chest: Chest, side: str, kind: str) -> Drawn:
    """Pleural fluid: dense below a meniscus that climbs the lateral chest wall."""
    lung = chest.regions[f"{side} lung"]
    box = extent(lung)
    if box is None:
        return chest.image, None
    _, y0, _, y1 = box
    columns = np.arange(chest.side)[None, :].astype(np.float32)
    rows = np.arange(chest.side)[:, None].astype(np.float32)
    out = outward(box, columns, side)
    amount = rng.choice([rng.uniform(0.06, 0.16), rng.uniform(0.15, 0.35), rng.uniform(0.3, 0.6)])
    top = y1 - amount * (y1 - y0) * (0.35 + 0.65 * np.clip(out, 0, 1) ** rng.uniform(1.2, 3))
    wall = soft_step(np.asarray(out - 0.85, np.float32), 0.2)
    top = top - rng.uniform(0.02, 0.08) * (y1 - y0) * wall
    level = soft_step((rows - top).astype(np.float32), rng.uniform(0.03, 0.1) * (y1 - y0))
    kernel = np.ones((3, 3), np.uint8)
    grown = cv2.dilate(lung.astype(np.uint8), kernel, iterations=max(chest.side // 64, 1)) > 0
    cover = level * _soft(grown, 0.008)
    fluid = cover * np.float32(rng.uniform(0.75, 1.0))
    image = _fill(chest, fluid, chest.tissue(), thin=False)
    mask = (cover > 0.4) & grown
    if mask.sum() < 6:
        return chest.image, None
    size = "small" if amount < 0.16 else "moderate" if amount < 0.35 else "large"
    return image, Finding(kind=kind, side=side, zone=None, size=size, mask=mask)


def draw_pneumothorax(rng: np.random.Generator, chest: Chest, side: str, kind: str) -> Drawn:
    """Air between lung and chest wall: a dark rim without vessels, bordered by a thin line."""
    lung = chest.regions[f"{side} lung"]
    box = extent(lung)
    if box is None:
        return chest.image, None
    x0, y0, x1, y1 = box
    depth = cv2.distanceTransform(np.pad(lung.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    columns = np.arange(chest.side)[None, :]
    rows = np.arange(chest.side)[:, None]
    out = outward(box, columns, side)
    down = (rows - y0) / (y1 - y0)
    fall = rng.uniform(0.35, 1.1)
    width = rng.uniform(0.12, 0.45) * (x1 - x0) * np.clip(1.15 - down / fall, 0, 1)
    outer = (out > 0.35) | (down < 0.22)
    near = cv2.GaussianBlur(
        (outer & (depth < width)).astype(np.float32), (0, 0), 0.015 * chest.side
    )
    mask = lung & (near > 0.5)
    if mask.sum() < 12:
        return chest.image, None
    smooth = cv2.GaussianBlur(chest.image, (0, 0), 0.02 * chest.side)
    inside = _soft(mask, 0.005)
    contrast = max(chest.tissue() - float(np.median(chest.image[lung])), 0.05)
    dark = smooth - np.float32(rng.uniform(0.15, 0.4) * contrast)
    image = chest.image * (1 - inside) + dark * inside
    edge = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    line = _soft((edge > 0) & lung & (depth > 0.5 * width), 0.003)
    image = image + line * np.float32(rng.uniform(0.1, 0.3) * contrast)
    size = size_of(float(mask.sum() / max(lung.sum(), 1)))
    zone = "apical" if down[mask.any(1)].max() < 0.4 else None
    return np.asarray(image, np.float32), Finding(
        kind=kind, side=side, zone=zone, size=size, mask=mask
    )


def draw_atelectasis(rng: np.random.Generator, chest: Chest, side: str, kind: str) -> Drawn:
    """Plate-like bands near the base, or a lobar wedge against heart and diaphragm."""
    lung = chest.regions[f"{side} lung"]
    box = extent(lung)
    low = chest.regions.get(f"{side} lower", lung)
    point = _inside(rng, low)
    if box is None or point is None:
        return chest.image, None
    width, height = box[2] - box[0], box[3] - box[1]
    gx, gy = grid(chest.side)
    dx, dy = gx * chest.side - point[0], gy * chest.side - point[1]
    if rng.random() < 0.6:
        angle = rng.uniform(-0.45, 0.45)
        along = dx * np.cos(angle) + dy * np.sin(angle)
        across = -dx * np.sin(angle) + dy * np.cos(angle)
        thin = rng.uniform(0.008, 0.02) * chest.side
        long = rng.uniform(0.25, 0.5) * width
        band = np.exp(-((across / thin) ** 2) - (np.abs(along) / long) ** 6)
        cover = np.asarray(band, np.float32) * _soft(lung, 0.008)
        mask = cover > 0.15
        strength = rng.uniform(0.4, 0.8)
    else:
        toward = -1 if side == "left" else 1
        wedge = 1 - np.abs(dy) / (0.3 * height) + toward * dx / (0.8 * width)
        level = soft_step(np.asarray(wedge - 0.6, np.float32), 0.5)
        cover = level * _soft(low, 0.015)
        mask = cover > 0.35
        strength = rng.uniform(0.5, 0.95)
    if mask.sum() < 5:
        return chest.image, None
    image = _fill(chest, np.clip(cover * np.float32(strength), 0, 1), chest.tissue())
    share = float(mask.sum() / max(lung.sum(), 1))
    zone = zone_of(mask, lung)
    return image, Finding(kind=kind, side=side, zone=zone, size=size_of(share), mask=mask)


def draw_edema(rng: np.random.Generator, chest: Chest) -> tuple[Array, tuple[Finding, ...]]:
    """Symmetric haze around both hila, with thick septa; one finding per lung."""
    image, found = chest.image, []
    strength, reach = rng.uniform(0.25, 0.65), rng.uniform(0.5, 1.0)
    level = chest.tissue()
    for side in ("right", "left"):
        lung = chest.regions[f"{side} lung"]
        box = extent(lung)
        if box is None:
            continue
        x0, y0, x1, y1 = box
        gx, gy = grid(chest.side)
        hilum_x = x1 if side == "right" else x0
        hilum_y = y0 + rng.uniform(0.5, 0.65) * (y1 - y0)
        radius = np.hypot(
            (gx * chest.side - hilum_x) / (x1 - x0), (gy * chest.side - hilum_y) / (y1 - y0) * 1.6
        )
        cover = soft_step(np.asarray(reach - radius, np.float32), 0.6) * _soft(lung, 0.01)
        mask = (cover > 0.35) & lung
        texture = 1 + 0.4 * fractal_noise(rng, chest.side, 14, 2)
        part = np.clip(cover * texture * np.float32(strength), 0, 1)
        image = image + part * np.maximum(level - image, 0)
        if mask.sum() >= 6:
            found.append(Finding(kind="edema", side=side, zone=None, size="large", mask=mask))
    return np.asarray(image, np.float32), tuple(found)


Draw = Callable[[np.random.Generator, Chest, str, str], Drawn]

ONE_SIDED: dict[str, tuple[Draw, float]] = {
    "consolidation": (draw_opacity, 0.19),
    "ground-glass opacity": (draw_opacity, 0.16),
    "pneumonia": (draw_opacity, 0.16),
    "infiltrate": (draw_opacity, 0.09),
    "pleural effusion": (draw_effusion, 0.12),
    "pneumothorax": (draw_pneumothorax, 0.08),
    "atelectasis": (draw_atelectasis, 0.08),
    "nodule": (draw_nodule, 0.07),
    "mass": (draw_nodule, 0.05),
}
"""How each one-sided finding is drawn, and how often."""


def bounding(mask: Mask | NDArray[np.float32]) -> Mask:
    """The union of the bounding boxes of a mask's parts (parts below 2 % of it left out)."""
    binary = np.asarray(mask > 0.5 if mask.dtype != bool else mask, np.uint8)
    filled = np.zeros(binary.shape, bool)
    _, _, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    for x, y, width, height, area in stats[1:]:
        if area >= 0.02 * binary.sum():
            filled[y : y + height, x : x + width] = True
    return filled
