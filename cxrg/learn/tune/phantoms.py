"""Studies of phantoms: exact anatomy, and phrases for what was drawn.

Rendering takes far longer than a step of the network, so phantoms are kept in a folder, in shards
that survive an interruption and that several runs can share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy import LOCATIONS, locate
from cxrg.chest.vocabulary import finding_named, locations_of
from cxrg.files import atomic_write
from cxrg.learn.shards import render_shards
from cxrg.learn.tune.config import Anatomy
from cxrg.learn.tune.study import Study, Triple, coarse_locations, join_triples
from cxrg.phantom import language, queries
from cxrg.phantom.structures import of_phantom

if TYPE_CHECKING:
    from cxrg.phantom.sample import Phantom

FIRST_SEED = 2**39
"""Training of models takes seeds below this one, evaluation those from 2**40 on."""
SHARD = 50
LUNGS = ("left lung", "right lung")
WORDINGS = 4
"""Phrases per triple beside its template."""


def phantom_triples(
    phantom: Phantom, masks: NDArray[np.uint8], words: Random
) -> tuple[Triple, ...]:
    """The triples of a phantom's findings, with phrases drawn for each."""
    queried = [answer.query for answer in queries.present(phantom)]
    named = ((finding_named(query.concept), query) for query in queried)
    return join_triples(
        (
            (
                finding,
                locations_of(finding, query.side, query.zone),
                partial(_wordings, query, words),
            )
            for finding, query in named
            if finding is not None and query.side != "bilateral"
        ),
        masks,
    )


def _wordings(query: language.Query, words: Random) -> list[str]:
    return [language.say(query, words) for _ in range(WORDINGS)]


def render_studies(
    count: int,
    *,
    seed: int,
    side: int,
    grid: int,
    anatomy: Anatomy,
    folder: Path,
    report: Callable[[int, int], None],
) -> list[Study]:
    """Studies of ``count`` phantoms, from the folder where they are there, else rendered into it.

    Args:
        seed: which phantoms; the first ones are the same for every count.
        side: pixels of the model's square.
        grid: cells along a side of the masks.
        anatomy: ``exact`` masks, or ``geometric`` ones by rules from the two lungs.
        report: called with shards done and shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    firsts = range(0, count, SHARD)
    paths = [folder / f"phantoms-{side}-{grid}-{seed}-{first:06d}.npz" for first in firsts]
    missing = [(f, p) for f, p in zip(firsts, paths, strict=True) if not p.exists()]
    render_shards(_render, missing, _Settings(seed=seed, side=side, grid=grid), report)
    return [study for path in paths for study in _read(path, anatomy)][:count]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Settings:
    """Arguments of `render_studies` that all shards share."""

    seed: int
    side: int
    grid: int


def _render(shard: tuple[int, Path], settings: _Settings) -> None:
    """Render one shard to its file, whole or not at all."""
    from cxrg.phantom.sample import render

    first, path = shard
    seed, side, grid = settings.seed, settings.side, settings.grid
    images: list[NDArray[np.uint8]] = []
    masks: dict[Anatomy, list[NDArray[np.uint8]]] = {"exact": [], "geometric": []}
    rows: list[tuple[str, str, str, str]] = []
    for index in range(first, first + SHARD):
        phantom = render(FIRST_SEED + seed * 10**6 + index, side=side)
        exact = of_phantom(phantom)
        ruled = locate({name: exact[name] for name in LUNGS})
        cells = coarse_locations(exact, grid)
        images.append(np.round(phantom.image * 255).astype(np.uint8))
        masks["exact"].append(cells)
        masks["geometric"].append(coarse_locations(dict(zip(LOCATIONS, ruled, strict=True)), grid))
        for triple in phantom_triples(phantom, cells, Random(f"{seed} {index}")):
            texts = "\n".join(triple.phrases)
            rows.append((str(index - first), triple.location, triple.finding, texts))
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            images=np.stack(images),
            **{name: np.stack(cells) for name, cells in masks.items()},  # type: ignore[arg-type]  # arrays, no flags
            rows=np.array(rows, np.str_).reshape(-1, 4),
            first=np.array(first),
        )


def _read(path: Path, anatomy: Anatomy) -> Iterator[Study]:
    with np.load(path, allow_pickle=False) as shard:
        images, masks, rows = shard["images"], shard[anatomy], shard["rows"]
        first = int(shard["first"])
    triples: list[list[Triple]] = [[] for _ in images]
    for owner, location, finding, phrases in rows.tolist():
        words = tuple(phrases.split("\n")) if phrases else ()
        triples[int(owner)].append(Triple(location=location, finding=finding, phrases=words))
    for index, own in enumerate(triples):
        yield Study(
            pixels=images[index],
            masks=masks[index],
            triples=tuple(t for t in own if masks[index, LOCATIONS.index(t.location)].any()),
            patient=f"phantom {first + index}",
        )
