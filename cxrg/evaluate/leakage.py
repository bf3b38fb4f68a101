"""How much of a phrase's attention leaks out of the anatomy that the phrase names.

With attention ``A`` (normalised to sum 1 over the pixels that were seen) and the mask ``m`` in
[0, 1] of the named locations (the question of arXiv 2506.10633; the measure is our own choice)::

    leak = 1 - sum_p A[p] m[p]

Each phrase is asked as a report's sentence and as "{location} {finding}", of the model and of a
tuned one where there is one, and again with the patient's other side in the words and the same
mask: a model that reads the location leaks more then. ``uniform`` is the leak of a map that is the
same everywhere. Attention is the mean probability over layers and timesteps; the heatmap is what
the run's options make of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy import Source, locate
from cxrg.evaluate.aggregate import NAN, Mean, Resampling, difference, mean_of
from cxrg.evaluate.categories import GROUPS, group_of
from cxrg.evaluate.datasets import Dataset
from cxrg.evaluate.leakage_figure import Row, figure
from cxrg.evaluate.measures import LONGEST, Advance, Measured, Table, each_image, union
from cxrg.evaluate.method import Method
from cxrg.evaluate.run import Open, Settings, choose, open_file, reduce
from cxrg.evaluate.sample import Sample
from cxrg.evaluate.sayings import FORMS, Saying, saying

Heat = NDArray[np.float32]
MAPS = ("attention", "heatmap")
SHOWN = 6
"""Rows of the figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One model, read in two ways: ``maps`` has a method for each of :data:`MAPS`."""

    name: str
    maps: Mapping[str, Method]


def leak(heat: Heat, mask: Heat) -> float:
    """The share of a map (H, W) that lies outside a mask (H, W) in [0, 1]; NaN for an empty map.

    Pixels that are NaN were not seen and do not count.
    """
    seen = np.isfinite(heat)
    total = float(heat[seen].sum(dtype=np.float64))
    if total <= 0:
        return NAN
    return 1 - float((heat[seen] * mask[seen]).sum(dtype=np.float64)) / total


def measure(
    dataset: Dataset,
    readers: Sequence[Reader],
    source: Source,
    settings: Settings,
    *,
    open_image: Open = open_file,
    advance: Advance = lambda name, count: None,
) -> Measured:
    """Leakage of every sample that is there and whose words name a location.

    Args:
        dataset: the samples.
        readers: the model, and perhaps a tuned one.
        source: where anatomy comes from.
        settings: ``limit`` and ``seed`` count here.
        open_image: how a sample's image is opened.
        advance: called with the image's name and samples after each image.
    """
    asked = {s.id: said for s in dataset.samples if s.present and (said := saying(s))}
    chosen = [s for s in choose(dataset.samples, settings) if s.id in asked]
    read = readers[0].maps[MAPS[0]].read
    records: list[dict[str, Any]] = []
    for image, masks, samples in each_image(dataset, chosen, read, source, open_image, advance):
        sayings = [asked[sample.id] for sample in samples]
        phrases = _phrases(sayings)
        found = {
            (reader.name, kind): _heatmaps(method, image, phrases)
            for reader in readers
            for kind, method in reader.maps.items()
        }
        for sample, said in zip(samples, sayings, strict=True):
            records.append(_record(sample, said, union(masks, said.locations), found))
    facts = {
        "dataset": dataset.name,
        "readers": {reader.name: reader.maps[MAPS[1]].facts for reader in readers},
        "samples": len(records),
    }
    shown = _rows(records, chosen, readers, source, asked, open_image)
    return Measured(
        name="leakage",
        facts=facts,
        tables=tuple(_tables(records, [r.name for r in readers], settings.seed)),
        records=tuple(records),
        pictures={"leakage": figure(shown)} if shown else {},
    )


def _phrases(sayings: Sequence[Saying]) -> list[str]:
    texts = [
        text for said in sayings for each in (said.right, said.wrong) for text in each.values()
    ]
    return list(dict.fromkeys(texts))


def _heatmaps(method: Method, image: Any, phrases: Sequence[str]) -> dict[str, Heat]:
    found = method.ground(image, phrases)
    return {p: reduce(f.heatmap, LONGEST) for p, f in zip(phrases, found, strict=True)}


def _record(
    sample: Sample,
    said: Saying,
    mask: Heat,
    found: Mapping[tuple[str, str], Mapping[str, Heat]],
) -> dict[str, Any]:
    leaks = {
        f"{reader}/{form}/{kind}": {
            side: leak(maps[phrases[form]], mask)
            for side, phrases in (("right", said.right), ("wrong", said.wrong))
            if phrases
        }
        for (reader, kind), maps in found.items()
        for form in FORMS
    }
    any_map = next(iter(next(iter(found.values())).values()))
    return {
        "id": sample.id,
        "patient": sample.patient,
        "group": group_of(sample.category),
        "category": sample.category,
        "locations": list(said.locations),
        "phrases": {"right": said.right, "wrong": said.wrong},
        "uniform": leak(np.where(np.isfinite(any_map), np.float32(1), any_map), mask),
        "leak": leaks,
    }


def _tables(records: Sequence[dict[str, Any]], readers: Sequence[str], seed: int) -> list[Table]:
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
    part: Sequence[dict[str, Any]],
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
    head = ("asked", "leak", "of one-sided", "wrong side", "wrong - right")
    title = f"{group}, {kind}: leak, n={len(part)}, one-sided {sided_n}"
    return Table(title=title, head=head, rows=tuple(rows))


def _differences(
    part: Sequence[dict[str, Any]], draw: Resampling, readers: Sequence[str], group: str
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


def column(records: Sequence[dict[str, Any]], key: str, side: str) -> NDArray[np.float64]:
    """One leak of each record; NaN where it was not asked."""
    return np.array([record["leak"][key].get(side, NAN) for record in records], dtype=float)


def _rows(
    records: Sequence[dict[str, Any]],
    chosen: Sequence[Sample],
    readers: Sequence[Reader],
    source: Source,
    asked: Mapping[str, Saying],
    opened: Open,
) -> list[Row]:
    """The figure's rows: one-sided samples at equal steps of the sentence's leak, least first."""
    key = f"{readers[0].name}/{FORMS[0]}/{MAPS[0]}"
    sided = [r for r in records if r["phrases"]["wrong"] and np.isfinite(r["leak"][key]["right"])]
    sided = [r for r in sided if r["group"] == "finding"] or sided
    of_each = {record["patient"]: record for record in reversed(sided)}  # each patient's first
    sided = sorted(
        of_each.values(), key=lambda record: (record["leak"][key]["right"], record["id"])
    )
    picks = np.linspace(0, len(sided) - 1, min(SHOWN, len(sided))).round().astype(int)
    samples = {sample.id: sample for sample in chosen}
    return [_row(sided[i], samples[sided[i]["id"]], readers, source, asked, opened) for i in picks]


def _row(
    record: dict[str, Any],
    sample: Sample,
    readers: Sequence[Reader],
    source: Source,
    asked: Mapping[str, Saying],
    opened: Open,
) -> Row:
    image = readers[0].maps[MAPS[0]].read(opened(sample))
    said = asked[sample.id]
    wordings = [(form, "right", said.right[form]) for form in FORMS]
    wordings.append((FORMS[-1], "wrong", said.wrong[FORMS[-1]]))
    panels = []
    for reader in readers:
        found = reader.maps[MAPS[0]].ground(image, [text for _, _, text in wordings])
        for (form, side, text), each in zip(wordings, found, strict=True):
            value = record["leak"][f"{reader.name}/{form}/{MAPS[0]}"][side]
            told = form if side == "right" else f"{form}, wrong side"
            panels.append((f"{reader.name}, {told}", text, each.heatmap, value))
    mask = union(locate(source(image)), said.locations)
    return Row(grey=image.grey, mask=mask, location=" + ".join(said.locations), panels=panels)
