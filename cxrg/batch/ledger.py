"""What is done, what failed, and who is at it: one SQLite file in the output folder.

A result's key is the image's content, the phrase, the model's identity and the options. A process
claims a result before it computes it, so that several processes on one folder share the work; the
claims of a dead process are taken over. Every change is one transaction, and a result counts as
done only when its files are there, so the ledger may be killed at any moment.

No path is kept. That a file was hashed before is remembered under a keyed digest of its path, size
and times, so that a second run over an archive need not read it again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cxrg.batch.owners import BEAT, Owner, this_process
from cxrg.batch.task import Failure, FailureKind, Outcome, Row, Setting, printable
from cxrg.errors import InputError, WriteError
from cxrg.output.record import upgraded
from cxrg.phrase.normalise import normalise

FILE = "cxrg.sqlite"
VERSION = 2
PATIENCE = 60.0  # seconds to wait for another process's transaction
FRESH = 2.0  # seconds in which a file may change without a change of its times
MOST_BYTES = 2**30  # what `cxrg.image.read.read_image` takes at most

_TABLES = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE owner (
    id INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT NOT NULL, pid INTEGER NOT NULL,
    born TEXT NOT NULL, beat REAL NOT NULL);
CREATE TABLE setting (
    id INTEGER PRIMARY KEY, model TEXT NOT NULL, options TEXT NOT NULL, UNIQUE (model, options));
CREATE TABLE result (
    image BLOB NOT NULL, phrase TEXT NOT NULL, setting INTEGER NOT NULL REFERENCES setting,
    state TEXT NOT NULL CHECK (state IN ('claimed', 'done', 'failed')),
    owner INTEGER NOT NULL, at REAL NOT NULL, stem TEXT, record TEXT,
    PRIMARY KEY (image, phrase, setting));
CREATE INDEX claims ON result (owner) WHERE state = 'claimed';
CREATE TABLE seen (mark BLOB PRIMARY KEY, image BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE failure (mark BLOB PRIMARY KEY, input INTEGER NOT NULL, line TEXT NOT NULL);
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What the ledger says of some phrases of one image.

    Attributes:
        mine: to be computed by this process, now.
        done: results that exist.
        failed: phrases that this run, in whatever process, already failed to ground.
        busy: phrases that somebody is at: another process, or this one for a copy of the image.
    """

    mine: tuple[str, ...]
    done: Mapping[str, Row]
    failed: Mapping[str, Failure]
    busy: tuple[str, ...]


class Ledger:
    """The ledger of one folder, as seen by one process. Methods may be called from any thread.

    Every method raises WriteError where the file cannot be written, as on a full disk.

    Attributes:
        alone: whether no other living process had this ledger open when it was opened.
    """

    def __init__(self, folder: Path | None, *, force: bool = False) -> None:
        """Open or begin a ledger.

        Args:
            folder: where it lies; None: nowhere, for a run that writes nothing.
            force: take what was done before this run for undone.

        Raises:
            WriteError: the folder or the file cannot be written.
            InputError: the file is there and is no ledger of this version.
        """
        self._file = folder / FILE if folder else None
        self._force, self._lock = force, threading.RLock()
        self._started = time.time()
        with self._told():
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
            # An empty name is SQLite's for a temporary file that goes when it is closed.
            self._db = sqlite3.connect(
                self._file or "", PATIENCE, isolation_level=None, check_same_thread=False
            )
            with ExitStack() as undo:
                undo.callback(self._db.close)
                self._prepare()
                undo.pop_all()
        self._closed = threading.Event()
        self._setting = 0
        threading.Thread(target=self._beat, name="ledger", daemon=True).start()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- results ----------------------------------------------------------------------------------

    def settle(self, setting: Setting) -> None:
        """Say what model and options all results from now on are made with."""
        key = (setting.identity, setting.facts)
        with self._change():
            self._db.execute("INSERT OR IGNORE INTO setting (model, options) VALUES (?, ?)", key)
            asked = "SELECT id FROM setting WHERE model = ? AND options = ?"
            (self._setting,) = self._db.execute(asked, key).fetchone()

    def claim(
        self, path: Path, image: str, phrases: Sequence[str], *, whole: Callable[[str], bool]
    ) -> Claim:
        """Claim what is to be computed of these phrases, and say what is known of the others.

        Args:
            path: the image's name, for messages.
            image: SHA-256 of its content.
            phrases: what is asked for.
            whole: whether the files of a result are all there, by their name less the suffix.
        """
        mine, busy = [], []
        done: dict[str, Row] = {}
        failed: dict[str, Failure] = {}
        with self._change():
            for phrase in phrases:
                row = self._db.execute(
                    "SELECT state, owner, at, stem, record FROM result"
                    " WHERE image = ? AND phrase = ? AND setting = ?",
                    (bytes.fromhex(image), phrase, self._setting),
                ).fetchone()
                state, owner, at, stem, record = row or ("", 0, 0.0, "", "")
                now = at >= self._started
                if state == "done" and (now or not self._force) and whole(stem):
                    done[phrase] = Row(phrase=phrase, stem=stem, record=json.loads(record))
                elif state == "failed" and now:
                    failed[phrase] = _failure(path, json.loads(record))
                elif state == "claimed" and self._lives(owner):
                    busy.append(phrase)
                else:
                    self._put(image, phrase, "claimed")
                    mine.append(phrase)
        return Claim(mine=tuple(mine), done=done, failed=failed, busy=tuple(busy))

    def finish(self, image: str | None, outcome: Outcome) -> None:
        """Enter what became of a task whose phrases were claimed for ``image``.

        The rows go under the content that was read: the file may have changed since the claim.
        """
        failure = outcome.failure
        with self._change():
            if image:
                self._release(image, outcome.task.phrases)
                for phrase in set(outcome.task.phrases) - {row.phrase for row in outcome.rows}:
                    if failure and failure.kind != "missing":
                        told = {"kind": failure.kind, "reason": failure.reason}
                        self._put(image, phrase, "failed", record=json.dumps(told))
            for row in outcome.rows:
                content, text = row.record["image"]["sha256"], json.dumps(row.record)
                self._put(content, row.phrase, "done", stem=row.stem, record=text)

    def release(self, image: str, phrases: Sequence[str]) -> None:
        """Give up claims, so that somebody else may take them."""
        with self._change():
            self._release(image, phrases)

    def _release(self, image: str, phrases: Sequence[str]) -> None:
        self._db.executemany(
            "DELETE FROM result WHERE image = ? AND phrase = ? AND setting = ?"
            " AND owner = ? AND state = 'claimed'",
            [(bytes.fromhex(image), each, self._setting, self._owner) for each in phrases],
        )

    def _put(
        self, image: str, phrase: str, state: str, *, stem: str = "", record: str = ""
    ) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(bytes.fromhex(image), phrase, self._setting, state),
                *(self._owner, time.time(), stem, record),
            ),
        )

    # --- files ------------------------------------------------------------------------------------

    def identify(self, path: Path) -> str | None:
        """SHA-256 of a file's content, from memory if the file has not changed since.

        None where there is nothing to hash: whoever reads the file can say why.
        """
        try:
            before = path.stat()
            if not stat.S_ISREG(before.st_mode) or not 0 < before.st_size <= MOST_BYTES:
                return None
            mark = self._mark(path, before)
            with self._lock, self._told():
                known = self._db.execute("SELECT image FROM seen WHERE mark = ?", (mark,))
                row = known.fetchone()
            if row:
                return cast(bytes, row[0]).hex()
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            after = path.stat()
        except (OSError, ValueError):
            return None
        settled = max(after.st_mtime, after.st_ctime) < time.time() - FRESH
        if settled and self._mark(path, after) == mark:
            with self._change():
                entry = (mark, digest.digest())
                self._db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", entry)
        return digest.hexdigest()

    def _mark(self, path: Path, told: os.stat_result | None = None) -> bytes:
        """A keyed digest of a path, and of a file's size and times where they are given."""
        facts = (told.st_size, told.st_mtime_ns, told.st_ctime_ns) if told else ()
        text = os.fsencode(os.path.abspath(path)) + repr(facts).encode()
        return hashlib.blake2b(text, key=self._secret, digest_size=16).digest()

    # --- failures ---------------------------------------------------------------------------------

    def note(self, path: Path, number: int, line: str) -> None:
        """Keep a line about input ``number``, which failed, for `failures`."""
        entry = (self._mark(path), number, line)
        with self._change():
            self._db.execute("INSERT OR REPLACE INTO failure VALUES (?, ?, ?)", entry)

    def failures(self) -> list[str]:
        """The lines of this run, and of those at the same time on this folder, by number."""
        with self._lock, self._told():
            rows = self._db.execute("SELECT line FROM failure ORDER BY input, line").fetchall()
        return [line for (line,) in rows]

    # --- opening, owners, closing -----------------------------------------------------------------

    def close(self) -> None:
        """Give up all claims and close the file; may be called twice."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            try:
                with suppress(WriteError), self._change():  # what is left over is a dead owner's
                    self._forget(self._owner)
            finally:
                self._db.close()

    def _prepare(self) -> None:
        self._enter_wal()
        self._db.execute("PRAGMA synchronous = NORMAL")
        with self._change():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                secret = ("secret", secrets.token_bytes(32))
                self._db.execute("INSERT INTO fact VALUES (?, ?)", secret)
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            elif version == 1:
                _upgrade(self._db)
            elif version != VERSION:
                raise InputError(
                    f"{self._file}: a ledger of version {version}, this cxrg has {VERSION}; "
                    "choose another folder with --out"
                )
            asked = self._db.execute("SELECT value FROM fact WHERE name = 'secret'")
            (self._secret,) = asked.fetchone()
            self._enlist()

    def _enter_wal(self) -> None:
        """Let others read while one writes; SQLite does not wait by itself for this change."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def _enlist(self) -> None:
        """Enter this process as an owner; forget the dead, and, when alone, the last failures."""
        known = [owner for (owner,) in self._db.execute("SELECT id FROM owner").fetchall()]
        dead = [owner for owner in known if not self._lives(owner)]
        for owner in dead:
            self._forget(owner)
        self.alone = dead == known
        if self.alone:
            self._db.execute("DELETE FROM failure")
        me = this_process()
        entry = (me.host, me.pid, me.born, time.time())
        added = "INSERT INTO owner (host, pid, born, beat) VALUES (?, ?, ?, ?)"
        self._owner = self._db.execute(added, entry).lastrowid

    def _forget(self, owner: int | None) -> None:
        self._db.execute("DELETE FROM result WHERE state = 'claimed' AND owner = ?", (owner,))
        self._db.execute("DELETE FROM owner WHERE id = ?", (owner,))

    def _lives(self, owner: int) -> bool:
        asked = "SELECT host, pid, born, beat FROM owner WHERE id = ?"
        row = self._db.execute(asked, (owner,)).fetchone()
        return row is not None and Owner(*row[:3]).lives(row[3], time.time())

    def _beat(self) -> None:
        while not self._closed.wait(BEAT):
            with self._lock:
                if self._closed.is_set():
                    return
                with suppress(WriteError), self._change():
                    entry = (time.time(), self._owner)
                    self._db.execute("UPDATE owner SET beat = ? WHERE id = ?", entry)

    @contextmanager
    def _change(self) -> Iterator[None]:
        """One transaction."""
        with self._lock, self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the file system and of SQLite as ours."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise WriteError(
                f"{self._file}: cannot be written ({reason}); choose another folder"
            ) from error
        except sqlite3.OperationalError as error:
            raise WriteError(
                f"{self._file}: cannot be written ({error}); choose another folder"
            ) from error
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self._file}: is no ledger ({error}); move it away, or choose another folder"
            ) from error


def _failure(path: Path, told: Mapping[str, Any]) -> Failure:
    kind = cast(FailureKind, told["kind"])
    return Failure(path=path, kind=kind, message=f"{printable(path)}: {told['reason']}")


def _upgrade(db: sqlite3.Connection) -> None:
    """Bring a ledger of version 1 to this version, in the transaction that is open.

    Version 1 counted device, precision and batch size among the options. Settings that differ in
    device or batch size become one; of two results for one image and phrase the newer stays. The
    files keep their names, and a record says what today's does. Version 1 encoded phrases with
    their typographic signs and blanks, so results of such phrases are dropped and recomputed.
    """
    stored = db.execute("SELECT DISTINCT phrase FROM result").fetchall()
    typed = [(phrase,) for (phrase,) in stored if normalise(phrase) != phrase]
    db.executemany("DELETE FROM result WHERE phrase = ?", typed)
    for old, model, text in db.execute("SELECT id, model, options FROM setting").fetchall():
        options = json.loads(text)
        options["precision"] = options.pop("dtype")
        for name in ("device", "batch"):
            options.pop(name)
        key = (model, json.dumps(options, sort_keys=True))
        db.execute("INSERT OR IGNORE INTO setting (model, options) VALUES (?, ?)", key)
        wanted = "SELECT id FROM setting WHERE model = ? AND options = ?"
        (new,) = db.execute(wanted, key).fetchone()
        db.execute(
            "DELETE FROM result WHERE setting = ? AND EXISTS (SELECT 1 FROM result AS other"
            " WHERE other.image = result.image AND other.phrase = result.phrase"
            " AND other.setting = ? AND other.at >= result.at)",
            (old, new),
        )
        db.execute("UPDATE OR REPLACE result SET setting = ? WHERE setting = ?", (new, old))
        db.execute("DELETE FROM setting WHERE id = ?", (old,))
    done = "SELECT rowid, record FROM result WHERE state = 'done'"
    for row, text in db.execute(done).fetchall():
        entry = (json.dumps(upgraded(json.loads(text))), row)
        db.execute("UPDATE result SET record = ? WHERE rowid = ?", entry)
    db.execute(f"PRAGMA user_version = {VERSION}")
