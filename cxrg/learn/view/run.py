"""Train the view network on real X-rays turned, mirrored and inverted, and on other pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from cxrg.anatomy.view import KINDS, ViewNet
from cxrg.errors import InputError, UsageError
from cxrg.files import atomic_write
from cxrg.geometry import Frame
from cxrg.image.read import read_image
from cxrg.learn.index import read_index
from cxrg.learn.log import Log, Progress, Report
from cxrg.learn.settings import lay_over_each, read_toml
from cxrg.learn.trainer import Trainer, TrainerConfig
from cxrg.learn.view.examples import Pictures, draw
from cxrg.learn.view.others import SIDE, Grey, stretched

_WINDOWS = ((-160.0, 240.0), (-1000.0, 400.0))  # soft tissue and lung, in Hounsfield units


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewConfig:
    """One run, as ``view.toml`` says it.

    Attributes:
        chests: folders with an ``index.csv`` that lists upright frontal X-rays in column ``file``.
        held_out: how many of each folder's last rows are not read.
        ct: a NIfTI file of a chest in Hounsfield units, axes right to left, back to front, upwards.
        steps: gradient steps.
        batch: pictures in a step.
        learning_rate: the highest of one cycle.
        seed: of every random choice.
    """

    chests: list[str]
    held_out: list[int]
    ct: str
    steps: int
    batch: int
    learning_rate: float
    seed: int


def read_config(path: Path, changes: Mapping[str, str]) -> ViewConfig:
    """Read a recipe; its paths start from its folder.

    Raises:
        InputError: the file cannot be read, or a setting is unknown or missing.
        UsageError: a setting on top is unknown, or its value is not valid.
    """
    raw = read_toml(path)
    lay_over_each(raw, changes, known=str(path))
    raw.pop("trains")
    wrong = raw.keys() ^ {field.name for field in fields(ViewConfig)}
    if wrong or len(raw["chests"]) != len(raw["held_out"]):
        names = ", ".join(sorted(wrong)) or "chests, held_out"
        raise InputError(f"{path}: unknown, missing or unequal settings: {names}; correct them")
    folder = path.parent
    raw["chests"] = [str((folder / each).resolve()) for each in raw["chests"]]
    return ViewConfig(**{**raw, "ct": str((folder / raw["ct"]).resolve())})


def run(settings: ViewConfig, *, out: Path, resume: bool, progress: Progress) -> Path:
    """Train the view network.

    Returns:
        The file of its weights, in half precision.

    Raises:
        InputError: the pictures cannot be read.
        UsageError: the folder holds files and ``resume`` is not given, or nibabel is missing.
    """
    if out.exists() and any(out.iterdir()) and not resume:
        raise UsageError(f"{out}: holds files already; give --resume or another --out")
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        log = Log(file=file, progress=progress)
        pictures = Pictures(
            chests=tuple(
                read_chests(Path(folder), held_out, log)
                for folder, held_out in zip(settings.chests, settings.held_out, strict=True)
            ),
            slices=read_slices(Path(settings.ct)),
        )
        net = train_view(pictures, settings, log, out / "checkpoint.pt")
    weights = out / "view.safetensors"
    with atomic_write(weights) as binary:
        binary.write(save({name: value.half() for name, value in net.state_dict().items()}))
    return weights


def train_view(
    pictures: Pictures, settings: ViewConfig, report: Report, checkpoint: Path
) -> ViewNet:
    """Train on examples drawn from pictures; each step's depend on its number alone."""
    torch.manual_seed(settings.seed)
    net = ViewNet()

    def objective(step: int) -> dict[str, Tensor]:
        rng: Generator = default_rng([settings.seed, step])
        examples = [draw(pictures, rng) for _ in range(settings.batch)]
        x = torch.from_numpy(np.stack([each.picture for each in examples]))[:, None]
        kind = torch.tensor([each.kind for each in examples])
        negative = torch.tensor([float(each.negative) for each in examples])
        torch.manual_seed(step)  # dropout's
        logits = net(x)
        chest = (kind != KINDS.index("other")).float()
        polarity = F.binary_cross_entropy_with_logits(logits[:, -1], negative, reduction="none")
        loss = F.cross_entropy(logits[:, :-1], kind) + (polarity * chest).sum() / chest.sum()
        return {"view": loss}

    loop = TrainerConfig.one_cycle(settings.steps, settings.learning_rate, weight_decay=1e-2)
    Trainer(net, loop, checkpoint=checkpoint).run(objective, report)
    return net.eval()


def read_chests(folder: Path, held_out: int, report: Report) -> Grey:
    """The X-rays that a folder's index lists, ``(N, 96, 96)``.

    Raises:
        InputError: there is no valid index, or an image cannot be read.
    """
    rows = read_index(folder, ("file",), held_out)
    pictures = []
    for done, row in enumerate(rows, start=1):
        image = read_image(folder / row["file"], side=SIDE)
        pictures.append((np.nan_to_num(image.pixels) * 255).round().astype(np.uint8))
        report("pictures", done, len(rows), 0.0)
    return np.stack(pictures)


def read_slices(path: Path) -> Grey:
    """Axial and sagittal slices of a CT, and its lateral projection, ``(M, 96, 96)``.

    Raises:
        InputError: the file cannot be read.
        UsageError: nibabel is missing.
    """
    try:
        import nibabel
    except ImportError as error:
        raise UsageError("reading NIfTI needs nibabel; pip install 'cxrg[nifti]'") from error
    try:
        image: Any = nibabel.load(path)
        volume: NDArray[np.float32] = image.get_fdata(dtype=np.float32)
        spacing = image.header.get_zooms()
    except (OSError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise InputError(f"{path}: no CT that can be read; give a NIfTI file") from error
    slices = []
    for low, high in _WINDOWS:
        grey = stretched(volume.clip(low, high))
        slices += [_seen(grey[:, :, z], spacing[0], spacing[1]) for z in range(0, grey.shape[2], 3)]
        slices += [_seen(grey[x], spacing[1], spacing[2]) for x in range(40, grey.shape[0] - 40, 8)]
    lateral = _seen(stretched(volume.clip(-1000, 400).mean(0)), spacing[1], spacing[2])
    return np.stack([*slices, *[lateral] * 8])


def _seen(plane: Grey, across: float, up: float) -> Grey:
    """A plane (across, upwards) of a CT as a picture; the arguments are its spacings in mm."""
    frame = Frame.fit((plane.shape[1], plane.shape[0]), SIDE, "pad", up / across)
    upright = np.ascontiguousarray(np.rot90(plane)).astype(np.float32)
    return np.asarray(frame.sample(upright).round().clip(0, 255).astype(np.uint8))
