"""``failures.jsonl``: the inputs that have no result, one JSON line each.

A line holds no file name, which may be a patient's: it names the input by its place among the
inputs of the run, by the line of the list that it came from, and by the hash of its content.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cxrg.batch.task import Failure, Task
from cxrg.errors import UsageError
from cxrg.files import atomic_write, cannot_write

FAILURES = "failures.jsonl"
SCHEMA = "cxrg.failure/1"
_START = json.dumps({"schema": SCHEMA})[:-1].encode()


def failure_line(task: Task, failure: Failure, image: str | None) -> str:
    """Return the line of one input; ``image`` is the SHA-256 of its content, None if unknown."""
    reason, _, remedy = failure.reason.rpartition("; ")
    line = {
        "schema": SCHEMA,
        "input": task.index + 1,
        "line": task.line,
        "sha256": image,
        "kind": failure.kind,
        "reason": reason or remedy,
        "remedy": remedy if reason else "",
    }
    return json.dumps(line)


def check_own(path: Path) -> None:
    """Check that a file of that name, if there is one, is a list of failures made by cxrg.

    Raises:
        UsageError: it is the user's, and would be lost.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_START))
    except OSError:
        return  # there is none, or writing it will give the reason
    if start and start != _START:
        raise UsageError(
            f"{path}: is not a list of failures made by cxrg and would be overwritten; rename it, "
            "or choose another folder with --out"
        )


def append(path: Path, line: str) -> None:
    """Add a line at once, for users who watch the run.

    Raises:
        WriteError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="ascii") as file:
            file.write(line + "\n")
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error


def rewrite(path: Path, lines: Sequence[str]) -> None:
    """Replace the file by one with these lines; without lines remove it.

    Raises:
        WriteError: the file cannot be written.
    """
    if not lines:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        file.write("".join(line + "\n" for line in lines).encode("ascii"))
