"""Two runs on the same samples: paired differences with bootstrap intervals over patients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxrg.chest.categories import GROUPS
from cxrg.errors import InputError
from cxrg.evaluate.metrics.bootstrap import Resampling, Summary, summarise
from cxrg.evaluate.record import METHOD, Record
from cxrg.evaluate.report.summary import NAMES, column
from cxrg.evaluate.run import read_facts, read_records
from cxrg.files import json_values


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Differences A - B by part and metric, over the samples that both runs have.

    ``methods`` are the facts of A's and B's method that differ (model, identity, a knob), each with
    both values as text.
    """

    methods: dict[str, tuple[str, str]]
    parts: dict[str, dict[str, Summary]]
    shared: int
    only_a: int
    only_b: int
    warnings: tuple[str, ...]


def compare(a: Path, b: Path, *, seed: int = 0) -> Comparison:
    """Compare the runs in two folders.

    Raises:
        InputError: a folder holds no run, or they have no sample in common.
    """
    ours, theirs = ({r.id: r for r in read_records(path)} for path in (a, b))
    ids = [i for i in ours if i in theirs and ours[i].present and theirs[i].present]
    if not ids:
        raise InputError(
            f"{a} and {b} have no scored phrase in common; compare one data set's runs"
        )
    pairs = [(ours[i], theirs[i]) for i in ids]
    groups = [group for group in GROUPS if any(r.group == group for r, _ in pairs)]
    parts = {"all": _differences(pairs, seed)}
    if len(groups) > 1:
        parts |= {g: _differences([p for p in pairs if p[0].group == g], seed) for g in groups}
    facts = read_facts(a), read_facts(b)
    return Comparison(
        methods=_differing(*(_flat(each["method"]) for each in facts)),
        parts=parts,
        shared=len(ids),
        only_a=len(ours.keys() - theirs.keys()),
        only_b=len(theirs.keys() - ours.keys()),
        warnings=_warnings(*facts, pairs),
    )


def _flat(method: dict[str, Any]) -> dict[str, str]:
    """A method's facts and knobs as texts."""
    return {
        name: str(part)
        for key, value in method.items()
        for name, part in (value.items() if isinstance(value, dict) else [(key, value)])
    }


def _differing(a: dict[str, str], b: dict[str, str]) -> dict[str, tuple[str, str]]:
    both = {name: (a.get(name, "-"), b.get(name, "-")) for name in {**a, **b}}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def _differences(pairs: Sequence[tuple[Record, Record]], seed: int) -> dict[str, Summary]:
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    resampling = Resampling.of([record.patient for record in ours], seed=seed)
    categories = [record.category for record in ours]
    return {
        metric: summarise(
            column(ours, METHOD, metric) - column(theirs, METHOD, metric), categories, resampling
        )
        for metric in NAMES
    }


def _warnings(
    a: dict[str, Any], b: dict[str, Any], pairs: Sequence[tuple[Record, Record]]
) -> tuple[str, ...]:
    """What makes two runs less than comparable."""
    found = []
    if a["dataset"] != b["dataset"]:
        found.append("the data sets differ; only samples with the same id are compared")
    for key in ("outside", "longest"):
        if a["settings"][key] != b["settings"][key]:
            found.append(f"the runs were scored with different {key}")
    moved = sum(not _same_truth(x, y) for x, y in pairs)
    if moved:
        found.append(f"{moved} samples have another phrase or truth in the two runs")
    return tuple(found)


def _same_truth(x: Record, y: Record) -> bool:
    if x.phrase != y.phrase or len(x.truth) != len(y.truth):
        return False
    return all(np.allclose(p, q) for p, q in zip(x.truth, y.truth, strict=True))


def as_json(comparison: Comparison) -> str:
    """The comparison as strict JSON; undefined values are null."""
    return json.dumps(json_values(asdict(comparison), decimals=None), ensure_ascii=False)
