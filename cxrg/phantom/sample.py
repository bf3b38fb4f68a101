"""One synthetic X-ray from one number: anatomy, then findings, then how it was taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxrg.chest.names import SIDES
from cxrg.chest.regions import regions
from cxrg.geometry import Mask
from cxrg.phantom import anatomy, appearance
from cxrg.phantom.devices import DEVICES, draw_device
from cxrg.phantom.findings import ONE_SIDED, OPACITIES, Chest, Finding, draw_edema
from cxrg.phantom.noise import Array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Phantom:
    """A chest X-ray with exact truth.

    ``image`` is float32 ``(side, side)`` in [0, 1]; ``regions`` maps names (see
    :mod:`cxrg.chest.regions`) to boolean masks; ``findings`` holds findings and devices.
    """

    image: Array
    regions: dict[str, Mask]
    findings: tuple[Finding, ...]


def render(seed: int, *, side: int = 128) -> Phantom:
    """Render the phantom of this seed, ``side`` pixels square; the same seed gives the same."""
    rng = np.random.default_rng([seed, 1])
    enlarged = bool(rng.random() < 0.12)
    chest = anatomy.build(rng, side, cardiomegaly=enlarged)
    phantom = onto(rng, chest.image, chest.masks)
    if not enlarged:
        return phantom
    heart = phantom.regions["heart"]
    big = Finding(kind="cardiomegaly", side=None, zone=None, size="large", mask=heart)
    found = (*phantom.findings, big)
    return Phantom(image=phantom.image, regions=phantom.regions, findings=found)


def onto(rng: np.random.Generator, image: Array, masks: dict[str, Mask]) -> Phantom:
    """Draw random findings and devices into a chest, rendered or real, and take its picture.

    Args:
        image: float32 ``(side, side)``, attenuation or display grey.
        masks: at least ``right lung``, ``left lung`` and ``heart and mediastinum``.
    """
    image, masks = appearance.move(rng, image, masks)
    named = regions(masks)
    chest = Chest(image=image, regions=named)
    findings: list[Finding] = []
    if rng.random() < 0.3:
        kinds = rng.choice(DEVICES, size=int(rng.integers(1, 4)), replace=False)
        chest = _devices(rng, chest, [str(k) for k in kinds], findings)
    chest = _findings(rng, chest, findings)
    grey = appearance.mark(rng, appearance.expose(rng, chest.image))
    return Phantom(image=grey, regions=named, findings=tuple(findings))


def _devices(
    rng: np.random.Generator, chest: Chest, kinds: list[str], into: list[Finding]
) -> Chest:
    for kind in kinds:
        image, found = draw_device(rng, chest, kind)
        if found is not None:
            chest = Chest(image=image, regions=chest.regions)
            into.append(found)
    return chest


def _findings(rng: np.random.Generator, chest: Chest, into: list[Finding]) -> Chest:
    """Zero to three findings, opacities often on both sides, sometimes edema."""
    if rng.random() < 0.05:
        image, edema = draw_edema(rng, chest)
        into.extend(edema)
        chest = Chest(image=image, regions=chest.regions)
    names, weights = list(ONE_SIDED), [w for _, w in ONE_SIDED.values()]
    wanted = int(rng.choice([0, 1, 2, 3], p=[0.2, 0.4, 0.27, 0.13]))
    for _ in range(wanted):
        kind = str(rng.choice(names, p=weights))
        both = rng.random() < (0.45 if kind in OPACITIES else 0.2) and kind != "mass"
        # Seeds of published phantoms draw the right side first.
        order = SIDES[::-1]
        sides = order if both else (order[int(rng.integers(2))],)
        draw = ONE_SIDED[kind][0]
        for side in sides:
            image, found = draw(rng, chest, side, kind)
            if found is not None:
                chest = Chest(image=image, regions=chest.regions)
                into.append(found)
    return chest
