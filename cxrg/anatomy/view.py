"""What kind of picture an image is: an upright frontal chest X-ray, a turned one, a negative, or
something else.

A small network looks at 64 x 64 pixels. A grounding model attends to every phrase in every picture;
in the drawing of a cat it finds a heart. So the picture is judged before it is grounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from cxrg.geometry import Frame

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage

WEIGHTS = Path(__file__).with_name("view_weights") / "view.safetensors"
SIDE = 64
KINDS = ("upright", "turned clockwise", "upside down", "turned counter-clockwise", "other")
"""The network's first outputs, one of which is chosen; the last output is for negatives."""

_WIDTHS = (16, 32, 64, 96)
_OTHER_ABOVE = 0.8
_DESCRIPTIONS = {
    "turned clockwise": "looks like a chest X-ray turned clockwise by 90 degrees",
    "upside down": "looks like a chest X-ray upside down",
    "turned counter-clockwise": "looks like a chest X-ray turned counter-clockwise by 90 degrees",
    "other": "does not look like one whole frontal chest X-ray",
}
_NEGATIVE = "looks like a negative, with dark bones and bright air"


class ViewNet(nn.Module):
    """Convolutions over ``(B, 1, 64, 64)`` in [0, 1] to six logits ``(B, 6)``: KINDS, negative."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width in _WIDTHS:
            groups = max(width // 16, 1) if width >= 64 else 1
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1, groups=groups),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
            before = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before * (SIDE >> len(_WIDTHS)) ** 2, len(KINDS) + 1)

    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
        features = self.body((x - mean) / (deviation + 0.03)).flatten(1)
        logits: Tensor = self.head(F.dropout(features, 0.3, self.training))
        return logits


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A picture's kind.

    Attributes:
        kind: one of :data:`KINDS`.
        chance: the network's probability of that kind, 0 to 1; not calibrated.
        negative: whether grey values are inverted; only of an X-ray.
    """

    kind: str
    chance: float
    negative: bool

    @property
    def fits(self) -> bool:
        """Whether it is an upright frontal chest X-ray with bright bones."""
        return self.kind == "upright" and not self.negative

    @property
    def description(self) -> str:
        """What it looks like instead, to follow the image's name; empty if it fits."""
        wrong = [_DESCRIPTIONS[self.kind]] if self.kind in _DESCRIPTIONS else []
        return " and ".join(wrong + [_NEGATIVE] * self.negative)


def judge_view(image: CxrImage) -> View:
    """The kind of an image, of which the whole is looked at however the model reads it."""
    return judge_square(view_square(image))


def view_square(image: CxrImage) -> NDArray[np.float32]:
    """The picture that is judged: the whole image with margins, ``(64, 64)`` in [0, 1]."""
    crop = image.frame.crop
    frame = Frame.fit(image.frame.source, SIDE, "pad", crop.width / crop.height)
    return frame.sample(np.nan_to_num(image.grey)).clip(0, 1)


@torch.inference_mode()
def judge_square(square: NDArray[np.float32]) -> View:
    """The kind of a square picture, ``(64, 64)`` in [0, 1]."""
    logits = _shipped()(torch.from_numpy(square)[None, None])[0]
    chances = logits[: len(KINDS)].softmax(0)
    # What is not a chest for certain is taken for the likeliest chest.
    if chances[-1] <= _OTHER_ABOVE:
        chances = chances[:-1]
    best = int(chances.argmax())
    negative = KINDS[best] != "other" and bool(logits[-1] > 0)
    return View(kind=KINDS[best], chance=float(chances[best]), negative=negative)


@cache
def _shipped() -> ViewNet:
    net = ViewNet()
    net.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return net.eval().requires_grad_(False)
