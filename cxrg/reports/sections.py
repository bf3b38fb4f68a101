"""Which parts of a report state findings, cut into passages that hold whole sentences.

Indication, history, comparison and technique are left out. A passage ends at a heading, a blank
line, a new item of a list, and at the end of a line that ends a statement; other line ends are
wrapped text. Its words are spelt right, and abbreviations have no full stop.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from cxrg.chest.findings import read_as
from cxrg.reports.spelling import correct
from cxrg.reports.vocabulary import vocabulary, words


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """Text with single blanks; ``offsets[i]`` is where its character ``i`` stands in the report.

    A corrected word may be longer than the report's; each letter then stands within that word.
    """

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
        if cut["line"] is not None and not _ends_statement(report, cut):
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
        rf"(?<![\w-])(?P<name>(?i:{names}))[ \t]*(?::|-+(?=[ \t]))"
        r"|(?:^|(?<=\n))[ \t]*(?P<other>[A-Z][A-Za-z /()&-]{1,40}:)"
        r"|(?P<blank>\n[ \t\r]*\n\s*)"
        r"|(?:^|(?<=\n)|(?<=[.:;]\s))[ \t]*(?P<item>[-*]\s+(?=[A-Za-z]))"
        r"|(?P<bullet>\u2022)"
        rf"|(?:(?<![\w./-])|(?<=[a-z)][.:;,]))(?P<number>{_NUMBER})"
        r"|(?P<line>(?<=\w)\)?[ \t\r]*\n(?=[ \t]*[A-Z]))"
    )


# "1.No", "2) Left", "(3) No", "#4 No", "(a) No", "1- No"; not "1.5 cm" or "2 - 3 mm".
_NUMBER = (
    r"(?:\(?\d{1,2}\)|\d{1,2}\.|#\d{1,2}[.):]?|\([a-h]\))[ \t]*(?=[A-Za-z])"
    r"|\d{1,2}[ \t]?-[ \t]+(?=[A-Z])"
)


def _ends_statement(report: str, cut: re.Match[str]) -> bool:
    """Whether a line ends with a word that may end a statement, and the next begins another.

    A name in capitals or with one may also stand within wrapped text, as in "of the\nRight lung".
    """
    before = _LAST.search(report[: cut.end("line")])
    after = _FIRST.match(report, cut.end())
    assert before is not None  # the pattern has letters on both sides
    assert after is not None
    first = after[1].lower()
    return before[1].lower() in _line_ends() and first not in words("filler", "conjunctions")


_FIRST = re.compile(r"[ \t]*([A-Za-z]+)")
_LAST = re.compile(r"(\w+)\W*\Z")


@cache
def _line_ends() -> frozenset[str]:
    """Last words of findings' names, and others that may end a statement without a full stop."""
    names = [name for several in read_as().values() for name in several]
    return frozenset(name.split()[-1].lower() for name in names) | words("clauses", "line_ends")


def _is_heading(report: str, cut: re.Match[str]) -> bool:
    """Written in capitals, or at the start of a line or sentence ("with a history:" is neither).

    With a dash in place of a colon it must begin with a capital ("normal study - no change").
    """
    before = report[: cut.start("name")].rstrip(" \t")
    if not cut.group().endswith(":") and cut["name"][0].islower():
        return False
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
        yield _typed(text, tuple(kept))


def _typed(text: str, offsets: tuple[int, ...]) -> Passage:
    """A passage with its words spelt right, and without full stops behind abbreviations."""
    dots = [("", match.end() - 1, match.end()) for match in _abbreviated().finditer(text)]
    made, done = "", 0
    where: list[int] = []
    for better, start, stop in sorted((*dots, *correct(text)), key=lambda change: change[1:]):
        made += text[done:start] + better
        where += offsets[done:start]
        where += [offsets[min(start + i, stop - 1)] for i in range(len(better) - 1)]
        where += offsets[stop - 1 : stop] if better else ()
        done = stop
    return Passage(text=made + text[done:], offsets=(*where, *offsets[done:]))


@cache
def _abbreviated() -> re.Pattern[str]:
    """Abbreviations with a full stop that another word follows."""
    several = "|".join(sorted(words("abbreviations")))
    return re.compile(rf"(?<![\w.])(?:(?i:{several})|[LR])\.(?=[ ][A-Za-z])")
