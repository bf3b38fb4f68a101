"""The driver of a run: claim tasks, give them to an engine, enter outcomes, report results.

One thread does all that; another finds and hashes the next files. A task that another process is
computing is put off and claimed again later. Memory does not grow with the number of inputs: at
most `WINDOW` of them are between the next one to be reported and the last one begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cxrg.batch.ahead import Ahead
from cxrg.batch.engine import Engine, Halt
from cxrg.batch.failures import FAILURES, append, check_own, failure_line, rewrite
from cxrg.batch.ledger import Ledger
from cxrg.batch.owners import LEASE
from cxrg.batch.task import Failure, InputResult, Outcome, Row, RunSummary, Setting, Task
from cxrg.errors import WriteError
from cxrg.files import remove_partial_files, stem
from cxrg.output.formats import paths

WINDOW = 1000
PUT_OFF = 256
PREFETCH = 16
POLL = 0.25  # seconds between two attempts to claim what was put off
NOTICE = 5.0  # seconds of waiting for another process after which the user learns of it


@dataclass(slots=True)
class _Open:
    """An unfinished input and its results so far."""

    task: Task
    image: str | None
    rows: dict[str, Row] = field(default_factory=dict)
    old: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    claimed: tuple[str, ...] = ()
    sheet: Path | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        known = self.rows.keys() | self.failures.keys()
        return tuple(phrase for phrase in self.task.phrases if phrase not in known)

    def result(self) -> InputResult:
        rows = tuple(self.rows[each] for each in self.task.phrases if each in self.rows)
        failure = next(iter(self.failures.values()), None)
        sheet = self.sheet if rows and self.sheet and self.sheet.is_file() else None
        return InputResult(task=self.task, rows=rows, old=self.old, failure=failure, sheet=sheet)


class Run:
    """One run over all inputs.

    Args:
        inputs: tasks, and outcomes of inputs that are no task, by ascending index from 0.
        engine: does the tasks; started when there is one to do.
        expected: the setting that the engine will give, known without starting it; None: unknown.
        ledger: what is done already.
        out: the output folder.
        formats: the files that a result must have to count as done; none: nothing is written.
        sheets: draw all phrases of an input on one sheet, too; none of them counts as done without.
        ordered: report results in the order of the inputs, not as they come.
        report: called, in the calling thread, with each input's results.
        notice: called with a line for the user when another process is waited for.
        halt: whether the user wants to stop.

    Raises:
        UsageError: a file of the user's would be overwritten.
    """

    def __init__(
        self,
        inputs: Iterable[Task | Outcome],
        *,
        engine: Engine,
        ledger: Ledger,
        out: Path,
        formats: Sequence[str],
        sheets: bool = False,
        report: Callable[[InputResult], None],
        ordered: bool = True,
        notice: Callable[[str], None] = lambda text: None,
        halt: Halt = lambda: False,
        expected: Callable[[], Setting | None] = lambda: None,
    ) -> None:
        self._engine, self._ledger, self._halt = engine, ledger, halt
        self._expected = expected
        self._out, self._formats, self._sheets = out, formats, sheets
        self._report, self._ordered = report, ordered
        self._notice, self._noticed = notice, ""
        if formats:
            check_own(out / FAILURES)
            if ledger.alone:
                remove_partial_files(out)
        identified = ((item, self._identify(item)) for item in inputs)
        self._inputs = Ahead(identified, PREFETCH)
        self._working: dict[int, _Open] = {}
        self._put_off: dict[int, _Open] = {}
        self._held: dict[int, InputResult] = {}
        self._next = self._begun = 0
        self._polled = 0.0
        self._waiting_since: float | None = None
        self._setting: Setting | None = None
        self._started = False
        self._summary = RunSummary()

    def __call__(self) -> RunSummary:
        """Run to the end, or until the user wants to stop.

        Raises:
            CxrgError: an error that affects every input.
        """
        try:
            while not self._halt() and (self._put_off or not self._inputs.ended):
                for outcome in self._engine.run(self._pass()):
                    self._finish(outcome)
                self._give_up()  # what the engine did not begin
            if self._formats:
                self._check_kept()
        finally:
            self._inputs.close()
            for index in list(self._working):
                with suppress(WriteError):
                    self._release(self._working.pop(index))
            if self._formats:
                with suppress(WriteError, OSError):
                    rewrite(self._out / FAILURES, self._ledger.failures())
        self._summary.interrupted = self._halt() and not self._complete()
        return self._summary

    # --- giving out -------------------------------------------------------------------------------

    def _pass(self) -> Iterator[Task]:
        """Yield tasks for the engine, until it must finish some before there can be more."""
        while not self._halt():
            yield from self._claim_again()
            self._explain_waiting()
            if len(self._put_off) >= PUT_OFF or self._begun - self._next >= WINDOW:
                if not self._working:
                    time.sleep(POLL)
                return
            try:
                found = self._inputs.take(0.02 if self._working else POLL)
            except StopIteration:
                if self._put_off and not self._working:
                    time.sleep(POLL)
                return
            if found is not None:
                yield from self._take(*found)
            elif self._working:
                return

    def _take(self, item: Task | Outcome, image: str | None) -> Iterator[Task]:
        self._begun += 1
        if isinstance(item, Outcome):
            self._end(InputResult(task=item.task, rows=(), failure=item.failure), None)
            return
        if self._setting is None:
            self._settle(self._expected() or self._start())
        yield from self._claim(_Open(item, image))

    def _claim(self, open_: _Open) -> Iterator[Task]:
        """Yield the part of an input that is to be computed now; else end it or put it off."""
        task = open_.task
        if open_.image is None:
            mine: tuple[str, ...] = open_.missing
        else:
            open_.sheet = self._sheet_of(task, open_.image)
            drawn = open_.sheet is None or open_.sheet.is_file()
            claim = self._ledger.claim(
                task.path,
                open_.image,
                open_.missing,
                complete=lambda stem: drawn and self._has_files(stem),
            )
            if not drawn and claim.mine and claim.busy:
                # A sheet is drawn by one process, so wait until all of its phrases are free.
                self._ledger.release(open_.image, claim.mine)
                self._put_off[task.index] = open_
                return
            open_.rows.update(claim.done)
            open_.old += len(claim.done)
            open_.failures.update(claim.failed)
            mine = claim.mine
        if mine and not self._started and self._start() != self._setting:
            # The expected setting is not the engine's: what was claimed for it is not to be done.
            if open_.image:
                self._ledger.release(open_.image, mine)
            self._settle(self._engine.start())
            yield from self._claim(open_)
        elif mine:
            open_.claimed = mine
            self._working[task.index] = open_
            yield replace(task, phrases=mine, sheet=None if open_.old else open_.sheet)
        elif open_.missing:
            self._put_off[task.index] = open_
        else:
            self._end(open_.result(), open_.image)

    def _start(self) -> Setting:
        """Start the engine: only now is the model loaded."""
        self._started = True
        return self._engine.start()

    def _settle(self, setting: Setting) -> None:
        self._setting = setting
        self._ledger.settle(setting)

    def _claim_again(self) -> Iterator[Task]:
        if self._put_off and time.monotonic() - self._polled >= POLL:
            self._polled = time.monotonic()
            for index in list(self._put_off):
                yield from self._claim(self._put_off.pop(index))

    def _explain_waiting(self) -> None:
        """Name the processes that the run waits for, once it has nothing else to do for a while."""
        if self._working or not self._put_off:
            self._waiting_since = None
            return
        self._waiting_since = self._waiting_since or time.monotonic()
        if time.monotonic() - self._waiting_since < NOTICE:
            return
        text = "; ".join(
            f"waiting for {owner}, which computes {count} of the inputs"
            + (f" and is stopped: they are taken over after {LEASE:.0f} s" if owner.stopped else "")
            for owner, count in self._ledger.holders()
        )
        if text and text != self._noticed:
            self._notice(text)
            self._noticed = text

    def _check_kept(self) -> None:
        """Raise WriteError if results of this run are gone, such as with their folder."""
        lost = sum(not self._has_files(stem) for stem in self._ledger.made())
        if lost:
            raise WriteError(
                f"{self._out}: {lost} of the results were removed during the run; run the same "
                "command again, which computes what is missing"
            )

    def _sheet_of(self, task: Task, image: str) -> Path | None:
        """The sheet of an input, if it is to have one."""
        if not (self._sheets and self._setting):
            return None
        setting = self._setting
        name = stem(image, "sheet", setting.identity, setting.facts, *task.phrases)
        return self._out / f"{name}.png"

    def _has_files(self, stem: str) -> bool:
        return all(path.is_file() for path in paths(self._out, stem, self._formats).values())

    def _identify(self, item: Task | Outcome) -> str | None:
        return self._ledger.identify(item.path) if isinstance(item, Task) else None

    # --- taking in --------------------------------------------------------------------------------

    def _finish(self, outcome: Outcome) -> None:
        open_ = self._working.pop(outcome.task.index)
        open_.old += len(self._ledger.finish(open_.image, outcome))
        open_.claimed = ()
        open_.rows.update({row.phrase: row for row in outcome.rows})
        if outcome.failure:
            lacking = (each for each in outcome.task.phrases if each not in open_.rows)
            open_.failures.update(dict.fromkeys(lacking, outcome.failure))
        if open_.missing:
            self._put_off[outcome.task.index] = open_
        else:
            self._end(open_.result(), open_.image)

    def _give_up(self) -> None:
        for index in list(self._working):
            open_ = self._working.pop(index)
            self._release(open_)
            self._put_off[index] = open_

    def _release(self, open_: _Open) -> None:
        if open_.image:
            self._ledger.release(open_.image, open_.claimed)
        open_.claimed = ()

    def _end(self, result: InputResult, image: str | None) -> None:
        """Note the failure of an input, and report its result now or when its turn comes."""
        if result.failure and self._formats:
            line = failure_line(result.task, result.failure, image)
            self._ledger.note(result.task.path, result.task.index + 1, line)
            append(self._out / FAILURES, line)
        self._summary.add(result)
        self._held[result.task.index] = result
        while self._next in self._held:
            if self._ordered:
                self._report(self._held[self._next])
            del self._held[self._next]
            self._next += 1
        if not self._ordered:
            self._report(result)

    def _complete(self) -> bool:
        return self._inputs.ended and not self._put_off
