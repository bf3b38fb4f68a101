"""What a model family defines: its network, text encoding, attention layers and memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrg.model.conditioning import Conditioning

if TYPE_CHECKING:
    from torch import Tensor

    from cxrg.model.model import Model

Config = Mapping[str, Any]

# Tokenizers without a limit name an astronomic one.
UNLIMITED = 1_000_000


def architecture(config: Config) -> str:
    """The first class that a configuration of transformers names; empty where it names none."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A cross-attention module of the denoiser, and the side of its map for a square latent."""

    name: str
    side: int


class Family(ABC):
    """One family of denoisers, with the text encoding that belongs to it.

    Attributes:
        more_parts: folders that a checkpoint has besides the common ones.
        more_files: files at the checkpoint's top that change what it computes.
        lowers_text: whether its pipeline makes prompts lower-case and strips them.
        attends_to_padding: whether image positions also attend to the prompt's padding.
        longest_text: tokens of a padded prompt at most, where nothing else sets a limit.
        maps_per_row: peak memory of one row of an evaluation, in maps of the finest level.
    """

    more_parts: ClassVar[tuple[str, ...]] = ()
    more_files: ClassVar[tuple[str, ...]] = ()
    lowers_text: ClassVar[bool] = False
    attends_to_padding: ClassVar[bool] = True
    longest_text: ClassVar[int] = UNLIMITED
    maps_per_row: ClassVar[int]

    @abstractmethod
    def includes(self, name: str, config: Config) -> bool:
        """Whether a denoiser of this class name and configuration is of this family."""

    @abstractmethod
    def title(self, configs: Mapping[str, Config]) -> str:
        """What the configurations of a checkpoint's parts describe, in words."""

    @abstractmethod
    def network_class(self) -> Any:
        """The denoiser's class."""

    @abstractmethod
    def unhandled(self, config: Config) -> tuple[str, ...]:
        """Settings of the denoiser's configuration that are not handled, by name."""

    @abstractmethod
    def text_width(self, config: Config) -> int:
        """Width of the text embeddings that the denoiser takes."""

    def check_parts(  # noqa: B027 - most families have nothing of their own to check
        self, folder: Path, config: Config, parts: Mapping[str, Any]
    ) -> None:
        """Check what is particular to the family of networks and tokenizers.

        Args:
            folder: the checkpoint, for the message.
            config: of the denoiser.
            parts: networks and tokenizers by name.

        Raises:
            ModelError: they do not belong together.
        """

    @abstractmethod
    def encode(self, model: Model, texts: list[str]) -> Conditioning:
        """Encode prompts, padded or cut to the text length."""

    def conditions(self, model: Model, conditioning: Conditioning) -> dict[str, Any]:
        """Arguments of the denoiser besides the text embeddings, by its own names."""
        return {}

    def labels(self, config: Config, labels: Tensor) -> Tensor:
        """Timesteps as the denoiser takes them, from those of the schedule."""
        return labels

    @abstractmethod
    def layers(self, denoiser: Any, latent_side: int) -> tuple[Layer, ...]:
        """All cross-attention layers in the order of the forward pass."""

    @abstractmethod
    def published(self, names: Sequence[str]) -> tuple[str, ...]:
        """The published choice among the names of all layers."""

    @abstractmethod
    def grid_of(self, denoiser: Any, name: str) -> tuple[Any, int]:
        """The last module around a layer that sees the image as a grid, and its patch's side."""

    @abstractmethod
    def map_size(self, config: Config, area: int) -> int:
        """Numbers in one map of the finest level, for a latent of ``area`` positions."""


def layer_names(denoiser: Any) -> list[str]:
    """Full names of the cross-attention modules, in diffusers' order of registration."""
    return [name for name, _ in denoiser.named_modules() if name.endswith(".attn2")]
