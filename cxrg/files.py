"""Files that appear complete or not at all, their names, and values as strict JSON has them."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import stat
import time
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from cxrg.errors import InputError, WriteError

_PARTIAL = ".cxrg-part"
WRITER_SECONDS = 10.0
"""How long a named pipe is waited for that no program writes to."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write ``path`` under a temporary name; flush and rename it only if the body succeeds.

    Raises:
        WriteError: the folder cannot be made or the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)  # nothing is left there after the rename
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error


def cannot_write(path: Path | None, reason: str) -> WriteError:
    """Return the error of a file that cannot be written, in the same words wherever it happens."""
    return WriteError(f"{path}: cannot be written ({reason}); choose another folder")


def remove_partial_files(folder: Path) -> None:
    """Remove what killed writers of cxrg have left; only while nobody writes to the folder."""
    for part in folder.glob(f".*{_PARTIAL}"):
        with suppress(OSError):
            part.unlink()


def open_text(path: Path, *, errors: str = "strict") -> TextIO:
    """Open a text file or pipe in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        errors: what to do with bytes that are not UTF-8, as `open` has it.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if stat.S_ISFIFO(path.stat().st_mode):
            return io.TextIOWrapper(_open_pipe(path), "utf-8-sig", errors, newline="")
        return path.open(newline="", encoding="utf-8-sig", errors=errors)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a valid name"
        raise InputError(f"{path}: cannot be read ({reason}); check the name") from error


class _PipeEnd(io.FileIO):
    """The reading end of a named pipe, which notices whether a program writes to it."""

    has_writer = False

    def readinto(self, buffer: Any) -> int | None:  # None: no data yet
        count: int | None = super().readinto(buffer)
        self.has_writer = self.has_writer or count != 0
        return count


def _open_pipe(path: Path) -> io.BufferedReader[Any]:
    """Open a named pipe; unlike a plain ``open``, this ends if no program writes to it."""
    end = _PipeEnd(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    pipe: io.BufferedReader[Any] = io.BufferedReader(end)
    deadline = time.monotonic() + WRITER_SECONDS
    while not (pipe.peek(1) or end.has_writer):
        if time.monotonic() > deadline:
            pipe.close()
            raise InputError(f"{path}: is a pipe that no program writes to; start its writer first")
        time.sleep(0.02)
    os.set_blocking(end.fileno(), True)
    return pipe


def stem(image_sha256: str, phrase: str, *facts: str) -> str:
    """The file name, less its suffix, for one result: image digest, phrase, digest of the rest.

    The name of the input file is not used: it often holds a patient's name. The phrase is cut to
    letters and digits for the reader; the last digest covers the whole phrase and ``facts`` (model
    and options), so that different results never share a name.
    """
    digest = hashlib.sha256("\0".join([phrase, *facts]).encode()).hexdigest()
    return "-".join(part for part in (image_sha256[:16], _slug(phrase), digest[:8]) if part)


def _slug(phrase: str) -> str:
    letters = unicodedata.normalize("NFKD", phrase).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", letters)[:40].strip("-")


def json_values(value: Any, *, decimals: int | None = 6) -> Any:
    """Return a value as strict JSON holds it.

    Tuples become lists, undefined numbers (which Python writes as ``NaN``) become None, other
    floats are rounded to ``decimals``, or kept if that is None.
    """
    if isinstance(value, Mapping):
        return {key: json_values(item, decimals=decimals) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(item, decimals=decimals) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, float) and decimals is not None:
        return round(value, decimals)
    return value
