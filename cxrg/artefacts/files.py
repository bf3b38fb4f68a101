"""Files that are there whole or not at all, and names that tell nothing about the patient."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cxrg.errors import WriteError


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Write ``path`` under a temporary name; flush and rename it only if the body succeeds.

    Raises:
        WriteError: the folder cannot be made or the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
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
        reason = error.strerror or str(error)
        raise WriteError(f"{path}: cannot be written ({reason}); choose another folder") from error


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left; only while nobody writes to the folder."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):
            part.unlink()


def stem(image_sha256: str, phrase: str, *facts: str) -> str:
    """The file name, less its suffix, for one result: image digest, phrase, digest of the rest.

    The name of the input file is not used: it often holds a patient's name. The phrase is cut to
    letters and digits for the reader; the last digest covers the whole phrase and ``facts`` (model
    and options), so that different results never share a name.
    """
    digest = hashlib.sha256("\0".join([phrase, *facts]).encode()).hexdigest()
    return "-".join(part for part in (image_sha256[:16], _slug(phrase), digest[:8]) if part)


def _slug(phrase: str) -> str:
    plain = unicodedata.normalize("NFKD", phrase).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:40].strip("-")
