"""One training picture over a real chest: lifelike findings and devices, or deliberately nothing.

Drawn and undrawn pictures go through the same steps with the same odds (movement, mirror, part of
the picture, low-pass, exposure, marks), so that sharpness, contrast or frame reveal nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cxrg.chest.lung import extent
from cxrg.chest.names import SIDES
from cxrg.chest.regions import regions
from cxrg.geometry import Mask
from cxrg.phantom import appearance, lifelike, nodules, warps
from cxrg.phantom.devices import DEVICES
from cxrg.phantom.findings import OPACITIES, Chest, Finding, draw_edema
from cxrg.phantom.lines import draw_line
from cxrg.phantom.noise import Array
from cxrg.phantom.sample import Phantom

_NODULES, _MASSES = 0.13, 0.06  # of all findings
_LARGE_HEART = 0.55  # cardiothoracic ratio from which on a heart is called enlarged


@dataclass(frozen=True, kw_only=True, slots=True)
class Odds:
    """How often a picture is left without findings, mirrored, cut, and has devices."""

    blank: float = 0.3
    mirrored: float = 0.35
    cut: float = 0.2
    devices: float = 0.3
    large_heart: float = 0.07


def compose(
    rng: np.random.Generator,
    image: Array,
    masks: dict[str, Mask],
    crops: tuple[nodules.Crop, ...],
    odds: Odds,
) -> Phantom:
    """Draw random findings and devices into a real chest and take its picture.

    Args:
        image: float32 ``(side, side)``, display grey.
        masks: at least ``right lung``, ``left lung`` and ``heart and mediastinum``.
        crops: nodules to project.
    """
    blank = bool(rng.random() < odds.blank)
    enlarge = not blank and bool(rng.random() < odds.large_heart)
    if enlarge:
        image, masks = warps.widen_heart(image, masks, float(rng.uniform(1.15, 1.6)))
    lost = None
    if not blank and rng.random() < 0.05:
        lost = str(rng.choice(SIDES[::-1]))
        image, masks = warps.raise_base(image, masks, lost, float(rng.uniform(0.04, 0.16)))
    image, masks = appearance.move(rng, image, masks)
    chest = Chest(image=image, regions=regions(masks))
    found: list[Finding] = []
    if enlarge:
        found.extend(large_heart(chest))
    if rng.random() < odds.devices:
        kinds = rng.choice(
            DEVICES, size=int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2])), replace=False
        )
        for kind in kinds:
            chest = _with(chest, found, *_one(draw_line(rng, chest, str(kind))))
    if lost is not None:
        chest = _with(
            chest, found, *_one(lifelike.draw_atelectasis(rng, chest, lost, "atelectasis"))
        )
    if not blank:
        chest = _findings(rng, chest, crops, found)
    phantom = Phantom(image=chest.image, regions=chest.regions, findings=tuple(found))
    if rng.random() < odds.mirrored:
        phantom = warps.mirrored(phantom)
    if rng.random() < odds.cut:
        phantom = _cut(rng, phantom)
    soft = low_pass(phantom.image, float(rng.choice([rng.uniform(0.6, 0.9), 0.875, 1.0])))
    grey = appearance.mark(rng, appearance.expose(rng, soft))
    return Phantom(image=grey, regions=phantom.regions, findings=phantom.findings)


def low_pass(image: Array, share: float) -> Array:
    """A picture shrunk to a share of its side and enlarged again."""
    side = image.shape[0]
    size = round(side * share)
    if size >= side:
        return image
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def heart_ratio(masks: dict[str, Mask]) -> float:
    """Cardiothoracic ratio: width of the heart over that of both lungs, 0 where there is none."""
    lungs = extent(masks["lungs"])
    heart = _heart(masks)
    box = extent(heart)
    if lungs is None or box is None:
        return 0.0
    return (box[2] - box[0]) / (lungs[2] - lungs[0])


def _heart(masks: dict[str, Mask]) -> Mask:
    """The lower part of the cardiomediastinal silhouette."""
    middle = masks.get("heart and mediastinum", np.zeros_like(masks["lungs"]))
    box = extent(masks["lungs"])
    if box is None:
        return np.zeros_like(middle)
    rows = (np.arange(middle.shape[0])[:, None] - box[1]) / (box[3] - box[1])
    return middle & (rows > 0.45) & (rows < 1)


def large_heart(chest: Chest) -> tuple[Finding, ...]:
    """Cardiomegaly where the ratio is above normal; the finding is the heart."""
    if heart_ratio(chest.regions) < _LARGE_HEART:
        return ()
    mask = _heart(chest.regions)
    return (Finding(kind="cardiomegaly", side=None, zone=None, size="large", mask=mask),)


def _one(drawn: tuple[Array, Finding | None]) -> tuple[Array, tuple[Finding, ...]]:
    image, finding = drawn
    return image, () if finding is None else (finding,)


def _with(chest: Chest, into: list[Finding], image: Array, found: tuple[Finding, ...]) -> Chest:
    """The chest with what was just drawn; findings are collected."""
    into.extend(found)
    return Chest(image=image, regions=chest.regions) if found else chest


def _findings(
    rng: np.random.Generator, chest: Chest, crops: tuple[nodules.Crop, ...], into: list[Finding]
) -> Chest:
    """One to four findings, opacities often on both sides and unevenly, sometimes edema."""
    if rng.random() < 0.05:
        chest = _with(chest, into, *draw_edema(rng, chest))
    names = [*lifelike.ONE_SIDED, "nodule", "mass"]
    weights = np.array([w for _, w in lifelike.ONE_SIDED.values()])
    share = 1 - _NODULES - _MASSES
    weights = np.array([*(weights / weights.sum() * share), _NODULES, _MASSES])
    for _ in range(int(rng.choice([1, 2, 3, 4], p=[0.5, 0.28, 0.15, 0.07]))):
        kind = str(rng.choice(names, p=weights / weights.sum()))
        if kind in ("nodule", "mass"):
            if crops:
                chest = _with(chest, into, *nodules.draw_nodules(rng, chest, crops, kind))
            continue
        both = rng.random() < (0.45 if kind in OPACITIES else 0.2)
        order = SIDES[::-1]
        for side in order if both else (order[int(rng.integers(2))],):
            drawn = lifelike.ONE_SIDED[kind][0](rng, chest, side, kind)
            chest = _with(chest, into, *_one(drawn))
    return chest


def _cut(rng: np.random.Generator, phantom: Phantom) -> Phantom:
    """A part of the picture, half of the time around a finding."""
    share = float(rng.uniform(0.6, 0.95))
    x, y = rng.uniform(0.3, 0.7, 2)
    if phantom.findings and rng.random() < 0.5:
        mask = phantom.findings[int(rng.integers(len(phantom.findings)))].mask
        rows, columns = np.nonzero(mask)
        x, y = columns.mean() / mask.shape[1], rows.mean() / mask.shape[0]
        x, y = (x, y) + rng.uniform(-0.25, 0.25, 2) * share
    low, high = 0.0, 1 - share
    return warps.cropped(
        phantom,
        float(np.clip(x - share / 2, low, high)),
        float(np.clip(y - share / 2, low, high)),
        share,
    )
