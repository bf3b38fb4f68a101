"""What a person sees: tables on standard output, progress and warnings on standard error."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 160  # of a table that goes to a file or pipe, in letters


def write(text: str) -> None:
    """Write a line to standard output at once, so that a closed pipe is noticed here."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; a second time it ends the program as it usually does."""
    asked = False

    def note(*_: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, usual)
        # Not through sys.stderr, which may be in the middle of a line.
        os.write(2, b"\ncxrg: finishing what is begun; Ctrl-C again stops at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread hears signals
        return
    usual = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, usual)


def complain(text: str) -> None:
    """Write one line to standard error, whatever line breaks the text has."""
    sys.stderr.write(f"cxrg: {_plain(' '.join(text.split()))}\n")


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, firm: Collection[str] = ()
) -> None:
    """Print a table; cells are plain text, may have several lines and fold but in ``firm`` columns.

    A narrow terminal squeezes the other columns.
    """
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for title in head:
        grid.add_column(title, overflow="fold", no_wrap=title in firm)
    for row in rows:
        grid.add_row(*(Text(_plain(cell)) for cell in row))
    _show(grid)


def facts(told: Mapping[str, str]) -> None:
    """Print names and what is known of them, one under the other."""
    grid = Table.grid(padding=(0, 2))
    for name, value in told.items():
        grid.add_row(Text(name), Text(value))
    _show(grid)


def _plain(text: str) -> str:
    """Text without letters that a terminal obeys, such as those a file name may hold."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _show(what: RenderableType) -> None:
    # Through `write` and not directly: rich ends the program itself when a pipe is closed.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    with console.capture() as captured:
        console.print(what)
    write(captured.get().strip("\n"))


@dataclass(frozen=True)
class Reporter:
    """Tells on standard error how far a run is."""

    bar: Progress
    task: TaskID

    def say(self, what: str) -> None:
        """Say what is being done now."""
        self.bar.update(self.task, description=what)

    def at(self, stage: str, done: int, total: int) -> None:
        """Say which stage of several is running and how far it is."""
        self.bar.update(self.task, description=stage, completed=done, total=total)

    def advance(self) -> None:
        self.bar.advance(self.task)

    def block(self, text: str) -> None:
        """Print several lines above the bar."""
        self.bar.console.print(Text(_plain(text.rstrip())), soft_wrap=True)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        plain = _plain(" ".join(text.split()))
        self.bar.console.print(Text(f"cxrg: {plain}"), soft_wrap=True)


@contextmanager
def progress(total: int | None, *, quiet: bool) -> Iterator[Reporter]:
    """A progress bar where standard error is a terminal; lines only where it is not.

    Without a total it shows how many are done, and that it is at work.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # rich would otherwise send what is written to standard output to its own console.
    bar = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=quiet or not sys.stderr.isatty(),
    )
    with bar:
        yield Reporter(bar, bar.add_task("", total=total))
