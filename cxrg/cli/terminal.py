"""Tables on standard output; progress and warnings on standard error."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
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

from cxrg.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, WriteError

_PIPE_WIDTH = 160  # of a table that goes to a file or pipe, in letters
_MIN_WIDTH = 8  # of a column that may fold; words folded more narrowly cannot be read


def repair_streams() -> None:
    """Open standard output and error if they are closed, and let them replace what they lack.

    Services and schedulers start programs with closed streams. Letters that the encoding of a
    stream does not have are written as ``?``, so that no result is lost.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened would take this number, and what libraries write.
            os.open(os.devnull, os.O_RDWR)
        stream = getattr(sys, name)
        if stream is None and name != "stdin":
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - to the end
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict" and number:
            stream.reconfigure(errors="replace")


def drop_output() -> None:
    """Discard what standard output still holds, so that the end of the program does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def output_fails() -> bool:
    """Whether standard output cannot be written, with or without a buffer."""
    try:
        sys.stdout.write("")
        sys.stdout.flush()
    except OSError:
        return True
    return False


def output_error(error: OSError) -> WriteError:
    """Return the error of standard output that cannot be written."""
    reason = error.strerror
    return WriteError(f"standard output: cannot be written ({reason}); make room, or redirect it")


def write(text: str) -> None:
    """Write a line to standard output at once, so that a closed pipe is noticed here.

    Raises:
        BrokenPipeError: the reader of a pipe has ended.
        WriteError: it cannot be written, as on a full disk.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise output_error(error) from error


_SIGNALS = {
    signal.SIGINT: ("", "Ctrl-C again"),
    signal.SIGTERM: ("received SIGTERM; ", "a second one"),
}
"""How the message of a run that is to stop names a signal and its repetition."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which batch systems send: the program ends as after Ctrl-C."""


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """The exit code of a program that was interrupted."""
    return EXIT_TERMINATED if isinstance(interrupt, Terminated) else EXIT_INTERRUPTED


class Stop:
    """Whether the user, or a batch system, wants the run to stop.

    Attributes:
        number: the signal that was received; None: none.
    """

    number: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.number is not None

    @property
    def exit_code(self) -> int:
        return EXIT_TERMINATED if self.number == signal.SIGTERM else EXIT_INTERRUPTED


def _interrupt(number: int, _: object) -> None:
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def _handling(handler: Callable[[int, Any], None], *numbers: signal.Signals) -> Iterator[None]:
    """Handle signals within the body, in the main thread, which alone receives them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in usual.items():
            signal.signal(number, before)


def terminating() -> AbstractContextManager[None]:
    """Raise Terminated at SIGTERM within the body."""
    return _handling(_interrupt, signal.SIGTERM)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Yield whether Ctrl-C or SIGTERM came; a second one raises KeyboardInterrupt."""
    stop = Stop()

    def note(number: int, _: object) -> None:
        stop.number = signal.Signals(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, _interrupt)
        name, again = _SIGNALS[stop.number]
        text = f"\ncxrg: {name}finishing what is begun; {again} stops at once\n"
        # Not through sys.stderr, which may be in the middle of a line.
        with suppress(OSError):
            os.write(2, text.encode())

    with _handling(note, signal.SIGINT, signal.SIGTERM):
        yield stop


def complain(text: str) -> None:
    """Write one line to standard error, whatever line breaks the text has."""
    with suppress(OSError):  # there is nowhere left to report it
        sys.stderr.write(f"cxrg: {_plain(' '.join(text.split()))}\n")


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, firm: Collection[str] = ()
) -> None:
    """Print a table of plain text; cells may have several lines and fold but in ``firm`` columns.

    In a terminal that is too narrow for it, the cells of each row are printed under each other.
    """
    console = _console()
    widths = [max(map(_width, column)) for column in zip(head, *rows, strict=True)]
    least = sum(
        width if title in firm else min(width, _MIN_WIDTH)
        for title, width in zip(head, widths, strict=True)
    )
    if least + 2 * len(head) > console.width:
        for row in rows:
            facts(dict(zip(head, row, strict=True)))
            write("")
        return
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for title in head:
        grid.add_column(title, overflow="fold", no_wrap=title in firm)
    for row in rows:
        grid.add_row(*(Text(_plain(cell)) for cell in row))
    _show(grid, console)


def _width(cell: str) -> int:
    return max((cell_len(line) for line in cell.split("\n")), default=0)


def facts(values: Mapping[str, str]) -> None:
    """Print names and values, one pair under the other."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in values.items():
        grid.add_row(Text(_plain(name)), Text(_plain(value)))
    _show(grid, _console())


def _plain(text: str) -> str:
    """Return text without control characters, which a file name may hold."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _show(what: RenderableType, console: Console) -> None:
    # Through `write` and not directly: rich ends the program itself when a pipe is closed.
    with console.capture() as captured:
        console.print(what)
    write(captured.get().strip("\n"))


@dataclass(frozen=True)
class Reporter:
    """Reports progress on standard error."""

    bar: Progress
    task: TaskID

    def show(self, what: str) -> None:
        """Show what is being done now."""
        self.bar.update(self.task, description=what)

    def at(self, stage: str, done: int, total: int) -> None:
        """Show which stage of several is running and how far it is."""
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
    """Show a progress bar if standard error is a terminal, and only lines if it is not.

    Without a total the bar shows how many are done.
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
