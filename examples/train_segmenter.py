"""The recipe of the shipped lung segmenter: phantoms, and phantoms' teacher on real chests.

1. A teacher is trained on phantoms alone (``cxrg train`` leaves it in ``segmenter/`` of its run).
2. The teacher marks real frontal chest X-rays, each under eight exposures; what it marks alike in
   all of them, and what looks like two lungs, is kept (self-training with a filter for agreement).
3. The shipped network, a third of the teacher's size, learns from as many phantoms (exact masks) as
   pictures with findings drawn into the real chests (the teacher's masks), so that opacities,
   devices, markers and exposures vary over real anatomy too.

    python examples/train_segmenter.py --teacher runs/compact/segmenter \
        --backgrounds backgrounds/ --out cxrg/anatomy/segmenter_weights
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from numpy.typing import NDArray

from cxrg.anatomy.segmenter import whole_part
from cxrg.image import read_image
from cxrg.phantom import appearance, sample
from cxrg.train.config import SegmenterConfig
from cxrg.train.pool import Background
from cxrg.train.segmenter import STRUCTURES, plausible, train_segmenter

SIDE = 64
SEED = 9_100_000_000  # apart from the phantoms of the teacher, the model and the evaluation
EXPOSURES = 8
AGREEMENT = 0.88  # least mean Dice between the mean mask and each exposure's


def marked(teacher: UNet2DModel, folder: Path) -> Iterator[Background]:
    """Real chests with the masks on which the teacher agrees with itself."""
    rng = np.random.default_rng(SEED)
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        files = [row["file"] for row in csv.DictReader(file)]
    for name in files:
        grey = read_image(folder / name, side=SIDE).pixels
        views = [grey, *(appearance.expose(rng, grey) for _ in range(EXPOSURES - 1))]
        x = torch.from_numpy(np.stack(views))[:, None] * 2 - 1
        with torch.inference_mode():
            chance = teacher(x, torch.zeros((), dtype=torch.long)).sample.sigmoid().numpy()
        mean = chance.mean(0) > 0.5
        each = chance > 0.5
        total = each.sum((2, 3)) + mean.sum((1, 2))
        shared = 2 * (each & mean).sum((2, 3)) / np.maximum(total, 1)
        masks = {n: whole_part(m) for n, m in zip(STRUCTURES, mean, strict=True)}
        if plausible(masks) and shared[:, :3].mean() >= AGREEMENT:
            yield Background(image=grey, masks=masks, healthy=False)


def pictures(chests: list[Background], count: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """``count`` phantoms and as many pictures drawn on real chests, with their masks."""
    images, masks = [], []
    for index in range(2 * count):
        if index < count:
            made = sample.render(SEED + index, side=SIDE)
        else:
            rng = np.random.default_rng([SEED, index])
            chest = chests[int(rng.integers(len(chests)))]
            made = sample.onto(rng, chest.image, chest.masks)
        images.append(np.round(made.image * 255).astype(np.uint8))
        masks.append(np.stack([made.regions[name] for name in STRUCTURES]))
    return np.stack(images), np.stack(masks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--backgrounds", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2500, help="phantoms, and drawn on real")
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    teacher: UNet2DModel = UNet2DModel.from_pretrained(args.teacher).eval()
    chests = list(marked(teacher, args.backgrounds))
    print(f"{len(chests)} real chests", flush=True)
    images, masks = pictures(chests, args.count)
    config = SegmenterConfig(
        side=SIDE,
        phantoms=args.count,
        steps=args.steps,
        batch=12,
        channels=(16, 24, 32, 48),
        learning_rate=2e-3,
    )

    def told(stage: str, step: int, steps: int, value: float) -> None:
        if step % 50 == 0:
            print(f"{stage} {step}/{steps} loss {value:.4f}", flush=True)

    net = train_segmenter(images, masks, config, told)
    torch.nn.Module.half(net)  # in place
    net.save_pretrained(args.out)


if __name__ == "__main__":
    main()
