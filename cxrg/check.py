"""What a model's folder is, whether it is complete, and what cxrg will do with it.

Nothing is loaded: networks are built without memory (torch's ``meta`` device) from their
configurations, and their names and shapes are compared with the headers of the weight files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from cxrg import checkpoint
from cxrg.card import Card, read_card
from cxrg.errors import ModelError, UsageError
from cxrg.invert import timestep_list, window_indices
from cxrg.layers import Layer, choose_layers, cross_attention_layers
from cxrg.model import Model, choose_device, choose_dtype
from cxrg.options import PRESETS, Options, resolve
from cxrg.redraw import redraw_times

Shapes = dict[str, tuple[int, ...]]
# What saved encoders often lack and nothing here reads, and what old ones have too much.
UNREAD = ("pooler", "position_ids")


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
    look = _Look(folder)
    if not any((folder / part).is_dir() for part in (*checkpoint.CONFIGS, "transformer")):
        return FolderReport(
            folder=folder,
            family="not a diffusers folder",
            card=None,
            parts=(),
            problems=(_stranger(folder),),
            plan=None,
        )
    with look.gather():
        look.card = read_card(folder)
    with checkpoint.quiet_libraries():
        for part in checkpoint.CONFIGS:
            with look.gather():
                look.take_config(part)
        look.take_denoiser()
        look.take_parts()
        plan = None
        if not look.problems:
            with look.gather():
                plan = look.plan()
    return FolderReport(
        folder=folder,
        family=_family(look.configs, folder),
        card=look.card,
        parts=tuple(look.parts),
        problems=tuple(dict.fromkeys(look.problems)),
        plan=plan,
    )


class _Look:
    """What was found so far; every step adds what is wrong and goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card: Card | None = None
        self.configs: dict[str, dict[str, Any]] = {}
        self.networks: dict[str, Any] = {}
        self.tokenizer: Any = None
        self.parts: list[PartReport] = []
        self.problems: list[str] = []

    @contextmanager
    def gather(self) -> Iterator[None]:
        try:
            yield
        except (ModelError, UsageError) as error:
            self.problems.append(str(error))

    def take_config(self, part: str) -> None:
        self.configs[part] = checkpoint.part_config(self.folder, part)

    def take_denoiser(self) -> None:
        if {"unet", "vae"} <= self.configs.keys():
            with self.gather():
                checkpoint.check_unet(self.folder, self.configs["unet"], self.configs["vae"])
        if "scheduler" in self.configs:
            with self.gather():
                checkpoint.schedule(self.configs["scheduler"])

    def take_parts(self) -> None:
        for part in checkpoint.NETWORKS:
            if part in self.configs:
                with self.gather():
                    self._take_network(part)
        if "tokenizer" in self.configs:
            with self.gather():
                self.tokenizer = checkpoint.read_tokenizer(self.folder / "tokenizer")
                kind = type(self.tokenizer).__name__
                self.parts.append(PartReport(name="tokenizer", kind=kind))
        if "scheduler" in self.configs:
            kind = str(self.configs["scheduler"].get("_class_name", ""))
            self.parts.append(PartReport(name="scheduler", kind=kind))
        if {"unet", "text_encoder"} <= self.networks.keys() and self.tokenizer is not None:
            with self.gather():
                checkpoint.check_text(self.folder, self.networks, self.tokenizer)

    def _take_network(self, part: str) -> None:
        """Read the files' headers, build without memory, compare."""
        place, config = self.folder / part, self.configs[part]
        shapes, report = _headers(place, config)
        try:
            network = self.networks[part] = _without_memory(place, config)
        except (ValueError, RuntimeError, TypeError, KeyError, OSError) as error:
            raise ModelError(
                f"{place}: config.json does not describe a network "
                f"({checkpoint.first_line(error)}); copy it again"
            ) from error
        finally:
            self.parts.append(report)
        problem, notes = _compare(network, shapes)
        self.parts[-1] = replace(report, notes=notes)
        if problem:
            raise ModelError(f"{place}: {problem}; copy it again")

    def plan(self) -> Plan:
        card = self.card or Card(name=self.folder.name)
        alphas, prediction = checkpoint.schedule(self.configs["scheduler"])
        device = choose_device("auto")
        model = Model(
            vae=self.networks["vae"],
            denoiser=self.networks["unet"],
            text_encoder=self.networks["text_encoder"],
            tokenizer=self.tokenizer,
            alphas_cumprod=alphas,
            prediction_type=prediction,
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
            prediction_type=prediction,
            dtype=str(model.dtype).removeprefix("torch."),
            layers=tuple(layer for layer in layers if layer.name in read),
            all_layers=len(layers),
            presets={name: _reading(model, resolve(name, card)) for name in PRESETS},
        )


def _reading(model: Model, options: Options) -> str:
    """How a preset comes to the latents that it reads, and which layers it reads, in words."""
    try:
        names = choose_layers(model, options.layers)
        how = _way(options, len(model.alphas_cumprod))
    except UsageError as error:
        return f"not with this model: {error}"
    blocks = ", ".join(name.split(".transformer_blocks")[0] for name in names)
    return how if options.layers == "card" else f"{how}; layers {blocks}"


def _way(options: Options, train_steps: int) -> str:
    if options.path == "noise":
        times = ", ".join(map(str, options.timesteps))
        return f"adds noise: t = {times}, draws of each: {options.draws}"
    if options.path == "redraw":
        listed = redraw_times(options.steps, train_steps)
        start, stop = window_indices(options.window, len(listed))
        return (
            f"draws latent and noise afresh at {stop - start} of {len(listed)} DDIM steps "
            f"(t = {listed[start]} to {listed[stop - 1]})"
        )
    listed = timestep_list(options.steps, train_steps)
    start, stop = window_indices(options.window, len(listed))
    return (
        f"inverts {stop} of {len(listed)} DDIM steps, "
        f"reads {start} to {stop - 1} (t = {listed[start]} to {listed[stop - 1]})"
    )


def _without_memory(place: Path, config: Mapping[str, Any]) -> Any:
    """The network that a part's configuration describes, on the ``meta`` device."""
    import transformers
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        if place.name == "unet":
            return UNet2DConditionModel.from_config(config)
        if place.name == "vae":
            return checkpoint.autoencoder_class(place.parent, config).from_config(config)
        kind = checkpoint.text_encoder_class(config)
        automatic: Any = transformers.AutoModel
        facts = transformers.AutoConfig.from_pretrained(
            place, local_files_only=True, trust_remote_code=False
        )
        return kind.from_config(facts) if kind is automatic else kind(facts)


def _headers(place: Path, config: Mapping[str, Any]) -> tuple[Shapes, PartReport]:
    """Names and shapes in a part's weight files, without their numbers."""
    base = "model" if place.name == "text_encoder" else "diffusion_pytorch_model"
    variant = checkpoint.weights_variant(place)
    files = [
        path
        for path in sorted(place.glob(f"{base}*.safetensors"))
        if (".fp16." in path.name) == (variant == "fp16") and "non_ema" not in path.name
    ]
    whole = [path for path in files if "-of-" not in path.name]
    for index in () if whole else place.glob(f"{base}.safetensors.index*.json"):
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        gone = sorted({name for name in shards if not (place / name).is_file()})
        if gone:
            raise ModelError(f"{place}: {gone[0]} is missing; copy it again")
    if not files:
        raise ModelError(f"{place}: no {base}.safetensors; files must keep their names")
    shapes: Shapes = {}
    precisions: set[str] = set()
    for path in whole or files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    piece = file.get_slice(name)
                    shapes[name] = tuple(piece.get_shape())
                    precisions.add(_PRECISIONS.get(piece.get_dtype(), piece.get_dtype()))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: broken ({error}); copy it again") from error
    kind = config.get("_class_name") or (config.get("architectures") or [""])[0]
    return shapes, PartReport(
        name=place.name,
        kind=str(kind or config.get("model_type", "")),
        parameters=sum(torch.Size(shape).numel() for shape in shapes.values()),
        size=sum(path.stat().st_size for path in whole or files),
        precision=", ".join(sorted(precisions)),
    )


_PRECISIONS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def _compare(network: Any, given: Shapes) -> tuple[str, tuple[str, ...]]:
    """What is wrong with the weights of a network, and what is only odd."""
    rename = getattr(network, "_fix_state_dict_keys_on_load", None)
    given = dict(given)
    if rename:
        rename(given)  # diffusers' own: old autoencoders name their attention otherwise
    prefix = f"{getattr(network, 'base_model_prefix', '') or 'no prefix'}."
    given = {name.removeprefix(prefix): shape for name, shape in given.items()}
    tied = {
        name.removeprefix(prefix) for name in getattr(network, "_tied_weights_keys", None) or ()
    }
    wanted = {
        name.removeprefix(prefix): tuple(value.shape)
        for name, value in network.state_dict().items()
    }
    needed = {name for name in wanted if name not in tied and not _unread(name)}
    missing = sorted(needed - given.keys())
    extra = sorted(name for name in given.keys() - wanted.keys() if not _unread(name))
    shapes = [name for name in sorted(needed & given.keys()) if wanted[name] != given[name]]
    told = []
    if missing:
        told.append(f"{len(missing)} weights are missing, such as {missing[0]}")
    if shapes:
        name = shapes[0]
        told.append(f"{name} is {given[name]} and should be {wanted[name]}")
    notes = (f"{len(extra)} weights are not used, such as {extra[0]}",) if extra else ()
    return "; ".join(told), notes


def _unread(name: str) -> bool:
    return any(part in name for part in UNREAD)


def _stranger(folder: Path) -> str:
    """What to do with a folder that has none of the parts."""
    places = (folder, folder / "models")
    if any((place / "diffusion_model.pth").is_file() for place in places):
        return f"{folder}: MONAI's files; write a folder of them with `cxrg models import monai`"
    single = sorted(
        path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".ckpt")
    )
    what = f"a single-file checkpoint ({single[0]})" if single else "none of its parts"
    parts = ", ".join(f"{part}/" for part in checkpoint.CONFIGS)
    return f"{folder}: {what}; save the model with save_pretrained, which makes {parts}"


def _family(configs: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    """What kind of model the configurations describe."""
    if "unet" not in configs:
        return checkpoint.transformer_family(folder) or "not known without unet/config.json"
    unet, vae = configs["unet"], configs.get("vae", {})
    if any(unet.get(key) for key in checkpoint.UNET_EXTRAS):
        return "U-Net with further conditions (as SDXL)"
    if vae.get("_class_name") == "MonaiAutoencoderKL":
        return "MONAI latent diffusion model, imported"
    text = str((configs.get("text_encoder", {}).get("architectures") or ["?"])[0])
    if vae.get("_class_name") == "AutoencoderDC":
        return f"latent diffusion with a deep-compression autoencoder and {text}"
    version = "2.x" if unet.get("use_linear_projection") else "1.x"
    layout = f"Stable Diffusion {version} layout"
    return layout if text.startswith("CLIP") else f"{layout} with {text}"
