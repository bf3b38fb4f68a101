"""Running a method over a data set, sample by sample, with controls; resumable.

Everything is kept in one folder: ``run.json`` describes the run, ``samples.jsonl`` holds one line
per sample, appended image by image. Started again with the same settings, a run continues where it
stopped; with others it is refused.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.chest.categories import group_of, named_side
from cxrg.errors import InputError, UsageError
from cxrg.evaluate.controls import (
    MAP_CONTROLS,
    OTHER_IMAGE,
    MeanBox,
    map_control,
    shuffled_phrases,
)
from cxrg.evaluate.datasets import Dataset
from cxrg.evaluate.method import GroundingLike, Method
from cxrg.evaluate.metrics import heatmaps as metrics
from cxrg.evaluate.other_image import OtherImages
from cxrg.evaluate.record import METHOD, Record, corners, load, parse
from cxrg.evaluate.resume import Run, identify
from cxrg.evaluate.sample import Sample, without_path

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage

SWEEP = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Thresholds of the sweep."""
SAMPLES, RUN = "samples.jsonl", "run.json"
LAYOUT = 2
"""Of the records; 1 had no map of another patient's image."""
Heat = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a run is scored.

    ``longest``: heatmaps are scored at the image's own resolution (0), or reduced to this many
    pixels on the longest side. ``limit``: at most so many samples, drawn with ``seed`` (0: all).
    """

    outside: metrics.Outside = "exclude"
    longest: int = 0
    controls: bool = True
    limit: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.outside not in ("exclude", "zero"):
            raise UsageError(f"outside {self.outside!r} is not known; use exclude or zero")
        if self.longest < 0 or 0 < self.longest < 16:
            raise UsageError("longest must be 0 (the image's own resolution) or at least 16")
        if self.limit < 0:
            raise UsageError("limit must be 0 (all) or more")


Open = Callable[[Sample], "Path | CxrImage"]


def open_file(sample: Sample) -> Path:
    """The image of a sample whose image is a file."""
    return sample.image


def run(
    dataset: Dataset,
    method: Method,
    settings: Settings,
    out: Path,
    *,
    open_image: Open = open_file,
    advance: Callable[[str, int], None] = lambda name, count: None,
) -> list[Record]:
    """Score a method on a data set, or go on with it, and return all records in order.

    ``advance(image name, samples done)`` is called after each image. Images that cannot be read are
    added to the data set's problems.

    Raises:
        InputError: a problem, where the data set is read strictly; or nothing could be scored.
        UsageError: the folder holds another run.
    """
    chosen = choose(dataset.samples, settings)
    kept = Run(out / RUN, out / SAMPLES, describe(dataset, method, settings), parse)
    done = {record.id: record for record in kept.records}
    groups = draw_order(dataset.samples, settings.seed)
    wanted = {sample.id for sample in chosen} - done.keys() if settings.controls else set()
    others = OtherImages(groups, wanted, method, open_image)
    helper = _Helper(dataset, settings, others)
    by_path = by_image(chosen)
    for image in [group[0].image for group in groups if group[0].image in by_path]:
        samples = by_path[image]
        missing = [sample for sample in samples if sample.id not in done]
        if missing:
            records = _image(missing, dataset, method, helper, open_image)
            kept.append([record.line() for record in records])
            done |= {record.id: record for record in records}
        advance(image.name, len(samples))
    records = [done[sample.id] for sample in chosen if sample.id in done]
    if not records:
        kinds = ", ".join(f"{n} {kind}" for kind, n in dataset.problems.counts().items())
        raise InputError(f"no sample of {dataset.name} could be scored ({kinds or 'it is empty'})")
    return records


def choose(samples: Sequence[Sample], settings: Settings) -> list[Sample]:
    """The samples to score, in order; with a limit whole images drawn at random fill it."""
    if not settings.limit or settings.limit >= len(samples):
        return list(samples)
    drawn = [sample for group in draw_order(samples, settings.seed) for sample in group]
    taken = {sample.id for sample in drawn[: settings.limit]}
    return [sample for sample in samples if sample.id in taken]


def draw_order(samples: Iterable[Sample], seed: int) -> list[list[Sample]]:
    """The samples of each image, in the order in which a limit draws images."""
    groups = list(by_image(samples).values())
    random.Random(seed).shuffle(groups)
    return groups


def by_image(samples: Iterable[Sample]) -> dict[Path, list[Sample]]:
    """The samples of each image, in order."""
    groups: dict[Path, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.image, []).append(sample)
    return groups


class _Helper:
    """What scoring one sample needs of the data set: the prior, phrases to swap, other images."""

    def __init__(self, dataset: Dataset, settings: Settings, others: OtherImages) -> None:
        self.settings = settings
        self.others = others
        self.prior = MeanBox()
        grid = (256, 256)
        positive = [sample for sample in dataset.samples if sample.present]
        if settings.controls:
            for s in positive:
                # A truth in pixels of the image is known here only through its space.
                self.prior.add(s.patient, s.category, s.side, s.truth(grid), grid)
        drawn = shuffled_phrases(
            [s.phrase for s in positive], [s.patient for s in positive], settings.seed
        )
        self.other = {s.id: text for s, text in zip(positive, drawn, strict=True)}


def _image(
    samples: Sequence[Sample], dataset: Dataset, method: Method, helper: _Helper, opened: Open
) -> list[Record]:
    """All samples of one image; none, with a problem counted, where it can't be read."""
    path = samples[0].image
    positive = [sample for sample in samples if sample.present]
    swapped = [helper.other[s.id] for s in positive] if helper.settings.controls else []
    phrases = list(dict.fromkeys([*(s.phrase for s in samples), *swapped]))
    ground = _ground_with_control if swapped else _ground_alone
    try:
        image = method.read(opened(samples[0]))
        more = list(dict.fromkeys([*phrases, *helper.others.wanted_on(path)]))
        try:
            found, bare = ground(method, image, more)
            helper.others.keep(path, image.frame, found)
        except InputError:
            if more == phrases:
                raise
            found, bare = ground(method, image, phrases)  # without another image's phrase
    except InputError as error:
        for sample in samples:
            reason = without_path(str(error), sample.image)
            dataset.problems.add("cannot be grounded", sample.row or sample.id, reason)
        return []
    elsewhere = helper.others.maps(path, image.frame)
    shape = found[phrases[0]].heatmap.shape
    records = []
    for sample in samples:
        if not sample.fits(shape):
            size = f"boxes are in {sample.space}, the image is {shape}"
            dataset.problems.add("image of other proportions", sample.row or sample.id, size)
            continue
        maps = _maps(sample, found, bare, elsewhere, helper, shape) if sample.present else {}
        records.append(_record(sample, found[sample.phrase], maps, method, helper))
    return records


def _ground_alone(
    method: Method, image: CxrImage, phrases: Sequence[str]
) -> tuple[dict[str, GroundingLike], None]:
    return dict(zip(phrases, method.ground(image, phrases), strict=True)), None


def _ground_with_control(
    method: Method, image: CxrImage, phrases: Sequence[str]
) -> tuple[dict[str, GroundingLike], Heat | None]:
    results, bare = method.ground_with_control(image, phrases)
    return dict(zip(phrases, results, strict=True)), bare


def _maps(
    sample: Sample,
    found: dict[str, GroundingLike],
    bare: Heat | None,
    elsewhere: dict[str, Heat],
    helper: _Helper,
    shape: tuple[int, int],
) -> dict[str, Heat]:
    """The method's heatmap and the controls' for one sample, by name."""
    maps = {METHOD: found[sample.phrase].heatmap}
    if not helper.settings.controls:
        return maps
    for name in MAP_CONTROLS:
        maps[name] = map_control(
            name,
            shape,
            helper.prior,
            owner=sample.patient,
            category=sample.category,
            side=sample.side,
        )
    maps["shuffled"] = found[helper.other[sample.id]].heatmap
    if bare is not None:
        maps["image_only"] = bare
    if sample.phrase in elsewhere:
        maps[OTHER_IMAGE] = elsewhere[sample.phrase]
    # What the model never saw is blank for the controls too, so that all are scored on one area.
    blank = np.isnan(maps[METHOD])
    return {name: np.where(blank, np.float32(np.nan), heat) for name, heat in maps.items()}


def _record(
    sample: Sample, found: GroundingLike, maps: dict[str, Heat], method: Method, helper: _Helper
) -> Record:
    """Score one sample."""
    shape = found.heatmap.shape
    boxes = {METHOD: found.boxes}
    boxes |= {name: method.boxes(heat) for name, heat in maps.items() if name != METHOD}
    truth_boxes = sample.boxes_in(shape)
    reduced = {name: reduce(heat, helper.settings.longest) for name, heat in maps.items()}
    values, sweep, area = {}, {}, 0.0
    if maps:
        small = reduced[METHOD].shape
        truth = sample.truth(small)
        mask = metrics.as_mask(truth, small)
        area = float(mask.mean())
        for name, heat in reduced.items():
            values[name] = metrics.score_heatmap(heat, truth, outside=helper.settings.outside)
            values[name]["box_iou"] = metrics.box_iou(boxes[name], truth_boxes)
            sweep[name] = [round(float(v), 6) for v in metrics.iou_at(heat, mask, SWEEP)]
    return Record(
        id=sample.id,
        image=sample.image_id or sample.image.name,
        phrase=sample.phrase,
        category=sample.category,
        group=group_of(sample.category),
        patient=sample.patient,
        side=sample.side,
        zone=sample.zone,
        present=sample.present,
        shape=(shape[0], shape[1]),
        area=area,
        status=found.status,
        score=float(found.score),
        presence=found.presence,
        laterality_hit=laterality_hit(found.heatmap, sample.phrase) if sample.present else None,
        shuffled_phrase=helper.other.get(sample.id) if helper.settings.controls else None,
        other_image=helper.others.partner(sample.image) if OTHER_IMAGE in maps else None,
        truth=corners(truth_boxes),
        boxes={name: corners(several) for name, several in boxes.items()},
        values=values,
        sweep=sweep,
        warnings=list(found.warnings),
    )


def laterality_hit(heatmap: Heat, phrase: str) -> float | None:
    """Share of the maximal pixels on the side that the phrase names, None where it names none.

    Left is the patient's, the right half of the picture. A pixel of the middle column is on none.
    """
    side = named_side(phrase)
    if side is None or np.isnan(heatmap).all():
        return None
    right_half = np.arange(heatmap.shape[1]) + 0.5 > heatmap.shape[1] / 2
    left_half = np.arange(heatmap.shape[1]) + 0.5 < heatmap.shape[1] / 2
    on_side = right_half if side == "left" else left_half
    return metrics.pointing_game(heatmap, np.broadcast_to(on_side, heatmap.shape))


def reduce(heatmap: Heat, longest: int) -> Heat:
    """A heatmap (H, W) with at most ``longest`` pixels on its longest side (0: as it is)."""
    factor = longest / max(heatmap.shape) if longest else 1.0
    if factor >= 1:
        return heatmap
    size = (max(round(heatmap.shape[1] * factor), 1), max(round(heatmap.shape[0] * factor), 1))
    blank = np.isnan(heatmap)
    weight = cv2.resize((~blank).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    total = cv2.resize(
        np.where(blank, 0, heatmap).astype(np.float32), size, interpolation=cv2.INTER_AREA
    )
    small = np.full(weight.shape, np.nan, dtype=np.float32)
    np.divide(total, weight, out=small, where=weight > 0.5)
    return small


def describe(dataset: Dataset, method: Method, settings: Settings) -> dict[str, Any]:
    """What decides a run's numbers; the limit does not, so a run may be made longer."""
    kept = {key: value for key, value in asdict(settings).items() if key != "limit"}
    return {
        "layout": LAYOUT,
        "dataset": identify(dataset),
        "method": method.facts,
        "settings": kept,
    }


def read_records(folder: Path) -> list[Record]:
    """The samples of the run in a folder.

    Raises:
        InputError: there are none.
    """
    path = folder / SAMPLES
    if not path.is_file():
        raise InputError(f"{folder} holds no {SAMPLES}; give the --out folder of cxrg evaluate")
    return load(path)


def read_facts(folder: Path) -> dict[str, Any]:
    """Data set, method and settings of the run in a folder.

    Raises:
        InputError: there are none.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / RUN).read_text(encoding="utf-8"))
        needed = facts["dataset"], facts["settings"], facts["method"]["options"]
        if not all(isinstance(each, dict) for each in needed):
            raise TypeError(f"{RUN} has a fact that is no object")
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise InputError(f"{folder} holds no readable {RUN}; run cxrg evaluate again") from error
    return facts
