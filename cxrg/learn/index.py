"""The table beside a folder of X-rays to learn from: ``index.csv``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from cxrg.errors import InputError


def read_index(
    folder: Path, columns: tuple[str, ...], held_out: int
) -> Sequence[Mapping[str, str]]:
    """The rows of a folder's ``index.csv`` without the last ``held_out``.

    Raises:
        InputError: there is no such table, it lacks a column, or no row is left.
    """
    index = folder / "index.csv"
    try:
        with index.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{index}: cannot be read ({type(error).__name__}); correct it") from error
    if (
        not rows
        or not set(columns) <= rows[0].keys()
        or any(row[c] is None for row in rows for c in columns)
    ):
        raise InputError(f"{index}: needs rows with the columns {' and '.join(columns)}")
    if len(rows) <= held_out:
        raise InputError(
            f"{index}: {len(rows)} rows, all held out; lower held_out ({held_out}) or add images"
        )
    return rows[: len(rows) - held_out]
