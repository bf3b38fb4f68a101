"""A sample's place in words: as a report's sentence and as "{location} {finding}", and mirrored.

The mirrored forms name the wrong side of the patient. They separate a model that reads the
location from one that reads the finding only.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from cxrg.anatomy.folder import canonical
from cxrg.chest.categories import make_phrase, place_of
from cxrg.chest.findings import finding_of
from cxrg.chest.names import SIDES, plain
from cxrg.chest.places import ZONE_PARTS
from cxrg.evaluate.sample import Sample

FORMS = ("sentence", "template")
_DRAWS = 50  # sentences of the grammar tried until one spells out its side


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The phrases that a sample is grounded with.

    ``locations`` are the names of :data:`LOCATIONS` whose union the words mean; ``right`` and
    ``wrong`` are the phrases by form. ``wrong`` is empty where no one side is named.
    """

    locations: tuple[str, ...]
    right: dict[str, str]
    wrong: dict[str, str]


def wording(sample: Sample) -> Wording | None:
    """Return the wordings of a sample's place, or None where its phrase names no location."""
    if place_of(sample.category) == "side":  # such a finding's phrase names its side alone
        sample = replace(sample, zone=None)
    locations = locations_of(sample)
    if not locations:
        return None
    template = _template(sample)
    right = {"sentence": _sentence(sample, template), "template": template}
    one_sided = len(locations) == 1 and locations[0].startswith(SIDES)
    wrong = {form: mirrored(text) for form, text in right.items()}
    differs = all(wrong[form] != text for form, text in right.items())
    return Wording(
        locations=locations,
        right=right,
        wrong=wrong if one_sided and differs else {},
    )


def locations_of(sample: Sample) -> tuple[str, ...]:
    """The locations that a sample's words mean together; empty where they name none."""
    for name in (sample.category, f"{sample.side} {sample.category}"):
        part = canonical(name)
        if part is not None:
            return (part,)
    finding = finding_of(sample.category)
    if finding is None:
        return ()
    if sample.side is None:  # "lower lung opacity" leaves open which
        return finding.at
    if sample.zone == "retrocardiac":
        return ("heart",)
    sides = (sample.side,) if sample.side in SIDES else SIDES
    part = ZONE_PARTS.get(sample.zone or "", "lung")  # any other zone is somewhere in the lung
    return tuple(f"{side} {part}" for side in sides)


def mirrored(text: str) -> str:
    """A text with left and right exchanged, its letters' case kept."""

    def other(match: re.Match[str]) -> str:
        word = match.group()
        swapped = "right" if word.lower() == "left" else "left"
        return swapped.title() if word.istitle() else swapped.upper() if word.isupper() else swapped

    return re.sub(r"\b(left|right)\b", other, text, flags=re.IGNORECASE)


def _template(sample: Sample) -> str:
    """ "{location} {finding}"; a part of the body is its location's name."""
    part = locations_of(sample)[0]
    if finding_of(sample.category) is None:
        return part
    return make_phrase("{location} {finding}", sample.category, sample.side, sample.zone)


def _sentence(sample: Sample, template: str) -> str:
    """The sample's own words where more specific than a label, else a sentence by grammar."""
    from cxrg.phantom.language import Query, sayable, sentence

    if _stems(sample.phrase) - _stems(template):
        return sample.phrase
    finding = finding_of(sample.category)
    concept = finding.concept if finding else _without_side(sample.category)
    queries = (Query(concept, sample.side, sample.zone), Query(concept, None, None))
    query = next((query for query in queries if sayable(query)), None)
    if query is None:
        return f"There is {template}."
    rng = random.Random(sample.id)
    drawn = [sentence(query, rng) for _ in range(_DRAWS)]
    # Not "LLL", whose side cannot be exchanged for every lobe.
    return next((text for text in drawn if mirrored(text) != text), drawn[0])


def _stems(text: str) -> set[str]:
    """The words of a text without articles and plural endings."""
    words = set(plain(text).rstrip(".").split()) - {"a", "an", "the"}
    return {re.sub(r"(ies|y|s)$", "", word) for word in words}


def _without_side(category: str) -> str:
    return re.sub(r"^(left|right) ", "", plain(category))
