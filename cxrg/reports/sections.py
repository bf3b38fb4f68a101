"""Which parts of a report state findings, cut into passages that hold whole sentences.

Indication, history, comparison and technique are left out. A passage ends at a heading, a blank
line and a new item of a list; a line break alone is only wrapped text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from cxrg.reports.vocabulary import vocabulary


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """Text with single blanks; ``offsets[i]`` is where its character ``i`` stands in the report."""

    text: str
    offsets: tuple[int, ...]

    def source(self, start: int, stop: int) -> tuple[int, int]:
        """Characters of the report for the characters ``[start, stop)`` of the passage."""
        return self.offsets[start], self.offsets[stop - 1] + 1


def passages(report: str) -> Iterator[Passage]:
    """The passages of a report that state findings, in order."""
    silent, began, position = False, False, 0
    for cut in _cuts().finditer(report):
        name = cut["name"]
        if name is not None and not _is_heading(report, cut):
            continue
        if not silent:
            yield from _passage(report, position, cut.start())
        began = began or bool(report[position : cut.start()].strip())
        if name is not None:
            silent, began = _heading(name) in _silent(), False
        elif cut["other"] is not None or (cut["blank"] is not None and began):
            silent = False
        # Never back into a title that has been passed over.
        position = max(position, cut.end() if cut["other"] is None else cut.start("other"))
        if name is not None and _heading(name) in _titles():
            position = next(_TITLE.finditer(report, position)).end()
    if not silent:
        yield from _passage(report, position, len(report))


# What follows a title: the rest of its line or sentence.
_TITLE = re.compile(r"[^\n.]*\.?")


def _heading(name: str) -> str:
    return " ".join(name.lower().split())


@cache
def _titles() -> frozenset[str]:
    return frozenset(vocabulary()["sections"]["titles"])


@cache
def _silent() -> frozenset[str]:
    return frozenset(vocabulary()["sections"]["silent"])


@cache
def _cuts() -> re.Pattern[str]:
    """Known headings, unknown ones at the start of a line, blank lines, items of a list."""
    headings = vocabulary()["sections"]
    known = sorted((*headings["silent"], *headings["titles"], *headings["stated"]))
    names = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in reversed(known))
    return re.compile(
        rf"(?<![\w-])(?P<name>(?i:{names}))[ \t]*:"
        r"|(?:^|(?<=\n))[ \t]*(?P<other>[A-Z][A-Za-z /()&-]{1,40}:)"
        r"|(?P<blank>\n[ \t\r]*\n\s*)"
        r"|(?:^|(?<=\n)|(?<=[.:;]\s))[ \t]*(?P<item>(?:\d{1,2}[.)]|[-*\u2022])\s+(?=[A-Za-z]))"
    )


def _is_heading(report: str, cut: re.Match[str]) -> bool:
    """Written in capitals, or at the start of a line or sentence ("with a history:" is neither)."""
    before = report[: cut.start("name")].rstrip(" \t")
    return cut["name"].isupper() or not before or before[-1] in "\n.:;"


def _passage(report: str, start: int, stop: int) -> Iterator[Passage]:
    kept = [
        index
        for index in range(start, stop)
        if not report[index].isspace() or (index > start and not report[index - 1].isspace())
    ]
    if kept and report[kept[0]].isspace():
        kept = kept[1:]
    text = "".join(" " if report[index].isspace() else report[index] for index in kept)
    if text.strip():
        yield Passage(text=text, offsets=tuple(kept))
