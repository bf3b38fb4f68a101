"""Whether a text is in English, by its short words: rules for English misread other languages."""

from __future__ import annotations

import re

from cxrg.reports.vocabulary import words

_WORD = re.compile(r"[^\W\d_]+")


def is_foreign(text: str) -> bool:
    """Whether a text is in another language than English.

    Many languages share the names of findings ("kein Pneumothorax"), so the words between them
    decide: one that English does not have, or two that it hardly has and that are a third of all,
    and no English one; or letters that are mostly not Latin.
    """
    found = [word.lower() for word in _WORD.findall(text)]
    letters = "".join(found)
    latin = sum(character < "\u0250" for character in letters)
    if letters and latin < len(letters) / 2:
        return True
    if words("language", "english") & set(found):
        return False
    if words("language", "foreign") & set(found):
        return True
    rare = [word for word in found if word in words("language", "rarely_english")]
    return len(rare) > 1 and 3 * len(rare) > len(found)
