"""The command line: parse, call one library function, hand the result to writers.

Commands import torch and diffusers inside their functions, so that help and usage errors need
neither. Every expected error ends here, in `Cli.invoke`, as one line and an exit code.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cxrg.about import __version__
from cxrg.cli import (
    anatomy,
    bench,
    calibrate,
    evaluate,
    explain,
    export,
    ground,
    models,
    options,
    phantom,
    train,
    tune,
)
from cxrg.cli.terminal import (
    complain,
    drop_output,
    exit_code_of,
    output_error,
    output_fails,
    repair_streams,
    terminating,
)
from cxrg.errors import EXIT_CLOSED_PIPE, EXIT_SOME_FAILED, CxrgError

_GRACE = 1.0  # seconds for a thread to end after Ctrl-C


class Cli(TyperGroup):
    """The group of all commands, and the one place where errors are caught."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CxrgError as error:
            if ctx.meta.get("debug"):
                traceback.print_exc()
            complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            complain("interrupted")
            code = exit_code_of(error)
            _leave_threads(code)
            raise typer.Exit(code) from error
        except BrokenPipeError as error:
            drop_output()  # its reader has ended, as `head` does
            raise typer.Exit(EXIT_CLOSED_PIPE) from error


def _leave_threads(code: int) -> None:
    """End the program at once if a thread is still decoding an image, which can take minutes."""
    threads = [each for each in threading.enumerate() if each.name.startswith("cxrg-")]
    for thread in threads:
        thread.join(_GRACE)
    if any(thread.is_alive() for thread in threads):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


app = typer.Typer(
    cls=Cli,
    name="cxrg",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Research use only - not for diagnosis. Left and right are the patient's.",
)
app.command()(ground.ground)
app.command()(explain.explain)
app.command()(export.export)
app.command()(options.options)
app.add_typer(models.app, name="models")
app.command()(phantom.phantom)
app.command()(evaluate.evaluate)
app.command()(evaluate.compare)
app.command()(calibrate.calibrate)
app.command()(train.train)
app.command()(tune.tune)
app.command()(anatomy.anatomy)
app.command()(bench.bench)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cxrg {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")] = False,
) -> None:
    """Ground report phrases in chest X-rays with latent diffusion models."""
    ctx.meta["debug"] = debug


def main() -> None:
    """Run the console script ``cxrg``."""
    # Read when torch loads: threads that wait then sleep, and do not compete for processors.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    repair_streams()
    if sys.flags.optimize > 1:  # transformers reads docstrings, which are gone then
        complain("does not run under python -OO (PYTHONOPTIMIZE=2); use python, or python -O")
        raise SystemExit(EXIT_SOME_FAILED)
    try:
        with terminating():
            app()
    except OSError as error:
        if not output_fails():
            raise
        drop_output()
        complain(str(output_error(error)))
        raise SystemExit(EXIT_SOME_FAILED) from error
