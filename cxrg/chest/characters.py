"""Characters as people type and paste them, replaced by those that words are written with."""

from __future__ import annotations

import unicodedata

_HYPHENS = "\u2010\u2011\u2012\u2013\u2043\u2212\ufe58\ufe63\uff0d"
_DASHES = "\u2014\u2015"
_APOSTROPHES = "\u2018\u2019\u201b\u02bc\u2032\u00b4\uff07"
_QUOTES = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\uff02"
_LINE_ENDS = "\u0085\u2028\u2029"

_REPLACED = (
    dict.fromkeys(_HYPHENS, "-")
    | dict.fromkeys(_DASHES, " - ")
    | dict.fromkeys(_APOSTROPHES, "'")
    | dict.fromkeys(_QUOTES, '"')
    | dict.fromkeys(_LINE_ENDS, "\n")
)


def plain_characters(text: str) -> tuple[str, tuple[int, ...]]:
    """Replace typographic hyphens, dashes, apostrophes, quotation marks, blanks and ligatures.

    Invisible characters (soft hyphens, zero-width blanks, marks of direction) are left out.

    Returns:
        The plain text, and where each of its characters stands in ``text``.
    """
    if text.isascii():
        return text, tuple(range(len(text)))
    pieces = [(_plain(character), index) for index, character in enumerate(text)]
    offsets = tuple(index for piece, index in pieces for _ in piece)
    return "".join(piece for piece, _ in pieces), offsets


def _plain(character: str) -> str:
    replaced = _REPLACED.get(character)
    if replaced is not None:
        return replaced
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    if category == "Cs":  # half of a pair, which no encoder takes
        return "\ufffd"
    return unicodedata.normalize("NFKC", character)
