"""Findings as real films show them, from dense to barely seen, drawn over real chests.

The rule is that of :mod:`cxrg.phantom.findings`, ``I' = I + c (L - I)`` with the share ``c`` of the
air lost and ``L`` the level of tissue. What is added here is how ``c`` looks (ragged borders,
patches, fissures, air bronchograms), that dense parts hide vessels and the borders that they touch
(silhouette sign), and that the target is what can be *seen*: where the picture became brighter by
a good part of the finding's own peak, as a reader would outline it.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.chest.lung import extent, outward
from cxrg.geometry import Mask
from cxrg.phantom.findings import Chest, Draw, Drawn, Finding, size_of, zone_of
from cxrg.phantom.noise import Array, fractal_noise, grid, smooth_noise, soft_step

_BARELY = 0.05
"""The faintest change that counts as seen, as a share of the contrast of tissue and lung."""
_EDGE = 0.4
"""A finding ends where it is this share of its own peak."""
_BEHIND = 0.15
"""How much of its grey an opacity keeps behind heart or diaphragm."""

Form = Callable[[np.random.Generator, Chest, str], Array | None]


def blurred(layer: Array | Mask, share: float) -> Array:
    """Gaussian blur with sigma a share of the side."""
    sigma = max(share * layer.shape[0], 0.4)
    return np.asarray(cv2.GaussianBlur(layer.astype(np.float32), (0, 0), sigma), np.float32)


def grown(mask: Mask, share: float) -> Mask:
    """A mask dilated by a share of the side."""
    reach = 2 * max(round(share * mask.shape[0]), 1) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)


def depth_of(lung: Mask) -> Array:
    """Distance from a lung's border as a fraction of the side; 0 outside."""
    padded = np.pad(lung.astype(np.uint8), 1)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1] / lung.shape[0])


def lose_air(chest: Chest, cover: Array, *, hides: float, thin: bool = True) -> Array:
    """The picture with the share ``cover`` of its air lost.

    Args:
        hides: how much of the detail (vessels, borders) vanishes where all air is lost.
        thin: less can be lost near the chest wall, where the lung is thin.
    """
    smooth = blurred(chest.image, 0.025)
    level = np.full_like(chest.image, chest.tissue())
    if thin:
        level *= 0.72 + 0.28 * (1 - np.exp(-depth_of(chest.regions["lungs"]) / 0.06))
    outside = 1 - blurred(chest.regions["lungs"], 0.01)
    room = np.maximum(level - smooth, _BEHIND * chest.contrast() * outside)
    return np.asarray(
        chest.image + cover * room - hides * cover * (chest.image - smooth), np.float32
    )


def seen(before: Array, after: Array, room: Mask, least: float) -> Mask:
    """Where a reader would outline a change: at least ``_EDGE`` of its peak, without specks.

    Empty where the peak stays below ``least``.
    """
    change = blurred(np.abs(blurred(after - before, 0.01)), 0.006)
    inside = change[room & (change > 0.25 * least)]
    peak = float(np.percentile(inside, 90)) if inside.size else 0.0
    if peak < least:
        return np.zeros_like(room)
    mask = (change > _EDGE * peak) & room
    reach = 2 * max(round(0.012 * room.shape[0]), 1) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = [part for part in range(1, count) if areas[part] >= 0.05 * areas[1:].sum()]
    return np.asarray(np.isin(labels, kept))


def _finding(
    chest: Chest, image: Array, side: str, kind: str, room: Mask, size: str | None = None
) -> Drawn:
    """The drawn picture with what can be seen in it, or the old picture where that is nothing."""
    mask = seen(chest.image, image, room, _BARELY * chest.contrast())
    if mask.sum() < 12:
        return chest.image, None
    lung = chest.regions[f"{side} lung"]
    share = float(mask.sum() / max(lung.sum(), 1))
    found = Finding(
        kind=kind, side=side, zone=zone_of(mask, lung), size=size or size_of(share), mask=mask
    )
    return image, found


# ------------------------------------------------------------------------- the forms of opacities
# Each gives 1 in its middle, 0.5 at its border and 0 far away; noise then makes the border ragged.
# Pneumonia prefers the lower zones. Where an opacity is too faint to be seen, a model answers with
# the place where opacities mostly are, so this has to be right.


def _patch(rng: np.random.Generator, chest: Chest, side: str) -> Array | None:
    """One to four rounded patches near each other, of a segment's to a lobe's size."""
    lung = chest.regions[f"{side} lung"]
    zone = str(rng.choice(["upper", "mid", "lower"], p=[0.08, 0.27, 0.65]))
    points = np.argwhere(chest.regions.get(f"{side} {zone}", lung))
    box = extent(lung)
    if box is None or not len(points):
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    reach = int(rng.choice(4, p=[0.27, 0.35, 0.28, 0.1]))
    share = rng.uniform((0.1, 0.18, 0.32, 0.55)[reach], (0.18, 0.32, 0.55, 0.9)[reach])
    gx, gy = grid(chest.side)
    row, column = points[int(rng.integers(len(points)))]
    total = np.zeros_like(chest.image)
    for number in range(int(rng.choice([1, 2, 3, 4], p=[0.5, 0.25, 0.15, 0.1]))):
        rx, ry = width * share * rng.uniform(0.8, 1.4), height * share * rng.uniform(0.55, 0.95)
        x, y = float(column), float(row)
        if number:
            rx, ry = rx * 0.7, ry * 0.7
            x, y = x + rng.normal(0, 1.3 * rx), y + rng.normal(0, 1.2 * ry)
        angle = rng.uniform(-0.6, 0.6)
        dx, dy = gx * chest.side - x, gy * chest.side - y
        u = (dx * np.cos(angle) + dy * np.sin(angle)) / max(rx, 3)
        v = (-dx * np.sin(angle) + dy * np.cos(angle)) / max(ry, 3)
        total = np.maximum(total, soft_step(1 - np.hypot(u, v), rng.uniform(0.5, 1.4)))
    return total


def _lobar(rng: np.random.Generator, chest: Chest, side: str) -> Array | None:
    """Part of a lobe that ends sharply at a fissure."""
    box = extent(chest.regions[f"{side} lung"])
    if box is None:
        return None
    x0, y0, x1, y1 = (value / chest.side for value in box)
    gx, gy = grid(chest.side)
    fissure = y0 + rng.uniform(0.4, 0.58) * (y1 - y0) + rng.uniform(-0.25, 0.25) * (gx - x0)
    fissure = fissure + 0.05 * (gx - (x0 + x1) / 2) ** 2 / max(x1 - x0, 0.05)
    upward = rng.random() < 0.2
    beyond = (fissure - gy) if upward else (gy - fissure)
    thick = rng.uniform(0.12, 0.45) * (y1 - y0)
    inside = soft_step(beyond, 0.015) * soft_step(thick - beyond, 0.6 * thick)
    out = (gx - x0) / (x1 - x0) if side == "left" else (x1 - gx) / (x1 - x0)
    medial = soft_step(rng.uniform(0.4, 1.2) - out, 0.4)
    return np.asarray(inside * medial, np.float32)


def _peripheral(rng: np.random.Generator, chest: Chest, side: str) -> Array | None:
    """Along the chest wall, mostly low: the pattern of viral and organising pneumonia."""
    lung = chest.regions[f"{side} lung"]
    box = extent(lung)
    if box is None:
        return None
    _, y0, _, y1 = box
    rows, columns = np.arange(chest.side)[:, None], np.arange(chest.side)[None, :]
    out = outward(box, columns, side)
    down = (rows - y0) / (y1 - y0)
    middle, tall = rng.uniform(0.45, 0.95), rng.uniform(0.12, 0.45)
    low = np.exp(-(((down - middle) / tall) ** 4))
    wall = soft_step((out - rng.uniform(0.3, 0.65)).astype(np.float32), 0.35)
    return np.asarray(wall * low, np.float32)


def _perihilar(rng: np.random.Generator, chest: Chest, side: str) -> Array | None:
    """Around the hilum, fading outwards."""
    box = extent(chest.regions[f"{side} lung"])
    if box is None:
        return None
    x0, y0, x1, y1 = box
    hilum_x = x1 if side == "right" else x0
    hilum_y = y0 + rng.uniform(0.48, 0.7) * (y1 - y0)
    wide, high = rng.uniform(0.35, 0.8) * (x1 - x0), rng.uniform(0.18, 0.4) * (y1 - y0)
    return _soft_ellipse(chest, hilum_x, hilum_y, wide, high, rng.uniform(0.6, 1.4))


def _medial_base(rng: np.random.Generator, chest: Chest, side: str) -> Array | None:
    """Behind the heart on the left, beside it on the right, at the base."""
    box = extent(chest.regions[f"{side} lung"])
    if box is None:
        return None
    x0, y0, x1, y1 = box
    medial = x0 if side == "left" else x1
    inward = -1 if side == "left" else 1
    x = medial - inward * rng.uniform(-0.05, 0.25) * (x1 - x0)
    y = y0 + rng.uniform(0.7, 0.9) * (y1 - y0)
    wide, high = rng.uniform(0.2, 0.45) * (x1 - x0), rng.uniform(0.12, 0.28) * (y1 - y0)
    return _soft_ellipse(chest, x, y, wide, high, rng.uniform(0.5, 1.2))


def _soft_ellipse(
    chest: Chest, x: float, y: float, wide: float, high: float, softness: float
) -> Array:
    """1 in the middle of an ellipse, falling outwards; places and half-axes in pixels."""
    gx, gy = grid(chest.side)
    u, v = (gx * chest.side - x) / wide, (gy * chest.side - y) / high
    return soft_step(np.asarray(1 - np.hypot(u, v), np.float32), softness)


def _diffuse(rng: np.random.Generator, chest: Chest, side: str) -> Array | None:
    """Most of the lung, in patches, denser to one end."""
    box = extent(chest.regions[f"{side} lung"])
    if box is None:
        return None
    gy = grid(chest.side)[1]
    down = np.clip((gy * chest.side - box[1]) / (box[3] - box[1]), 0, 1)
    slope = rng.uniform(-0.1, 0.8)
    patches = 0.22 * smooth_noise(rng, chest.side, int(rng.integers(4, 9)))
    return np.asarray(np.clip(0.62 + slope * (down - 0.5) + patches, 0, 1), np.float32)


_FORMS: tuple[tuple[Form, float], ...] = (
    (_patch, 0.45),
    (_lobar, 0.08),
    (_peripheral, 0.12),
    (_perihilar, 0.09),
    (_medial_base, 0.16),
    (_diffuse, 0.1),
)
_STRENGTH = {
    "consolidation": (0.4, 1.0),
    "pneumonia": (0.15, 0.95),
    "infiltrate": (0.13, 0.65),
    "ground-glass opacity": (0.12, 0.5),
}


def draw_opacity(rng: np.random.Generator, chest: Chest, side: str, kind: str) -> Drawn:
    """Consolidation, ground glass, pneumonia or infiltrate in one of the forms above."""
    form = _FORMS[int(rng.choice(len(_FORMS), p=[odds for _, odds in _FORMS]))][0]
    envelope = form(rng, chest, side)
    if envelope is None:
        return chest.image, None
    lung = chest.regions[f"{side} lung"]
    ragged = rng.uniform(0.04, 0.2) * fractal_noise(rng, chest.side, int(rng.integers(5, 14)), 4)
    cover = soft_step(envelope - 0.5 + ragged * (envelope > 0.02), rng.uniform(0.25, 0.9))
    cover *= envelope > 0.02
    room = lung
    if form is _medial_base or rng.random() < 0.5:
        # The border of heart or diaphragm that it touches vanishes; it may reach behind them.
        middle = chest.regions.get("heart and mediastinum", np.zeros_like(lung))
        above = np.flatnonzero(lung.any(1))[-1] >= np.arange(chest.side)[:, None]
        behind = middle & _half(chest, side) if form is _medial_base else grown(lung, 0.02)
        room = lung | (behind & above)
    cover *= blurred(room, 0.01)
    strength = float(rng.uniform(*_STRENGTH[kind]))
    coarse = rng.random() < 0.6
    cells, rough = (rng.integers(8, 30), 0.25) if coarse else (rng.integers(28, 56), 0.45)
    texture = 1 + rng.uniform(0.03, rough) * fractal_noise(rng, chest.side, int(cells), 3)
    cover = np.clip(cover * texture, 0, 1) * np.float32(strength)
    if strength > 0.5 and rng.random() < 0.35:
        cover *= 1 - np.float32(rng.uniform(0.15, 0.45)) * _bronchi(rng, chest, side)
    # Consolidated lung hides its vessels; thickened walls and septa show more of them.
    hides = rng.uniform(-0.5, 0.1) if kind == "ground-glass opacity" else rng.uniform(-1.3, 0.8)
    image = lose_air(chest, np.asarray(cover, np.float32), hides=float(hides))
    return _finding(chest, image, side, kind, room)


def _half(chest: Chest, side: str) -> Mask:
    """The patient's half of the picture."""
    right, left = extent(chest.regions["right lung"]), extent(chest.regions["left lung"])
    middle = chest.side / 2 if right is None or left is None else (right[2] + left[0]) / 2
    columns = np.arange(chest.side)[None, :]
    half = columns < middle if side == "right" else columns >= middle
    return np.asarray(np.broadcast_to(half, chest.image.shape))


def _bronchi(rng: np.random.Generator, chest: Chest, side: str) -> Array:
    """Air-filled bronchi: branching lines from the hilum outwards, 1 in their middle."""
    layer = np.zeros(chest.image.shape, np.uint8)
    box = extent(chest.regions[f"{side} lung"])
    if box is None:
        return layer.astype(np.float32)
    x0, y0, x1, y1 = box
    hilum = np.array([x1 if side == "right" else x0, y0 + 0.5 * (y1 - y0)], float)
    outward = -1 if side == "right" else 1
    for _ in range(int(rng.integers(4, 9))):
        angle = rng.uniform(-1.1, 1.3)
        at, points = hilum.copy(), [hilum.copy()]
        for _ in range(4):
            angle += rng.normal(0, 0.18)
            step = rng.uniform(0.1, 0.2) * (x1 - x0)
            at = at + step * np.array([outward * np.cos(angle), np.sin(angle)])
            points.append(at.copy())
            if rng.random() < 0.5:
                turn = angle + rng.choice([-0.5, 0.5])
                end = at + step * np.array([outward * np.cos(turn), np.sin(turn)])
                _stroke(layer, [at, end], 1)
        _stroke(layer, points, max(round(chest.side / 180), 1))
    return blurred(layer.astype(np.float32) / np.float32(255), 0.002)


def _stroke(layer: NDArray[np.uint8], points: list[NDArray[np.float64]], width: int) -> None:
    scaled = np.round(np.array(points) * 16).astype(np.int32)
    cv2.polylines(layer, [scaled], False, 255, width, cv2.LINE_AA, 4)


# ----------------------------------------------------------------------------------- the pleura


def draw_effusion(rng: np.random.Generator, chest: Chest, side: str, kind: str) -> Drawn:
    """Fluid with a meniscus from a blunt angle to half a lung, under the lung, or layered."""
    lung = chest.regions[f"{side} lung"]
    box = extent(lung)
    if box is None:
        return chest.image, None
    _, y0, _, y1 = box
    tall = y1 - y0
    rows = np.arange(chest.side)[:, None].astype(np.float32)
    columns = np.arange(chest.side)[None, :].astype(np.float32)
    out = outward(box, columns, side)
    out = np.clip(out, 0, 1)
    form = str(
        rng.choice(["blunt", "meniscus", "subpulmonic", "layered"], p=[0.35, 0.4, 0.13, 0.12])
    )
    strength = float(rng.uniform(0.55, 1.0))
    if form == "subpulmonic":
        lowest = chest.side - 1 - np.argmax(lung[::-1], axis=0)
        dome = np.where(lung.any(0), lowest, y1).astype(np.float32)[None, :]
        amount = rng.uniform(0.06, 0.18)
        level = soft_step(rows - dome + amount * tall * (0.6 + 0.4 * out), 0.03 * tall)
    elif form == "layered":
        amount = rng.uniform(0.4, 0.9)
        down = (rows - y1) / tall + amount
        risen = np.clip(down / amount, 0, 1) ** rng.uniform(0.6, 1.5) + 0 * columns
        level = risen.astype(np.float32)
        strength *= 0.6
    else:
        small = form == "blunt"
        amount = rng.uniform(0.05, 0.16) if small else rng.uniform(0.14, 0.6)
        top = y1 - amount * tall * (0.3 + 0.7 * out ** rng.uniform(1.3, 3.5))
        top = top - rng.uniform(0.02, 0.09) * tall * soft_step(out - 0.88, 0.15)
        level = soft_step(rows - top, rng.uniform(0.02, 0.09) * tall)
    room = grown(lung, 0.012) & (rows <= y1 + 0.02 * chest.side) & _half(chest, side)
    cover = np.asarray(level, np.float32) * blurred(room, 0.006) * np.float32(strength)
    image = lose_air(chest, cover, hides=0.5, thin=False)
    size = "small" if amount < 0.16 else "moderate" if amount < 0.35 else "large"
    return _finding(chest, image, side, kind, room, size)


def draw_pneumothorax(rng: np.random.Generator, chest: Chest, side: str, kind: str) -> Drawn:
    """A lung fallen towards hilum or base: beyond its edge, a fine line, air without vessels."""
    lung = chest.regions[f"{side} lung"]
    box = extent(lung)
    if box is None:
        return chest.image, None
    x0, y0, x1, y1 = box
    apical = rng.random() < 0.6
    fall = rng.uniform(0.05, 0.22) if apical else rng.uniform(0.15, 0.6)
    across = fall * (rng.uniform(0.2, 0.9) if apical else rng.uniform(0.7, 1.1))
    medial = x1 if side == "right" else x0
    low = y1 if apical else y0 + rng.uniform(0.55, 0.9) * (y1 - y0)
    scale = np.array([[1 - across, 0, medial * across], [0, 1 - fall, low * fall]])
    shape = (chest.side, chest.side)
    solid = lung.astype(np.float32)
    left = cv2.warpAffine(solid, scale, shape, flags=cv2.INTER_LINEAR) > 0.5
    wavy = blurred(left, 0.012) + 0.08 * smooth_noise(rng, chest.side, 8)
    left = (wavy > 0.5) & lung
    mask = lung & ~left
    # Air beside the mediastinum is not what is seen; the rim lies above and at the wall.
    columns = np.arange(chest.side)[None, :]
    out = outward(box, columns, side)
    rows = np.arange(chest.side)[:, None]
    mask &= (out > 0.3) | (rows < y0 + 0.25 * (y1 - y0))
    mask = np.asarray(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3))) > 0)
    if mask.sum() < 12:
        return chest.image, None
    contrast = chest.contrast()
    inside = blurred(mask, 0.004)
    smooth = blurred(chest.image, 0.012)
    # Vessels vanish, ribs stay: of the detail, half is left.
    plain = smooth + 0.35 * (chest.image - smooth) - np.float32(rng.uniform(0.08, 0.35) * contrast)
    image = chest.image * (1 - inside) + plain * inside
    rim = cv2.morphologyEx(left.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    edge = blurred((rim > 0) & grown(mask, 0.01) & lung, 0.002)
    image = image + edge * np.float32(rng.uniform(0.1, 0.35) * contrast)
    # The lung that lost air is a little denser.
    image = image + blurred(left, 0.01) * np.float32(fall * rng.uniform(0, 0.35) * contrast)
    rows_of = np.nonzero(mask)[0]
    high = bool((rows_of < y0 + 0.4 * (y1 - y0)).mean() > 0.9)
    share = float(mask.sum() / max(lung.sum(), 1))
    found = Finding(
        kind=kind, side=side, zone="apical" if high else None, size=size_of(share), mask=mask
    )
    return np.asarray(image, np.float32), found


def draw_atelectasis(rng: np.random.Generator, chest: Chest, side: str, kind: str) -> Drawn:
    """Plates at the base, a wedge behind the heart, or a collapsed upper lobe."""
    lung = chest.regions[f"{side} lung"]
    box = extent(lung)
    if box is None:
        return chest.image, None
    x0, y0, x1, y1 = box
    gx, gy = grid(chest.side)
    x, y = gx * chest.side, gy * chest.side
    wide, tall = x1 - x0, y1 - y0
    out = outward(box, x, side)
    down = (y - y0) / tall
    room = lung
    form = str(rng.choice(["plate", "base", "upper"], p=[0.55, 0.33, 0.12]))
    if form == "plate":
        cover = np.zeros_like(chest.image)
        for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))):
            px, py = x0 + rng.uniform(0.15, 0.85) * wide, y0 + rng.uniform(0.55, 0.95) * tall
            angle = rng.uniform(-0.45, 0.45)
            dx, dy = x - px, y - py
            along = dx * np.cos(angle) + dy * np.sin(angle)
            thin = rng.uniform(0.005, 0.018) * chest.side
            bow = rng.normal(0, 0.15) * along**2 / wide
            away = -dx * np.sin(angle) + dy * np.cos(angle) + bow
            band = np.exp(
                -((away / thin) ** 2) - (np.abs(along) / (rng.uniform(0.18, 0.5) * wide)) ** 4
            )
            cover = np.maximum(cover, band.astype(np.float32))
    elif form == "base":
        heart = chest.regions.get("heart and mediastinum", np.zeros_like(lung))
        room = lung | (heart & _half(chest, side) & (down > 0.5))
        wedge = (down - rng.uniform(0.55, 0.8)) / 0.4 - rng.uniform(0.3, 1.2) * np.clip(
            out, -0.3, 1
        )
        cover = soft_step(np.asarray(wedge, np.float32), rng.uniform(0.1, 0.5))
    else:
        border = rng.uniform(0.15, 0.32) + rng.uniform(-0.1, 0.15) * out
        cover = soft_step(np.asarray(border - down, np.float32), 0.04)
    strength = float(rng.uniform(0.2, 0.9))
    cover = cover * blurred(room, 0.008) * np.float32(strength)
    texture = 1 + 0.15 * fractal_noise(rng, chest.side, 16, 2)
    image = lose_air(chest, np.clip(cover * texture, 0, 1).astype(np.float32), hides=0.3)
    return _finding(chest, image, side, kind, room)


ONE_SIDED: dict[str, tuple[Draw, float]] = {
    "consolidation": (draw_opacity, 0.12),
    "ground-glass opacity": (draw_opacity, 0.19),
    "pneumonia": (draw_opacity, 0.14),
    "infiltrate": (draw_opacity, 0.06),
    "pleural effusion": (draw_effusion, 0.19),
    "pneumothorax": (draw_pneumothorax, 0.12),
    "atelectasis": (draw_atelectasis, 0.12),
}
"""How each one-sided finding is drawn, and how often; nodules and masses have the rest."""
