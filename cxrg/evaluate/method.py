"""What is evaluated: something that grounds phrases in images, and the model that does.

The controls that need a model come through here too: the phrases of other samples in the same call
as the sample's own, and the map of the start token, which precedes every phrase and states
nothing ("image only"; methods of arXiv 2404.12920, token ablation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cxrg.geometry import Box
from cxrg.options import Options, RunSettings

if TYPE_CHECKING:  # torch is imported only when a model runs
    from cxrg.image.read import CxrImage
    from cxrg.model.model import Model


class GroundingLike(Protocol):
    """A method's result for one phrase; `cxrg.result.Grounding` is one."""

    @property
    def heatmap(self) -> NDArray[np.float32]: ...
    @property
    def attention(self) -> NDArray[np.float32]: ...
    @property
    def boxes(self) -> tuple[Box, ...]: ...
    @property
    def status(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def presence(self) -> float | None: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...


class Method(Protocol):
    """Something that grounds phrases.

    ``facts`` identify it, as JSON; two runs with the same facts give the same numbers.
    """

    @property
    def facts(self) -> dict[str, Any]: ...

    def read(self, image: Path | CxrImage) -> CxrImage:
        """The image, read once for all that follows."""

    def ground(self, image: CxrImage, phrases: Sequence[str]) -> Sequence[GroundingLike]:
        """All phrases of one image."""

    def ground_with_control(
        self, image: CxrImage, phrases: Sequence[str]
    ) -> tuple[Sequence[GroundingLike], NDArray[np.float32] | None]:
        """All phrases, and the heatmap (H, W) without a phrase; None where the method has none."""

    def boxes(self, heatmap: NDArray[np.float32]) -> tuple[Box, ...]:
        """The boxes that the method would draw from a heatmap (H, W), so that controls get some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentDiffusion:
    """A loaded latent diffusion model with all its knobs, and the settings of the run."""

    model: Model
    options: Options
    settings: RunSettings = RunSettings(any_image=True, force_ground=True)

    @property
    def facts(self) -> dict[str, Any]:
        """Name, identity and precision of the model, its adapter, and every knob."""
        adapter = self.model.adapter
        return {
            "model": self.model.card.name,
            **({"adapter": adapter.name} if adapter else {}),
            "identity": self.model.identity,
            "precision": self.model.precision,
            "options": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self.options).items()
            },
        }

    def read(self, image: Path | CxrImage) -> CxrImage:
        from cxrg.image.read import read_image

        if isinstance(image, Path):
            return read_image(image, side=self.model.side, fit=self.options.fit)
        return image

    def ground(self, image: CxrImage, phrases: Sequence[str]) -> Sequence[GroundingLike]:
        from cxrg.grounding import ground

        return ground(
            image, list(phrases), model=self.model, options=self.options, settings=self.settings
        )

    def ground_with_control(
        self, image: CxrImage, phrases: Sequence[str]
    ) -> tuple[Sequence[GroundingLike], NDArray[np.float32] | None]:
        """Phrases and the start token, which share the inversion and the reading pass."""
        from cxrg.grounding import ground_with_start_token

        found, start = ground_with_start_token(
            image, phrases, model=self.model, options=self.options, settings=self.settings
        )
        return found, start.heatmap if start else None

    def boxes(self, heatmap: NDArray[np.float32]) -> tuple[Box, ...]:
        from cxrg.heatmap.boxes import boxes_from_heatmap

        seen = np.nan_to_num(heatmap)
        return boxes_from_heatmap(
            seen, threshold=self.options.threshold, min_area=self.options.min_area
        )
