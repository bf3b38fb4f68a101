"""The control that shows whether a method sees the image: the same phrase on another patient's.

Images are taken in the order in which a limit draws them. Each is paired with the nearest one of
another patient before it, and the phrases of both are grounded there in one call. So an image is
encoded once, for its own phrases and for those of the next; one more is encoded where a run starts
or continues, as nothing was grounded before. The pairs depend on the seed and the data set alone,
so a run that is made longer keeps its records.

Maps are kept on the model's square and restored in the frame of the image that is scored: both
patients are seen as the model sees them, undistorted. Where the other picture does not reach, the
map is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxrg.errors import InputError
from cxrg.evaluate.method import GroundingLike, Method
from cxrg.evaluate.sample import Sample
from cxrg.geometry import Frame

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage

Heat = NDArray[np.float32]


def partners(patients: Sequence[str]) -> list[int | None]:
    """For each image, in order, the index of the image of another patient that it is paired with.

    Args:
        patients: the patient of each image.

    Returns:
        The nearest before it, for the first ones the nearest after them; None where all images are
        of one patient.
    """
    later = next((i for i, each in enumerate(patients) if each != patients[0]), None)
    found: list[int | None] = []
    for index, patient in enumerate(patients):
        if index and patients[index - 1] != patient:
            found.append(index - 1)
        else:
            found.append(found[-1] if index else later)
    return found


class OtherImages:
    """The maps of phrases on other patients' images, made as those images are grounded.

    Args:
        groups: the samples of each image of the data set, in the order in which they are scored.
        wanted: identifiers of the samples to score.
        method: what grounds.
        open_image: opens the image of a sample.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Sample]],
        wanted: Collection[str],
        method: Method,
        open_image: Callable[[Sample], Path | CxrImage],
    ) -> None:
        self._method, self._open_image = method, open_image
        self._partners: dict[Path, Sample] = {}
        self._dependents: dict[Path, list[Path]] = {}
        self._waiting: dict[Path, list[str]] = {}
        self._squares: dict[Path, dict[str, Heat]] = {}
        pairs = partners([group[0].patient for group in groups])
        for group, index in zip(groups, pairs, strict=True):
            phrases = [sample.phrase for sample in group if sample.present and sample.id in wanted]
            if phrases and index is not None:
                image, partner = group[0].image, groups[index][0]
                self._waiting[image] = list(dict.fromkeys(phrases))
                self._partners[image] = partner
                self._dependents.setdefault(partner.image, []).append(image)

    def wanted_on(self, image: Path) -> list[str]:
        """The phrases of all images that are paired with this one, and not grounded there yet."""
        dependents = self._dependents.get(image, ())
        return [text for dependent in dependents for text in self._waiting.get(dependent, ())]

    def keep(self, image: Path, frame: Frame, found: Mapping[str, GroundingLike]) -> None:
        """Keep the maps of what was `wanted_on` an image, on the model's square."""
        for dependent in self._dependents.get(image, ()):
            if dependent in self._waiting:
                self._keep(dependent, frame, found)

    def maps(self, image: Path, frame: Frame) -> dict[str, Heat]:
        """The maps (H, W) of an image's phrases on its partner, in this image's own pixels.

        A partner that was not grounded before is grounded now. There are no maps without a partner,
        or if it cannot be read.
        """
        if image in self._waiting:
            self._ground_partner(image)
        return {text: frame.restore(it) for text, it in self._squares.pop(image, {}).items()}

    def partner(self, image: Path) -> str | None:
        """The name in results of the image that an image is paired with."""
        sample = self._partners.get(image)
        return (sample.image_id or sample.image.name) if sample else None

    def _keep(self, dependent: Path, frame: Frame, found: Mapping[str, GroundingLike]) -> None:
        self._squares[dependent] = {
            text: frame.sample(np.nan_to_num(found[text].heatmap))
            for text in self._waiting.pop(dependent)
        }

    def _ground_partner(self, image: Path) -> None:
        sample, phrases = self._partners[image], self._waiting[image]
        try:
            other = self._method.read(self._open_image(sample))
            found = self._method.ground(other, phrases)
        except InputError:  # it is counted where the partner itself is scored
            del self._waiting[image]
            return
        self._keep(image, other.frame, dict(zip(phrases, found, strict=True)))
