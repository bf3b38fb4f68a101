"""Arguments of ``cxrg ground``: images, phrases, reports and standard input."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrg.batch.sources import is_text
from cxrg.errors import InputError, PhraseError, UsageError
from cxrg.files import open_text
from cxrg.phrase.intent import read_intent
from cxrg.phrase.report_text import is_report
from cxrg.reports import Statement, read

STDIN = "-"


def split_arguments(
    arguments: Sequence[str], phrases: Sequence[str], *, elsewhere: bool = False
) -> tuple[list[str], list[str]]:
    """Split images and phrases: the last argument is the phrase unless options give phrases.

    Args:
        arguments: the positional arguments.
        phrases: those of ``--phrase``.
        elsewhere: a file or manifest may give phrases, and a manifest images.

    Raises:
        UsageError: an image or a phrase is missing.
            A phrase is empty, or is a whole report; one stands beside those of ``--phrase``.
        PhraseError: a phrase is not text.
    """
    if phrases or elsewhere or list(arguments[-1:]) == [STDIN]:
        check_phrases(phrases)
        if phrases and arguments:
            _check_image(arguments[-1])
        return list(arguments), list(phrases)
    if not arguments:
        raise UsageError("arguments are missing; give an image and a phrase in quotes")
    *images, phrase = arguments
    if phrase.strip() and os.path.exists(phrase):
        raise UsageError(
            f"{phrase} is a file or folder, so the phrase is missing; "
            "put it last in quotes, or give it with --phrase"
        )
    if not images:
        raise UsageError("one argument is too few; give an image and a phrase in quotes")
    check_phrases([phrase])
    return images, [phrase]


def _check_image(argument: str) -> None:
    """Refuse a phrase in the place of an image."""
    if not is_text(argument) or Path(argument).suffix or glob.has_magic(argument):
        return
    if os.sep in argument or os.path.exists(argument):
        return
    if read_intent(argument).kind != "unknown":
        raise UsageError(
            f"{argument} is no file, but reads as a phrase; give each phrase with --phrase"
        )


def check_phrases(phrases: Sequence[str]) -> None:
    """Check that phrases are text, not empty and no whole reports.

    Raises:
        UsageError: one is empty, or is a whole report.
        PhraseError: one is not text.
    """
    if not all(map(is_text, phrases)):
        raise PhraseError("a phrase is not UTF-8 text; type it in a UTF-8 terminal, or use a file")
    for number, phrase in enumerate(phrases, 1):
        which = f"phrase {number} of {len(phrases)}" if len(phrases) > 1 else "the phrase"
        if not phrase.strip():
            raise UsageError(f"{which} is empty; name a finding or a place")
        if is_report(phrase):
            raise UsageError(
                f"{which} is a whole report; put it into a file for cxrg ground --report, "
                "which grounds its findings"
            )


def read_phrases(path: Path) -> list[str]:
    """Read the phrases of a text file, one per line; ``#`` begins a comment line.

    Raises:
        InputError: it cannot be read.
        PhraseError: it holds no phrase.
    """
    lines = (line.strip() for line in _text(path).splitlines())
    phrases = [line for line in lines if line and not line.startswith("#")]
    if not phrases:
        raise PhraseError(f"{path}: holds no phrase; write one per line")
    return phrases


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportText:
    """What a report gives: phrases, statements that are not grounded, and warnings."""

    phrases: tuple[str, ...] = ()
    statements: tuple[Statement, ...] = ()
    warnings: tuple[str, ...] = ()


def read_report(path: Path) -> ReportText:
    """Read the phrases of a report that can be grounded, and the statements that cannot.

    Raises:
        InputError: it cannot be read.
    """
    found = read(_text(path))
    return ReportText(
        phrases=tuple(dict.fromkeys(each.phrase for each in found.statements if each.phrase)),
        statements=tuple(each for each in found.statements if not each.phrase),
        warnings=tuple(
            f"{path}: characters {start} to {stop} are not in English, so they are not read; "
            "give phrases with --phrase"
            for start, stop in found.foreign
        ),
    )


def statement_line(statement: Statement, *, sentence: bool) -> str:
    """A statement that is not grounded, as a line of JSON, with its sentence on request."""
    line = {
        "schema": "cxrg.statement/2",
        "finding": statement.finding,
        "side": statement.side,
        "zone": statement.zone,
        "certainty": statement.certainty,
    }
    return json.dumps(line | ({"sentence": statement.sentence} if sentence else {}))


def describe(statement: Statement, *, sentence: bool) -> str:
    """A statement that is not grounded, for people to read, with its sentence on request."""
    subject = statement.finding or "chest"
    named = " ".join(filter(None, (statement.side, statement.zone, subject)))
    quoted = f" ({statement.sentence!r})" if sentence else ""
    return f"report: {named}: {statement.certainty}, not grounded{quoted}"


def stdin_lines() -> Iterator[str]:
    """Yield the lines of standard input as they come.

    They come through a separate file object: a thread may be waiting for a line when the program
    ends, and Python cannot close its standard input then.

    Raises:
        InputError: standard input is closed.
    """
    if sys.stdin is None:
        raise InputError("standard input is closed; pipe a list of images to it, or name files")
    try:
        number = sys.stdin.fileno()
    except (OSError, ValueError):  # no real file, as in a notebook
        yield from sys.stdin
        return
    with open(number, encoding="utf-8", errors="surrogateescape", closefd=False) as file:
        yield from file


def _text(path: Path) -> str:
    try:
        with open_text(path) as file:
            return file.read().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; save it as such") from error
