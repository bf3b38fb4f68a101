"""Changes of shape that a real chest undergoes: a smaller lobe, a larger heart, another view of it.

A warp moves the picture and all its masks alike, so the truth stays exact.
"""

from __future__ import annotations

import cv2
import numpy as np

from cxrg.chest.lung import extent
from cxrg.geometry import Mask
from cxrg.phantom.findings import Finding
from cxrg.phantom.noise import Array, grid, soft_step
from cxrg.phantom.sample import Phantom

Warped = tuple[Array, dict[str, Mask]]


def raise_base(image: Array, masks: dict[str, Mask], side: str, share: float) -> Warped:
    """Raise one hemidiaphragm by a share of its lung's height, as lost volume does."""
    box = extent(masks[f"{side} lung"])
    if box is None:
        return image, masks
    x0, y0, x1, y1 = (value / image.shape[0] for value in box)
    x, y = grid(image.shape[0])
    tall, wide = y1 - y0, x1 - x0
    down = np.clip((y - y0) / tall, 0, None)
    # Nothing moves at the apex, most at the base, less and less below it.
    along = np.where(down < 1, down**1.5, np.exp(-2 * (down - 1)))
    across = soft_step(x - x0 + 0.05 * wide, 0.2 * wide) * soft_step(x1 + 0.05 * wide - x, 0.2)
    return _moved(image, masks, 0 * along * across, share * tall * along * across)


def widen_heart(image: Array, masks: dict[str, Mask], factor: float) -> Warped:
    """Stretch the heart sideways about its middle by ``factor``; the chest wall stays."""
    heart, lungs = masks["heart and mediastinum"], masks["right lung"] | masks["left lung"]
    box, chest = extent(heart), extent(lungs)
    if box is None or chest is None:
        return image, masks
    side = image.shape[0]
    x, y = grid(side)
    middle = (chest[0] + chest[2]) / 2 / side
    half = (chest[2] - chest[0]) / 2 / side
    top, bottom = chest[1] / side, chest[3] / side
    rows = soft_step(y - top - 0.5 * (bottom - top), 0.25 * (bottom - top))
    rows = rows * soft_step(bottom + 0.1 - y, 0.15)
    shift = (x - middle) * np.exp(-((np.abs(x - middle) / (0.85 * half)) ** 4))
    return _moved(image, masks, -(1 - 1 / factor) * shift * rows, 0 * shift * rows)


def _moved(image: Array, masks: dict[str, Mask], dx: Array, dy: Array) -> Warped:
    """Each pixel becomes what lies ``(dx, dy)`` from it, in fractions of the side."""
    side = image.shape[0]
    column, row = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    map_x = (column + dx * side).astype(np.float32)
    map_y = (row + dy * side).astype(np.float32)

    def warp(layer: Array) -> Array:
        return np.asarray(
            cv2.remap(layer, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        )

    turned = {name: warp(mask.astype(np.float32)) > 0.5 for name, mask in masks.items()}
    return warp(image), turned


_OTHER = {"left": "right", "right": "left"}


def _swapped(name: str) -> str:
    """A region's name with its side word swapped."""
    side, _, rest = name.partition(" ")
    return f"{_OTHER[side]} {rest}" if side in _OTHER else name


def mirrored(phantom: Phantom) -> Phantom:
    """The picture seen in a mirror, with left and right swapped in all names.

    The part behind the heart has no name of its own there: the heart lies on the right.
    """
    named = {
        _swapped(name): np.ascontiguousarray(mask[:, ::-1])
        for name, mask in phantom.regions.items()
        if name != "retrocardiac"
    }
    found = tuple(
        Finding(
            kind=finding.kind,
            side=_OTHER.get(finding.side or "", finding.side),
            zone=finding.zone,
            size=finding.size,
            mask=np.ascontiguousarray(finding.mask[:, ::-1]),
        )
        for finding in phantom.findings
    )
    return Phantom(
        image=np.ascontiguousarray(phantom.image[:, ::-1]), regions=named, findings=found
    )


def cropped(phantom: Phantom, x: float, y: float, share: float) -> Phantom:
    """The square of ``share`` of the side whose corner lies at fractions ``(x, y)``, enlarged.

    Findings of which nothing is left are dropped.
    """
    side = phantom.image.shape[0]
    matrix = np.array([[share, 0, x * side], [0, share, y * side]])

    def cut(layer: Array) -> Array:
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return np.asarray(
            cv2.warpAffine(
                layer, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE
            )
        )

    def part(mask: Mask) -> Mask:
        return cut(mask.astype(np.float32)) > 0.5

    shown = [(finding, part(finding.mask)) for finding in phantom.findings]
    return Phantom(
        image=cut(phantom.image),
        regions={name: part(mask) for name, mask in phantom.regions.items()},
        findings=tuple(
            Finding(kind=f.kind, side=f.side, zone=f.zone, size=f.size, mask=mask)
            for f, mask in shown
            if mask.any()
        ),
    )
