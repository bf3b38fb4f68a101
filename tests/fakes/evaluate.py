"""A method that knows where things are, or doesn't, without any network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy import Structures
from cxrg.geometry import Box
from cxrg.heatmap.boxes import boxes_from_heatmap
from cxrg.image.read import CxrImage, read_image

Heat = NDArray[np.float32]
SIZE = 64
PLACES = {"left": Box(40, 20, 56, 40), "right": Box(8, 20, 24, 40)}


@dataclass(frozen=True)
class Answer:
    heatmap: Heat
    boxes: tuple[Box, ...]
    status: str
    score: float
    presence: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def attention(self) -> Heat:
        """Spread twice as far as the heatmap."""
        return np.sqrt(self.heatmap)


def blob(box: Box | None, size: int = SIZE) -> Heat:
    """A Gaussian on a box; in the middle of the top without one."""
    middle = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2) if box else (size / 2, 4.0)
    y, x = np.mgrid[:size, :size] + 0.5
    distance = (x - middle[0]) ** 2 + (y - middle[1]) ** 2
    return np.exp(-distance / (2 * 5.0**2)).astype(np.float32)


def listens(phrase: str) -> Heat:
    """A heatmap on the side that the phrase names."""
    return blob(next((box for side, box in PLACES.items() if side in phrase.lower()), None))


def deaf(phrase: str) -> Heat:
    """The same heatmap for every phrase."""
    return blob(PLACES["left"])


@dataclass
class Fake:
    """A method; ``calls`` are the phrases of each call."""

    heat: Callable[[str], Heat] = listens
    name: str = "fake"
    blank_columns: int = 0
    bare: bool = True
    calls: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Any]:
        return {"model": self.name, "identity": "0", "options": {"window": (1, 2)}}

    def read(self, image: Path | CxrImage) -> CxrImage:
        return read_image(image, side=SIZE) if isinstance(image, Path) else image

    def ground(self, image: CxrImage, phrases: Sequence[str]) -> list[Answer]:
        self.calls.append(tuple(phrases))
        return [self._answer(phrase) for phrase in phrases]

    def _answer(self, phrase: str) -> Answer:
        heat = self.heat(phrase).copy()
        heat[:, : self.blank_columns] = np.nan
        there = "no " not in phrase
        boxes = self.boxes(heat) if there else ()
        score = 0.9 if there else 0.1
        return Answer(heat, boxes, "found" if there else "not found", score)

    def ground_with_control(
        self, image: CxrImage, phrases: Sequence[str]
    ) -> tuple[list[Answer], Heat | None]:
        return self.ground(image, phrases), blob(None) if self.bare else None

    def boxes(self, heatmap: Heat) -> tuple[Box, ...]:
        return boxes_from_heatmap(np.nan_to_num(heatmap))


def chest(image: CxrImage) -> Structures:
    """Two lungs as rectangles in an image of 64 pixels; the patient's left is on the right."""
    right, left = np.zeros((2, *image.grey.shape), bool)
    right[8:56, 4:28] = True
    left[8:56, 36:60] = True
    return {"right lung": right, "left lung": left}


def manifest(folder: Path, patients: int = 6, *, phrase: str = "{} nodule") -> Path:
    """Patients with a left and a right nodule and one that isn't there, as a manifest."""
    rows = ["image,phrase,category,boxes,patient"]
    for i in range(patients):
        noise = np.random.default_rng(i).integers(20, 200, (SIZE, SIZE), dtype=np.uint8)
        cv2.imwrite(str(folder / f"i{i}.png"), noise)
        for side, box in PLACES.items():
            corners = json.dumps([[box.x0, box.y0, box.x1, box.y1]])
            rows.append(f'i{i}.png,{phrase.format(side)} {i % 3},Nodule,"{corners}",p{i}')
        corners = json.dumps([[8, 10, 56, 50]])
        rows.append(f'i{i}.png,lungs {i},Lungs,"{corners}",p{i}')
        rows.append(f"i{i}.png,no nodule,Nodule absent,[],p{i}")
    path = folder / "set.csv"
    path.write_text("\n".join(rows) + "\n")
    return path
