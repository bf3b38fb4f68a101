"""Tubes and lines over a real film: as thin as they are there, on the courses that they take.

Thickness is in millimetres (both lungs together are taken as 280 mm wide), and a thin line is
drawn fainter instead of thicker where it is narrower than a pixel. The target is the course with
a margin, since a line's own pixels are fewer than any reader would outline.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.chest.lung import extent
from cxrg.geometry import Mask
from cxrg.phantom.devices import DEVICES, smooth_curve
from cxrg.phantom.findings import Chest, Finding
from cxrg.phantom.noise import Array

Path = NDArray[np.float64]
_FINE = 4  # lines are drawn this many times larger and shrunk
_WIDTHS_MM = {
    "endotracheal tube": (8.0, 11.0),
    "nasogastric tube": (1.8, 4.0),
    "central venous line": (1.5, 2.8),
    "leads": (1.2, 2.5),
    "pacemaker": (1.8, 2.6),
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Course:
    """Where a device runs: lines, round parts ``(x, y, radius)`` in pixels, and its side."""

    lines: list[Path]
    side: str | None = None
    rounds: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Body:
    """What courses are laid out by, in pixels."""

    side: float
    mm: float
    middle: float
    top: float
    low: float
    carina: tuple[float, float]

    def at(self, across: float, down: float) -> tuple[float, float]:
        """A point: millimetres from the middle (towards the patient's left), and the share of the
        lungs' height below their top."""
        return self.middle + across * self.mm, self.top + down * (self.low - self.top)


def _body(chest: Chest) -> _Body | None:
    right, left = extent(chest.regions["right lung"]), extent(chest.regions["left lung"])
    if right is None or left is None:
        return None
    top, low = float(min(right[1], left[1])), float(max(right[3], left[3]))
    middle = (right[2] + left[0]) / 2
    carina = (middle - 2.0, top + 0.3 * (low - top))
    airways = chest.regions.get("airways")
    rows = np.flatnonzero(airways.any(1)) if airways is not None else np.array([], int)
    if airways is not None and rows.size:
        # The airways' mask widens below the carina.
        row = int(rows[int(0.55 * (rows.size - 1))])
        carina = (float(np.flatnonzero(airways[row]).mean()), float(row))
    return _Body(
        side=float(chest.side),
        mm=(left[2] - right[0]) / 280,
        middle=middle,
        top=top,
        low=low,
        carina=carina,
    )


def draw_line(rng: np.random.Generator, chest: Chest, kind: str) -> tuple[Array, Finding | None]:
    """Draw one device of ``DEVICES`` thinly; None where the chest gives no place for it."""
    body = _body(chest)
    if body is None or kind not in DEVICES:
        return chest.image, None
    course = _COURSES[kind](rng, body)
    width = float(rng.uniform(*_WIDTHS_MM[kind])) * body.mm
    cover, tube = _paint(chest.side, course, width), _paint(chest.side, course, 0.3 * width)
    if kind == "endotracheal tube":
        # Its wall hardly shows; a stripe along it does.
        cover = np.maximum(0.3 * cover, tube)
    strength = rng.uniform(0.08, 0.32) * (3.0 if kind == "pacemaker" else 1.0)
    image = chest.image + cover * np.float32(strength * chest.contrast())
    margin = 2 * max(chest.side // 64, 1) + 1
    wide = cv2.dilate(
        (_paint(chest.side, course, width) > 0.2).astype(np.uint8), np.ones((margin,) * 2)
    )
    mask: Mask = wide > 0
    if mask.sum() < 12:
        return chest.image, None
    found = Finding(kind=kind, side=course.side, zone=None, size="small", mask=mask)
    return np.asarray(image, np.float32), found


def _paint(side: int, course: Course, width: float) -> Array:
    """Lines of a width in pixels, and filled rounds; 1 inside, less where thinner than a pixel."""
    layer = np.zeros((_FINE * side, _FINE * side), np.uint8)
    thick = max(round(_FINE * width), 1)
    for line in course.lines:
        points = np.round(line * _FINE * 16).astype(np.int32)
        cv2.polylines(layer, [points], False, 255, thick, cv2.LINE_AA, 4)
    for x, y, radius in course.rounds:
        centre = (round(x * _FINE), round(y * _FINE))
        cv2.circle(layer, centre, max(round(radius * _FINE), 1), 255, -1, cv2.LINE_AA)
    small = cv2.resize(layer, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small / np.float32(255), np.float32)


def _tracheal(rng: np.random.Generator, body: _Body) -> Course:
    """Down the trachea; the tip two to seven centimetres above the carina."""
    x, y = body.carina
    tip = y - rng.uniform(15, 70) * body.mm
    neck = (x + rng.normal(0, 6) * body.mm, min(-2.0, tip - 60 * body.mm))
    half = (x + rng.normal(0, 2) * body.mm, (neck[1] + tip) / 2)
    return Course(lines=[smooth_curve([neck, half, (x + rng.normal(0, 1.5) * body.mm, tip)])])


def _gastric(rng: np.random.Generator, body: _Body) -> Course:
    """Behind trachea and heart, to the left through the diaphragm, and on into the stomach."""
    jitter = rng.normal(0, 3, 4)
    points = [
        (body.middle + jitter[0] * body.mm, -2.0),
        body.at(jitter[1], 0.05),
        body.at(4 + jitter[2], 0.5),
        body.at(10 + jitter[3], 0.9),
        body.at(rng.uniform(25, 60), rng.uniform(1.02, 1.12)),
    ]
    if rng.random() < 0.6:
        points.append(body.at(rng.uniform(30, 80), rng.uniform(1.1, 1.3)))
    return Course(lines=[smooth_curve(points)])


def _venous(rng: np.random.Generator, body: _Body) -> Course:
    """From the neck, under the clavicle or the arm into the superior vena cava."""
    side = "right" if rng.random() < 0.5 else "left"
    sign = -1 if side == "right" else 1
    tip = body.at(-rng.uniform(10, 26), rng.uniform(0.3, 0.58))
    bend = body.at(-rng.uniform(14, 24), rng.uniform(0.2, 0.28))
    entry = rng.random()
    if entry < 0.45:  # jugular
        start = [(body.middle + sign * rng.uniform(22, 45) * body.mm, -2.0)]
        start.append(body.at(sign * rng.uniform(18, 28), 0.06))
    elif entry < 0.75:  # subclavian, sometimes with a port
        start = [body.at(sign * rng.uniform(80, 115), rng.uniform(0.14, 0.32))]
        start.append(body.at(sign * rng.uniform(45, 60), rng.uniform(0.04, 0.1)))
    else:  # from the arm
        start = [
            body.at(sign * rng.uniform(150, 180), rng.uniform(0.25, 0.45)),
            body.at(sign * rng.uniform(115, 130), rng.uniform(0.1, 0.2)),
            body.at(sign * rng.uniform(60, 75), rng.uniform(0.04, 0.1)),
        ]
    if side == "left":
        start.append(body.at(rng.uniform(0, 12), rng.uniform(0.12, 0.18)))
    rounds = []
    if 0.45 <= entry < 0.75 and rng.random() < 0.4:
        rounds.append((*start[0], 12 * body.mm))
    return Course(lines=[smooth_curve([*start, bend, tip])], side=side, rounds=rounds)


def _leads(rng: np.random.Generator, body: _Body) -> Course:
    """Wires that hang from two to five electrodes and leave the picture."""
    lines, rounds = [], []
    for _ in range(int(rng.integers(2, 6))):
        x, y = body.at(rng.uniform(-130, 130), rng.uniform(0.0, 1.0))
        rounds.append((x, y, rng.uniform(2.5, 6) * body.mm))
        away = (x + rng.uniform(-40, 40) * body.mm, (y + body.side) / 2)
        out = (x + rng.uniform(-70, 70) * body.mm, body.side + 3)
        if rng.random() < 0.35:
            away, out = (away[0], y / 2), (out[0], -3.0)
        lines.append(smooth_curve([(x, y), away, out]))
    return Course(lines=lines, rounds=rounds)


def _pacemaker(rng: np.random.Generator, body: _Body) -> Course:
    """A generator below the clavicle, leads through the vein to atrium and ventricle."""
    sign = 1 if rng.random() < 0.5 else -1
    case = body.at(sign * rng.uniform(80, 110), rng.uniform(0.15, 0.32))
    vein = body.at(sign * rng.uniform(35, 55), rng.uniform(0.06, 0.14))
    cava = body.at(-rng.uniform(12, 20), rng.uniform(0.24, 0.32))
    lines = [
        [
            case,
            vein,
            cava,
            body.at(-25, 0.68),
            body.at(rng.uniform(15, 55), rng.uniform(0.84, 0.96)),
        ]
    ]
    if rng.random() < 0.6:
        lines.append([case, vein, cava, body.at(-28, 0.62), body.at(-rng.uniform(5, 15), 0.56)])
    return Course(
        lines=[smooth_curve(line) for line in lines],
        side="left" if sign > 0 else "right",
        rounds=[(*case, rng.uniform(18, 25) * body.mm)],
    )


_COURSES = {
    "endotracheal tube": _tracheal,
    "central venous line": _venous,
    "nasogastric tube": _gastric,
    "leads": _leads,
    "pacemaker": _pacemaker,
}
