"""What cxrg will do with a model: the layers that it reads, and each preset's route to the latents.

The model may be one that `cxrg.model.inspect` built without memory: nothing is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cxrg.attention.layers import block_of, choose_layers, cross_attention_layers
from cxrg.errors import ModelError, UsageError
from cxrg.latents.route import route_of
from cxrg.model.card import Card
from cxrg.model.families.base import Layer
from cxrg.model.inspect import PartReport, inspect_folder
from cxrg.model.model import Model
from cxrg.options import PRESETS, Options, resolve


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What `cxrg.ground` does with a model by default.

    Attributes:
        side: pixels of the square that the model sees.
        latent: channels, height and width.
        text_length: tokens of a padded prompt.
        image_range: what the autoencoder takes.
        prediction_type: what the denoiser's output means.
        dtype: the denoiser's precision on this machine.
        layers: the cross-attention layers that are read, of ``all_layers``.
        presets: what each preset reads.
    """

    side: int
    latent: tuple[int, int, int]
    text_length: int
    image_range: str
    prediction_type: str
    dtype: str
    layers: tuple[Layer, ...]
    all_layers: int
    presets: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderReport:
    """What a folder is; it can be used where ``problems`` is empty, and then has a plan."""

    folder: Path
    family: str
    card: Card | None
    parts: tuple[PartReport, ...]
    problems: tuple[str, ...]
    plan: Plan | None

    @property
    def usable(self) -> bool:
        return not self.problems


def check_folder(folder: Path) -> FolderReport:
    """Inspect a model's folder and plan what to do with it; all problems are found, not the first.

    Raises:
        ModelError: there is no such folder.
    """
    found = inspect_folder(folder)
    plan, problems = None, found.problems
    if found.model is not None:
        try:
            plan = make_plan(found.model)
        except (ModelError, UsageError) as error:
            problems = (*problems, str(error))
    return FolderReport(
        folder=found.folder,
        family=found.family,
        card=found.card,
        parts=found.parts,
        problems=problems,
        plan=plan,
    )


def make_plan(model: Model) -> Plan:
    """Return what each preset will do with a model.

    Raises:
        ModelError: the model has no prompt length.
        UsageError: the layers that its card names do not exist.
    """
    across = model.side // model.factor
    layers = cross_attention_layers(model.denoiser, across)
    read = choose_layers(model, "card")
    return Plan(
        side=model.side,
        latent=(int(model.denoiser.config.in_channels), across, across),
        text_length=model.text_length,
        image_range=model.card.image_range,
        prediction_type=model.schedule.prediction_type,
        dtype=str(model.dtype).removeprefix("torch."),
        layers=tuple(layer for layer in layers if layer.name in read),
        all_layers=len(layers),
        presets={
            name: _describe_preset(model, resolve(name, model.card.presets)) for name in PRESETS
        },
    )


def _describe_preset(model: Model, options: Options) -> str:
    """Describe a preset's route to the latents and the layers that it reads."""
    try:
        names = choose_layers(model, options.layers)
        how = route_of(options, model.schedule).describe()
    except UsageError as error:
        return f"not with this model: {error}"
    blocks = ", ".join(dict.fromkeys(block_of(name) for name in names))
    return how if options.layers == "card" else f"{how}; layers {blocks}"
