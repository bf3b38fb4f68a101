"""Readers of data sets: one module per format, each with ``read(path, reading) -> samples``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrg.errors import InputError, UsageError
from cxrg.evaluate.datasets import (
    chestx_det,
    chexlocalize,
    manifest,
    ms_cxr,
    nih,
    padchest_gr,
    rsna,
    vindr,
)
from cxrg.evaluate.datasets.common import (
    NO_IMAGE,
    TEMPLATE,
    Images,
    Reading,
    parse_json,
    read_text,
)
from cxrg.evaluate.sample import Problems, Sample
from cxrg.image.read import is_image

Reader = Callable[[Path, Reading], list[Sample]]
READERS: dict[str, Reader] = {
    "manifest": manifest.read,
    "ms-cxr": ms_cxr.read,
    "vindr-cxr": vindr.read,
    "nih": nih.read,
    "rsna": rsna.read,
    "chexlocalize": chexlocalize.read,
    "padchest-gr": padchest_gr.read,
    "chestx-det": chestx_det.read,
}
FORMATS = ("auto", *READERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set as read: its samples, and everything that could not be used."""

    name: str
    format: str
    samples: tuple[Sample, ...]
    problems: Problems


def read_dataset(
    path: Path,
    *,
    format: str = "auto",
    images: Path | None = None,
    strict: bool = False,
    template: str = TEMPLATE,
) -> Dataset:
    """Read a label file.

    Args:
        path: the file of labels.
        format: one of :data:`FORMATS`; ``auto`` recognises the columns or keys.
        images: folder with the images; the label file's own unless given.
        strict: raise at the first problem instead of counting it.
        template: how a phrase is made where the data set has none.

    Raises:
        InputError: the file cannot be read in that format, or a problem where strict.
        UsageError: the format, the folder or the template is invalid.
    """
    if format not in FORMATS:
        raise UsageError(f"format {format!r} is not known; use one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"no file {path}; give a label file, or the word phantoms")
    folder = images or path.parent
    if not folder.is_dir():
        raise UsageError(f"no folder {folder}; --images names the folder of the images")
    kind = sniff(path) if format == "auto" else format
    reading = Reading(Images(folder), Problems(strict=strict), template)
    samples = READERS[kind](path, reading)
    return Dataset(name=path.stem, format=kind, samples=tuple(samples), problems=reading.problems)


def check_usable(dataset: Dataset, path: Path, images: Path | None) -> None:
    """Check that something can be scored, so that a wrong folder is noticed before a model loads.

    Args:
        dataset: as `read_dataset` returned it.
        path: the label file.
        images: the folder of the images, if it was named.

    Raises:
        InputError: no sample is left, or none of their files is an image.
    """
    folder = images or path.parent
    if not dataset.samples:
        raise InputError(f"{path}: {_explain_empty(dataset, folder)}")
    if not any(is_image(sample.image) for sample in dataset.samples):
        raise InputError(
            f"{path}: none of its files below {folder} is a DICOM, PNG, JPEG or TIFF image; "
            "--images names the folder of the images"
        )


def _explain_empty(dataset: Dataset, folder: Path) -> str:
    """Why a data set has no sample, and the remedy."""
    problems = dataset.problems
    if not problems.found:
        left_out = f" ({len(problems.notes)} rows without a phrase)" if problems.notes else ""
        return f"holds no phrase in the format {dataset.format}{left_out}; check --format"
    counts = ", ".join(f"{number} x {kind}" for kind, number in problems.counts().items())
    missing = next((each for each in problems.found if each.kind in NO_IMAGE), None)
    if missing is None:
        first = problems.found[0]
        return (
            f"no phrase can be scored: {counts}, such as {first.where}: {first.detail}; "
            "correct the file, or name its format with --format"
        )
    return (
        f"no phrase can be scored: {counts}, such as {missing.where}: {missing.detail}; "
        f"looked in {folder}; --images names the folder that the file's paths start from"
    )


def sniff(path: Path) -> str:
    """The format of a label file, by its columns or keys.

    Raises:
        InputError: it is none that is known.
    """
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return "manifest"
    try:
        text = read_text(path)
        if text.lstrip()[:1] in ("{", "["):
            kind = _sniff_json(parse_json(text, path.name))
        else:
            kind = _sniff_table(next(csv.reader(text.splitlines()), []))
    except csv.Error as error:
        raise InputError(f"{path.name} is no CSV table: {error}") from error
    if kind is None:
        raise InputError(f"{path.name} is in no known format; name it with --format")
    return kind


def _sniff_table(header: Sequence[str]) -> str | None:
    names = {name.strip() for name in header}
    for kind, wanted in (
        ("ms-cxr", {"label_text", "category_name", "path"}),
        ("vindr-cxr", {"image_id", "class_name", "x_min"}),
        ("nih", {"Image Index", "Finding Label"}),
        ("rsna", {"patientId", "Target"}),
        ("manifest", {"image", "phrase"}),
    ):
        if wanted <= names:
            return kind
    return None


def _sniff_json(content: object) -> str | None:
    if isinstance(content, dict):
        if {"images", "annotations", "categories"} <= content.keys():
            return "ms-cxr"
        first = next(iter(content.values()), None)
        return "chexlocalize" if isinstance(first, dict) else None
    first = content[0] if isinstance(content, list) and content else None
    if isinstance(first, dict) and "findings" in first:
        return "padchest-gr"
    return "chestx-det" if isinstance(first, dict) and "syms" in first else None
