"""Do drawn and undrawn training pictures differ where nothing was drawn?

``cxrg train --config scenes --out RUN``, then
``python -m tests.benchmarks.shortcut RUN/pool``

A random forest sees sharpness at four scales, brightness and contrast of the picture away from the
lungs (and from the frame), in pictures over healthy chests without devices, and guesses in
cross-validation whether a finding was drawn. An AUROC near .5 shows that no such shortcut reveals
present from absent.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from cxrg.learn.train.pool import DEVICE, PRESENT, Pool, read_pool
from tests.benchmarks.common import markdown

SCALES = (0.0023, 0.0047, 0.0094, 0.019)  # of the side
MARGIN, FRAME = 0.16, 0.03


def looks(image: NDArray[np.uint8], lungs: NDArray[np.uint8]) -> list[float]:
    """Sharpness per scale (spread and mean size of a band), and quantiles of grey."""
    side = len(image)
    near = cv2.resize(lungs, (side, side), interpolation=cv2.INTER_NEAREST) > 20
    reach = np.ones((round(MARGIN * side), round(MARGIN * side)), np.uint8)
    away = cv2.dilate(near.astype(np.uint8), reach) == 0
    edge = max(round(FRAME * side), 1)
    inside = np.zeros_like(away)
    inside[edge:-edge, edge:-edge] = away[edge:-edge, edge:-edge]
    current = image.astype(np.float32) / 255
    shown = current[inside]
    if shown.size < 50:
        return [0.0] * (2 * len(SCALES) + 7)
    found: list[float] = []
    for scale in SCALES:
        soft = cv2.GaussianBlur(current, (0, 0), scale * side)
        band = (current - soft)[inside]
        found += [float(band.std()), float(np.abs(band).mean())]
        current = np.asarray(soft, current.dtype)
    return [
        *found,
        float(shown.mean()),
        float(shown.std()),
        *np.percentile(shown, [1, 10, 50, 90, 99]),
    ]


def shortcut(pool: Pool) -> tuple[float, int]:
    """AUROC of guessing "a finding was drawn" from the rest of a picture; the pictures used."""
    index = np.arange(len(pool.images))
    drawn = np.isin(index, pool.owner[pool.kind == PRESENT])
    used = pool.complete & ~np.isin(index, pool.owner[pool.kind == DEVICE])
    x = np.array([looks(pool.images[i], pool.lungs[i]) for i in index[used]])
    forest = RandomForestClassifier(300, min_samples_leaf=5, random_state=0)
    guess = cross_val_predict(forest, x, drawn[used], cv=5, method="predict_proba")[:, 1]
    return float(roc_auc_score(drawn[used], guess)), int(used.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", type=Path, help="the pool of a training run")
    parser.add_argument("--shards", type=int, default=8, help="shards of 500 pictures to read")
    given = parser.parse_args()
    area, count = shortcut(read_pool(sorted(given.pool.glob("real-*.npz"))[: given.shards]))
    print(markdown(["pictures", "AUROC"], [[str(count), f"{area:.3f}"]]))


if __name__ == "__main__":
    main()
