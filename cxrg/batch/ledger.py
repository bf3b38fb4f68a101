"""What is done, what failed, and who computes the rest: one SQLite file in the output folder.

A result's key is the image's content, the phrase, the model's identity and the options. A process
claims a result before it computes it, so that several processes on one folder share the work; the
claims of a dead process are taken over. Every change is one transaction, and a result counts as
done only when its files are there, so the process may be killed at any moment. Each row holds a
keyed digest of itself: a damaged one is computed again.

No path is kept. That a file was hashed before is remembered under a keyed digest of its path, size
and times, so that a second run over an archive need not read it again.
"""

from __future__ import annotations

import errno
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
from cxrg.errors import WriteError
from cxrg.files import cannot_write
from cxrg.options import modernise
from cxrg.output.record import upgraded
from cxrg.phrase.normalise import normalise

FILE = "cxrg.sqlite"
VERSION = 3
PATIENCE = 60.0  # seconds to wait for another process's transaction
LOOK = 5.0  # seconds of waiting after which the user learns the reason
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
    owner INTEGER NOT NULL, at REAL NOT NULL, stem TEXT, record TEXT, seal BLOB,
    PRIMARY KEY (image, phrase, setting));
CREATE INDEX claims ON result (owner) WHERE state = 'claimed';
CREATE TABLE seen (mark BLOB PRIMARY KEY, image BLOB NOT NULL, seal BLOB) WITHOUT ROWID;
CREATE TABLE failure (mark BLOB PRIMARY KEY, input INTEGER NOT NULL, line TEXT NOT NULL);
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """State of some phrases of one image.

    Attributes:
        mine: to be computed by this process, now.
        done: results that exist.
        failed: phrases that already failed in this run, in any process.
        busy: phrases that are being computed: by another process, or by this one for a copy of the
            image.
    """

    mine: tuple[str, ...]
    done: Mapping[str, Row]
    failed: Mapping[str, Failure]
    busy: tuple[str, ...]


class Ledger:
    """The ledger of one folder, opened by one process. Methods may be called from any thread.

    Every method raises WriteError if the file cannot be written, as on a full disk, or if it was
    removed during the run.

    Attributes:
        alone: whether no other living process had this ledger open when it was opened.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        force: bool = False,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Open or create a ledger.

        Args:
            folder: the output folder; None: a temporary file, for a run that writes nothing.
            force: ignore results that were made before this run.
            notice: called with a line for the user when another process is waited for.

        Raises:
            WriteError: the folder or the file cannot be written, or the file is not a ledger of
                this version.
        """
        self._file = folder / FILE if folder else None
        self._force, self._lock, self._notice = force, threading.RLock(), notice
        self._started = time.time()
        self._inode: tuple[int, int] | None = None
        self._secret = b""
        with self._errors():
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
            # An empty name is SQLite's for a temporary file that goes when it is closed.
            self._db = sqlite3.connect(
                self._file or "", LOOK, isolation_level=None, check_same_thread=False
            )
            # A damaged text must not end the run; its row's seal does not match any more.
            self._db.text_factory = lambda data: data.decode(errors="replace")
            with ExitStack() as undo:
                undo.callback(self._db.close)
                self._prepare()
                undo.pop_all()
            if self._file:
                self._inode = _inode(self._file)
        self._closed = threading.Event()
        self._setting = 0
        threading.Thread(target=self._beat, name="ledger", daemon=True).start()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- results ----------------------------------------------------------------------------------

    def settle(self, setting: Setting) -> None:
        """Set the model and options of all results from now on."""
        key = (setting.identity, setting.facts)
        with self._change():
            self._db.execute("INSERT OR IGNORE INTO setting (model, options) VALUES (?, ?)", key)
            query = "SELECT id FROM setting WHERE model = ? AND options = ?"
            (self._setting,) = self._db.execute(query, key).fetchone()

    def claim(
        self, path: Path, image: str, phrases: Sequence[str], *, complete: Callable[[str], bool]
    ) -> Claim:
        """Claim those phrases that are to be computed, and return the state of the others.

        Args:
            path: the image's name, for messages.
            image: SHA-256 of its content.
            phrases: what to look for.
            complete: whether the files of a result are all there, by their name less the suffix.
        """
        mine, busy = [], []
        done: dict[str, Row] = {}
        failed: dict[str, Failure] = {}
        with self._change():
            self._mark_alive()
            for phrase in phrases:
                state, owner, at, stem, record = self._row(image, phrase)
                now = at >= self._started
                if state == "done" and (now or not self._force) and complete(stem):
                    done[phrase] = Row(phrase=phrase, stem=stem, record=json.loads(record))
                elif state == "failed" and now:
                    failed[phrase] = _failure(path, json.loads(record))
                elif state == "claimed" and self._lives(owner):
                    busy.append(phrase)
                else:
                    self._put(image, phrase, "claimed")
                    mine.append(phrase)
        return Claim(mine=tuple(mine), done=done, failed=failed, busy=tuple(busy))

    def finish(self, image: str | None, outcome: Outcome) -> frozenset[str]:
        """Enter the outcome of a task whose phrases were claimed for ``image``.

        The rows go under the content that was read: the file may have changed since the claim.

        Returns:
            The phrases that another process did in the meantime, because this one was stopped for
            long; its rows stay.
        """
        failure = outcome.failure
        others: set[str] = set()
        with self._change():
            if image:
                self._release(image, outcome.task.phrases)
                for phrase in set(outcome.task.phrases) - {row.phrase for row in outcome.rows}:
                    if failure and failure.kind != "missing":
                        facts = {"kind": failure.kind, "reason": failure.reason}
                        self._put(image, phrase, "failed", record=json.dumps(facts))
            for row in outcome.rows:
                content, text = row.record["image"]["sha256"], json.dumps(row.record)
                state, owner, at, *_ = self._row(content, row.phrase)
                if state == "done" and owner != self._owner and at >= self._started:
                    others.add(row.phrase)
                else:
                    self._put(content, row.phrase, "done", stem=row.stem, record=text)
        return frozenset(others)

    def made(self) -> Iterator[str]:
        """Yield the file names, less the suffix, of all results that this process entered."""
        query = (
            "SELECT rowid, stem FROM result WHERE state = 'done' AND owner = ? AND rowid > ?"
            " ORDER BY rowid LIMIT 1000"
        )
        last = -1
        while True:
            with self._lock, self._errors():
                rows = self._db.execute(query, (self._owner, last)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from (stem for _, stem in rows)

    def holders(self) -> list[tuple[Owner, int]]:
        """Return the other living processes that have claims, each with their number."""
        query = (
            "SELECT host, pid, born, beat, COUNT(DISTINCT image)"
            " FROM owner JOIN result ON owner.id = result.owner"
            " WHERE state = 'claimed' AND owner.id != ? GROUP BY owner.id"
        )
        with self._lock, self._errors():
            rows = self._db.execute(query, (self._owner,)).fetchall()
        found = ((Owner(*row[:3]), row[3], row[4]) for row in rows)
        return [(owner, count) for owner, beat, count in found if owner.lives(beat, time.time())]

    def release(self, image: str, phrases: Sequence[str]) -> None:
        """Give up claims, so that another process may take them."""
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
        key, at = (bytes.fromhex(image), phrase, self._setting), time.time()
        seal = self._seal(*key, state, at, stem, record)
        self._db.execute(
            "INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*key, state, self._owner, at, stem, record, seal),
        )

    def _row(self, image: str, phrase: str) -> tuple[str, int, float, str, str]:
        """Return state, owner, time, stem and record of a result; empty if none or damaged."""
        key = (bytes.fromhex(image), phrase, self._setting)
        row = self._db.execute(
            "SELECT state, owner, at, stem, record, seal FROM result"
            " WHERE image = ? AND phrase = ? AND setting = ?",
            key,
        ).fetchone()
        if row is None:
            return "", 0, 0.0, "", ""
        state, owner, at, stem, record, seal = row
        if seal != self._seal(*key, state, at, stem, record):
            return "", 0, 0.0, "", ""
        return state, owner, at, stem, record

    def _seal(self, *facts: object) -> bytes:
        return seal(self._secret, *facts)

    # --- files ------------------------------------------------------------------------------------

    def identify(self, path: Path) -> str | None:
        """Return the SHA-256 of a file's content, from the ledger if the file has not changed.

        None where there is nothing to hash: reading the image gives the reason.
        """
        try:
            before = path.stat()
            if not stat.S_ISREG(before.st_mode) or not 0 < before.st_size <= MOST_BYTES:
                return None
            mark = self._mark(path, before)
            with self._lock, self._errors():
                known = self._db.execute("SELECT image, seal FROM seen WHERE mark = ?", (mark,))
                row = known.fetchone()
            if row and row[1] == self._seal(mark, row[0]):
                return cast(bytes, row[0]).hex()
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            after = path.stat()
        except (OSError, ValueError):
            return None
        settled = max(after.st_mtime, after.st_ctime) < time.time() - FRESH
        if settled and self._mark(path, after) == mark:
            with self._change():
                entry = (mark, digest.digest(), self._seal(mark, digest.digest()))
                self._db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", entry)
        return digest.hexdigest()

    def _mark(self, path: Path, status: os.stat_result | None = None) -> bytes:
        """Return a keyed digest of a path, and of a file's size and times where they are given."""
        facts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns) if status else ()
        text = os.fsencode(os.path.abspath(path)) + repr(facts).encode()
        return hashlib.blake2b(text, key=self._secret, digest_size=16).digest()

    # --- failures ---------------------------------------------------------------------------------

    def note(self, path: Path, number: int, line: str) -> None:
        """Keep the line of input ``number``, which failed, for `failures`."""
        entry = (self._mark(path), number, line)
        with self._change():
            self._db.execute("INSERT OR REPLACE INTO failure VALUES (?, ?, ?)", entry)

    def failures(self) -> list[str]:
        """Return the lines of this run, and of others at the same time on this folder, sorted."""
        with self._lock, self._errors():
            rows = self._db.execute("SELECT line FROM failure ORDER BY input, line").fetchall()
        return [line for (line,) in rows if isinstance(line, str) and line.isascii()]

    # --- opening, owners, closing -----------------------------------------------------------------

    def close(self) -> None:
        """Give up all claims and close the file; may be called twice."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            try:
                # What is left of a dead owner is removed by the next one.
                with suppress(WriteError), self._change():
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
                fresh = ("secret", secrets.token_bytes(32))
                self._db.execute("INSERT INTO fact VALUES (?, ?)", fresh)
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            elif version not in range(1, VERSION + 1):
                raise WriteError(
                    f"{self._file}: is a ledger of version {version}, and this cxrg reads "
                    f"versions up to {VERSION}; choose another folder with --out"
                )
            secret = self._db.execute("SELECT value FROM fact WHERE name = 'secret'").fetchone()
            if not (secret and isinstance(secret[0], bytes) and len(secret[0]) == 32):
                raise sqlite3.DatabaseError("a value is missing")
            self._secret = secret[0]
            if version in (1, 2):
                _upgrade(self._db)
                self._add_seals()
            self._enlist()

    def _add_seals(self) -> None:
        """Bring a ledger of version 2 to this version, in the transaction that is open."""
        for table in ("result", "seen"):
            self._db.execute(f"ALTER TABLE {table} ADD COLUMN seal BLOB")
        query = "SELECT rowid, image, phrase, setting, state, at, stem, record FROM result"
        for row, *facts in self._db.execute(query).fetchall():
            if _is_consistent(*facts):
                entry = (self._seal(*facts), row)
                self._db.execute("UPDATE result SET seal = ? WHERE rowid = ?", entry)
        for mark, image in self._db.execute("SELECT mark, image FROM seen").fetchall():
            entry = (self._seal(mark, image), mark)
            self._db.execute("UPDATE seen SET seal = ? WHERE mark = ?", entry)
        self._db.execute(f"PRAGMA user_version = {VERSION}")

    def _enter_wal(self) -> None:
        """Let others read while one writes; SQLite itself does not wait for this change."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > until:
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
        insert = "INSERT INTO owner (host, pid, born, beat) VALUES (?, ?, ?, ?)"
        self._owner = self._db.execute(insert, entry).lastrowid

    def _mark_alive(self) -> None:
        """Update this process's entry, or make it anew: others forget who was stopped for long."""
        me = this_process()
        entry = (self._owner, me.host, me.pid, me.born, time.time())
        self._db.execute("INSERT OR REPLACE INTO owner VALUES (?, ?, ?, ?, ?)", entry)

    def _forget(self, owner: int | None) -> None:
        self._db.execute("DELETE FROM result WHERE state = 'claimed' AND owner = ?", (owner,))
        self._db.execute("DELETE FROM owner WHERE id = ?", (owner,))

    def _lives(self, owner: int) -> bool:
        query = "SELECT host, pid, born, beat FROM owner WHERE id = ?"
        row = self._db.execute(query, (owner,)).fetchone()
        return (
            row is not None
            and isinstance(row[3], float)
            and Owner(*row[:3]).lives(row[3], time.time())
        )

    def _beat(self) -> None:
        while not self._closed.wait(BEAT):
            with self._lock:
                if self._closed.is_set():
                    return
                with suppress(WriteError), self._change():
                    self._mark_alive()

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Run the body in one transaction."""
        with self._lock, self._errors():
            if self._file and self._inode and _inode(self._file) != self._inode:
                raise WriteError(
                    f"{self._file}: was removed or replaced during the run; run the same command "
                    "again, which computes what is missing"
                )
            self._begin()
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _begin(self) -> None:
        """Begin a transaction, for which another process's must end.

        Raises:
            WriteError: it does not end, as that of a stopped process.
        """
        end, holder = time.monotonic() + PATIENCE, ""
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error):
                    raise
                new = self._stopped() or "another process"
                if time.monotonic() > end:
                    raise WriteError(
                        f"{self._file}: is locked by {new}; continue or end that process"
                    ) from error
                if new != holder:
                    self._notice(f"waiting for {new}, which has locked {self._file}")
                holder = new

    def _stopped(self) -> str:
        """The stopped processes that use this ledger, for a message; empty if there are none."""
        try:
            rows = self._db.execute("SELECT host, pid, born FROM owner").fetchall()
        except sqlite3.Error:  # another process is creating the ledger
            return ""
        owners = (Owner(*row) for row in rows)
        return ", ".join(f"stopped {owner}" for owner in owners if owner.stopped)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise errors of the file system and of SQLite as errors of cxrg."""
        try:
            yield
        except OSError as error:
            raise cannot_write(self._file, error.strerror or str(error)) from error
        except sqlite3.DatabaseError as error:
            number = _disk_error(error)
            if number is not None:
                raise cannot_write(self._file, os.strerror(number)) from error
            if isinstance(error, sqlite3.OperationalError) and not _is_query_error(error):
                raise cannot_write(self._file, str(error)) from error
            raise WriteError(
                f"{self._file}: is not a ledger of cxrg, or is damaged ({error}); move it away, "
                "or choose another folder"
            ) from error


def seal(secret: bytes, *facts: object) -> bytes:
    """Return a keyed digest of a row, which shows whether it was damaged."""
    return hashlib.blake2b(repr(facts).encode(), key=secret, digest_size=16).digest()


_DISK_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR_SHMSIZE: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
}
"""SQLite's codes of errors that results meet as well, so that both give the same reason."""


def _disk_error(error: sqlite3.Error) -> int | None:
    """Return the system's number of an error of the disk; None if it is none."""
    if not _has_code(error):
        return None
    code = error.sqlite_errorcode
    return _DISK_ERRORS.get(code, _DISK_ERRORS.get(code & 0xFF))


def _has_code(error: sqlite3.Error) -> bool:
    return hasattr(error, "sqlite_errorcode")  # not of an error that Python's module raises itself


def _is_busy(error: sqlite3.Error) -> bool:
    return _has_code(error) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _is_query_error(error: sqlite3.Error) -> bool:
    """Whether a table or column is missing: the file is another program's."""
    return _has_code(error) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_ERROR


def _is_consistent(
    image: object, phrase: object, setting: object, state: str, at: object, stem: object, text: Any
) -> bool:
    """Whether the record of a row without a seal is of its image and phrase."""
    if state != "done":
        return False
    try:
        record = json.loads(text)
        return bool(
            bytes.fromhex(record["image"]["sha256"]) == image and record["phrase"] == phrase
        )
    except (KeyError, TypeError, ValueError):
        return False


def _inode(file: Path) -> tuple[int, int] | None:
    """The identity of a file; None if it is gone."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _failure(path: Path, facts: Mapping[str, Any]) -> Failure:
    kind = cast(FailureKind, facts["kind"])
    return Failure(path=path, kind=kind, message=f"{printable(path)}: {facts['reason']}")


def _upgrade(db: sqlite3.Connection) -> None:
    """Bring a ledger of version 1 or 2 to today's settings and records, in the open transaction.

    Version 1 counted device, precision and batch size among the options. Settings that differ in
    device or batch size become one; of two results for one image and phrase the newer stays. The
    files keep their names, and records are upgraded. Both versions encoded phrases with their
    typographic signs and blanks, so results of such phrases are dropped and recomputed. Both had
    knobs that are no more; settings in which one was in use stay, and nothing matches them.
    """
    stored = db.execute("SELECT DISTINCT phrase FROM result").fetchall()
    typed = [(text,) for (text,) in stored if isinstance(text, str) and normalise(text) != text]
    db.executemany("DELETE FROM result WHERE phrase = ?", typed)
    for old, model, text in db.execute("SELECT id, model, options FROM setting").fetchall():
        with suppress(ValueError, TypeError, KeyError):  # damaged settings match nothing
            options = json.loads(text)
            if "dtype" in options:
                options["precision"] = options.pop("dtype")
                del options["device"], options["batch"]
            options = modernise(options["preset"], options) or options
            text = json.dumps(options, sort_keys=True)
        key = (model, text)
        db.execute("INSERT OR IGNORE INTO setting (model, options) VALUES (?, ?)", key)
        query = "SELECT id FROM setting WHERE model = ? AND options = ?"
        (new,) = db.execute(query, key).fetchone()
        if new == old:
            continue
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
        with suppress(ValueError, TypeError, KeyError, AttributeError):  # damaged ones get no seal
            entry = (json.dumps(upgraded(json.loads(text))), row)
            db.execute("UPDATE result SET record = ? WHERE rowid = ?", entry)
