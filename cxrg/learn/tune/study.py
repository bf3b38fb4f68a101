"""What vectors are learnt from: an image, masks of its anatomy, findings of its report by place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy import LOCATIONS
from cxrg.chest.vocabulary import matcher
from cxrg.learn.cells import coarse


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
        return f"{self.location} {self.finding}"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Study:
    """One image and its report.

    Attributes:
        pixels: uint8 ``(S, S)``, as the model sees it.
        masks: uint8 ``(20, g, g)`` in the order of `LOCATIONS`: the share of each cell, 0 to 255.
        triples: the findings of the report, each location with a mask that is not empty.
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


def coarse_locations(masks: Mapping[str, NDArray[np.generic]], grid: int) -> NDArray[np.uint8]:
    """Masks by location on a grid: uint8 ``(20, grid, grid)``, 0 for a location without a mask."""
    absent = np.zeros((grid, grid), np.uint8)
    return np.stack([coarse(masks[n], grid) if n in masks else absent for n in LOCATIONS])


def join_triples(
    findings: Iterable[tuple[str, Iterable[str], Callable[[], Sequence[str]]]],
    masks: NDArray[np.uint8],
) -> tuple[Triple, ...]:
    """Join what is known of findings, place by place; a location with an empty mask has none.

    Args:
        findings: a finding's name, its locations, and a function that returns phrases for it,
            called once per location.
        masks: uint8 ``(20, g, g)``.
    """
    phrases: dict[tuple[str, str], list[str]] = {}
    for finding, locations, words in findings:
        for location in locations:
            if masks[LOCATIONS.index(location)].any():
                phrases.setdefault((location, finding), []).extend(words())
    return tuple(
        Triple(location=location, finding=finding, phrases=plain(location, finding, tuple(texts)))
        for (location, finding), texts in phrases.items()
    )
