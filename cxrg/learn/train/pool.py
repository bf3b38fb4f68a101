"""The pool: pictures with questions and answers, made once by all cores and read many times.

A training step needs an image, a query and its answer on the latent's grid. Rendering
costs more than a step of the network, so the pool is rendered first, in shards that survive an
interruption, and phrases are worded anew each time a query is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.files import atomic_write
from cxrg.geometry import Mask
from cxrg.learn.cells import coarse
from cxrg.learn.log import Report
from cxrg.learn.shards import render_shards
from cxrg.learn.train.config import DataConfig
from cxrg.learn.train.segmenter import enlarge
from cxrg.phantom import queries, sample, scene
from cxrg.phantom.findings import OPACITIES, bounding
from cxrg.phantom.language import Query
from cxrg.phantom.nodules import Crop

PRESENT, ABSENT, ANATOMY, DEVICE = range(4)
SHARD = 500


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Background:
    """A real chest to draw into: 8-bit grey ``(side, side)``, small primary masks, and whether the
    absence of disease in it is known well enough to say that something is *not* there."""

    pixels: NDArray[np.uint8]
    outlines: dict[str, Mask]
    healthy: bool

    @property
    def image(self) -> NDArray[np.float32]:
        """Grey in [0, 1]."""
        return self.pixels.astype(np.float32) / np.float32(255)

    @property
    def masks(self) -> dict[str, Mask]:
        """The masks at the picture's side."""
        return {name: enlarge(mask, len(self.pixels)) for name, mask in self.outlines.items()}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sources:
    """What pictures are drawn from: real chests, healthy ones among them apart, and nodules."""

    chests: tuple[Background, ...] = ()
    normals: tuple[Background, ...] = ()
    crops: tuple[Crop, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pool:
    """N pictures and M answers.

    ``images`` uint8 (N, side, side); ``lungs`` uint8 (N, grid, grid), share of each cell in the
    lungs; ``complete`` bool (N,), whether all disease in the picture is known; ``owner`` int32
    (M,), the picture of an answer; ``query`` (M,) strings ``concept|side|zone``; ``kind`` uint8
    (M,); ``mask`` and ``box`` uint8 (M, grid, grid), share of each cell (0..255) in the answer
    and in the bounding boxes of its parts.
    """

    images: NDArray[np.uint8]
    lungs: NDArray[np.uint8]
    complete: NDArray[np.bool_]
    owner: NDArray[np.int32]
    query: NDArray[np.str_]
    kind: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    box: NDArray[np.uint8]


def to_words(query: Query) -> str:
    """A query as one string."""
    return f"{query.concept}|{query.side or ''}|{query.zone or ''}"


def from_words(words: str) -> Query:
    """The query that `to_words` wrote."""
    concept, side, zone = words.split("|")
    return Query(concept, side or None, zone or None)


def _choose(
    rng: np.random.Generator, phantom: sample.Phantom, complete: bool, config: DataConfig
) -> Iterator[tuple[int, queries.Answer]]:
    """Up to ``count`` answers of one picture: mostly findings, some anatomy, some absences."""
    from cxrg.phantom.devices import DEVICES

    count = config.answers
    here = queries.present(phantom)
    findings = [a for a in here if a.query.concept not in DEVICES]
    devices = [a for a in here if a.query.concept in DEVICES]
    body = queries.anatomy(phantom)
    if complete:
        wanted = count * 2 // 5 if config.lifelike else count // 4
        missing = queries.absent(phantom, rng, max(wanted, 1))
        yield from (
            (ABSENT, a) for a in missing if not (config.lifelike and _ambiguous(phantom, a.query))
        )
    for kind, answers, share in (
        (PRESENT, findings, count // 2),
        (DEVICE, devices, max(count // 10, 1)),
        (ANATOMY, body, max(count // 3, 1)),
    ):
        for index in rng.permutation(len(answers))[:share]:
            yield kind, answers[index]


_DENSE = ("atelectasis", "edema", "mass", "nodule")


def _ambiguous(phantom: sample.Phantom, query: Query) -> bool:
    """Whether a reader may call another dense finding of this picture an opacity."""
    opaque = query.concept == "opacity" or query.concept in OPACITIES
    return opaque and any(
        found.kind in _DENSE and query.side in (None, "bilateral", found.side)
        for found in phantom.findings
    )


def peaked(mask: Mask, grid: int, least: int = 230) -> NDArray[np.uint8]:
    """As `coarse`, but each connected part fills its fullest cell to ``least`` at least.

    Otherwise the target of a part smaller than a cell would be a fraction only. No part grows more
    than fourfold.
    """
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    total = np.zeros((grid, grid), np.float32)
    for part in range(1, count):
        shares = coarse(labels == part, grid).astype(np.float32)
        factor = np.clip(least / max(float(shares.max()), 1.0), 1.0, 4.0)
        total = np.maximum(total, shares * np.float32(factor))
    return np.asarray(np.maximum(np.round(total), coarse(mask, grid)), np.uint8)


def _picture(seed: int, config: DataConfig, sources: Sources) -> tuple[sample.Phantom, bool]:
    """The picture of a seed: a phantom, or findings drawn into one of the real chests."""
    if not sources.chests:
        return sample.render(seed, side=config.side), True
    rng = np.random.default_rng([seed, 2])
    normal = sources.normals and rng.random() < config.normals_share
    chests = sources.normals if normal else sources.chests
    chosen = chests[int(rng.integers(len(chests)))]
    if not config.lifelike:
        return sample.onto(rng, chosen.image, chosen.masks), chosen.healthy
    odds = scene.Odds(blank=config.blank)
    return scene.compose(rng, chosen.image, chosen.masks, sources.crops, odds), chosen.healthy


@dataclass(frozen=True, slots=True)
class _Shard:
    """Pictures ``first`` to ``first + SHARD``, of phantoms or of real backgrounds."""

    real: bool
    first: int

    def path(self, config: DataConfig, folder: Path) -> Path:
        name = "real" if self.real else "phantom"
        return folder / f"{name}-{config.seed}-{self.first:07d}.npz"


def _render(shard: _Shard, sources: Sources, *, config: DataConfig, folder: Path) -> None:
    """Render one shard to its file, whole or not at all."""
    first, real, path = shard.first, shard.real, shard.path(config, folder)
    cv2.setNumThreads(1)
    images, lungs, complete = [], [], []
    rows: dict[str, list[object]] = {k: [] for k in ("owner", "query", "kind", "mask", "box")}
    total = config.drawn_on_real if real else config.phantoms
    for index in range(first, min(first + SHARD, total)):
        seed = config.seed * 10_000_000 + index
        phantom, known = _picture(seed, config, sources if real else Sources())
        images.append(np.round(phantom.image * 255).astype(np.uint8))
        lungs.append(coarse(phantom.regions["lungs"], config.grid))
        complete.append(known)
        rng = np.random.default_rng([seed, 3])
        for kind, found in _choose(rng, phantom, known, config):
            rows["owner"].append(index - first)
            rows["query"].append(to_words(found.query))
            rows["kind"].append(kind)
            small = peaked if config.lifelike and kind in (PRESENT, DEVICE) else coarse
            rows["mask"].append(small(found.mask, config.grid))
            rows["box"].append(small(bounding(found.mask), config.grid))
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            images=np.stack(images),
            lungs=np.stack(lungs),
            complete=np.array(complete),
            owner=np.array(rows["owner"], np.int32),
            query=np.array(rows["query"], np.str_),
            kind=np.array(rows["kind"], np.uint8),
            mask=np.array(rows["mask"], np.uint8),
            box=np.array(rows["box"], np.uint8),
        )


def make_pool(
    config: DataConfig,
    sources: Callable[[], Sources],
    folder: Path,
    report: Report,
) -> list[Path]:
    """Render all shards into ``folder`` with one process per core; returns their paths.

    Finished shards are kept; ``sources`` is called only if a real one is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = [_Shard(False, first) for first in range(0, config.phantoms, SHARD)]
    shards += [_Shard(True, first) for first in range(0, config.drawn_on_real, SHARD)]
    missing = [shard for shard in shards if not shard.path(config, folder).exists()]
    given = sources() if any(shard.real for shard in missing) else Sources()
    render = partial(_render, config=config, folder=folder)
    render_shards(render, missing, given, lambda done, of: report("pool", done, of, 0.0))
    return [shard.path(config, folder) for shard in shards]


def read_pool(paths: list[Path]) -> Pool:
    """Join shards into one pool in memory."""
    parts: dict[str, list[NDArray[np.generic]]] = {f.name: [] for f in fields(Pool)}
    count = 0
    for path in paths:
        with np.load(path, allow_pickle=False) as shard:
            for name, into in parts.items():
                into.append(shard[name] + count if name == "owner" else shard[name])
            count += len(shard["images"])
    return Pool(**{name: np.concatenate(part) for name, part in parts.items()})
