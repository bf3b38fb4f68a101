"""A run that can go on: what ran, as JSON, and beside it a JSON line per record, appended.

Started again with the same facts, a run continues where it stopped; with others it is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cxrg.errors import InputError, UsageError
from cxrg.files import atomic_write, json_values

if TYPE_CHECKING:
    from cxrg.evaluate.datasets import Dataset

T = TypeVar("T")


def claim(run: Path, lines: Path, facts: Mapping[str, Any]) -> None:
    """Write what a run is, or find that its folder holds the same run.

    Args:
        run: the file of the facts.
        lines: the file of the records.
        facts: what decides the numbers.

    Raises:
        UsageError: the folder holds another run.
    """
    out = run.parent
    facts = json.loads(json.dumps(facts))  # with lists for tuples, as they are read again
    if run.is_file():
        try:
            before = json.loads(run.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            before = {}
        differing = [key for key in facts if before.get(key) != facts[key]]
        if differing:
            raise UsageError(
                f"{out} holds another run ({', '.join(differing)} differ); choose another --out"
            )
    elif lines.exists():
        raise UsageError(f"{out} holds samples of an unknown run; choose another --out")
    with atomic_write(run) as file:
        file.write((json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())


def identify(dataset: Dataset) -> dict[str, Any]:
    """A data set's name, format, and a digest of its samples."""
    digest = hashlib.sha256()
    for sample in dataset.samples:
        digest.update(repr((sample.id, sample.image.name, sample.phrase, sample.boxes)).encode())
        digest.update(repr((sample.category, sample.patient, sample.side, sample.region)).encode())
    return {"name": dataset.name, "format": dataset.format, "sha256": digest.hexdigest()}


def load(path: Path, parse: Callable[[str], T]) -> list[T]:
    """The records of a file; a last line that was cut short is left out.

    Args:
        path: the file.
        parse: a record from its line; ``ValueError``, ``TypeError`` or ``KeyError`` where it is
            none.

    Raises:
        InputError: another line is no record.
    """
    # Not splitlines: a phrase may hold what is a line's end to Unicode and not to JSON.
    *lines, _ = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(parse(line.decode()))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path.name} line {number} is no sample of an evaluation; start in a new folder"
            ) from error
    return records


def resume(path: Path, parse: Callable[[str], T]) -> list[T]:
    """The records already there, see `load`; a line cut short is taken off the file."""
    if not path.is_file():
        return []
    records = load(path, parse)
    lines, end, rest = path.read_bytes().rpartition(b"\n")
    if rest:
        with atomic_write(path) as file:
            file.write(lines + end)
    return records


def append(path: Path, lines: Iterable[str]) -> None:
    """Add the lines of one image, so that they outlast whatever happens next."""
    with path.open("a", encoding="utf-8") as file:
        # One write per image: a run that is cut short loses at most its last line.
        file.write("".join(lines))
        file.flush()
        os.fsync(file.fileno())


def as_line(fields: Mapping[str, Any]) -> str:
    """A record as one line of strict JSON, every digit kept; undefined values are null."""
    return (
        json.dumps(json_values(fields, decimals=None), ensure_ascii=False, allow_nan=False) + "\n"
    )
