"""``failures.jsonl``: the inputs that have no result, one JSON line each.

A line holds no file name, which may be a patient's: it names the input by its place among the
inputs of the run, by the line of the list that it came from, and by the hash of its content.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cxrg.batch.task import Failure, Task
from cxrg.errors import WriteError
from cxrg.files import atomic_write

FAILURES = "failures.jsonl"
SCHEMA = "cxrg.failure/1"


def failure_line(task: Task, failure: Failure, image: str | None) -> str:
    """The line of one input; ``image`` is the SHA-256 of its content, if it could be read."""
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


def append(path: Path, line: str) -> None:
    """Add a line as it happens, for whoever watches the run.

    Raises:
        WriteError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="ascii") as file:
            file.write(line + "\n")
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(f"{path}: cannot be written ({reason}); choose another folder") from error


def rewrite(path: Path, lines: Sequence[str]) -> None:
    """Write the file anew and whole; without lines there is none.

    Raises:
        WriteError: the file cannot be written.
    """
    if not lines:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        file.write("".join(line + "\n" for line in lines).encode("ascii"))
