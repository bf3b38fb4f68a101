"""The regions of a phantom under the names of the twenty locations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxrg.chest.places import LOCATIONS, REGIONS, Structures

if TYPE_CHECKING:
    from cxrg.phantom.sample import Phantom


def of_phantom(phantom: Phantom) -> Structures:
    """A phantom's own regions under the names of :data:`LOCATIONS`, ``(side, side)``.

    The mediastinum includes the heart, as outlined in real images.
    """
    return {place: phantom.regions[REGIONS.get(place, place)] for place in LOCATIONS}
