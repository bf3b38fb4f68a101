"""A contact sheet: each phantom as it is, and beside it with its findings outlined."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.phantom.findings import Finding
from cxrg.phantom.sample import Phantom

_TILE = 192
_CAPTION = 20
_ACROSS = 4
# Okabe and Ito's colours (blue, green, red), which colour-blind readers distinguish too.
_COLOURS = ((0, 159, 230), (233, 180, 86), (115, 158, 0), (66, 228, 240), (167, 121, 204))


def contact_sheet(shown: Sequence[tuple[Phantom, str]]) -> NDArray[np.uint8]:
    """A picture uint8 ``(H, W, 3)``, blue first, of phantoms with a caption each."""
    cells = [_cell(phantom, caption) for phantom, caption in shown]
    empty = np.zeros_like(cells[0])
    cells += [empty] * (-len(cells) % _ACROSS)
    lines = [np.hstack(cells[i : i + _ACROSS]) for i in range(0, len(cells), _ACROSS)]
    return np.vstack(lines)


def _cell(phantom: Phantom, caption: str) -> NDArray[np.uint8]:
    small = cv2.resize(phantom.image, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
    grey = np.repeat(np.round(small * 255).astype(np.uint8)[..., None], 3, axis=2)
    marked = grey.copy()
    for number, finding in enumerate(phantom.findings):
        _outline(marked, finding, _COLOURS[number % len(_COLOURS)])
    cell = np.vstack([np.hstack([grey, marked]), np.zeros((_CAPTION, 2 * _TILE, 3), np.uint8)])
    at = (4, _TILE + _CAPTION - 6)
    cv2.putText(cell, caption, at, (220, 220, 220), cv2.FontFace("sans"), 12)
    cell[:, -2:] = 60
    return cell


def _outline(picture: NDArray[np.uint8], finding: Finding, colour: tuple[int, int, int]) -> None:
    size = (_TILE, _TILE)
    mask = cv2.resize(finding.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    rings, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, rings, -1, colour, 1)
