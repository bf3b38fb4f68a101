"""Training batches: pictures of the pool, newly drawn phrases, and targets of their attention."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrg.learn.train.config import DEFAULT_SHARES
from cxrg.learn.train.pool import ABSENT, ANATOMY, DEVICE, PRESENT, Pool, from_words
from cxrg.phantom.language import Query, negate, normal, say
from cxrg.phantom.language import sentence as full_sentence

KINDS = (PRESENT, ABSENT, ANATOMY, DEVICE)
ON_BLANK = 0.5
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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BatchSampler:
    """What batches are drawn from.

    ``rows`` are a pool's answers of each kind, and ``odds`` (sum 1; None: all alike) how often each
    is drawn: the absent ones so that the same words name what is absent as often as what is there.
    ``missing`` are answers, drawn by ``missing_odds``, to be asked of a ``blank`` picture, one
    without any finding, or of a ``bare`` one if the answer is a device: one without finding and
    device. Without all that, words alone would tell whether a finding is there.
    """

    rows: dict[int, NDArray[np.int64]]
    odds: dict[int, NDArray[np.float64] | None]
    missing: NDArray[np.int64]
    missing_odds: NDArray[np.float64] | None
    blank: NDArray[np.int64]
    bare: NDArray[np.int64]


def make_sampler(pool: Pool, balance: float = 0.0) -> BatchSampler:
    """Sort a pool's answers.

    Args:
        pool: pictures and answers.
        balance: 0 draws findings as often as the pool has them, 1 draws all findings equally often.
            Above 0, devices are also asked of pictures without them.
    """
    rows = {kind: np.flatnonzero(pool.kind == kind) for kind in KINDS}
    present = rows[PRESENT]
    blank = np.setdiff1d(np.flatnonzero(pool.complete), pool.owner[present])
    concepts = np.array([from_words(str(words)).concept for words in pool.query])
    missing = present
    if balance:
        asked = np.isin(pool.kind, (PRESENT, DEVICE)) & ~np.isin(concepts, _COMMON)
        missing = np.flatnonzero(asked)
    often = Counter(concepts[np.isin(pool.kind, (PRESENT, DEVICE))].tolist())
    said: dict[tuple[str, str | None, str | None], float] = defaultdict(float)
    for row in present:
        said[_form(pool.query[row])] += often[concepts[row]] ** -balance
    missed = [_form(pool.query[row]) for row in rows[ABSENT]]
    times = Counter(missed)

    def by_rarity(chosen: NDArray[np.int64]) -> NDArray[np.float64] | None:
        rare = [max(often[each], 1) ** -balance for each in concepts[chosen]]
        return _shares(rare) if balance else None

    return BatchSampler(
        rows=rows,
        odds={
            PRESENT: by_rarity(present),
            ABSENT: _shares([said.get(form, 0.0) / times[form] for form in missed]),
            ANATOMY: None,
            DEVICE: None,
        },
        missing=missing,
        missing_odds=by_rarity(missing),
        blank=blank,
        bare=np.setdiff1d(blank, pool.owner[rows[DEVICE]]),
    )


_COMMON = ("leads",)
"""Devices that healthy real chests may have too, so that nobody knows whether they are there."""


def _shares(weights: list[float]) -> NDArray[np.float64] | None:
    total = sum(weights)
    return np.array(weights) / total if total else None


def _form(words: np.str_) -> tuple[str, str | None, str | None]:
    """A query but for the name of its side: left and right are asked alike anyhow."""
    query = from_words(str(words))
    return query.concept, "one" if query.side in ("left", "right") else query.side, query.zone


def _pick(
    sampler: BatchSampler, pool: Pool, kind: int, rng: np.random.Generator
) -> tuple[int, int]:
    """An answer of a kind and its picture; what is absent is often asked of a blank picture."""
    if kind == ABSENT and sampler.bare.size and sampler.missing.size and rng.random() < ON_BLANK:
        row = int(rng.choice(sampler.missing, p=sampler.missing_odds))
        return row, int(rng.choice(sampler.bare if pool.kind[row] == DEVICE else sampler.blank))
    row = int(rng.choice(sampler.rows[kind], p=sampler.odds[kind]))
    return row, int(pool.owner[row])


_THIN = ("pneumothorax", "atelectasis")


def _boxed(kind: int, words: str) -> bool:
    """Whether readers' boxes reach as far as the finding: a line's or a rim's middle is empty."""
    return kind == PRESENT and from_words(words).concept not in _THIN


def draw(
    pool: Pool,
    sampler: BatchSampler,
    rng: np.random.Generator,
    words: Random,
    *,
    size: int,
    caption_drop: float,
    box_share: float,
    shares: tuple[float, ...] = DEFAULT_SHARES,
    normal_share: float = 0.0,
) -> Batch:
    """Draw ``size`` answers by the ``shares`` of ``KINDS`` and word their phrases.

    In a picture without findings, a part ``normal_share`` of the absent ones become sentences such
    as "The lungs are clear".

    The target of a cell is its share of the finding's mask, or ``box_share`` of its share of the
    finding's bounding boxes where that is more: readers draw boxes around, not along. Thin findings
    and all that is no finding have their mask alone.
    """
    present = [k for k in KINDS if sampler.rows[k].size]
    share = np.array([shares[k] for k in present])
    of_kind = rng.choice(present, size=size, p=share / share.sum())
    rows, owner = np.array([_pick(sampler, pool, int(k), rng) for k in of_kind]).T
    boxed = np.array(
        [_boxed(int(k), str(pool.query[row])) for k, row in zip(of_kind, rows, strict=False)]
    )
    boxes = box_share * boxed[:, None, None] * pool.box[rows]
    target = np.maximum(pool.mask[rows], boxes).astype(np.float32) / 255
    target[of_kind == ABSENT] = 0
    weight = np.ones_like(target)
    described = np.ones(size, np.float32)
    phrases: list[str] = []
    blank = set(sampler.blank.tolist()) if normal_share else set()
    for i, (row, kind) in enumerate(zip(rows, of_kind, strict=True)):
        query = from_words(str(pool.query[row]))
        if words.random() < caption_drop:
            phrases.append("")
            weight[i] = 0
        elif kind in (PRESENT, ABSENT) and words.random() < NEGATED:
            phrases.append(negate(query, words))
            target[i] = 0
            described[i] = float(kind == ABSENT)
        elif kind == ABSENT and owner[i] in blank and words.random() < normal_share:
            phrases.append(normal(words))
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
