"""Render files of training data with one process per core.

Rendering takes longer than training on the result, so pictures are rendered once, into files
(shards) that survive an interruption: a rerun renders only the missing ones.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

_Shard = TypeVar("_Shard")
_Shared = TypeVar("_Shared")


def render_shards(
    render: Callable[[_Shard, _Shared], None],
    missing: Sequence[_Shard],
    shared: _Shared,
    report: Callable[[int, int], None],
) -> None:
    """Render shards in parallel, in any order.

    Args:
        render: a module's function that writes the file of one shard.
        missing: what to render; nothing is started if it is empty.
        shared: second argument of ``render``, sent once per process and not once per shard.
        report: called with shards done and shards.
    """
    if not missing:
        return
    context = multiprocessing.get_context("spawn")
    processes = min(os.cpu_count() or 1, len(missing))
    with context.Pool(processes, _initialise, (render, shared)) as pool:
        for done, _ in enumerate(pool.imap_unordered(_render, missing), start=1):
            report(done, len(missing))


_job: tuple[Callable[[Any, Any], None], Any]


def _initialise(render: Callable[[Any, Any], None], shared: Any) -> None:
    global _job
    _job = render, shared


def _render(shard: Any) -> None:
    render, shared = _job
    render(shard, shared)
