"""What the user names, as a stream of tasks: files, folders, globs, lists, manifests.

Nothing is listed before it is needed: the first task comes before the second file is looked at.
What cannot become a task comes as an outcome with the reason, in its place, and the others go on.
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
from typing import Any, TextIO

from cxrg.batch.task import Failure, FailureKind, Outcome, Task, printable
from cxrg.batch.work import failure_of
from cxrg.errors import ImageError, InputError
from cxrg.image.file import SUFFIXES

_JSON_SUFFIXES = (".jsonl", ".ndjson")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One named image before it has a number.

    Attributes:
        path: the image, as it is to be opened.
        phrases: its own phrases; none: those of the run.
        line: where a list named it.
        failure: why it cannot be used.
    """

    path: Path
    phrases: tuple[str, ...] = ()
    line: int | None = None
    failure: Failure | None = None


def tasks(entries: Iterable[Entry], phrases: Sequence[str]) -> Iterator[Task | Outcome]:
    """Entries numbered from 0, with the run's phrases where they have none of their own."""
    for index, entry in enumerate(entries):
        own = tuple(dict.fromkeys(entry.phrases or phrases))
        task = Task(index=index, path=entry.path, phrases=own, line=entry.line)
        failure = entry.failure
        if failure is None and not own:
            failure = _refuse(entry.path, "phrase", "has no phrase; give one with --phrase")
        yield Outcome(task=task, failure=failure) if failure else task


# --- arguments ------------------------------------------------------------------------------------


def from_arguments(arguments: Sequence[str], *, out: Path) -> Iterator[Entry]:
    """Files, folders (searched recursively, in sorted order, by content) and glob patterns.

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
    """The images below a folder, by content, and files that are only named like one: they may be
    damaged images.

    DICOM directories, reports and the like are passed over. Links to folders are not followed, for
    they may lead back to where they are.
    """
    from cxrg.image.read import is_image, is_other_object

    try:
        inside = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        words = f"cannot be searched ({error.strerror}); check its rights"
        yield Entry(path=folder, failure=_refuse(folder, "image", words))
        return
    for path in inside:
        if path.is_dir():
            if not path.is_symlink() and not _same(path, out):
                yield from _walk(path, out)
        elif is_other_object(path):
            continue
        elif is_image(path):
            yield Entry(path=path)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield _refused(Entry(path=path))


# --- lists ----------------------------------------------------------------------------------------


def from_lines(lines: Iterable[str], *, root: Path | None, outside: bool) -> Iterator[Entry]:
    """A list: each line a path, or ``{"image": ..., "phrase": ..., "phrases": [...]}``.

    Args:
        lines: with or without their ends; empty ones count but name nothing.
        root: the folder that paths start from and must stay in; None: the current, unguarded.
        outside: let them leave it.
    """
    for number, text in enumerate(lines, 1):
        text = text.rstrip("\r\n")
        if not text.strip():
            continue
        if text.lstrip().startswith("{"):
            entry = _from_json(text, number)
        else:
            entry = Entry(path=Path(text), line=number)
        yield _checked(_rooted(entry, root, outside=outside))


def from_manifest(path: Path, *, root: Path | None, outside: bool) -> Iterator[Entry]:
    """A manifest, CSV or JSONL, with columns ``image`` and ``phrase`` (JSONL: or ``phrases``).

    Neighbouring rows of one image are one task. The line of an entry is the row's number.

    Args:
        path: the manifest; ``.jsonl`` and ``.ndjson`` are read as JSON lines.
        root: the folder that image paths start from (else the manifest's) and must stay in.
        outside: let them leave it.

    Raises:
        InputError: there is no such file, or it is no such table.
    """
    rows = _json_rows(path) if path.suffix.lower() in _JSON_SUFFIXES else _table_rows(path)
    checked = (_rooted(row, root or path.parent, outside=outside) for row in rows)
    # Rows without a phrase of their own take the run's, so they join nothing.
    for _, group in groupby(checked, key=lambda row: (row.path, bool(row.phrases), row.failure)):
        first, *others = group
        phrases = (*first.phrases, *(each for row in others for each in row.phrases))
        yield _checked(replace(first, phrases=phrases))


def _table_rows(path: Path) -> Iterator[Entry]:
    with _opened(path) as file:
        try:
            reader = csv.DictReader(file)
            names = [name.strip() for name in reader.fieldnames or ()]
            if "image" not in names:
                has = ", ".join(names)[:200]
                raise InputError(f"{path}: no column image (it has {has}); name it in the head")
            reader.fieldnames = names
            for number, row in enumerate(reader, 1):
                image, phrase = (row.get("image") or "").strip(), (row.get("phrase") or "").strip()
                if image:
                    own = (phrase,) if phrase else ()
                    yield Entry(path=Path(image), phrases=own, line=number)
                else:
                    yield _unclear(number, "names no image")
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}: no UTF-8 CSV table ({error}); save it as such") from error


def _json_rows(path: Path) -> Iterator[Entry]:
    with _opened(path) as file:
        try:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield _from_json(text, number)
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not UTF-8 ({error.reason}); save it as such") from error


def _opened(path: Path) -> TextIO:
    try:
        return path.open(newline="", encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the name") from error


def _from_json(text: str, number: int) -> Entry:
    try:
        row = json.loads(text)
    except ValueError:
        return _unclear(number, "is no JSON")
    image = row.get("image") if isinstance(row, Mapping) else None
    if not isinstance(image, str) or not image.strip():
        return _unclear(number, 'names no image; write {"image": "path"}')
    phrases = _phrases_of(row)
    if phrases is None:
        return _unclear(number, "has phrases that are no text")
    return Entry(path=Path(image), phrases=phrases, line=number)


def _phrases_of(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    several = row.get("phrases") or []
    single = row.get("phrase")
    given = [single] if single else []
    if not isinstance(several, list):
        return None
    given += several
    return tuple(given) if all(isinstance(each, str) and each.strip() for each in given) else None


def _unclear(number: int, problem: str) -> Entry:
    """A line of a list that means nothing; its text is not repeated, it may name a patient."""
    path = Path(f"line {number}")
    remedy = "" if ";" in problem else "; correct it"
    return Entry(path=path, line=number, failure=_refuse(path, "input", problem + remedy))


def _rooted(entry: Entry, root: Path | None, *, outside: bool) -> Entry:
    """The entry with its path from the root, or refused where that leads out of it."""
    if root is None or entry.failure:
        return entry
    path = root / entry.path
    try:
        within = path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):  # no valid name, or links that lead round
        return _unclear(entry.line or 0, "is no valid path")
    if within or outside:
        return replace(entry, path=path)
    words = "leaves the image root; set --image-root, or --allow-outside if that is meant"
    return replace(entry, failure=_refuse(entry.path, "outside", words))


def _checked(entry: Entry) -> Entry:
    """The entry, refused at once where its file is no image: the model need not be loaded then."""
    from cxrg.image.read import is_image

    return entry if entry.failure or is_image(entry.path) else _refused(entry)


def _refused(entry: Entry) -> Entry:
    """The entry with what is wrong with its file."""
    from cxrg.image.read import read_image

    try:
        read_image(entry.path, side=1)
    except ImageError as error:
        return replace(entry, failure=failure_of(entry.path, error))
    return entry


# --- small things ---------------------------------------------------------------------------------


def _refuse(path: Path, kind: FailureKind, words: str) -> Failure:
    return Failure(path=path, kind=kind, message=f"{printable(path)}: {words}")


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
