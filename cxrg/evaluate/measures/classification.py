"""Grounded classification: is a finding present, judged by where the attention of its name is.

The score of a finding in an image is the mean of its map inside its plausible anatomy minus the
mean outside (``findings.toml`` names the anatomy; the experiment is named in arXiv 2506.10633, the
score is our own choice). Beside it stands the presence score, the map's highest place, which knows
no anatomy. AUC is over images, exact (Mann-Whitney), with intervals over patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy import Source
from cxrg.chest.findings import finding_of, findings
from cxrg.evaluate.datasets import Dataset
from cxrg.evaluate.measures.common import (
    MAPS,
    Advance,
    Fields,
    Heat,
    Measured,
    RecordStore,
    Table,
    describe,
    each_image,
    maps_of,
    union,
)
from cxrg.evaluate.method import Method
from cxrg.evaluate.metrics.bootstrap import NAN, Mean, Resampling, interval
from cxrg.evaluate.metrics.heatmaps import auc_of
from cxrg.evaluate.run import Open, Settings, by_image, choose, open_file
from cxrg.evaluate.sample import Sample
from cxrg.phantom.queries import covers

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage

NAME = "classification"
Labels = dict[str, bool]
"""Whether a concept is there; concepts that nobody looked for are missing."""
SCORES = (*MAPS, "presence")
_FEWEST = 5
"""Positives and negatives that a finding needs to count in the mean."""


def margin(heat: Heat, mask: Heat) -> float:
    """The mean of a map (H, W) inside a mask minus outside; NaN where either has no seen pixel.

    A pixel is inside from a share of one half; NaN pixels were not seen and do not count.
    """
    seen = np.isfinite(heat)
    inside, outside = heat[seen & (mask >= 0.5)], heat[seen & (mask < 0.5)]
    if not inside.size or not outside.size:
        return NAN
    return float(inside.mean(dtype=np.float64) - outside.mean(dtype=np.float64))


def labels_of(samples: Iterable[Sample]) -> Labels:
    """Which known findings an image's samples state as present or absent.

    What is there makes the wider concepts true (a pneumonia is an opacity); what is denied makes
    the narrower ones false. A concept stated as both counts as present.
    """
    there: set[str] = set()
    absent: set[str] = set()
    for sample in samples:
        finding = finding_of(sample.category)
        if finding is None:
            continue
        if sample.present:
            there |= {c for c in findings() if covers(c, finding.concept)}
        else:
            absent |= {c for c in findings() if covers(finding.concept, c)}
    return {concept: concept in there for concept in findings() if concept in there | absent}


def labels_of_kinds(kinds: Sequence[str]) -> Labels:
    """The labels of an image in which every finding is known, by the kinds that are there."""
    return {c: any(covers(c, kind) for kind in kinds) for c in findings()}


def measure(
    dataset: Dataset,
    readers: Mapping[str, Method],
    source: Source,
    settings: Settings,
    out: Path,
    *,
    facts: Mapping[str, Any],
    open_image: Open = open_file,
    advance: Advance = lambda name, count: None,
    drawn: Callable[[Sample], Sequence[str]] | None = None,
) -> Measured:
    """AUC of every finding that some images have and others lack.

    ``drawn`` gives all kinds of findings in a sample's image, where they are known (phantoms);
    otherwise the data set's own positives and negatives count. The rest is as in
    :func:`cxrg.evaluate.measures.leakage.measure`.
    """
    chosen = choose(dataset.samples, settings)
    run = describe(dataset, readers, settings, facts)
    store = RecordStore(out, NAME, run)

    def question(samples: Sequence[Sample]) -> Fields:
        first = samples[0]
        labels = labels_of_kinds(drawn(first)) if drawn else labels_of(samples)
        return {"id": first.id, "patient": first.patient, "labels": labels}

    def done(samples: Sequence[Sample]) -> bool:
        return store.answers([question(samples)])

    read = next(iter(readers.values())).read
    images = each_image(dataset, chosen, read, source, open_image, advance, done=done)
    for image, masks, samples in images:
        record = question(samples)
        if record["labels"]:
            store.add([record | {"scores": _scores(image, masks, record["labels"], readers)}])
    ids = [samples[0].id for samples in by_image(chosen).values()]
    records = [store.records[i] for i in ids if i in store.records]
    return Measured(
        name=NAME,
        facts={
            "dataset": dataset.name,
            "readers": run["readers"],
            **facts,
            "images": len(records),
        },
        tables=tuple(_table(records, reader, settings.seed) for reader in readers),
        records=tuple(store.records.values()),
    )


def _scores(
    image: CxrImage, masks: Heat, concepts: Iterable[str], readers: Mapping[str, Method]
) -> dict[str, dict[str, float]]:
    """By concept, then ``READER/SCORE``."""
    scores: dict[str, dict[str, float]] = {concept: {} for concept in concepts}
    for name, method in readers.items():
        answers = method.ground(image, [_prompt(concept) for concept in scores])
        for (concept, values), found in zip(scores.items(), answers, strict=True):
            mask = union(masks, findings()[concept].plausible)
            for kind, heat in maps_of(found).items():
                values[f"{name}/{kind}"] = margin(heat, mask)
            values[f"{name}/presence"] = float(found.score)
    return scores


def _prompt(concept: str) -> str:
    return "lung opacity" if concept == "opacity" else concept


def _table(records: Sequence[Mapping[str, Any]], reader: str, seed: int) -> Table:
    """AUC by finding and score, and the mean over findings with enough of both."""
    head = ("finding", "there", "not there", *SCORES)
    rows: list[tuple[str | Mean, ...]] = []
    values: dict[str, list[tuple[float, NDArray[np.float64]]]] = {name: [] for name in SCORES}
    draw = Resampling.of([r["patient"] for r in records], seed=seed) if records else None
    for concept in findings():
        keep = np.array([concept in r["labels"] for r in records], dtype=bool)
        part = [r for r in records if concept in r["labels"]]
        there = np.array([r["labels"][concept] for r in part], dtype=bool)
        if draw is None or there.all() or not there.any():
            continue
        cells = []
        for name in SCORES:
            scores = np.array([r["scores"][concept][f"{reader}/{name}"] for r in part])
            draws = draw.only(keep).auc(scores, there)
            low, high = interval(draws)
            value = auc_of(scores[there], scores[~there])
            cells.append(Mean(value=value, low=low, high=high, n=len(part)))
            if min(there.sum(), (~there).sum()) >= _FEWEST:
                values[name].append((value, draws))
        rows.append((concept, str(there.sum()), str((~there).sum()), *cells))
    if values[SCORES[0]]:
        title = f"mean of {len(values[SCORES[0]])} with {_FEWEST} or more of each"
        rows.append((title, "", "", *(_mean(values[name]) for name in SCORES)))
    return Table(title=f"AUC by finding, {reader}", head=head, rows=tuple(rows))


def _mean(values: Sequence[tuple[float, NDArray[np.float64]]]) -> Mean:
    """The mean AUC over findings, with the interval of the same resamples' means."""
    draws = np.mean([draw for _, draw in values], axis=0)
    low, high = interval(draws)
    value = float(np.mean([value for value, _ in values]))
    return Mean(value=value, low=low, high=high, n=len(values))
