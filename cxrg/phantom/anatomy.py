"""A healthy frontal chest, rendered by attenuation.

The brightness of a chest X-ray shown as usual grows with the attenuation along the ray,
``P(x, y) = sum_i mu_i t_i(x, y)``. So the chest is a sum of path lengths: a body of elliptical
section, lungs that replace tissue by air, heart and great vessels that replace air by blood, and
bones on top. Coordinates are fractions of the picture, x to the right, y downwards; the patient's
right is the left side of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.geometry import Mask
from cxrg.phantom.noise import Array, fractal_noise, grid, smooth_noise, soft_step

_SHIFT = 4  # sub-pixel bits of OpenCV's drawing functions


@dataclass(frozen=True, kw_only=True, slots=True)
class Habitus:
    """Proportions of one chest, as fractions of the picture's side."""

    middle: float
    apex: float
    base_right: float
    base_left: float
    half_width: float
    mediastinum: float
    heart_width: float
    heart_shift: float
    heart_top: float
    dome: float
    shoulder: float
    neck: float
    tissue: float
    air: float
    bone: float
    female: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Anatomy:
    """A rendered chest.

    ``image`` is float32 ``(side, side)``, attenuation with about 0 for air and 1 for the middle
    of the mediastinum. ``masks`` are boolean, by name: right lung, left lung, heart,
    heart and mediastinum, airways, spine, right clavicle, left clavicle.
    """

    image: Array
    masks: dict[str, Mask]


def random_habitus(rng: np.random.Generator, *, cardiomegaly: bool = False) -> Habitus:
    """Draw the proportions of an adult between slim and obese, deep and poor inspiration."""
    half_width = rng.uniform(0.36, 0.48)
    base_right = rng.uniform(0.62, 0.86)
    ratio = rng.uniform(0.56, 0.74) if cardiomegaly else rng.uniform(0.36, 0.5)
    return Habitus(
        middle=0.5 + rng.normal(0, 0.02),
        apex=rng.uniform(0.04, 0.17),
        base_right=base_right,
        base_left=base_right + rng.uniform(-0.01, 0.045),
        half_width=half_width,
        mediastinum=rng.uniform(0.038, 0.062),
        heart_width=ratio * half_width * 2,
        heart_shift=rng.uniform(0.1, 0.24),
        heart_top=rng.uniform(0.42, 0.52),
        dome=rng.uniform(0.04, 0.12),
        shoulder=rng.uniform(0.12, 0.24),
        neck=rng.uniform(0.07, 0.12),
        tissue=rng.uniform(0.5, 0.75),
        air=rng.uniform(0.45, 0.68),
        bone=rng.uniform(0.5, 1.2),
        female=bool(rng.random() < 0.45),
    )


def build(rng: np.random.Generator, side: int, *, cardiomegaly: bool = False) -> Anatomy:
    """Render one chest of ``side`` pixels."""
    habitus = random_habitus(rng, cardiomegaly=cardiomegaly)
    lungs = [_lung(rng, habitus, side, sign) for sign in (-1, 1)]
    silhouette, heart = _silhouette(rng, habitus, side)
    airways = _airways(rng, habitus, side)
    spine = _spine(rng, habitus, side)
    fields = [np.clip(lung - 0.92 * silhouette, 0, 1) for lung in lungs]
    body = _body(rng, habitus, side)
    image = body.copy()
    y = grid(side)[1]
    both = lungs[0] + lungs[1]
    under = np.clip(soft_step(y - habitus.base_right + habitus.dome, 0.1) - both, 0, 1)
    # The silhouette is as thick as it is deep: dense in the middle, thin at its border.
    deep = cv2.GaussianBlur(silhouette, (0, 0), 0.03 * side) * silhouette
    bulk = (0.35 * silhouette + 0.65 * deep) * rng.uniform(0.08, 0.18)
    belly = rng.uniform(0.12, 0.22) * under * (0.8 + 0.6 * soft_step(y - 0.85, 0.3))
    image += np.maximum(belly, bulk)
    image -= _gastric_bubble(rng, habitus, side) * under
    haze = 1 + 0.07 * smooth_noise(rng, side, 4)
    air = sum(_rounded(field, side) for field in fields) * habitus.air * haze
    # Tissue in front of and behind the lungs stays: breasts and muscles make the bases brighter.
    image -= air * np.minimum(body, 0.9) * (1.05 - 0.25 * y)
    inside = np.clip(fields[0] + fields[1], 0, 1)
    image += _vessels(rng, habitus, side) * inside
    image += rng.uniform(0.008, 0.022) * fractal_noise(rng, side, 28, 3) * inside
    image += spine * rng.uniform(0.02, 0.09)
    image -= rng.uniform(0.04, 0.11) * airways
    clavicles = [_clavicle(rng, habitus, side, sign) for sign in (-1, 1)]
    bones = _ribs(rng, habitus, side) + _shoulders(rng, habitus, side)
    shown = 1 - 0.75 * under - 0.55 * silhouette * (1 - under)
    image += habitus.bone * (0.11 * bones * shown + 0.09 * (clavicles[0] + clavicles[1]))
    if habitus.female:
        image += _breasts(rng, habitus, side)
    image += 0.012 * fractal_noise(rng, side, 24, 2) * (image > 0.1)
    masks = {
        "right lung": fields[0] > 0.5,
        "left lung": fields[1] > 0.5,
        "heart": heart > 0.5,
        "heart and mediastinum": silhouette > 0.5,
        "airways": airways > 0.4,
        "spine": spine > 0.4,
        "right clavicle": clavicles[0] > 0.4,
        "left clavicle": clavicles[1] > 0.4,
    }
    return Anatomy(image=np.maximum(image, 0).astype(np.float32), masks=masks)


def _polygon(points: NDArray[np.float64], side: int) -> Array:
    """Anti-aliased filled polygon from ``(n, 2)`` fractional coordinates."""
    layer = np.zeros((side, side), np.uint8)
    scaled = np.round(points * side * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(layer, [scaled], 255, lineType=cv2.LINE_AA, shift=_SHIFT)
    return np.asarray(layer / 255.0, np.float32)


def _line(layer: NDArray[np.uint8], points: NDArray[np.float64], width: float, level: int) -> None:
    """Draw an anti-aliased polyline of fractional coordinates and width into ``layer``."""
    side = layer.shape[0]
    scaled = np.round(points * side * 2**_SHIFT).astype(np.int32)
    thick = max(round(width * side), 1)
    cv2.polylines(layer, [scaled], False, level, thick, cv2.LINE_AA, _SHIFT)


def _blur(layer: NDArray[np.uint8] | Array, sigma: float) -> Array:
    """Gaussian blur with ``sigma`` a fraction of the side; 8-bit layers become 0..1."""
    side = layer.shape[0]
    scale = 255.0 if layer.dtype == np.uint8 else 1.0
    floats = layer.astype(np.float32) / scale
    return np.asarray(cv2.GaussianBlur(floats, (0, 0), max(sigma * side, 0.3)), np.float32)


def _body(rng: np.random.Generator, h: Habitus, side: int) -> Array:
    """Soft-tissue path of trunk, neck, shoulders and arms."""
    x, y = grid(side)
    out = np.abs(x - h.middle)
    flank = h.half_width * rng.uniform(1.1, 1.35) * (1 + rng.uniform(-0.06, 0.1) * (y - 0.5))
    across = np.clip(1 - (out / flank) ** 4, 0, 1) ** 0.4
    top = h.apex - rng.uniform(0.02, 0.08)
    # The trapezius falls from the neck to the shoulder; above it is air.
    shoulder = rng.uniform(0.5, 0.62)
    fall = np.clip((out - h.neck) / (shoulder - h.neck), 0, 1)
    skin = top - 0.09 + (rng.uniform(0.06, 0.14) + 0.06) * fall**1.3
    above = soft_step(y - skin, 0.05)
    neck = np.clip(1 - (out / h.neck) ** 4, 0, 1) ** 0.5 * rng.uniform(0.6, 0.85)
    low = soft_step(0.36 + rng.uniform(-0.08, 0.08) - y, 0.14)  # shoulders end at the armpit
    girdle = np.clip(1 - (out / shoulder) ** 6, 0, 1) ** 0.5 * rng.uniform(0.55, 0.8) * low
    trunk = np.maximum(across * soft_step(y - top - 0.02, 0.2), girdle) * above
    trunk = np.maximum(trunk, neck * soft_step(top + 0.15 - y, 0.15))
    centre = flank + rng.uniform(0.05, 0.14)
    thick = rng.uniform(0.07, 0.12)
    limb = np.sqrt(np.clip(1 - ((out - centre) / thick) ** 2, 0, 1))
    arms = rng.uniform(0.4, 0.7) * limb * soft_step(y - top - 0.12, 0.1) * (rng.random() < 0.7)
    level = (h.tissue + 0.2) * (1 + 0.05 * smooth_noise(rng, side, 3))
    return np.asarray(np.maximum(trunk, arms) * level, np.float32)


def _lung(rng: np.random.Generator, h: Habitus, side: int, sign: int) -> Array:
    """Outline of one lung, mediastinal border included; ``sign`` -1 is the patient's right."""
    base = h.base_right if sign < 0 else h.base_left
    width = h.half_width * (1 + rng.normal(0, 0.03))
    t = np.linspace(0, 1, 14)
    drop = base + rng.uniform(0.03, 0.07)  # the costophrenic angle lies below the dome
    lateral_y = h.apex + (drop - h.apex) * t
    lateral_x = width * (0.3 + 0.7 * t**0.34) * (1 - 0.04 * np.clip(t - 0.75, 0, 1) / 0.25)
    lateral_x *= 1 + 0.012 * rng.standard_normal(14)
    s = np.linspace(0, 1, 10)[1:-1]
    inner = h.mediastinum * rng.uniform(0.45, 0.75)
    floor_x = width * 0.96 * (1 - s) + inner * s
    floor_y = drop - (h.dome + drop - base) * np.sin(np.pi * np.clip(s * 0.72 + 0.02, 0, 1)) ** 0.8
    medial_y = np.linspace(floor_y[-1], h.apex + 0.03, 6)
    medial_x = np.full(6, inner) * (1 + 0.1 * rng.standard_normal(6))
    top_x = np.array([h.mediastinum * 1.2, width * 0.2])
    top_y = np.array([h.apex + 0.004, h.apex - 0.012])
    xs = np.concatenate([lateral_x, floor_x, medial_x, top_x])
    ys = np.concatenate([lateral_y, floor_y, medial_y, top_y])
    return _blur(_polygon(np.stack([h.middle + sign * xs, ys], 1), side), 0.006)


def _outline(points: list[tuple[float, float]], side: int) -> Array:
    """Filled smooth curve (closed Catmull-Rom) through fractional points."""
    p = np.array(points)
    a, b, c, d = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
    curve = (-a + 3 * b - 3 * c + d) * t**3 + (2 * a - 5 * b + 4 * c - d) * t**2 + (c - a) * t
    return _polygon((0.5 * curve + b).transpose(1, 0, 2).reshape(-1, 2), side)


def _silhouette(rng: np.random.Generator, h: Habitus, side: int) -> tuple[Array, Array]:
    """Cardiomediastinal silhouette and the heart in it, both soft masks in [0, 1].

    The outline runs down the left border (aortic knob, pulmonary trunk, left ventricle, apex) and
    up the right one (atrium, superior vena cava).
    """
    floor = h.base_right - h.dome * 0.1
    tall = floor - h.apex
    m, wide = h.mediastinum, h.heart_width
    share = 0.5 + h.heart_shift * rng.uniform(0.8, 1.3)  # of its width that lies to the left
    left, right = wide * share, wide * (1 - share)

    def at(x: float, down: float) -> tuple[float, float]:
        return h.middle + x + rng.normal(0, 0.004), h.apex + down * tall + rng.normal(0, 0.006)

    knob, waist = m * rng.uniform(1.1, 1.7), m * rng.uniform(0.95, 1.25)
    trunk = m * rng.uniform(1.15, 1.6)
    upper = [at(-m * 0.75, -0.15), at(m * 0.75, -0.15), at(m * 0.8, 0.12)]
    aorta = [at(knob, 0.27), at(knob * 0.93, 0.34), at(waist, 0.41), at(trunk, 0.49)]
    ventricle = [at(left * 0.62, 0.62), at(left * 0.9, 0.78), at(left, 0.92), at(left * 0.86, 1.06)]
    bottom = [at(left * 0.3, 1.1), at(-right * 0.7, 1.06)]
    atrium = [at(-right * 0.98, 0.88), at(-right, 0.76), at(-right * 0.8, 0.63)]
    cava = [at(-m * 1.0, 0.5), at(-m * 0.95, 0.3), at(-m * 0.85, 0.1)]
    whole = _outline(upper + aorta + ventricle + bottom + atrium + cava, side)
    heart = _outline([at(trunk * 0.8, 0.5), *ventricle, *bottom, *atrium, at(-m * 0.8, 0.52)], side)
    soft = rng.uniform(0.004, 0.009)
    return _blur(whole, soft), _blur(heart, soft)


def _airways(rng: np.random.Generator, h: Habitus, side: int) -> Array:
    layer = np.zeros((side, side), np.uint8)
    carina = h.heart_top - rng.uniform(0.03, 0.09)
    top = h.middle + rng.normal(0, 0.006)
    end = h.middle + rng.uniform(-0.012, 0.004)
    width = rng.uniform(0.026, 0.038)
    _line(layer, np.array([[top, -0.05], [end, carina]]), width, 255)
    for sign, steep in ((-1, 0.09), (1, 0.06)):
        reach = rng.uniform(0.06, 0.1)
        tip = [end + sign * reach, carina + steep + rng.uniform(-0.01, 0.02)]
        _line(layer, np.array([[end, carina], tip]), width * 0.62, 255)
    return _blur(layer, 0.007)


def _spine(rng: np.random.Generator, h: Habitus, side: int) -> Array:
    x, y = grid(side)
    half = rng.uniform(0.03, 0.045)
    bend = h.middle + rng.normal(0, 0.008) * np.sin(3 * y)
    column = soft_step(np.asarray(half - np.abs(x - bend), np.float32), 0.015)
    pitch = rng.uniform(0.045, 0.06)
    discs = 0.82 + 0.18 * np.cos(2 * np.pi * (y / pitch + rng.random()))
    return np.asarray(column * discs, np.float32)


def _ribs(rng: np.random.Generator, h: Habitus, side: int) -> Array:
    """Posterior ribs falling outwards and fainter anterior ribs falling inwards."""
    outer = np.zeros((side, side), np.uint8)
    inner = np.zeros((side, side), np.uint8)
    front = np.zeros((side, side), np.uint8)
    pitch = rng.uniform(0.062, 0.08)
    slope = rng.uniform(0.1, 0.2)
    s = np.linspace(0, 1, 16)
    for sign in (-1, 1):
        start = h.apex + rng.uniform(-0.02, 0.02)
        for i in range(10):
            reach = h.half_width * min(0.5 + 0.17 * i, 1.06)
            xs = h.middle + sign * (0.035 + (reach - 0.035) * np.sin(s * np.pi / 2))
            ys = start + i * pitch - 0.035 * np.sin(np.pi * s**0.8) + slope * s**2 * (0.5 + i / 8)
            width = rng.uniform(0.026, 0.036)
            _line(outer, np.stack([xs, ys], 1), width, 255)
            _line(inner, np.stack([xs, ys], 1), width * 0.7, 255)
            if 1 <= i <= 7:
                fx = h.middle + sign * reach * (1 - 0.62 * s)
                fy = ys[-1] + 0.02 + (0.07 + 0.02 * i) * s**1.3
                _line(front, np.stack([fx, fy], 1), 0.034, 255)
    cortex = _blur(outer, 0.0025) - 0.45 * _blur(inner, 0.0025)
    return np.asarray(cortex + 0.5 * _blur(front, 0.005), np.float32)


def _clavicle(rng: np.random.Generator, h: Habitus, side: int, sign: int) -> Array:
    layer = np.zeros((side, side), np.uint8)
    s = np.linspace(0, 1, 10)
    rise = rng.uniform(-0.02, 0.08)
    xs = h.middle + sign * (0.045 + (h.half_width * 1.02) * s)
    ys = h.apex + rng.uniform(0.03, 0.075) - rise * s + 0.015 * np.sin(2 * np.pi * s)
    _line(layer, np.stack([xs, ys], 1), rng.uniform(0.024, 0.034), 255)
    return _blur(layer, 0.005)


def _shoulders(rng: np.random.Generator, h: Habitus, side: int) -> Array:
    """Scapulae and humeral heads, blurred: they lie off the focal plane or outside the lungs."""
    layer = np.zeros((side, side), np.float32)
    for sign in (-1, 1):
        out = h.half_width * rng.uniform(0.85, 1.15)
        top = h.apex + rng.uniform(0.0, 0.06)
        tri = [
            [out * 0.8, top + 0.02],
            [out * 1.25, top],
            [out * 1.0, top + rng.uniform(0.24, 0.36)],
        ]
        points = np.array([[h.middle + sign * px, py] for px, py in tri])
        layer += 0.7 * _polygon(points, side)
        head = np.zeros((side, side), np.uint8)
        centre = (round((h.middle + sign * out * 1.3) * side), round((top + 0.04) * side))
        cv2.circle(head, centre, round(0.055 * side), 255, -1, cv2.LINE_AA)
        layer += head.astype(np.float32) / 255
    return _blur(layer, 0.012)


def _vessels(rng: np.random.Generator, h: Habitus, side: int) -> Array:
    """Hila and pulmonary vessels: branching lines that thin out towards the chest wall."""
    layer = np.zeros((side, side), np.uint8)
    hilum_y = h.heart_top + 0.01
    for sign in (-1, 1):
        root = np.array([h.middle + sign * h.mediastinum * 1.35, hilum_y - 0.015 * (sign > 0)])
        for _ in range(20):
            angle = rng.uniform(-1.25, 1.35)
            point, width, level = root + rng.normal(0, 0.016, 2), 0.010, rng.integers(60, 220)
            points = [point]
            for _ in range(7):
                angle += rng.normal(0, 0.22)
                step = rng.uniform(0.022, 0.045)
                point = point + step * np.array([sign * np.cos(angle), np.sin(angle)])
                points.append(point)
                if rng.random() < 0.45:
                    side_angle = angle + rng.choice([-0.7, 0.7])
                    tip = point + 0.07 * np.array([sign * np.cos(side_angle), np.sin(side_angle)])
                    _line(layer, np.array([point, tip]), width * 0.4, int(level * 0.6))
            path = np.array(points)
            for k in range(len(path) - 1):
                _line(layer, path[k : k + 2], width * (1 - k / 8), int(level * (1 - k / 10)))
    x, y = grid(side)
    blobs = np.zeros((side, side), np.float32)
    for sign in (-1, 1):
        cx = h.middle + sign * h.mediastinum * 1.35
        spread = ((x - cx) / 0.04) ** 2 + ((y - hilum_y) / 0.055) ** 2
        blobs = blobs + np.exp(-spread).astype(np.float32)
    return rng.uniform(0.1, 0.26) * _blur(layer, 0.002) + rng.uniform(0.03, 0.1) * blobs


def _breasts(rng: np.random.Generator, h: Habitus, side: int) -> Array:
    x, y = grid(side)
    total = np.zeros((side, side), np.float32)
    size = rng.uniform(0.1, 0.2)
    low = h.base_right - rng.uniform(-0.05, 0.1)
    for sign in (-1, 1):
        cx = h.middle + sign * h.half_width * rng.uniform(0.55, 0.75)
        r2 = ((x - cx) / size) ** 2 + ((y - low + size * 0.8) / (size * 1.1)) ** 2
        total += np.sqrt(np.clip(1 - r2, 0, 1))
    return np.asarray(rng.uniform(0.06, 0.22) * total, np.float32)


def _gastric_bubble(rng: np.random.Generator, h: Habitus, side: int) -> Array:
    """Gas in the stomach, sometimes, and in the colon: irregular and only a little darker."""
    x, y = grid(side)
    total = np.zeros((side, side), np.float32)
    for _ in range(int(rng.choice([0, 1, 2, 4], p=[0.4, 0.3, 0.2, 0.1]))):
        cx = h.middle + h.half_width * rng.uniform(0.25, 0.8)
        cy = h.base_left + rng.uniform(0.0, 0.16)
        wide, tall = rng.uniform(0.03, 0.1), rng.uniform(0.02, 0.05)
        r2 = ((x - cx) / wide) ** 2 + ((y - cy) / tall) ** 2 + 0.3 * smooth_noise(rng, side, 12)
        total = np.maximum(total, rng.uniform(0.04, 0.16) * soft_step(1 - r2, 0.7))
    return np.asarray(total, np.float32)


def _rounded(field: Array, side: int) -> Array:
    """Air path of a lung: zero at its border, rising to 1 over about a tenth of the picture."""
    inside = (field > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3) / side
    return np.asarray((0.55 + 0.45 * (1 - np.exp(-depth / 0.035))) * field, np.float32)
