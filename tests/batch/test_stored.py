"""Results of a folder, read back without a change to it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from cxrg.batch.ledger import FILE, Ledger
from cxrg.batch.stored import StoredResults
from cxrg.batch.task import Outcome, Task
from cxrg.errors import InputError
from tests.fakes.batch import SETTING, row

IMAGES = [sha256(name.encode()).hexdigest() for name in "abc"]


def fill(folder: Path, pairs: list[tuple[str, str]], *, draws: int = 1) -> None:
    with Ledger(folder) as ledger:
        ledger.settle(replace(SETTING, options=replace(SETTING.options, draws=draws)))
        for image, phrase in pairs:
            task = Task(index=0, path=Path("x"), phrases=(phrase,))
            ledger.claim(task.path, image, [phrase], complete=lambda stem: True)
            ledger.finish(image, Outcome(task=task, rows=(row(image, phrase),)))


def read(folder: Path) -> list[tuple[str, str]]:
    with StoredResults(folder) as results:
        return [(each.record["image"]["sha256"], each.phrase) for each in results.rows()]


def test_order_does_not_depend_on_the_run(tmp_path: Path) -> None:
    pairs = [(image, phrase) for image in IMAGES for phrase in ("heart", "=x", "left lung")]
    fill(tmp_path / "one", pairs)
    fill(tmp_path / "two", pairs[::-1])
    assert read(tmp_path / "one") == read(tmp_path / "two") == sorted(pairs)
    with StoredResults(tmp_path / "one") as results:
        assert list(results.phrases()) == ["=x", "heart", "left lung"]
        assert [each["phrase"] for each in results.records()] == ["=x", "heart", "left lung"] * 3


def test_only_what_is_done_and_whole_is_read(tmp_path: Path) -> None:
    fill(tmp_path, [(IMAGES[0], "heart"), (IMAGES[1], "heart")])
    with Ledger(tmp_path) as ledger:
        ledger.settle(SETTING)
        ledger.claim(Path("x"), IMAGES[2], ["heart"], complete=lambda stem: True)
        assert len(read(tmp_path)) == 2  # the third is only claimed
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute(
            "UPDATE result SET record = replace(record, 'heart', 'head') WHERE image = ?",
            (bytes.fromhex(IMAGES[0]),),
        )
    db.close()
    with StoredResults(tmp_path) as results:
        assert [each.record["image"]["sha256"] for each in results.rows()] == [IMAGES[1]]
        assert results.damaged == 1


def test_reading_changes_nothing_and_sees_one_state(tmp_path: Path) -> None:
    fill(tmp_path, [(IMAGES[0], "heart")])
    before = (tmp_path / FILE).read_bytes()
    with StoredResults(tmp_path) as results:
        assert len(list(results.rows())) == 1
        fill(tmp_path, [(IMAGES[1], "heart")])
        assert len(list(results.rows())) == 1  # while a run writes more
    assert len(read(tmp_path)) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / FILE).write_bytes(before)
    read(tmp_path / "other")
    assert (tmp_path / "other" / FILE).read_bytes() == before
    assert [path.name for path in (tmp_path / "other").iterdir()] == [FILE]


def test_a_folder_that_nobody_may_write_is_read(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path, [(IMAGES[0], "heart")])
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert read(tmp_path) == [(IMAGES[0], "heart")]


@pytest.mark.parametrize("content", [None, b"", b"no ledger of anybody" * 100])
def test_another_folder_is_refused_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    words = "holds no results" if content is None else r"is a ledger of version 0|cannot be read"
    with pytest.raises(InputError, match=words):
        read(tmp_path)
    assert content is None or (tmp_path / FILE).read_bytes() == content
