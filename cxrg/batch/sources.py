"""The images that the user names, as a stream of tasks: files, folders, globs, lists, manifests.

Nothing is listed before it is needed: the first task comes before the second file is examined. An
input that cannot be used becomes an outcome with the reason, in its place, and the others follow.

Messages hold no text of a list or manifest but paths: a cell or a line may name a patient.
"""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from cxrg.batch.task import Failure, FailureKind, Outcome, Task, printable
from cxrg.batch.work import failure_of
from cxrg.errors import ImageError, InputError
from cxrg.files import open_text
from cxrg.image.file import SUFFIXES
from cxrg.phrase.report_text import is_report

_REPORT = "gives a whole report as the phrase; give phrases, or one image with --report"
_JSON_SUFFIXES = (".jsonl", ".ndjson")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One named image before it has a number.

    Attributes:
        path: the image, as it is to be opened.
        phrases: its own phrases; none: those of the run.
        line: its line in a list, or row in a manifest.
        failure: why it cannot be used.
    """

    path: Path
    phrases: tuple[str, ...] = ()
    line: int | None = None
    failure: Failure | None = None


def tasks(entries: Iterable[Entry], phrases: Sequence[str]) -> Iterator[Task | Outcome]:
    """Number entries from 0, and give those without phrases the phrases of the run."""
    for index, entry in enumerate(entries):
        own = tuple(dict.fromkeys(entry.phrases or phrases))
        task = Task(index=index, path=entry.path, phrases=own, line=entry.line)
        failure = entry.failure
        if failure is None and not own:
            failure = _refuse(entry.path, "phrase", "has no phrase; give one with --phrase")
        yield Outcome(task=task, failure=failure) if failure else task


# --- arguments ------------------------------------------------------------------------------------


def from_arguments(arguments: Sequence[str], *, out: Path) -> Iterator[Entry]:
    """Yield files, images of folders (recursively, sorted, by content) and of glob patterns.

    Args:
        arguments: as the user wrote them.
        out: the output folder, which is not searched.
    """
    for argument in arguments:
        path = Path(argument)
        if not _exists(path) and glob.has_magic(argument):
            found = sorted(glob.iglob(argument, recursive=True))
            if not found:
                words = "matches no file; check the pattern"
                yield Entry(path=path, failure=_refuse(path, "missing", words))
            for name in found:
                yield from _from_path(Path(name), out)
        else:
            yield from _from_path(path, out)


def _from_path(path: Path, out: Path) -> Iterator[Entry]:
    if not os.path.isdir(path):
        yield _checked(Entry(path=path))
        return
    empty = True
    for entry in _walk(path, out):
        empty = False
        yield entry
    if empty:
        words = "holds no image; name a folder of DICOM, PNG, JPEG, TIFF"
        yield Entry(path=path, failure=_refuse(path, "image", words))


def _walk(folder: Path, out: Path) -> Iterator[Entry]:
    """Yield the images below a folder, by content.

    A file that only has the name of an image is reported, too: it may be a damaged one. DICOM
    directories, reports and other objects without an image are left out. Links to folders are not
    followed, because they may form a circle.
    """
    from cxrg.image.read import is_image, is_other_object

    try:
        inside = sorted(folder.iterdir(), key=lambda path: path.name)
        if inside:
            inside[0].lstat()  # a folder may be listed and yet not be entered
    except OSError as error:
        words = f"cannot be searched ({error.strerror}); check its rights"
        yield Entry(path=folder, failure=_refuse(folder, "image", words))
        return
    for path in inside:
        if os.path.isdir(path):
            if not path.is_symlink() and not _same(path, out):
                yield from _walk(path, out)
        elif is_other_object(path):
            continue
        elif is_image(path):
            yield Entry(path=path)
        elif path.suffix.lower() in SUFFIXES and os.path.isfile(path):
            yield _refused(Entry(path=path))


# --- lists ----------------------------------------------------------------------------------------


def from_lines(lines: Iterable[str], *, root: Path | None, outside: bool) -> Iterator[Entry]:
    """Read a list: each line a path, or ``{"image": ..., "phrase": ..., "phrases": [...]}``.

    Args:
        lines: with or without their ends; empty ones count but name nothing.
        root: the folder that paths start from and must stay in; None: the current, unguarded.
        outside: allow paths to leave the root.
    """
    for number, text in enumerate(lines, 1):
        text = text.rstrip("\r\n").removeprefix("\ufeff" if number == 1 else "")
        if not text.strip():
            continue
        if text.lstrip().startswith("{"):
            entry = _from_json(text, number)
        else:
            entry = Entry(path=Path(text), line=number)
        yield _checked(_rooted(entry, root, outside=outside))


def from_manifest(path: Path, *, root: Path | None, outside: bool) -> Iterator[Entry]:
    """Read a manifest, CSV or JSONL, with columns ``image`` and ``phrase`` (JSONL: ``phrases``).

    Neighbouring rows of one image are one task. The line of an entry is the row's number.

    Args:
        path: the manifest; ``.jsonl`` and ``.ndjson`` are read as JSON lines.
        root: the folder that image paths start from (else the manifest's) and must stay in.
        outside: allow paths to leave the root.

    Raises:
        InputError: the file cannot be read, or has no column of images.
    """
    rows = _json_rows(path) if path.suffix.lower() in _JSON_SUFFIXES else _table_rows(path)
    checked = (_rooted(row, root or path.parent, outside=outside) for row in rows)
    # Rows without a phrase of their own take the run's, so they join nothing.
    for _, group in groupby(checked, key=lambda row: (row.path, bool(row.phrases), row.failure)):
        first, *others = group
        phrases = (*first.phrases, *(each for row in others for each in row.phrases))
        yield _checked(replace(first, phrases=phrases))


def _table_rows(path: Path) -> Iterator[Entry]:
    with open_text(path, errors="surrogateescape") as file:
        reader = csv.reader(file)
        try:
            names = [name.strip() for name in next(reader, ())]
        except csv.Error:
            names = []
        if "image" not in names:
            raise InputError(
                f"{path}: has no column image; name the columns in its first row, in UTF-8: "
                "image,phrase"
            )
        number = 0
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                number += 1
                yield _unclear(number, "is no row of a CSV table; correct its quotes or long cells")
                continue
            if cells:
                number += 1
                yield _from_row(dict(zip(names, cells, strict=False)), number)


def _from_row(row: Mapping[str, str], number: int) -> Entry:
    image, phrase = (row.get(name, "").strip() for name in ("image", "phrase"))
    if not image:
        return _unclear(number, "names no image")
    if not is_text(phrase):
        return _unclear(number, "has a phrase that is not UTF-8; save the table as UTF-8")
    if is_report(phrase):
        return _unclear(number, _REPORT)
    return Entry(path=Path(image), phrases=(phrase,) if phrase else (), line=number)


def _json_rows(path: Path) -> Iterator[Entry]:
    with open_text(path, errors="surrogateescape") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                yield _from_json(text, number)


def _from_json(text: str, number: int) -> Entry:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return _unclear(number, "is no JSON")
    image = row.get("image") if isinstance(row, Mapping) else None
    if not isinstance(image, str) or not image.strip():
        return _unclear(number, 'names no image; write {"image": "path"}')
    phrases = _phrases_of(row)
    if phrases is None:
        return _unclear(number, "has phrases that are no Unicode text")
    if any(map(is_report, phrases)):
        return _unclear(number, _REPORT)
    return Entry(path=Path(image), phrases=phrases, line=number)


def _phrases_of(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    several = row.get("phrases") or []
    single = row.get("phrase")
    given = [single] if single else []
    if not isinstance(several, list):
        return None
    given += several
    valid = all(isinstance(each, str) and each.strip() and is_text(each) for each in given)
    return tuple(given) if valid else None


def is_text(text: str) -> bool:
    """Whether a string is Unicode text, without half of a pair of surrogates or a foreign byte."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unclear(number: int, problem: str) -> Entry:
    """Refuse a line of a list without repeating its text, which may name a patient."""
    path = Path(f"line {number}")
    remedy = "" if ";" in problem else "; correct it"
    return Entry(path=path, line=number, failure=_refuse(path, "input", problem + remedy))


def _rooted(entry: Entry, root: Path | None, *, outside: bool) -> Entry:
    """Return the entry with its path from the root, refused if that leaves the root."""
    if entry.failure:
        return entry
    try:
        path = _with_slashes(root / entry.path if root else entry.path)
        if root is None:
            os.fsencode(path)
            return replace(entry, path=path)
        within = path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):  # an invalid name, or a circle of links
        return _unclear(entry.line or 0, "is no valid path")
    if within or outside:
        return replace(entry, path=path)
    words = "leaves the image root; set --image-root, or --allow-outside if that is meant"
    return replace(entry, failure=_refuse(entry.path, "outside", words))


def _checked(entry: Entry) -> Entry:
    """Return the entry, refused at once if its file is no image: that needs no model."""
    from cxrg.image.read import is_image

    return entry if entry.failure or is_image(entry.path) else _refused(entry)


def _refused(entry: Entry) -> Entry:
    """Return the entry with the reason why its file is no image."""
    from cxrg.image.read import read_image

    try:
        read_image(entry.path, side=1)
    except ImageError as error:
        return replace(entry, failure=failure_of(entry.path, error))
    return entry


# --- small things ---------------------------------------------------------------------------------


def _refuse(path: Path, kind: FailureKind, words: str) -> Failure:
    return Failure(path=path, kind=kind, message=f"{printable(path)}: {words}")


def _with_slashes(path: Path) -> Path:
    """Return the path with backslashes as slashes, as lists from Windows need, if that exists."""
    if "\\" in str(path) and not _exists(path):
        turned = Path(str(path).replace("\\", "/"))
        return turned if _exists(turned) else path
    return path


def _exists(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a name with a zero byte
        return False


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
