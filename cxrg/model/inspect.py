"""Inspect a model's folder: what it is, and whether it is complete.

Nothing is loaded: networks are built without memory (torch's ``meta`` device) from their
configurations, and their names and shapes are compared with the headers of the weight files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cxrg.errors import ModelError, UsageError
from cxrg.model.card import Card, read_card
from cxrg.model.checkpoint import layout
from cxrg.model.checkpoint.headers import compare, read_headers, without_memory
from cxrg.model.checkpoint.networks import check_depth, quiet_libraries
from cxrg.model.checkpoint.text import check_text, read_tokenizer
from cxrg.model.families.base import architecture
from cxrg.model.families.stable_diffusion_xl import read_second
from cxrg.model.load import choose_device, choose_dtype
from cxrg.model.model import Model
from cxrg.model.schedule import read_schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class PartReport:
    """One part of the folder.

    Attributes:
        name: its folder, such as ``unet``.
        kind: its class.
        parameters: numbers in its weight files; None where it has none.
        size: bytes of its weight files.
        precision: of the weights in the files.
        notes: unusual but harmless facts, one line each.
    """

    name: str
    kind: str
    parameters: int | None = None
    size: int = 0
    precision: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """The result of an inspection.

    Attributes:
        folder: the folder.
        family: the kind of model, in words.
        card: the content of ``cxrg.json``; None where there is none.
        parts: one report per part.
        problems: everything that is wrong, one line each.
        model: the model, built without memory; None where there is a problem.
    """

    folder: Path
    family: str
    card: Card | None
    parts: tuple[PartReport, ...]
    problems: tuple[str, ...]
    model: Model | None


def inspect_folder(folder: Path) -> Inspection:
    """Inspect a model's folder and collect all problems, not only the first one.

    Raises:
        ModelError: there is no such folder.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; give a diffusers folder")
    if not any((folder / part).is_dir() for part in layout.EVERY_PART):
        return Inspection(
            folder=folder,
            family="not a diffusers folder",
            card=None,
            parts=(),
            problems=(_explain_other_folder(folder),),
            model=None,
        )
    inspector, model = _Inspector(folder), None
    with inspector.collect_problems():
        layout.check_entries(folder)
    readable = not inspector.problems
    with inspector.collect_problems():
        inspector.card = read_card(folder)
    with quiet_libraries():
        if readable:
            inspector.read_configs()
        if inspector.handled:
            inspector.build_parts()
        if not inspector.problems:
            with inspector.collect_problems():
                model = inspector.model()
    return Inspection(
        folder=folder,
        family=layout.describe(inspector.configs),
        card=inspector.card,
        parts=tuple(inspector.parts),
        problems=tuple(dict.fromkeys(inspector.problems)),
        model=model,
    )


class _Inspector:
    """Collects what is found; a step that fails adds its problem, and the others still run."""

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
    def collect_problems(self) -> Iterator[None]:
        try:
            yield
        except (ModelError, UsageError) as error:
            self.problems.append(str(error))

    def read_configs(self) -> None:
        """Read the configurations; of a family that is not handled, only the denoiser's."""
        with self.collect_problems():
            self._read_config(self.denoiser)
            self.handled = False
            layout.check_family(self.folder, self.configs[self.denoiser])
            self.handled = True
        if not self.handled:
            return
        self.configs.clear()  # and read again, in the order of the parts
        for part in layout.part_names(self.folder):
            with self.collect_problems():
                self._read_config(part)
        if {self.denoiser, "vae"} <= self.configs.keys():
            with self.collect_problems():
                layout.check_latents(self.folder, self.configs[self.denoiser], self.configs["vae"])
        if "scheduler" in self.configs:
            with self.collect_problems():
                read_schedule(self.configs["scheduler"])

    def _read_config(self, part: str) -> None:
        self.configs[part] = layout.part_config(self.folder, part)

    def build_parts(self) -> None:
        """Build networks and tokenizers, and check that they belong together."""
        for part, config in self.configs.items():
            with self.collect_problems():
                if part == "scheduler":
                    kind = str(config.get("_class_name", ""))
                    self.parts.append(PartReport(name=part, kind=kind))
                elif part.startswith("tokenizer"):
                    self._read_tokenizer(part)
                else:
                    self._build_network(part)
        if self.loaded.keys() >= set(layout.part_names(self.folder)) - {"scheduler"}:
            with self.collect_problems():
                check_text(self.folder, self.loaded)

    def _read_tokenizer(self, part: str) -> None:
        self.loaded[part] = read_tokenizer(self.folder / part, self.configs[part])
        self.parts.append(PartReport(name=part, kind=type(self.loaded[part]).__name__))

    def _build_network(self, part: str) -> None:
        """Read the files' headers, build without memory, compare."""
        place, config = self.folder / part, self.configs[part]
        headers = read_headers(place)
        named = config.get("_class_name") or architecture(config)
        report = PartReport(
            name=part,
            kind=str(named or config.get("model_type", "")),
            parameters=headers.parameters,
            size=headers.size,
            precision=headers.precision,
        )
        self.parts.append(report)
        check_depth(place, config, len(headers.shapes))
        network = self.loaded[part] = without_memory(place, config)
        problem, notes = compare(network, headers.shapes)
        self.parts[-1] = replace(report, notes=(*notes, *_ignored(type(network), config)))
        if problem:
            raise ModelError(f"{place}: {problem}; copy it again")

    def model(self) -> Model:
        """Build the model of the parts, without memory."""
        card = self.card or Card(name=self.folder.name)
        device = choose_device("auto")
        return Model(
            vae=self.loaded["vae"],
            denoiser=self.loaded[self.denoiser],
            text_encoder=self.loaded["text_encoder"],
            tokenizer=self.loaded["tokenizer"],
            second=read_second(self.folder, self.loaded),
            schedule=read_schedule(self.configs["scheduler"]),
            card=card,
            identity="",
            device=device,
            dtype=choose_dtype("auto", device, card),
        )


def _ignored(kind: Any, config: Mapping[str, Any]) -> tuple[str, ...]:
    """A note on settings that the class does not have, as those of later versions and forks."""
    if not hasattr(kind, "_get_init_keys"):
        return ()  # transformers keeps every setting
    known = kind._get_init_keys(kind)
    more = [name for name in config if not name.startswith("_") and config[name]]
    unknown = sorted(name for name in more if name not in known)
    return (f"settings that {kind.__name__} ignores: {', '.join(unknown)}",) if unknown else ()


def _explain_other_folder(folder: Path) -> str:
    """What a folder without any of the parts holds, and what to do with it."""
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
