"""Results as JSON lines or a table; warnings, failures, and the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxrg.batch.failures import FAILURES
from cxrg.batch.task import FAILURE_KINDS, Failure, FailureKind, InputResult, Row, RunSummary
from cxrg.cli.terminal import Reporter, complain, table, write
from cxrg.errors import CxrgError, ImageError, InputError, PhraseError
from cxrg.model.calibration import strength
from cxrg.output.formats import paths
from cxrg.output.record import record_line

MOST_ROWS = 50
"""Most results in a table: more are not read, and need not be kept in memory."""


SHOWN_REASONS = 5
"""Most reasons of one kind of failures that the summary names."""

DETAILED: tuple[FailureKind, ...] = ("image", "phrase", "input")
"""Kinds of failures that have several reasons."""

_ERRORS: Mapping[FailureKind, type[CxrgError]] = {
    "missing": ImageError,
    "image": ImageError,
    "phrase": PhraseError,
    "input": InputError,
    "outside": InputError,
}


def error_of(failure: Failure) -> CxrgError:
    """Return a failure as the error that ends the program, for a run with one input."""
    return _ERRORS.get(failure.kind, CxrgError)(failure.message)


@dataclass(slots=True)
class ResultPrinter:
    """Prints the results of each input.

    Attributes:
        alone: whether there is one input, whose failure ends the program.
        rows: the rows of the table.
        sheets: the sheets that were drawn.
    """

    out: Path
    formats: Sequence[str]
    as_json: bool
    quiet: bool
    reporter: Reporter
    debug: bool = False
    alone: bool = False
    rows: list[list[str]] = field(default_factory=list)
    sheets: list[Path] = field(default_factory=list)

    def __call__(self, result: InputResult) -> None:
        path = result.task.path
        for row in result.rows:
            files = paths(self.out, row.stem, self.formats)
            if result.sheet:
                files["sheet"] = result.sheet
            if self.as_json:
                write(record_line(row.record, path=str(path), files=files))
            elif not self.quiet and len(self.rows) <= MOST_ROWS:
                self.rows.append(_cells(row, path, files))
        if result.sheet and not self.quiet and len(self.sheets) <= MOST_ROWS:
            self.sheets.append(result.sheet)
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
        """Print the table, if the results fit one."""
        if self.rows and len(self.rows) <= MOST_ROWS:
            _show(self.rows)
            for sheet in () if self.as_json else self.sheets:
                write(f"sheet: {sheet}")


def summarise(summary: RunSummary, *, out: Path, ledger: bool, quiet: bool) -> None:
    """Print one line with the counts of all inputs; none for a single success."""
    parts = [f"{summary.done} done"]
    if summary.skipped:
        parts.append(f"{summary.skipped} done before (--force computes again)")
    done = ", ".join(parts)
    if summary.failed:
        count = sum(summary.failed.values())
        why = ", ".join(
            f"{number} {FAILURE_KINDS[kind]}{_reasons(summary, kind)}"
            for kind, number in summary.failed.most_common()
        )
        where = f"; {out / FAILURES} lists them" if ledger else ""
        complain(f"{count} of {summary.total} inputs failed ({why}), {done}{where}")
    elif not quiet and (summary.total > 1 or summary.skipped):
        complain(f"{summary.total} input{'' if summary.total == 1 else 's'}: {done}")
    if summary.interrupted:
        remedy = "; the same command continues from here" if ledger else ""
        complain(f"interrupted before the end{remedy}")


def _reasons(summary: RunSummary, kind: FailureKind) -> str:
    """The most frequent reasons of a kind of failures, with their numbers; none for one failure."""
    number = summary.failed[kind]
    found = [(each[1], count) for each, count in summary.reasons.most_common() if each[0] == kind]
    if number == 1 or kind not in DETAILED:
        return ""
    shown = found[:SHOWN_REASONS]
    rest = number - sum(count for _, count in shown)
    parts = [f"{count} {reason}" for reason, count in shown] + ([f"{rest} other"] if rest else [])
    return ": " + ", ".join(parts)


def _cells(row: Row, path: Path, files: Mapping[str, Path]) -> list[str]:
    """Return the cells of one result; the last is the path of its picture."""
    record: Mapping[str, Any] = row.record
    boxes = [f"{b['x0']:.0f} {b['y0']:.0f} {b['x1']:.0f} {b['y1']:.0f}" for b in record["boxes"]]
    words = [box["where"] for box in record["boxes"]]
    # Records of earlier versions have no meaning, laterality and parts.
    sides = record.get("laterality", {"agrees": None})
    if sides["agrees"] is False:
        words.append(f"! phrase: {sides['phrase']}")
    meaning = record.get("meaning", {"summary": ""})["summary"]
    parts = [_part(part) for part in record.get("parts", ())]
    phrase = [row.phrase, *filter(None, [meaning]), *parts]
    presence = "" if record["evaluations"] == 0 else f"{_strength(record):.2f}"
    if draws := record.get("draws"):
        presence += f"\nscore {draws['minimum']:.2f} to {draws['maximum']:.2f}"
    picture = files.get("png") or next(iter(files.values()), "")
    cells = ["\n".join(phrase), record["status"], presence]
    return [path.name, *cells, "\n".join(boxes), "\n".join(words), str(picture)]


def _part(part: Mapping[str, Any]) -> str:
    """Return the answer for one finding of a phrase that names several."""
    words = ", ".join(box["where"] for box in part["boxes"])
    if part["laterality"]["agrees"] is False:
        words += f" ! phrase: {part['laterality']['phrase']}"
    return f"- {part['phrase']}: {part['status']} {_strength(part):.2f} {words}".rstrip()


def _strength(record: Mapping[str, Any]) -> float:
    """What the status of a record was decided by."""
    return strength(record["score"], record.get("presence"))  # earlier versions have no presence


def _show(rows: Sequence[Sequence[str]]) -> None:
    """Print the table, then the paths, which are too long for a column."""
    head = ["", "image", "phrase", "status", "presence", "x0 y0 x1 y1", "where"]
    numbered = [[str(number), *row[:-1]] for number, row in enumerate(rows, 1)]
    if len({row[0] for row in rows}) == 1:
        head, numbered = [head[0], *head[2:]], [[row[0], *row[2:]] for row in numbered]
    if len(rows) == 1:
        head, numbered = head[1:], [row[1:] for row in numbered]
    table(head, numbered, firm=("status", "presence", "x0 y0 x1 y1", "where"))
    for number, row in enumerate(rows, 1):
        if row[-1]:
            write(f"{number}  {row[-1]}" if len(rows) > 1 else row[-1])
