"""What is learnt from: an image, where its anatomy is, and what its report says is where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy import LOCATIONS
from cxrg.chest.vocabulary import Template, matcher


@dataclass(frozen=True, kw_only=True, slots=True)
class Triple:
    """A finding that is present at a place.

    Attributes:
        location: one of `LOCATIONS`.
        finding: one of `FINDINGS`.
        phrases: other words for it than the template's, each naming this place and finding only.
    """

    location: str
    finding: str
    phrases: tuple[str, ...]

    @property
    def template(self) -> str:
        """``left lung base pleural effusion``."""
        return Template(location=self.location, finding=self.finding).text


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Study:
    """One image and its report.

    Attributes:
        pixels: uint8 ``(S, S)``, as the model sees it.
        masks: uint8 ``(20, g, g)`` in the order of `LOCATIONS`: the share of each cell, 0 to 255.
        triples: what the report says, each location with a mask that is not empty.
        patient: whose it is; a patient is never in both parts of the data.
    """

    pixels: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    triples: tuple[Triple, ...]
    patient: str


def plain(location: str, finding: str, phrases: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the phrases that name this place and finding, and no other."""

    def names(table: str, text: str) -> list[str]:
        return [mention.name for mention in matcher(table)(text)]

    return tuple(
        dict.fromkeys(
            text
            for text in phrases
            if names("locations", text) == [location] and names("findings", text) == [finding]
        )
    )


def coarse(masks: Mapping[str, NDArray[np.generic]], grid: int) -> NDArray[np.uint8]:
    """Masks by location, bool or in [0, 1], on a grid: uint8 ``(20, grid, grid)``, 0 where absent.

    A cell holds the mask's share of its area, 0 to 255 (methods of anatomy-grounded prompt tuning:
    area-averaged masks).
    """
    found = np.zeros((len(LOCATIONS), grid, grid), np.uint8)
    for index, name in enumerate(LOCATIONS):
        if name in masks:
            mask = np.asarray(masks[name], np.float32)
            share = cv2.resize(mask, (grid, grid), interpolation=cv2.INTER_AREA)
            found[index] = np.round(share.clip(0, 1) * 255)
    return found
