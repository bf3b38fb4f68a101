"""The finished results of an output folder, read from its ledger without a change to it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from cxrg.batch.ledger import FILE, VERSION, seal
from cxrg.batch.task import Row
from cxrg.errors import InputError

_RESULTS = (
    "SELECT image, phrase, setting, state, at, stem, record, seal FROM result"
    " JOIN setting ON setting.id = result.setting WHERE state = 'done'"
    " ORDER BY image, phrase, model, options"
)
_PHRASES = "SELECT DISTINCT phrase FROM result WHERE state = 'done' ORDER BY phrase"


class StoredResults:
    """The results of a folder as they were when it was opened; runs may go on meanwhile.

    Results are ordered by image, phrase, model and options, so that equal folders are read equally.

    Attributes:
        damaged: how many the last reading left out, because their row does not match its digest.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder.

        Raises:
            InputError: it holds no ledger of this version.
        """
        self._file = folder / FILE
        self.damaged = 0
        if not self._file.is_file():
            raise InputError(
                f"{folder}: holds no results ({FILE} is missing); give a folder that cxrg ground "
                "wrote with --out"
            )
        with self._errors():
            # The last one to close a ledger removes SQLite's own files beside it, and may write.
            # Where nobody may write, nobody does meanwhile.
            how = "mode=rw" if os.access(folder, os.W_OK) else "immutable=1"
            uri = f"file:{quote(str(self._file.resolve()))}?{how}"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None)
            self._db.execute("PRAGMA query_only = 1")
            self._db.text_factory = lambda data: data.decode(errors="replace")
            self._db.execute("BEGIN")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == VERSION:
                secret = self._db.execute("SELECT value FROM fact WHERE name = 'secret'").fetchone()
                self._secret = secret[0] if secret else b""
        if version != VERSION:
            self._db.close()
            raise InputError(
                f"{self._file}: is a ledger of version {version}, not {VERSION}; "
                "run cxrg ground on the folder once, which brings an older one up to date"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()

    def rows(self) -> Iterator[Row]:
        """Yield every result."""
        self.damaged = 0
        with self._errors():
            for *facts, digest in self._db.execute(_RESULTS):
                if digest == seal(self._secret, *facts):
                    _, phrase, _, _, _, stem, record = facts
                    yield Row(phrase=phrase, stem=stem, record=json.loads(record))
                else:
                    self.damaged += 1

    def records(self) -> Iterator[Mapping[str, Any]]:
        """Yield the record of every result."""
        return (row.record for row in self.rows())

    def phrases(self) -> Iterator[str]:
        """Yield every phrase once, sorted."""
        with self._errors():
            for (phrase,) in self._db.execute(_PHRASES):
                yield phrase

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(
                f"{self._file}: cannot be read ({error}); copy the folder to a place of your own"
            ) from error
