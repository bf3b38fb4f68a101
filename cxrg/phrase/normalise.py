"""One spelling for phrases that differ only in what places nothing in a picture."""

from __future__ import annotations

import re
import unicodedata

from cxrg.chest.characters import plain_characters

_QUOTED = re.compile(r"(?<!\w)'([^']*)'(?!\w)")


def normalise(phrase: str) -> str:
    """Return the phrase as the text encoder reads it.

    Single blanks take the place of all blanks, tabs and line ends; quotation marks and invisible
    characters are left out; hyphens, apostrophes and ligatures become those of a keyboard, accented
    letters one character each. A normalised phrase stays as it is.
    """
    plain, _ = plain_characters(unicodedata.normalize("NFC", phrase))
    unquoted = _QUOTED.sub(r"\1", plain.replace('"', " "))
    return unicodedata.normalize("NFC", " ".join(unquoted.split()))
