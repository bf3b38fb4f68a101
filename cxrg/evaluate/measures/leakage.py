"""How much of a phrase's attention leaks out of the anatomy that the phrase names.

With attention ``A`` (normalised to sum 1 over the pixels that were seen) and the mask ``m`` in
[0, 1] of the named locations (the question of arXiv 2506.10633; the measure is our own choice)::

    leak = 1 - sum_p A[p] m[p]

Each phrase is grounded as a report's sentence and as "{location} {finding}", of the model and of a
tuned one where there is one, and again with the patient's other side in the words and the same
mask: a model that reads the location leaks more then. ``uniform`` is the leak of a map that is the
same everywhere. Attention is the mean probability over layers and timesteps; the heatmap is what
the run's options make of it (`cxrg.result.Grounding`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy import Source
from cxrg.chest.categories import GROUPS, group_of
from cxrg.evaluate.datasets import Dataset
from cxrg.evaluate.measures.common import (
    LONGEST,
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
from cxrg.evaluate.measures.leakage_figure import Row, figure
from cxrg.evaluate.measures.wordings import FORMS, Wording, wording
from cxrg.evaluate.method import Method
from cxrg.evaluate.metrics.bootstrap import NAN, Mean, Resampling, difference, mean_of
from cxrg.evaluate.run import Open, Settings, choose, open_file, reduce
from cxrg.evaluate.sample import Sample

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage

Maps = Mapping[str, Mapping[str, Heat]]
"""By phrase and kind."""
NAME = "leakage"
SHOWN = 6
"""Rows of the figure."""


def leak(heat: Heat, mask: Heat) -> float:
    """The share of a map (H, W) that is outside a mask (H, W) in [0, 1]; NaN for an empty map.

    Pixels that are NaN were not seen and do not count.
    """
    seen = np.isfinite(heat)
    total = float(heat[seen].sum(dtype=np.float64))
    if total <= 0:
        return NAN
    return 1 - float((heat[seen] * mask[seen]).sum(dtype=np.float64)) / total


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
) -> Measured:
    """Leakage of every sample that is there and whose words name a location.

    Goes on with what the folder has. Only the images of the figure are read again for it.

    Args:
        dataset: the samples.
        readers: the model, and perhaps a tuned one, by name.
        source: where anatomy comes from.
        settings: ``limit`` and ``seed`` count here.
        out: the folder of the run.
        facts: what else decides the numbers, such as which source it is.
        open_image: how a sample's image is opened.
        advance: called with the image's name and samples after each image.

    Raises:
        InputError: a problem, where the data set is read strictly; or a spoilt record.
        UsageError: the folder holds another run.
    """
    worded = {s.id: words for s in dataset.samples if s.present and (words := wording(s))}
    chosen = [s for s in choose(dataset.samples, settings) if s.id in worded]
    questions = {s.id: _question(s, worded[s.id]) for s in chosen}
    shown = _shown(chosen, worded, settings.seed)
    run = describe(dataset, readers, settings, facts)
    store = RecordStore(out, NAME, run)
    rows: list[Row] = []

    def done(samples: Sequence[Sample]) -> bool:
        pictured = any(s.id in shown for s in samples)
        return not pictured and store.answers(questions[s.id] for s in samples)

    read = next(iter(readers.values())).read
    images = each_image(dataset, chosen, read, source, open_image, advance, done=done)
    for image, masks, samples in images:
        wordings = [worded[s.id] for s in samples]
        found = {name: _maps(method, image, wordings) for name, method in readers.items()}
        records = []
        for sample, words in zip(samples, wordings, strict=True):
            mask = union(masks, words.locations)
            records.append(questions[sample.id] | _answer(words, mask, found))
            if sample.id in shown:
                rows.append(_row(image, mask, words, records[-1], found))
        store.add(records)
    records = [store.records[s.id] for s in chosen if s.id in store.records]
    return Measured(
        name=NAME,
        facts={
            "dataset": dataset.name,
            "readers": run["readers"],
            **facts,
            "samples": len(records),
        },
        tables=tuple(_tables(records, list(readers), settings.seed)),
        records=tuple(store.records.values()),
        pictures=_pictures(rows),
    )


def _question(sample: Sample, words: Wording) -> Fields:
    return {
        "id": sample.id,
        "patient": sample.patient,
        "group": group_of(sample.category),
        "category": sample.category,
        "locations": list(words.locations),
        "phrases": {"right": words.right, "wrong": words.wrong},
    }


def _maps(method: Method, image: CxrImage, wordings: Sequence[Wording]) -> Maps:
    texts = [
        text for words in wordings for each in (words.right, words.wrong) for text in each.values()
    ]
    phrases = list(dict.fromkeys(texts))
    found = method.ground(image, phrases)
    return {phrase: maps_of(each) for phrase, each in zip(phrases, found, strict=True)}


def _answer(words: Wording, mask: Heat, found: Mapping[str, Maps]) -> Fields:
    leaks = {
        f"{reader}/{form}/{kind}": {
            side: leak(maps[phrases[form]][kind], mask)
            for side, phrases in (("right", words.right), ("wrong", words.wrong))
            if phrases
        }
        for reader, maps in found.items()
        for kind in MAPS
        for form in FORMS
    }
    any_map = next(iter(found.values()))[words.right[FORMS[0]]][MAPS[0]]
    uniform = np.where(np.isfinite(any_map), np.float32(1), any_map)
    return {"uniform": leak(uniform, mask), "leak": leaks}


def _tables(records: Sequence[Fields], readers: Sequence[str], seed: int) -> list[Table]:
    """For each group and map: leaks by reader and form; and differences between them."""
    tables = []
    for group in GROUPS:
        part = [record for record in records if record["group"] == group]
        if not part:
            continue
        draw = Resampling.of([record["patient"] for record in part], seed=seed)
        for kind in MAPS:
            tables.append(_leaks(part, draw, readers, group, kind))
        tables.append(_differences(part, draw, readers, group))
    return tables


def _leaks(
    part: Sequence[Fields],
    draw: Resampling,
    readers: Sequence[str],
    group: str,
    kind: str,
) -> Table:
    uniform = mean_of(np.array([record["uniform"] for record in part]), draw)
    empty = Mean(value=NAN, low=NAN, high=NAN, n=0)
    rows: list[tuple[str | Mean, ...]] = [("uniform", uniform, empty, empty, empty)]
    for reader in readers:
        for form in FORMS:
            right = column(part, f"{reader}/{form}/{kind}", "right")
            wrong = column(part, f"{reader}/{form}/{kind}", "wrong")
            sided = np.where(np.isfinite(wrong), right, NAN)
            gap = difference(wrong, sided, draw)
            cells = (mean_of(right, draw), mean_of(sided, draw), mean_of(wrong, draw), gap)
            rows.append((f"{reader}, {form}", *cells))
    sided_n = rows[-1][2].n if isinstance(rows[-1][2], Mean) else 0
    head = ("form", "leak", "of one-sided", "wrong side", "wrong - right")
    title = f"{group}, {kind}: leak, n={len(part)}, one-sided {sided_n}"
    return Table(title=title, head=head, rows=tuple(rows))


def _differences(
    part: Sequence[Fields], draw: Resampling, readers: Sequence[str], group: str
) -> Table:
    """Paired differences: template against sentence, and each further reader against the first."""
    pairs = [(f"{r}/template", f"{r}/sentence") for r in readers]
    pairs += [(f"{r}/{form}", f"{readers[0]}/{form}") for r in readers[1:] for form in FORMS]
    rows: list[tuple[str | Mean, ...]] = []
    for ours, theirs in pairs:
        cells = [
            difference(
                column(part, f"{ours}/{kind}", "right"),
                column(part, f"{theirs}/{kind}", "right"),
                draw,
            )
            for kind in MAPS
        ]
        rows.append((f"{ours} - {theirs}", *cells))
    return Table(title=f"{group}: differences of leaks", head=("pair", *MAPS), rows=tuple(rows))


def column(records: Sequence[Fields], key: str, side: str) -> NDArray[np.float64]:
    """One leak of each record; NaN where it was not measured."""
    return np.array([record["leak"][key].get(side, NAN) for record in records], dtype=float)


def _shown(chosen: Sequence[Sample], worded: Mapping[str, Wording], seed: int) -> set[str]:
    """The figure's samples: one-sided, if possible findings, drawn at random among patients.

    They are known before anything is measured, so that no other maps need to be kept.
    """
    sided = [s for s in chosen if worded[s.id].wrong]
    sided = [s for s in sided if group_of(s.category) == "finding"] or sided
    of_each = {s.patient: s.id for s in reversed(sided)}  # each patient's first
    return set(random.Random(seed).sample(list(of_each.values()), min(SHOWN, len(of_each))))


def _row(
    image: CxrImage, mask: Heat, words: Wording, record: Fields, found: Mapping[str, Maps]
) -> Row:
    wordings = [(form, "right", words.right[form]) for form in FORMS]
    wordings.append((FORMS[-1], "wrong", words.wrong[FORMS[-1]]))
    panels = []
    for reader, maps in found.items():
        for form, side, text in wordings:
            value = record["leak"][f"{reader}/{form}/{MAPS[0]}"][side]
            label = form if side == "right" else f"{form}, wrong side"
            panels.append((f"{reader}, {label}", text, maps[text][MAPS[0]], value))
    grey = reduce(image.grey, LONGEST)
    return Row(grey=grey, mask=mask, location=" + ".join(words.locations), panels=panels)


def _pictures(rows: Sequence[Row]) -> dict[str, bytes]:
    """The figure, the least leak of the first words first; none where nothing was measured."""
    rows = [row for row in rows if np.isfinite(row.leak)]
    return {NAME: figure(sorted(rows, key=lambda row: row.leak))} if rows else {}
