"""Lung nodules of real CTs, projected as an X-ray would and drawn into a chest.

A crop holds attenuation over lung, ``e = (HU - HU_lung) / 1000`` inside the nodule's outline, in
units of water. A ray through it collects ``sum(e) * voxel``: millimetres of water. Voxels are
turned by a random rotation (half of them mirrored), scaled, and each is shared among the four
nearest pixels, so the picture's sum is the crop's sum whatever the orientation. The crops are of
LIDC-IDRI (Armato et al., 2011) as outlined in LUNA16 and cut out for NODE21.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.chest.lung import extent
from cxrg.chest.names import SIDES
from cxrg.errors import InputError
from cxrg.geometry import Mask
from cxrg.phantom.findings import Chest, Finding, nearest_side, zone_of
from cxrg.phantom.noise import Array

_LUNGS_MM = 280.0
"""Both lungs together are about this wide in an adult."""
_AIR_MM = 110.0
"""Water that replaces the air of a lung: its grey is then that of soft tissue."""
_LARGEST_NODULE_MM = 30.0  # Fleischner Society: a mass is larger
_OUTLINE_MM = 0.6  # a ray that meets less of the nodule does not count as inside its outline


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Crop:
    """One nodule: ``excess`` float32 (z, y, x), attenuation over lung in units of water and 0
    outside of its outline; ``mask`` its outline; ``diameter`` in millimetres (voxels)."""

    excess: Array
    mask: Mask
    diameter: float


def read_crops(path: Path) -> tuple[Crop, ...]:
    """Read nodules cut out of CTs.

    Args:
        path: an archive with ragged arrays ``shape`` (N, 3), ``hu``, ``mask`` (packed bits) and
            ``diameter_mm`` (N,).

    Raises:
        InputError: the file cannot be read or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            shape = archive["shape"].astype(int)
            hu, packed, diameter = archive["hu"], archive["mask"], archive["diameter_mm"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not an archive of nodules ({error})") from error
    ends = np.cumsum(shape.prod(1))
    bits = np.unpackbits(packed)[: len(hu)].astype(bool)
    pieces = zip(np.split(hu, ends[:-1]), np.split(bits, ends[:-1]), shape, diameter, strict=True)
    return tuple(
        _crop(values.reshape(size), mask.reshape(size), float(mm))
        for values, mask, size, mm in pieces
    )


def _crop(hu: NDArray[np.int16], mask: Mask, diameter: float) -> Crop:
    outside = hu[~mask]
    lung = outside[outside < -600]
    level = float(np.median(lung)) if lung.size else -850.0
    excess = np.clip(hu - level, 0, 1500) / 1000 * mask
    return Crop(excess=excess.astype(np.float32), mask=mask, diameter=diameter)


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """A uniformly random orientation, mirrored in half of the cases (QR of a Gaussian matrix)."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    return np.asarray(q * np.sign(np.diag(r)))


def project(volume: Array, rotation: NDArray[np.float64], scale: float) -> Array:
    """Sum a volume along the last axis of its turned frame.

    Args:
        volume: ``(z, y, x)``.
        rotation: orthogonal ``(3, 3)``.
        scale: pixels per voxel.

    Returns:
        A square picture around the volume's centre, with the volume's sum as its sum.
    """
    reach = float(np.linalg.norm(volume.shape)) / 2 * scale
    size = 2 * int(np.ceil(reach + 2 * scale + 2)) + 1
    at = np.argwhere(volume > 0)
    values = volume[tuple(at.T)].astype(np.float64)
    turned = (at - (np.array(volume.shape) - 1) / 2) @ rotation.T
    u, v = turned[:, 0] * scale + size // 2, turned[:, 1] * scale + size // 2
    column, row = np.floor(u).astype(int), np.floor(v).astype(int)
    right, down = u - column, v - row
    flat = np.zeros(size * size)
    for dx, dy, share in (
        (0, 0, (1 - right) * (1 - down)),
        (1, 0, right * (1 - down)),
        (0, 1, (1 - right) * down),
        (1, 1, right * down),
    ):
        flat += np.bincount((row + dy) * size + column + dx, values * share, size * size)
    # Voxels larger than a pixel would leave gaps.
    sigma = 0.45 * max(scale, 0.5)
    picture = cv2.GaussianBlur(
        flat.reshape(size, size), (0, 0), sigma, borderType=cv2.BORDER_ISOLATED
    )
    return np.asarray(picture, np.float32)


def draw_nodule(
    rng: np.random.Generator, chest: Chest, crops: tuple[Crop, ...], kind: str, region: Mask
) -> tuple[Array, Finding | None]:
    """Project one nodule or mass to a random point of a region; its outline is the target."""
    points = np.argwhere(region)
    both = extent(chest.regions["lungs"])
    if not len(points) or both is None:
        return chest.image, None
    pixels_per_mm = (both[2] - both[0]) / _LUNGS_MM
    low, high = (5.0, _LARGEST_NODULE_MM) if kind == "nodule" else (_LARGEST_NODULE_MM, 85.0)
    wanted = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    crop = _pick(rng, crops, wanted)
    factor = wanted / crop.diameter
    scale, turn = pixels_per_mm * factor, random_rotation(rng)
    # Millimetres of water along the ray: each voxel's volume over a pixel's area.
    unit = factor * scale**2
    water = project(crop.excess, turn, scale) * np.float32(unit)
    inside = project(crop.mask.astype(np.float32), turn, scale) * np.float32(unit)
    row, column = points[int(rng.integers(len(points)))]
    shade = np.zeros_like(chest.image)
    cover = np.zeros_like(chest.image)
    _paste(shade, water, int(row), int(column))
    _paste(cover, inside, int(row), int(column))
    contrast = chest.contrast()
    grey = shade * np.float32(contrast / _AIR_MM * np.exp(rng.normal(0.35, 0.4)))
    peak = float(grey.max())
    if peak <= 0:
        return chest.image, None
    # The faintest that a reader would still see, and no denser than tissue.
    grey *= np.float32(np.clip(peak, rng.uniform(0.12, 0.25) * contrast, 0.9 * contrast) / peak)
    mask = cover > _OUTLINE_MM
    if mask.sum() < 3:
        return chest.image, None
    side = nearest_side(chest, int(column))
    found = Finding(
        kind=kind,
        side=side,
        zone=zone_of(mask, chest.regions[f"{side} lung"]),
        size=_size(kind, wanted),
        mask=mask,
    )
    return np.asarray(chest.image + grey, np.float32), found


def draw_nodules(
    rng: np.random.Generator, chest: Chest, crops: tuple[Crop, ...], kind: str
) -> tuple[Array, tuple[Finding, ...]]:
    """One to fifteen nodules (one or two masses), on one side or on both, each a finding."""
    several = rng.random()
    count = 1 if several < 0.6 else int(rng.integers(2, 6 if several < 0.88 else 16))
    count = min(count, 2) if kind == "mass" else count
    side = str(rng.choice(SIDES[::-1]))
    both = count > 2 and rng.random() < 0.7
    found: list[Finding] = []
    for _ in range(count):
        where = str(rng.choice(SIDES[::-1])) if both else side
        image, one = draw_nodule(rng, chest, crops, kind, _region(rng, chest, where))
        if one is not None:
            chest = Chest(image=image, regions=chest.regions)
            found.append(one)
    return chest.image, tuple(found)


def _region(rng: np.random.Generator, chest: Chest, side: str) -> Mask:
    """Where a nodule's middle may lie: mostly in the lung seen, now and then behind heart, hilum
    or diaphragm."""
    lung = chest.regions[f"{side} lung"]
    if rng.random() < 0.8:
        return lung
    reach = 2 * max(round(0.05 * chest.side), 1) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    around = cv2.dilate(lung.astype(np.uint8), kernel) > 0
    middle = chest.regions.get("heart and mediastinum", np.zeros_like(lung))
    below = np.cumsum(lung, axis=0) > 0
    hidden = around & ~chest.regions["lungs"] & (middle | below)
    return hidden if hidden.any() else lung


def _pick(rng: np.random.Generator, crops: tuple[Crop, ...], wanted: float) -> Crop:
    """A crop near the wanted size, so that it need not be blown up or shrunk much."""
    near = [crop for crop in crops if wanted / 2.5 <= crop.diameter <= wanted / 0.6]
    large = sorted(crops, key=lambda crop: crop.diameter)[-max(len(crops) // 8, 1) :]
    chosen = near or large
    return chosen[int(rng.integers(len(chosen)))]


def _paste(into: Array, patch: Array, row: int, column: int) -> None:
    """Add a patch with its middle at a pixel; what lies beyond the border is lost."""
    half = patch.shape[0] // 2
    top, left = row - half, column - half
    rows = slice(max(top, 0), min(top + patch.shape[0], into.shape[0]))
    columns = slice(max(left, 0), min(left + patch.shape[1], into.shape[1]))
    part = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    into[rows, columns] += part


def _size(kind: str, diameter: float) -> str:
    small, large = (10.0, 20.0) if kind == "nodule" else (40.0, 60.0)
    return "small" if diameter < small else "large" if diameter > large else "moderate"
