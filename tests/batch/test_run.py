"""The driver: order, sharing, duplicates, failures, stopping, bounded memory; and its parts."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cxrg.batch import run as module
from cxrg.batch.ahead import Ahead
from cxrg.batch.failures import FAILURES
from cxrg.batch.ledger import Ledger
from cxrg.batch.local import pipeline
from cxrg.batch.run import Run
from cxrg.batch.task import Failure, InputResult, Outcome, Row, RunSummary, Task
from cxrg.batch.work import ReadTask
from cxrg.errors import UsageError, WriteError
from tests.fakes.batch import SETTING, FakeEngine, failure, row
from tests.fakes.processes import PATIENCE


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def files(folder: Path, *contents: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(len(contents))]
    for path, text in zip(paths, contents, strict=True):
        path.write_text(text)
    return paths


def tasks(paths: Iterable[Path], *phrases: str) -> list[Task]:
    asked = phrases or ("a",)
    return [Task(index=i, path=path, phrases=asked) for i, path in enumerate(paths)]


def run(
    items: Iterable[Task | Outcome], engine: Any, out: Path, *, force: bool = False, **more: Any
) -> tuple[list[InputResult], RunSummary]:
    reported: list[InputResult] = []
    keywords: dict[str, Any] = {"formats": ("json",), "report": reported.append, **more}
    with Ledger(out if keywords["formats"] else None, force=force) as ledger:
        summary = Run(items, engine=engine, ledger=ledger, out=out, **keywords)()
    return reported, summary


def indices(reported: Iterable[InputResult]) -> list[int]:
    return [each.task.index for each in reported]


def counts(summary: RunSummary) -> tuple[int, int, dict[str, int]]:
    return (
        summary.done,
        summary.skipped,
        {str(kind): count for kind, count in summary.failed.items()},
    )


@pytest.mark.parametrize("most", [1, 3, 100])
def test_results_are_told_in_input_order(tmp_path: Path, out: Path, most: int) -> None:
    paths = files(tmp_path, *"abcdefghij")
    engine = FakeEngine(out, most=most)
    reported, summary = run(tasks(paths, "x", "y"), engine, out)
    assert indices(reported) == list(range(10))
    assert [tuple(row.phrase for row in each.rows) for each in reported] == [("x", "y")] * 10
    assert counts(summary) == (10, 0, {})
    assert engine.started == 1


def test_unordered_results_are_told_as_they_come(tmp_path: Path, out: Path) -> None:
    engine = FakeEngine(out, most=4)
    reported, _ = run(tasks(files(tmp_path, *"abcd")), engine, out, ordered=False)
    assert indices(reported) == [task.index for task in engine.seen] == [3, 2, 1, 0]


def test_done_work_is_told_and_not_done(tmp_path: Path, out: Path) -> None:
    paths = files(tmp_path, *"abc")
    first, _ = run(tasks(paths), FakeEngine(out), out)
    engine = FakeEngine(out)
    again, summary = run(tasks(paths, "a", "b"), engine, out)
    assert [task.phrases for task in engine.seen] == [("b",)] * 3
    assert [each.rows[0] for each in again] == [each.rows[0] for each in first]
    assert counts(summary) == (3, 0, {})
    third, summary = run(tasks(paths, "b", "a"), FakeEngine(out), out)
    assert counts(summary) == (0, 3, {})
    assert [row.phrase for row in third[0].rows] == ["b", "a"]
    _, summary = run(tasks(paths, "a", "b"), FakeEngine(out), out, force=True)
    assert counts(summary) == (3, 0, {})


def test_a_sheet_holds_all_phrases_of_its_input(tmp_path: Path, out: Path) -> None:
    """Phrases done without it, or on another sheet, are done again for one that is not there."""
    paths = files(tmp_path, *"abc")
    run(tasks(paths, "x"), FakeEngine(out), out)
    for phrases in (("x", "y"), ("x", "y", "z")):
        engine = FakeEngine(out)
        reported, _ = run(tasks(paths, *phrases), engine, out, sheets=True)
        assert [task.phrases for task in engine.seen] == [phrases] * 3
        assert {each.sheet.read_text() for each in reported if each.sheet} == {" ".join(phrases)}
    engine = FakeEngine(out)
    reported, summary = run(tasks(paths, "x", "y"), engine, out, sheets=True)
    assert (engine.seen, counts(summary)) == ([], (0, 3, {}))
    assert all(each.sheet and each.sheet.is_file() for each in reported)
    assert len(list(out.glob("*.png"))) == 6
    # A lost file is made again alone, and the sheet, which has all phrases, is left as it is.
    next(out.glob("*-y.json")).unlink()
    before = {path: path.read_text() for path in out.glob("*.png")}
    engine = FakeEngine(out)
    run(tasks(paths, "x", "y"), engine, out, sheets=True)
    assert [(task.phrases, task.sheet) for task in engine.seen] == [(("y",), None)]
    assert {path: path.read_text() for path in out.glob("*.png")} == before
    engine = FakeEngine(out)
    run(tasks(paths, "x", "y"), engine, out, sheets=True, force=True)
    assert all(task.sheet and task.phrases == ("x", "y") for task in engine.seen)


def test_a_sheet_waits_for_phrases_that_another_process_computes(tmp_path: Path, out: Path) -> None:
    paths, engine, calls = files(tmp_path, "a"), FakeEngine(out), count()
    image = sha256(b"a").hexdigest()
    with Ledger(out) as other:
        other.settle(SETTING)
        assert other.claim(paths[0], image, ["y"], complete=lambda stem: True).mine == ("y",)

        def halt() -> bool:
            if next(calls) == 10:
                assert not other.holders()  # "x" is not kept from others in the meantime
                assert not engine.seen
                other.release(image, ["y"])
            return False

        reported, _ = run(tasks(paths, "x", "y"), engine, out, sheets=True, halt=halt)
    assert [task.phrases for task in engine.seen] == [("x", "y")]
    assert reported[0].sheet


def test_results_whose_files_are_gone_are_made_again(tmp_path: Path, out: Path) -> None:
    paths = files(tmp_path, *"abc")
    run(tasks(paths), FakeEngine(out), out)
    next(out.glob("*.json")).unlink()
    engine = FakeEngine(out)
    assert counts(run(tasks(paths), engine, out)[1]) == (1, 2, {})
    assert len(engine.seen) == 1
    assert len(list(out.glob("*.json"))) == 3


@pytest.mark.parametrize("most", [1, 10])
def test_copies_of_an_image_are_done_once(tmp_path: Path, out: Path, most: int) -> None:
    engine = FakeEngine(out, most=most)
    reported, summary = run(tasks(files(tmp_path, *"aabbab")), engine, out)
    assert len(engine.seen) == 2
    assert indices(reported) == list(range(6))
    assert all(each.rows for each in reported)
    assert counts(summary) == (2, 4, {})


def test_failures_are_told_in_place_and_listed(tmp_path: Path, out: Path) -> None:
    paths = files(tmp_path, "a", "bad JANE^DOE", "c", "bad JANE^DOE")
    items: list[Task | Outcome] = [*tasks(paths)]
    gone = tmp_path / "JANE^DOE.png"
    items.append(Task(index=4, path=gone, phrases=("a",)))
    refused = Task(index=5, path=Path("../DOE.png"), phrases=(), line=7)
    message = "../DOE.png: leaves the image root; set --image-root"
    items.append(
        Outcome(task=refused, failure=Failure(path=refused.path, kind="outside", message=message))
    )
    engine = FakeEngine(out)
    reported, summary = run(items, engine, out)
    assert indices(reported) == list(range(6))
    assert [bool(each.failure) for each in reported] == [False, True, False, True, True, True]
    assert len(engine.seen) == 4  # the copy of the bad one is not tried again
    assert counts(summary) == (2, 0, {"image": 2, "missing": 1, "outside": 1})
    text = (out / FAILURES).read_text()
    assert "DOE" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["input"], line["line"], line["kind"]) for line in lines] == [
        (2, None, "image"),
        (4, None, "image"),
        (5, None, "missing"),
        (6, 7, "outside"),
    ]
    assert lines[0]["reason"] == "is damaged"
    assert lines[0]["remedy"] == "copy it again"
    assert lines[0]["sha256"]
    assert lines[2]["sha256"] is None


def test_failures_are_retried_and_the_list_is_of_the_last_run(tmp_path: Path, out: Path) -> None:
    paths = files(tmp_path, "a", "bad")
    assert counts(run(tasks(paths), FakeEngine(out), out)[1]) == (1, 0, {"image": 1})
    assert counts(run(tasks(paths), FakeEngine(out), out)[1]) == (0, 1, {"image": 1})
    assert len((out / FAILURES).read_text().splitlines()) == 1
    paths[1].write_text("better")
    assert counts(run(tasks(paths), FakeEngine(out), out)[1]) == (1, 1, {})
    assert not (out / FAILURES).exists()


def test_failures_are_listed_as_they_happen(tmp_path: Path, out: Path) -> None:
    seen: list[int] = []

    class Watching(FakeEngine):
        def run(self, given: Iterable[Task]) -> Iterator[Outcome]:
            for outcome in super().run(given):
                seen.append(len(list(out.glob(FAILURES))))
                yield outcome

    run(tasks(files(tmp_path, "bad", "b")), Watching(out), out)
    assert seen == [0, 1]


def test_a_partial_result_is_kept(tmp_path: Path, out: Path) -> None:
    class Partial(FakeEngine):
        def _do(self, task: Task) -> Outcome:
            whole = super()._do(task)
            return Outcome(task=task, rows=whole.rows[:1], failure=failure(task.path, "phrase"))

    reported, summary = run(tasks(files(tmp_path, "a"), "x", "y"), Partial(out), out)
    assert [row.phrase for row in reported[0].rows] == ["x"]
    assert counts(summary) == (0, 0, {"phrase": 1})
    engine = FakeEngine(out)
    run(tasks([tmp_path / "0.png"], "x", "y"), engine, out)
    assert [task.phrases for task in engine.seen] == [("y",)]


def test_two_runs_at_once_share_the_work(tmp_path: Path, out: Path) -> None:
    paths = files(tmp_path, *map(str, range(60)))
    engines = [FakeEngine(out), FakeEngine(out)]
    results: list[tuple[list[InputResult], RunSummary]] = []
    both = threading.Barrier(2)  # neither does all before the other has begun

    def go(engine: FakeEngine) -> None:
        do = engine._do

        def meet(task: Task) -> Outcome:
            if not engine.seen:
                both.wait(PATIENCE)
            return do(task)

        engine._do = meet  # type: ignore[method-assign]  # of this one engine
        results.append(run(tasks(paths), engine, out))

    threads = [threading.Thread(target=go, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = [task.index for engine in engines for task in engine.seen]
    assert sorted(seen) == list(range(60))
    assert all(engine.seen for engine in engines)
    for reported, summary in results:
        assert indices(reported) == list(range(60))
        assert summary.total == 60


def test_a_stopped_run_goes_on_later(tmp_path: Path, out: Path) -> None:
    paths = files(tmp_path, *"abcdef")
    engine = FakeEngine(out)
    reported, summary = run(tasks(paths), engine, out, halt=lambda: len(engine.seen) >= 2)
    assert summary.interrupted
    assert indices(reported) == [0, 1]
    again, summary = run(tasks(paths), FakeEngine(out), out)
    assert not summary.interrupted
    assert indices(again) == list(range(6))
    assert counts(summary) == (4, 2, {})


def test_what_the_engine_did_not_begin_is_free_for_others(tmp_path: Path, out: Path) -> None:
    stopped = False

    class Leaving(FakeEngine):
        def run(self, given: Iterable[Task]) -> Iterator[Outcome]:
            nonlocal stopped
            stopped = bool([next(iter(given))])
            return iter(())

    paths = files(tmp_path, "a")
    reported: list[InputResult] = []
    with Ledger(out) as one:
        keywords: dict[str, Any] = {"out": out, "formats": ("json",), "report": reported.append}
        Run(tasks(paths), engine=Leaving(), ledger=one, halt=lambda: stopped, **keywords)()
        with Ledger(out) as two:
            Run(tasks(paths), engine=FakeEngine(out), ledger=two, **keywords)()
    assert len(reported) == 1


def test_errors_end_the_run_and_free_its_claims(tmp_path: Path, out: Path) -> None:
    class Full(FakeEngine):
        def _do(self, task: Task) -> Outcome:
            if task.index == 2:
                raise WriteError("disk full")
            return super()._do(task)

    paths = files(tmp_path, *"abcd")
    with pytest.raises(WriteError, match="disk full"):
        run(tasks(paths), Full(out, most=2), out)
    assert counts(run(tasks(paths), FakeEngine(out), out)[1])[2] == {}


def test_without_kinds_nothing_is_written(tmp_path: Path, out: Path) -> None:
    paths = files(tmp_path, "a", "bad", "a")
    reported, summary = run(tasks(paths), FakeEngine(None), out, formats=())
    assert indices(reported) == [0, 1, 2]
    assert counts(summary) == (1, 1, {"image": 1})
    assert not out.exists()


def test_the_engine_is_not_started_for_nothing(tmp_path: Path, out: Path) -> None:
    refused = Task(index=0, path=tmp_path / "gone.png", phrases=("a",))
    engine = FakeEngine(out)
    run([Outcome(task=refused, failure=failure(refused.path, "missing"))], engine, out)
    assert not engine.started


def test_the_engine_is_not_started_for_what_is_done(tmp_path: Path, out: Path) -> None:
    paths = files(tmp_path, "one", "two")
    run(tasks(paths, "a", "b"), FakeEngine(out), out)
    engine = FakeEngine(out)
    reported, summary = run(tasks(paths, "a", "b"), engine, out, expected=lambda: SETTING)
    assert not engine.started
    assert [len(each.rows) for each in reported] == [2, 2]
    assert counts(summary) == (0, 2, {})
    more = files(tmp_path, "one", "two", "three")
    _, summary = run(tasks(more, "a", "b"), engine, out, expected=lambda: SETTING)
    assert engine.started
    assert counts(summary) == (1, 2, {})


def test_results_of_another_setting_than_the_engines_are_made_again(
    tmp_path: Path, out: Path
) -> None:
    other = replace(SETTING, identity="sha256:4567")
    paths = files(tmp_path, "one", "two")
    engine = FakeEngine(out)
    _, summary = run(tasks(paths), engine, out, expected=lambda: other)
    assert counts(summary) == (2, 0, {})
    _, summary = run(tasks(paths), engine, out, expected=lambda: SETTING)
    assert counts(summary) == (0, 2, {})
    with Ledger(out) as ledger:
        ledger.settle(other)
        claim = ledger.claim(
            paths[0], sha256(b"one").hexdigest(), ["a"], complete=lambda stem: True
        )
    assert claim.mine == ("a",)  # nothing was entered, and no claim was left, under it


def test_what_is_between_first_and_last_is_bounded(tmp_path: Path, out: Path, monkeypatch) -> None:
    """Results wait for the first one; the run must not take in the whole archive meanwhile."""
    monkeypatch.setattr(module, "WINDOW", 20)
    paths = files(tmp_path, *map(str, range(200)))
    run(tasks(paths[1:]), FakeEngine(out), out)
    taken = 0

    def counting() -> Iterator[Task]:
        nonlocal taken
        for task in tasks(paths):
            taken += 1
            yield task

    class Slow(FakeEngine):
        def _do(self, task: Task) -> Outcome:
            assert taken <= 20 + module.PREFETCH + 2
            return super()._do(task)

    reported, _ = run(counting(), Slow(out, most=100), out)
    assert indices(reported) == list(range(200))


def test_a_slow_source_holds_up_no_result(tmp_path: Path, out: Path) -> None:
    paths = files(tmp_path, *"ab")
    first = threading.Event()

    def slowly() -> Iterator[Task]:
        one, two = tasks(paths)
        yield one
        assert first.wait(PATIENCE), "the first result was held back until the second input"
        yield two

    run(slowly(), FakeEngine(out, most=5), out, report=lambda _: first.set())


def test_leftovers_of_killed_writers_are_swept(tmp_path: Path, out: Path) -> None:
    out.mkdir()
    (out / ".x.json.123.cxrg-part").touch()
    (out / ".movie.mkv.part").touch()  # another program's
    with Ledger(out):  # somebody else is at work, it may be his
        run(tasks(files(tmp_path, "a")), FakeEngine(out), out)
        assert list(out.glob(".*.cxrg-part"))
    run(tasks(files(tmp_path, "a")), FakeEngine(out), out)
    assert [path.name for path in out.glob(".*")] == [".movie.mkv.part"]


def test_results_that_are_removed_during_the_run_are_an_error(tmp_path: Path, out: Path) -> None:
    class Removing(FakeEngine):
        def _do(self, task: Task) -> Outcome:
            if task.index == 2:
                for file in out.glob("*.json"):
                    file.unlink()
            return super()._do(task)

    paths = files(tmp_path, *"abcd")
    with pytest.raises(WriteError, match="2 of the results were removed during the run; run the"):
        run(tasks(paths), Removing(out), out)
    assert counts(run(tasks(paths), FakeEngine(out), out)[1]) == (2, 2, {})


@pytest.mark.parametrize("ours", [False, True])
def test_a_list_of_failures_that_is_the_users_is_kept(
    tmp_path: Path, out: Path, ours: bool
) -> None:
    out.mkdir()
    text = '{"schema": "cxrg.failure/1", "input": 1}\n' if ours else '{"patient": 1}\n'
    (out / FAILURES).write_text(text)
    paths = files(tmp_path, "bad")
    if ours:
        run(tasks(paths), FakeEngine(out), out)
        assert len((out / FAILURES).read_text().splitlines()) == 1
    else:
        with pytest.raises(UsageError, match=r"failures\.jsonl: is not a list of failures made by"):
            run(tasks(paths), FakeEngine(out), out)
    assert ((out / FAILURES).read_text() == text) is not ours


# --- parts ----------------------------------------------------------------------------------------


def test_ahead_is_bounded_and_passes_errors_on() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number
        raise ValueError("broken")

    ahead = Ahead(items(), 2)
    assert ahead.take(PATIENCE) == 0
    time.sleep(0.1)
    assert len(taken) <= 5
    assert [ahead.take(PATIENCE) for _ in range(9)] == list(range(1, 10))
    with pytest.raises(ValueError, match="broken"):
        ahead.take(PATIENCE)
    assert ahead.ended
    with pytest.raises(StopIteration):
        ahead.take(PATIENCE)


def test_ahead_lets_its_thread_go() -> None:
    ahead = Ahead(iter(range(1000)), 2)
    ahead.close()
    ahead._thread.join(PATIENCE)
    assert not ahead._thread.is_alive()


class Stages:
    """A worker that notes which stages have begun; `hold` lets one wait for others."""

    def __init__(self, hold: Mapping[tuple[str, int], Sequence[tuple[str, int]]] = {}) -> None:
        self.hold = hold
        self.done: dict[tuple[str, int], threading.Event] = defaultdict(threading.Event)
        self.looked = self.most = self.inside = 0

    def _spend(self, stage: str, index: int) -> None:
        for other in self.hold.get((stage, index), ()):
            assert self.done[other].wait(PATIENCE), f"{stage} {index} waits for {other}"
        self.done[stage, index].set()

    def read(self, task: Task) -> ReadTask:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self._spend("read", task.index)
        return ReadTask(task)

    def look(self, read: ReadTask) -> Iterator[Task]:
        self._spend("look", read.task.index)
        self.looked += 1
        yield read.task

    def write(self, task: Task) -> Row:
        self._spend("write", task.index)
        self.inside -= 1
        return row("00" * 32, "a")


def test_reading_and_writing_overlap_the_network() -> None:
    """The network waits until the next image is read and the one before its own is written."""
    hold = {("look", index): [("read", index + 1), ("write", index - 1)] for index in range(1, 29)}
    worker: Any = Stages(hold)
    given = tasks([Path("x")] * 30)
    assert [each.task for each in pipeline(worker, given)] == given
    assert worker.most <= 6  # images in memory


def test_the_network_does_not_wait_for_reading_and_writing() -> None:
    hold = {("read", 2): [("look", 1)], ("write", 0): [("look", 2)]}
    worker: Any = Stages(hold)
    given = tasks([Path("x")] * 4)
    assert [each.task for each in pipeline(worker, given)] == given


def test_a_halted_pipeline_finishes_what_is_with_the_network() -> None:
    worker: Any = Stages()
    done = list(pipeline(worker, tasks([Path("x")] * 10), halt=lambda: worker.looked >= 3))
    assert [each.task.index for each in done] == [0, 1, 2]


def test_reasons_hold_no_file_name() -> None:
    path = Path("in/DOE^JANE.png")
    for text in (f"{path}: is damaged; copy it", "cannot open DOE^JANE.png; copy it"):
        assert "DOE" not in Failure(path=path, kind="image", message=text).reason
    unprintable = Path("a\nb.png")
    reported = Failure(path=unprintable, kind="image", message="a?b.png: is damaged; copy it")
    assert reported.reason == "is damaged; copy it"
