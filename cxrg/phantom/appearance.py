"""What makes two pictures of one chest differ: position, exposure, processing, markers, borders."""

from __future__ import annotations

import cv2
import numpy as np

from cxrg.geometry import Mask
from cxrg.phantom.noise import Array, smooth_noise


def move(
    rng: np.random.Generator, image: Array, masks: dict[str, Mask]
) -> tuple[Array, dict[str, Mask]]:
    """Rotate, scale and shift an image and its masks together; 0 enters at the borders."""
    side = image.shape[0]
    angle = rng.normal(0, 2.5)
    zoom = float(np.exp(rng.normal(0.0, 0.09)))
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, zoom)
    stretch = float(np.exp(rng.normal(0, 0.05)))
    matrix[0] *= stretch
    matrix[0, 2] += (1 - stretch) * side / 2
    matrix[:, 2] += rng.normal(0, 0.03, 2) * side
    size = (side, side)
    edge = cv2.BORDER_CONSTANT if rng.random() < 0.12 else cv2.BORDER_REPLICATE
    moved = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=edge)
    turned = {
        name: cv2.warpAffine(m.astype(np.uint8), matrix, size, flags=cv2.INTER_NEAREST) > 0
        for name, m in masks.items()
    }
    return np.asarray(moved, np.float32), turned


def expose(rng: np.random.Generator, image: Array) -> Array:
    """Turn attenuation (or a real image's grey) into one of its possible displays, in [0, 1]."""
    side = image.shape[0]
    low, high = np.percentile(image, [rng.uniform(0.2, 4), rng.uniform(99, 100)])
    low, high = low * rng.uniform(0, 0.6), high * rng.uniform(0.98, 1.18)
    grey = np.clip((image - low) / max(high - low, 1e-4), 0, 1.15)
    if rng.random() < 0.6:
        slope, centre = rng.uniform(1.5, 4.0), rng.uniform(0.4, 0.6)
        ends = 1 / (1 + np.exp(-slope * (np.array([0.0, 1.0]) - centre)))
        curve = 1 / (1 + np.exp(-slope * (grey - centre)))
        grey = (curve - ends[0]) / (ends[1] - ends[0])
    grey = np.clip(grey, 0, 1) ** np.exp(rng.normal(-0.05, 0.2))
    if rng.random() < 0.3:
        grey = grey + rng.uniform(0.02, 0.08) * smooth_noise(rng, side, 2)
    if rng.random() < 0.25:
        clahe = cv2.createCLAHE(rng.uniform(1.0, 3.5), (4, 4))
        grey = clahe.apply((np.clip(grey, 0, 1) * 255).astype(np.uint8)).astype(np.float32) / 255
    if rng.random() < 0.3:
        soft = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), rng.uniform(0.01, 0.04) * side)
        grey = grey + rng.uniform(0.2, 0.9) * (grey - soft)  # edge enhancement of the vendor
    if rng.random() < 0.35:
        grey = cv2.GaussianBlur(
            grey.astype(np.float32), (0, 0), rng.uniform(0.2, 0.45) * side / 128
        )
    if rng.random() < 0.7:
        grey = grey + rng.uniform(0.002, 0.012) * rng.standard_normal(grey.shape)
    return np.asarray(np.clip(grey, 0, 1), np.float32)


def mark(rng: np.random.Generator, grey: Array) -> Array:
    """Collimation borders, letterbox bars, side markers and burnt-in words."""
    side = grey.shape[0]
    out = grey.copy()
    if rng.random() < 0.4:
        left, right = rng.uniform(0, 0.09, 2) * (rng.random(2) < 0.6) * side
        top, bottom = rng.uniform(0, 0.11, 2) * (rng.random(2) < 0.6) * side
        border = rng.choice([0.0, rng.uniform(0, 0.12)])
        out[:, : int(left)] = border
        out[:, side - int(right) :] = border
        out[: int(top)] = border
        out[side - int(bottom) :] = border
    for _ in range(int(rng.choice([0, 1, 2], p=[0.3, 0.5, 0.2]))):
        across = float(rng.choice([0.03, 0.82]))
        own = "R" if across < 0.5 else "L"  # the patient's right is the left side of the picture
        words = [own, own, f"{own} PA", "AP", "PORTABLE", "SUPINE", "ERECT", "12:40", "MOBILE"]
        word = str(rng.choice(words))
        at = (int(across * side), int(rng.choice([0.1, 0.08, 0.95]) * side))
        layer = np.zeros((4 * side, 4 * side), np.uint8)
        size = rng.uniform(0.08, 0.2) * side / 128
        big = (4 * at[0], 4 * at[1])
        cv2.putText(layer, word, big, cv2.FONT_HERSHEY_SIMPLEX, 4 * size, 255, 3, cv2.LINE_AA)
        small = cv2.resize(layer, (side, side), interpolation=cv2.INTER_AREA)
        letters = small.astype(np.float32) / 255
        shade = np.float32(rng.uniform(0.7, 1.0))
        out = np.asarray(out * (1 - letters) + letters * shade, np.float32)
    return out
