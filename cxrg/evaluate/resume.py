"""A run that can go on: what ran, as JSON, and beside it a JSON line per record, appended.

Started again with the same facts, a run continues where it stopped; with others it is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields as fields_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cxrg.errors import InputError, UsageError
from cxrg.files import atomic_write, json_values
from cxrg.image.file import open_file
from cxrg.phrase.normalise import normalise

if TYPE_CHECKING:
    from cxrg.evaluate.datasets import Dataset

T = TypeVar("T")
BLOCK = 1 << 16
"""Bytes of each block of an image that a run's identity covers."""


class Run(Generic[T]):
    """A run's records, those of an earlier call included, in a file to which more are appended.

    Nothing is written before the first record, so that a call that scored nothing leaves nothing.

    Args:
        description: the file of the facts.
        lines: the file of the records, in the same folder.
        facts: what decides the numbers.
        parse: a record from its line, see `load`.

    Raises:
        InputError: a line is no record.
        UsageError: the folder holds another run.
    """

    def __init__(
        self, description: Path, lines: Path, facts: Mapping[str, Any], parse: Callable[[str], T]
    ) -> None:
        self._description, self._lines = description, lines
        self._facts = json.loads(json.dumps(facts))  # with lists for tuples, as they are read again
        self._described = False
        if lines.is_file() and lines.stat().st_size:
            self._check()
        self.records: list[T] = _resume(lines, parse)

    def _check(self) -> None:
        """Raise UsageError if the records that are there belong to another run."""
        out = self._description.parent
        try:
            before = json.loads(self._description.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(
                f"{out} holds samples of an unknown run; choose another --out"
            ) from None
        except ValueError:
            before = {}
        if before.get("layout") != self._facts.get("layout"):
            raise UsageError(
                f"{out} holds a run of another version of cxrg, which kept other records; choose "
                "another --out"
            )
        differing = [key for key in self._facts if before.get(key) != self._facts[key]]
        if differing:
            raise UsageError(
                f"{out} holds another run ({', '.join(differing)} differ); choose another --out"
            )

    def append(self, lines: Iterable[str]) -> None:
        """Add the lines of one image, so that they outlast whatever happens next."""
        added = "".join(lines)
        if not added:
            return
        if not self._described:
            with atomic_write(self._description) as file:
                file.write((json.dumps(self._facts, indent=2, ensure_ascii=False) + "\n").encode())
            self._described = True
        with self._lines.open("a", encoding="utf-8") as text:
            # One write per image: a run that is cut short loses at most its last line.
            text.write(added)
            text.flush()
            os.fsync(text.fileno())


def identify(dataset: Dataset) -> dict[str, Any]:
    """A data set's name, format, and a digest of what decides its numbers.

    The digest covers every sample with its truth, the phrases as they are encoded, and of each
    image file the size and three blocks of its bytes: all of small files, and enough of large ones
    to notice another image or another header.
    """
    digest = hashlib.sha256()
    images: set[Path] = set()
    for sample in dataset.samples:
        fields = {each.name: getattr(sample, each.name) for each in fields_of(sample)}
        fields["image"] = sample.image.name  # the folder may move
        del fields["row"]  # only for messages
        digest.update(repr((fields, normalise(sample.phrase))).encode())
        if sample.image not in images:
            images.add(sample.image)
            digest.update(_excerpt(sample.image))
    return {"name": dataset.name, "format": dataset.format, "sha256": digest.hexdigest()}


def _excerpt(path: Path) -> bytes:
    """A file's size with its first, middle and last `BLOCK` bytes; nothing if there is no file."""
    try:
        with open_file(path) as file:
            size = file.seek(0, os.SEEK_END)
            found = [str(size).encode()]
            for start in sorted({0, max(size // 2 - BLOCK // 2, 0), max(size - BLOCK, 0)}):
                file.seek(start)
                found.append(file.read(BLOCK))
    except OSError:  # phantoms have no files
        return b""
    return b"".join(found)


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


def _resume(path: Path, parse: Callable[[str], T]) -> list[T]:
    """The records already there, see `load`; a line cut short is taken off the file."""
    if not path.is_file():
        return []
    records = load(path, parse)
    lines, end, rest = path.read_bytes().rpartition(b"\n")
    if rest:
        with atomic_write(path) as file:
            file.write(lines + end)
    return records


def as_line(fields: Mapping[str, Any]) -> str:
    """A record as one line of strict JSON, every digit kept; undefined values are null."""
    return (
        json.dumps(json_values(fields, decimals=None), ensure_ascii=False, allow_nan=False) + "\n"
    )
