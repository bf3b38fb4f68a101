"""How results are told: JSON lines or a table, warnings, failures, and the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxrg.batch.failures import FAILURES
from cxrg.batch.task import FAILURE_KINDS, Failure, FailureKind, InputResult, Row, RunSummary
from cxrg.cli.terminal import Reporter, complain, table, write
from cxrg.errors import CxrgError, ImageError, InputError, PhraseError
from cxrg.output.formats import paths
from cxrg.output.record import record_line

MOST_ROWS = 50
"""Results that are worth a table; nobody reads more, and they need not be kept in memory."""


_ERRORS: Mapping[FailureKind, type[CxrgError]] = {
    "missing": ImageError,
    "image": ImageError,
    "phrase": PhraseError,
    "input": InputError,
    "outside": InputError,
}


def error_of(failure: Failure) -> CxrgError:
    """A failure as the error that ends the program, where nothing else was asked for."""
    return _ERRORS.get(failure.kind, CxrgError)(failure.message)


@dataclass(slots=True)
class ResultPrinter:
    """Prints the result of one input after the other.

    Attributes:
        alone: there is one input, and what is wrong with it is wrong with the command.
        rows: the table, as far as it is worth showing.
    """

    out: Path
    formats: Sequence[str]
    as_json: bool
    quiet: bool
    reporter: Reporter
    debug: bool = False
    alone: bool = False
    rows: list[list[str]] = field(default_factory=list)

    def __call__(self, result: InputResult) -> None:
        path = result.task.path
        for row in result.rows:
            files = paths(self.out, row.stem, self.formats)
            if self.as_json:
                write(record_line(row.record, path=str(path), files=files))
            elif not self.quiet and len(self.rows) <= MOST_ROWS:
                self.rows.append(_cells(row, path, files))
        if not self.quiet and result.old < len(result.rows):
            texts = (text for row in result.rows for text in row.record["warnings"])
            for text in dict.fromkeys(texts):
                self.reporter.line(f"warning: {path}: {text}")
        if result.failure:
            if self.debug and result.failure.detail:
                self.reporter.block(result.failure.detail)
            if self.alone and not result.rows:
                raise error_of(result.failure)
            self.reporter.line(result.failure.message)
        self.reporter.advance()

    def show(self) -> None:
        """The table, where there is one to show."""
        if self.rows and len(self.rows) <= MOST_ROWS:
            _show(self.rows)


def summarise(summary: RunSummary, *, out: Path, ledger: bool, quiet: bool) -> None:
    """One line on what became of all inputs; none for one that simply went well."""
    parts = [f"{summary.done} done"]
    if summary.skipped:
        parts.append(f"{summary.skipped} done before (--force computes again)")
    done = ", ".join(parts)
    if summary.failed:
        count = sum(summary.failed.values())
        why = ", ".join(
            f"{number} {FAILURE_KINDS[kind]}" for kind, number in summary.failed.most_common()
        )
        where = f"; {out / FAILURES} lists them" if ledger else ""
        complain(f"{count} of {summary.total} inputs failed ({why}), {done}{where}")
    elif not quiet and (summary.total > 1 or summary.skipped):
        complain(f"{summary.total} input{'' if summary.total == 1 else 's'}: {done}")
    if summary.interrupted:
        way = "; the same command goes on from here" if ledger else ""
        complain(f"interrupted before the end{way}")


def _cells(row: Row, path: Path, files: Mapping[str, Path]) -> list[str]:
    """The cells of one result; the last is where its picture is."""
    record: Mapping[str, Any] = row.record
    boxes = [f"{b['x0']:.0f} {b['y0']:.0f} {b['x1']:.0f} {b['y1']:.0f}" for b in record["boxes"]]
    words = [box["where"] for box in record["boxes"]]
    picture = files.get("png") or next(iter(files.values()), "")
    cells = [row.phrase, record["status"], f"{record['score']:.2f}"]
    return [path.name, *cells, "\n".join(boxes), "\n".join(words), str(picture)]


def _show(rows: Sequence[Sequence[str]]) -> None:
    """The table, then the paths, which are too long for a column and are there to be copied."""
    head = ["", "image", "phrase", "status", "score", "x0 y0 x1 y1", "where"]
    numbered = [[str(number), *row[:-1]] for number, row in enumerate(rows, 1)]
    if len({row[0] for row in rows}) == 1:
        head, numbered = [head[0], *head[2:]], [[row[0], *row[2:]] for row in numbered]
    if len(rows) == 1:
        head, numbered = head[1:], [row[1:] for row in numbered]
    table(head, numbered, firm=("status", "score", "x0 y0 x1 y1", "where"))
    for number, row in enumerate(rows, 1):
        if row[-1]:
            write(f"{number}  {row[-1]}" if len(rows) > 1 else row[-1])
