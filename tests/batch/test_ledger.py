"""The ledger: claims, what is done, dead owners, files that were seen before."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cxrg.batch import ledger as module
from cxrg.batch import owners
from cxrg.batch.ledger import FILE, Ledger
from cxrg.batch.owners import LEASE, Owner, this_process
from cxrg.batch.task import Outcome, Setting, Task
from cxrg.errors import WriteError
from cxrg.files import cannot_write
from cxrg.options import PRESETS, Options
from cxrg.output.record import SCHEMA_FILE
from tests.fakes.batch import SETTING, failure, row
from tests.fakes.processes import PATIENCE

IMAGE = "ab" * 32
PATH = Path("DOE^JANE.png")


def opened(folder: Path | None, *, force: bool = False) -> Ledger:
    ledger = Ledger(folder, force=force)
    ledger.settle(SETTING)
    return ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path) as one:
        yield one


def claim(ledger: Ledger, *phrases: str, image: str = IMAGE, whole: bool = True):
    return ledger.claim(PATH, image, phrases, complete=lambda stem: whole)


def finish(ledger: Ledger, *phrases: str, image: str = IMAGE, read: str = IMAGE) -> None:
    task = Task(index=0, path=PATH, phrases=phrases)
    rows = tuple(row(read, phrase) for phrase in phrases)
    ledger.finish(image, Outcome(task=task, rows=rows))


def fail(ledger: Ledger, *phrases: str, kind: str = "image") -> None:
    task = Task(index=0, path=PATH, phrases=phrases)
    ledger.finish(IMAGE, Outcome(task=task, failure=failure(PATH, kind)))


def test_what_is_claimed_is_busy_and_what_is_done_is_done(ledger: Ledger) -> None:
    assert claim(ledger, "a", "b").mine == ("a", "b")
    again = claim(ledger, "a", "b")
    assert (again.mine, again.busy) == ((), ("a", "b"))
    finish(ledger, "a")
    third = claim(ledger, "a", "b", "c")
    assert (third.mine, third.busy) == (("c",), ("b",))
    assert third.done == {"a": row(IMAGE, "a")}


def test_the_key_is_image_phrase_model_and_options(ledger: Ledger) -> None:
    claim(ledger, "a")
    finish(ledger, "a")
    assert claim(ledger, "A").mine == ("A",)
    assert claim(ledger, "a", image="cd" * 32).mine == ("a",)
    ledger.settle(Setting(identity="sha256:other", options=SETTING.options))
    assert claim(ledger, "a").mine == ("a",)
    ledger.settle(Setting(identity=SETTING.identity, options=Options(seed=1)))
    assert claim(ledger, "a").mine == ("a",)
    ledger.settle(SETTING)
    assert claim(ledger, "a").done


def test_what_is_released_can_be_claimed(ledger: Ledger) -> None:
    claim(ledger, "a")
    ledger.release(IMAGE, ["a"])
    assert claim(ledger, "a").mine == ("a",)


def test_missing_files_are_made_again(ledger: Ledger) -> None:
    claim(ledger, "a")
    finish(ledger, "a")
    assert claim(ledger, "a", whole=False).mine == ("a",)


def test_a_result_lies_under_the_content_that_was_read(ledger: Ledger) -> None:
    claim(ledger, "a")
    finish(ledger, "a", image=IMAGE, read="cd" * 32)
    assert claim(ledger, "a", image="cd" * 32).done
    assert claim(ledger, "a").mine == ("a",)


def test_failures_are_known_in_this_run_and_tried_again_in_the_next(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        claim(one, "a")
        fail(one, "a")
        known = claim(one, "a").failed["a"]
        assert (known.kind, known.message) == ("image", f"{PATH}: is damaged; copy it again")
    with opened(tmp_path) as two:
        assert claim(two, "a").mine == ("a",)


def test_a_file_that_was_missing_is_not_held_against_its_content(ledger: Ledger) -> None:
    claim(ledger, "a")
    fail(ledger, "a", kind="missing")
    assert claim(ledger, "a").mine == ("a",)


def test_force_computes_what_was_done_before_but_nothing_twice(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        claim(one, "a")
        finish(one, "a")
    with opened(tmp_path, force=True) as two:
        assert claim(two, "a").mine == ("a",)
        finish(two, "a")
        assert claim(two, "a").done


def test_two_at_once_claim_different_things(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as two:
        assert one.alone
        assert not two.alone
        assert claim(one, "a").mine == ("a",)
        assert claim(two, "a", "b").mine == ("b",)
        assert claim(two, "a").busy == ("a",)
        finish(one, "a")
        assert claim(two, "a").done
        fail(two, "b")
        assert claim(one, "b").failed


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.batch.test_ledger import claim, opened
ledger = opened(Path({folder!r}))
assert claim(ledger, "a").mine
print("claimed", flush=True)
sys.stdin.read()
"""


def test_claims_of_a_killed_process_are_taken_over(tmp_path: Path) -> None:
    code = KILLED.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"claimed\n"
        with opened(tmp_path) as ledger:
            assert claim(ledger, "a").busy == ("a",)
            process.kill()
            until = time.monotonic() + PATIENCE
            while claim(ledger, "a").mine != ("a",):  # it is not gone at once
                assert time.monotonic() < until
                time.sleep(0.01)


def test_an_owner_elsewhere_lives_as_long_as_its_lease() -> None:
    me = this_process()
    assert me.lives(0.0, 1e9)  # here the process counts, not what it said last
    assert not Owner(me.host, me.pid, "another start").lives(1e9, 1e9)
    assert not Owner(me.host, 2**22 + 1, me.born).lives(1e9, 1e9)
    elsewhere = Owner("another machine", me.pid, me.born)
    assert elsewhere.lives(1000.0, 1000.0 + LEASE - 1)
    assert not elsewhere.lives(1000.0, 1000.0 + LEASE + 1)


def test_a_stopped_process_lives_as_long_as_its_lease() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        me = this_process()
        owner = Owner(me.host, process.pid, owners._status(process.pid)[0])
        assert owner.lives(0.0, 1e9)
        process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + PATIENCE
        while not owner.stopped:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert owner.lives(1000.0, 1000.0 + LEASE - 1)
        assert not owner.lives(1000.0, 1000.0 + LEASE + 1)
        process.kill()


def test_an_owner_says_that_it_lives(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.01)
    with opened(tmp_path), sqlite3.connect(tmp_path / FILE) as look:
        beat = "SELECT beat FROM owner"
        first = look.execute(beat).fetchone()
        until = time.monotonic() + PATIENCE
        while look.execute(beat).fetchone() == first:
            assert time.monotonic() < until
            time.sleep(0.01)
    look.close()


def aged(path: Path, data: bytes) -> Path:
    """A file whose times lie in the past, as those of an archive do."""
    path.write_bytes(data)
    past = time.time() - 100
    os.utime(path, (past, past))
    return path


def test_a_file_is_hashed_once(ledger: Ledger, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "FRESH", -1000)  # its change time cannot be set back
    path = aged(tmp_path / "a.png", b"one")
    assert ledger.identify(path) == sha256(b"one").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", None)
        assert ledger.identify(path) == sha256(b"one").hexdigest()
    aged(path, b"two")  # same size, other times
    assert ledger.identify(path) == sha256(b"two").hexdigest()


def test_a_file_that_changed_a_moment_ago_is_not_remembered(
    ledger: Ledger, tmp_path: Path, monkeypatch
) -> None:
    """It may change again without a change of its times, which are coarse on some disks."""
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    monkeypatch.setattr(ledger, "_mark", lambda *_: b"the same")
    assert ledger.identify(path) == sha256(b"one").hexdigest()
    path.write_bytes(b"two")
    assert ledger.identify(path) == sha256(b"two").hexdigest()


def test_what_cannot_be_hashed_has_no_identity(ledger: Ledger, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for path in (tmp_path / "gone", tmp_path, tmp_path / "pipe", tmp_path / "empty", Path("a\0b")):
        assert ledger.identify(path) is None


def test_no_path_is_written(ledger: Ledger, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "FRESH", -1000)
    ledger.identify(aged(tmp_path / "CANARY.png", b"one"))
    task = Task(index=0, path=tmp_path / "CANARY.png", phrases=("a",))
    told = failure(task.path)
    ledger.claim(task.path, IMAGE, ["a"], complete=lambda stem: True)
    ledger.finish(IMAGE, Outcome(task=task, failure=told))
    ledger.note(task.path, 1, json.dumps({"reason": told.reason}))
    ledger.close()
    data = (tmp_path / FILE).read_bytes()
    assert b"is damaged" in data
    assert b"CANARY" not in data


def test_without_a_folder_nothing_is_left(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with opened(None) as ledger:
        assert claim(ledger, "a").mine == ("a",)
        finish(ledger, "a")
        assert claim(ledger, "a").done
    assert not list(tmp_path.iterdir())


def test_failures_are_those_of_this_run_and_those_beside_it(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        one.note(Path("b"), 2, "second")
        one.note(Path("a"), 1, "first")
        with opened(tmp_path) as two:
            two.note(Path("a"), 1, "again")
            assert one.failures() == ["again", "second"]
    with opened(tmp_path) as three:
        assert three.failures() == []


def old_ledger(folder: Path) -> list[tuple[str, str]]:
    """A ledger of version 1, made by that version: one result, with batch size 1 and with 2.

    Returns:
        The model's identity and the file name of each result, the older first.
    """
    with sqlite3.connect(folder / FILE) as old:
        old.executescript(OLD_LEDGER.read_text())
        asked = "SELECT model, stem FROM result JOIN setting ON setting.id = setting ORDER BY at"
        made = old.execute(asked).fetchall()
    old.close()
    return made


OLD_LEDGER = Path(__file__).parents[1] / "data" / "ledger-1.sql"


def test_results_of_an_old_ledger_are_found_whatever_the_batch_size(tmp_path: Path) -> None:
    (_, (identity, newer)) = old_ledger(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as look:
        (image,) = look.execute("SELECT DISTINCT hex(image) FROM result").fetchone()
    look.close()
    setting = Setting(identity=identity, precision="float32", options=PRESETS["fast"])
    for _ in range(2):  # the second time it is a ledger of this version
        with Ledger(tmp_path) as ledger:
            ledger.settle(replace(setting, precision="bfloat16"))
            assert claim(ledger, "heart", image=image).mine == ("heart",)
            ledger.settle(replace(setting, options=replace(PRESETS["fast"], seed=1)))
            assert claim(ledger, "heart", image=image).mine == ("heart",)
            ledger.settle(setting)
            found = claim(ledger, "heart", image=image).done["heart"]
    assert found.stem == newer
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.validate(found.record, schema, cls=jsonschema.Draft202012Validator)
    assert found.record["model"]["precision"] == "float32"
    assert not {"device", "dtype", "batch"} & set(found.record["options"])


def test_results_made_with_a_knob_that_is_gone_are_not_taken_for_todays(tmp_path: Path) -> None:
    (_, (identity, stem)) = old_ledger(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as edit:
        (image, text, record) = edit.execute(
            "SELECT hex(image), options, record FROM result JOIN setting ON setting.id = setting"
            " ORDER BY at DESC"
        ).fetchone()
        old = json.loads(text)
        plain = {name: old[name] for name in old if name not in ("device", "batch", "dtype")}
        plain |= {"precision": "float32", "path": "redraw", "preset": "gen2ground"}
        plain["enlarge"] = "nearest"
        edit.execute("DELETE FROM result WHERE stem != ?", (stem,))
        for changed in (plain, plain | {"completion": "iterated"}):
            row = (identity, json.dumps(changed, sort_keys=True))
            edit.execute("INSERT INTO setting (model, options) VALUES (?, ?)", row)
            edit.execute(
                "INSERT INTO result SELECT image, phrase, last_insert_rowid(), state, owner, at,"
                " stem, json_replace(record, '$.options', json(?)) FROM result LIMIT 1",
                (json.dumps(changed),),
            )
        edit.execute("PRAGMA user_version = 2")
    edit.close()
    fast = PRESETS["fast"]
    options = replace(fast, preset="gen2ground", path="resample")
    with Ledger(tmp_path) as ledger:
        ledger.settle(Setting(identity=identity, precision="float32", options=options))
        found = claim(ledger, "heart", image=image).done["heart"]
        kept = ledger._db.execute("SELECT options FROM setting").fetchall()
    assert sum("iterated" in text for (text,) in kept) == 1
    assert found.record["schema"] == "cxrg.grounding/3"
    assert found.record["options"]["path"] == "resample"
    # Six tokens' mean was the score.
    assert found.record["score"] == pytest.approx(6 * json.loads(record)["score"])


def test_an_old_ledgers_results_of_typographic_phrases_are_computed_again(tmp_path: Path) -> None:
    ((identity, _), _) = old_ledger(tmp_path)
    typed = "the\u00a0\u201cheart\u201d"
    with sqlite3.connect(tmp_path / FILE) as edit:
        (image,) = edit.execute("SELECT DISTINCT hex(image) FROM result").fetchone()
        edit.execute(
            "INSERT INTO result SELECT image, ?, setting, state, owner, at, stem, record"
            " FROM result WHERE setting = 2",
            (typed,),
        )
    edit.close()
    with Ledger(tmp_path) as ledger:
        ledger.settle(Setting(identity=identity, precision="float32", options=PRESETS["fast"]))
        found = claim(ledger, "heart", typed, image=image)
    assert (set(found.done), found.mine) == ({"heart"}, (typed,))


def test_a_ledger_of_version_2_is_sealed_where_its_rows_are_sound(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        claim(one, "a", "b")
        finish(one, "a", "b")
    with sqlite3.connect(tmp_path / FILE) as old:
        for table in ("result", "seen"):
            old.execute(f"ALTER TABLE {table} DROP COLUMN seal")
        old.execute("UPDATE result SET record = NULL WHERE phrase = 'b'")
        old.execute("PRAGMA user_version = 2")
    old.close()
    for _ in range(2):
        with opened(tmp_path) as two:
            found = claim(two, "a", "b")
            assert (list(found.done), found.mine) == (["a"], ("b",))


@pytest.mark.parametrize(
    "damage",
    [
        "record = NULL",
        "record = 'no JSON'",
        "record = CAST(x'ff00ff' AS TEXT)",
        "record = (SELECT record FROM result AS other WHERE phrase = 'b')",
        "stem = '../../elsewhere'",
        "stem = NULL",
        "image = x'00'",
        "at = 'yesterday'",
        "state = 'failed'",
        "seal = NULL",
    ],
)
def test_a_damaged_row_is_computed_again(tmp_path: Path, damage: str) -> None:
    with opened(tmp_path) as one:
        claim(one, "a", "b")
        finish(one, "a", "b")
    with sqlite3.connect(tmp_path / FILE) as spoilt:
        spoilt.execute(f"UPDATE result SET {damage} WHERE phrase = 'a'")
    spoilt.close()
    with opened(tmp_path) as two:
        found = claim(two, "a", "b")
        assert (list(found.done), found.mine) == (["b"], ("a",))
        finish(two, "a")
        assert claim(two, "a").done


def test_a_damaged_memory_of_a_file_is_not_used(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "FRESH", -1000)  # its change time cannot be set back
    path = aged(tmp_path / "a.png", b"one")
    for damage in ("image = x'00'", f"image = x'{'ab' * 32}'", "image = 'text'"):
        with opened(tmp_path) as one:
            one.identify(path)
        with sqlite3.connect(tmp_path / FILE) as spoilt:
            spoilt.execute(f"UPDATE seen SET {damage}")
        spoilt.close()
        with opened(tmp_path) as two:
            assert two.identify(path) == sha256(b"one").hexdigest()


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM fact", "UPDATE fact SET value = 7", "DROP TABLE result", "DROP TABLE owner"],
)
def test_a_ledger_that_lacks_something_is_named(tmp_path: Path, damage: str) -> None:
    opened(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as spoilt:
        spoilt.execute(damage)
    spoilt.close()
    words = "is not a ledger of cxrg, or is damaged"
    with pytest.raises(WriteError, match=words), opened(tmp_path) as ledger:
        claim(ledger, "a")


@pytest.mark.parametrize("by", ["removing it", "replacing it"])
def test_a_ledger_that_is_gone_during_the_run_is_an_error(tmp_path: Path, by: str) -> None:
    with opened(tmp_path) as ledger:
        claim(ledger, "a")
        (tmp_path / FILE).rename(tmp_path / "away")
        if by == "replacing it":
            (tmp_path / FILE).write_bytes((tmp_path / "away").read_bytes())
        with pytest.raises(
            WriteError, match="was removed or replaced during the run; run the same"
        ):
            finish(ledger, "a")


def test_a_ledger_that_is_a_link_to_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / FILE).symlink_to(tmp_path / "no folder" / "file")
    with pytest.raises(WriteError, match=r"cxrg\.sqlite: cannot be written"):
        Ledger(tmp_path)


def test_full_disks_have_the_same_words_in_ledger_and_files(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger._db.execute("PRAGMA max_page_count = 1")
        phrases = [f"{number} " + "x" * 2000 for number in range(20)]
        with pytest.raises(WriteError) as caught:
            claim(ledger, *phrases)
    words = os.strerror(errno.ENOSPC)
    assert str(caught.value) == str(cannot_write(tmp_path / FILE, words))


def test_claims_of_a_stopped_process_are_taken_over_and_done_once(tmp_path: Path) -> None:
    """Its owner's entry is as old as that of a process that was stopped for long."""
    with opened(tmp_path) as one, opened(tmp_path) as two:
        assert claim(one, "a").mine == ("a",)
        assert claim(two, "a").busy == ("a",)
        with sqlite3.connect(tmp_path / FILE) as look:
            look.execute("UPDATE owner SET host = 'elsewhere', beat = 0.0 WHERE id = 1")
        look.close()
        assert claim(two, "a").mine == ("a",)
        finish(two, "a")
        task = Task(index=0, path=PATH, phrases=("a",))
        late = one.finish(IMAGE, Outcome(task=task, rows=(row(IMAGE, "a"),)))
        assert late == {"a"}
        assert list(two.made()) == [row(IMAGE, "a").stem]
        assert list(one.made()) == []
        assert claim(one, "b").mine == ("b",)  # it is known again
        assert claim(two, "b").busy == ("b",)
        assert [(owner.pid, count) for owner, count in two.holders()] == [(os.getpid(), 1)]


def test_what_is_no_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database" * 100)
    with pytest.raises(
        WriteError, match=r"cxrg\.sqlite: is not a ledger of cxrg, .*; move it away"
    ):
        Ledger(tmp_path)
    (tmp_path / "taken").touch()
    with pytest.raises(WriteError, match=r"taken/cxrg\.sqlite: cannot be written \(File exists\)"):
        Ledger(tmp_path / "taken")
    (tmp_path / FILE).unlink()
    with sqlite3.connect(tmp_path / FILE) as later:
        later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(WriteError, match="is a ledger of version 99"):
        Ledger(tmp_path)
