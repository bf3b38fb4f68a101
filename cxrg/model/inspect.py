"""What a model's folder is, whether it is complete, and what cxrg will do with it.

Nothing is loaded: networks are built without memory (torch's ``meta`` device) from their
configurations, and their names and shapes are compared with the headers of the weight files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cxrg.attention.layers import Layer, block_of, choose_layers, cross_attention_layers
from cxrg.errors import ModelError, UsageError
from cxrg.latents.route import route_of
from cxrg.model.card import Card, read_card
from cxrg.model.checkpoint import layout
from cxrg.model.checkpoint.headers import compare, read_headers, without_memory
from cxrg.model.checkpoint.networks import quiet_libraries
from cxrg.model.checkpoint.text import check_text, read_tokenizer
from cxrg.model.load import choose_device, choose_dtype
from cxrg.model.model import Model
from cxrg.model.schedule import read_schedule
from cxrg.options import PRESETS, Options, resolve


@dataclass(frozen=True, kw_only=True, slots=True)
class PartReport:
    """One part of the folder.

    Attributes:
        name: its folder, such as ``unet``.
        kind: its class.
        parameters: numbers in its weight files; None where it has none.
        size: bytes of its weight files.
        precision: of the weights in the files.
        notes: what is odd but does no harm.
    """

    name: str
    kind: str
    parameters: int | None = None
    size: int = 0
    precision: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What `cxrg.ground` will do with the model unless it is told otherwise.

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
    """Look through a model's folder; all that is wrong is found, not only the first thing.

    Raises:
        ModelError: there is no such folder.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; give a diffusers folder")
    if not any((folder / part).is_dir() for part in layout.EVERY_PART):
        return FolderReport(
            folder=folder,
            family="not a diffusers folder",
            card=None,
            parts=(),
            problems=(_stranger(folder),),
            plan=None,
        )
    look, plan = _Look(folder), None
    with look.gather():
        look.card = read_card(folder)
    with quiet_libraries():
        look.take_configs()
        if look.handled:
            look.take_parts()
        if not look.problems:
            with look.gather():
                plan = look.plan()
    return FolderReport(
        folder=folder,
        family=layout.family(look.configs),
        card=look.card,
        parts=tuple(look.parts),
        problems=tuple(dict.fromkeys(look.problems)),
        plan=plan,
    )


class _Look:
    """What was found so far; every step adds what is wrong and goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.denoiser = layout.denoiser_part(folder)
        self.handled = True
        self.card: Card | None = None
        self.configs: dict[str, dict[str, Any]] = {}
        self.loaded: dict[str, Any] = {}
        self.parts: list[PartReport] = []
        self.problems: list[str] = []

    @contextmanager
    def gather(self) -> Iterator[None]:
        try:
            yield
        except (ModelError, UsageError) as error:
            self.problems.append(str(error))

    def take_configs(self) -> None:
        """Read the configurations; of a family that is not handled the denoiser's is enough."""
        with self.gather():
            self._take_config(self.denoiser)
            self.handled = False
            layout.check_family(self.folder, self.configs[self.denoiser])
            self.handled = True
        if not self.handled:
            return
        self.configs.clear()  # and read again, in the order of the parts
        for part in layout.part_names(self.folder):
            with self.gather():
                self._take_config(part)
        if {self.denoiser, "vae"} <= self.configs.keys():
            with self.gather():
                layout.check_latents(self.folder, self.configs[self.denoiser], self.configs["vae"])
        if "scheduler" in self.configs:
            with self.gather():
                read_schedule(self.configs["scheduler"])

    def _take_config(self, part: str) -> None:
        self.configs[part] = layout.part_config(self.folder, part)

    def take_parts(self) -> None:
        """Build networks and tokenizers, and see whether they belong together."""
        for part, config in self.configs.items():
            with self.gather():
                if part == "scheduler":
                    kind = str(config.get("_class_name", ""))
                    self.parts.append(PartReport(name=part, kind=kind))
                elif part.startswith("tokenizer"):
                    self._take_tokenizer(part)
                else:
                    self._take_network(part)
        if self.loaded.keys() >= set(layout.part_names(self.folder)) - {"scheduler"}:
            with self.gather():
                check_text(self.folder, self.loaded)

    def _take_tokenizer(self, part: str) -> None:
        self.loaded[part] = read_tokenizer(self.folder / part, self.configs[part])
        self.parts.append(PartReport(name=part, kind=type(self.loaded[part]).__name__))

    def _take_network(self, part: str) -> None:
        """Read the files' headers, build without memory, compare."""
        place, config = self.folder / part, self.configs[part]
        headers = read_headers(place)
        named = config.get("_class_name") or (config.get("architectures") or [""])[0]
        report = PartReport(
            name=part,
            kind=str(named or config.get("model_type", "")),
            parameters=headers.parameters,
            size=headers.size,
            precision=headers.precision,
        )
        self.parts.append(report)
        network = self.loaded[part] = without_memory(place, config)
        problem, notes = compare(network, headers.shapes)
        self.parts[-1] = replace(report, notes=notes)
        if problem:
            raise ModelError(f"{place}: {problem}; copy it again")

    def plan(self) -> Plan:
        card = self.card or Card(name=self.folder.name)
        device = choose_device("auto")
        model = Model(
            denoiser=self.loaded.pop(self.denoiser),
            **self.loaded,
            schedule=read_schedule(self.configs["scheduler"]),
            card=card,
            identity="",
            device=device,
            dtype=choose_dtype("auto", device, card),
        )
        across = model.side // model.factor
        layers = cross_attention_layers(model.denoiser, across)
        read = choose_layers(model, "card")
        return Plan(
            side=model.side,
            latent=(int(model.denoiser.config.in_channels), across, across),
            text_length=model.text_length,
            image_range=card.image_range,
            prediction_type=model.schedule.prediction_type,
            dtype=str(model.dtype).removeprefix("torch."),
            layers=tuple(layer for layer in layers if layer.name in read),
            all_layers=len(layers),
            presets={name: _reading(model, resolve(name, card.presets)) for name in PRESETS},
        )


def _reading(model: Model, options: Options) -> str:
    """How a preset comes to the latents that it reads, and which layers it reads, in words."""
    try:
        names = choose_layers(model, options.layers)
        how = route_of(options, model.schedule).describe()
    except UsageError as error:
        return f"not with this model: {error}"
    blocks = ", ".join(dict.fromkeys(block_of(name) for name in names))
    return how if options.layers == "card" else f"{how}; layers {blocks}"


def _stranger(folder: Path) -> str:
    """What to do with a folder that has none of the parts."""
    places = (folder, folder / "models")
    if any((place / "diffusion_model.pth").is_file() for place in places):
        return f"{folder}: MONAI's files; write a folder of them with `cxrg models import monai`"
    single = sorted(
        path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".ckpt")
    )
    what = f"a single-file checkpoint ({single[0]})" if single else "none of its parts"
    return (
        f"{folder}: {what}; save the model with save_pretrained, which makes vae/, unet/ or "
        "transformer/, text_encoder/, tokenizer/ and scheduler/"
    )
