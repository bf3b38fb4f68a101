"""Training batches: latents from the pool, words drawn anew, and where those words should look."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrg.phantom.language import Query, negate, say
from cxrg.phantom.language import sentence as full_sentence
from cxrg.train.pool import ABSENT, ANATOMY, DEVICE, PRESENT, Pool, from_words

SHARES = {PRESENT: 0.54, ABSENT: 0.22, ANATOMY: 0.20, DEVICE: 0.04}
NEGATED = 0.05
SENTENCE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """``index`` (B,) pictures; ``phrases`` B strings (empty where dropped); ``target`` float
    (B, grid, grid) in [0, 1]; ``weight`` float (B, grid, grid), 0 where the truth is not known;
    ``described`` float (B,), 1 where the phrase is true of the picture, so that it may guide
    denoising."""

    index: NDArray[np.int64]
    phrases: list[str]
    target: Tensor
    weight: Tensor
    described: Tensor


def by_kind(pool: Pool) -> dict[int, NDArray[np.int64]]:
    """Which answers are of each kind."""
    return {kind: np.flatnonzero(pool.kind == kind) for kind in SHARES}


def draw(
    pool: Pool,
    kinds: dict[int, NDArray[np.int64]],
    rng: np.random.Generator,
    words: Random,
    *,
    size: int,
    caption_drop: float,
    box_share: float,
) -> Batch:
    """Draw ``size`` answers by the shares above and word their phrases.

    The target of a cell is its share of the finding's mask, or ``box_share`` of its share of the
    finding's bounding boxes where that is more: readers draw boxes around, not along.
    """
    present = [k for k in SHARES if kinds[k].size]
    share = np.array([SHARES[k] for k in present])
    of_kind = rng.choice(present, size=size, p=share / share.sum())
    rows = np.array([kinds[int(k)][int(rng.integers(kinds[int(k)].size))] for k in of_kind])
    target = np.maximum(pool.mask[rows], box_share * pool.box[rows]).astype(np.float32) / 255
    weight = np.ones_like(target)
    owner = pool.owner[rows].astype(np.int64)
    described = np.ones(size, np.float32)
    phrases: list[str] = []
    for i, row in enumerate(rows):
        kind, query = int(pool.kind[row]), from_words(str(pool.query[row]))
        if words.random() < caption_drop:
            phrases.append("")
            weight[i] = 0
        elif kind in (PRESENT, ABSENT) and words.random() < NEGATED:
            phrases.append(negate(query, words))
            target[i] = 0
            described[i] = float(kind == ABSENT)
        else:
            phrases.append(_word(query, words))
            described[i] = float(kind != ABSENT)
        if kind == PRESENT and not pool.complete[owner[i]]:
            # Disease that nobody labelled may lie elsewhere in these lungs.
            unknown = (pool.lungs[owner[i]] > 64) & (target[i] < 0.05)
            weight[i][unknown] = 0
    return Batch(
        index=owner,
        phrases=phrases,
        target=torch.from_numpy(target),
        weight=torch.from_numpy(weight),
        described=torch.from_numpy(described),
    )


def _word(query: Query, words: Random) -> str:
    return (full_sentence if words.random() < SENTENCE else say)(query, words)
