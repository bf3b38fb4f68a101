"""Which side and zone each finding of a clause has.

Side and zone words that stand together form a group ("the left upper and lower lobes"), which is
read as one or more places. A group belongs to the finding that it directly precedes, else to the
one before it ("opacity in the left base"), else, in front of a verb or comma, to all that follow
("at the left base, ..."). "And" or "or" shares a place: "nodules or masses in the left lung".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxrg.reports.vocabulary import words

# (side, zone); a side may be "plural" until it is clear that no other is named.
Place = tuple[str | None, str | None]
Range = tuple[int, int]
_GENERAL = frozenset(("upper", "mid", "lower"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A word of place: tokens ``[start, stop)`` and what they name."""

    start: int
    stop: int
    side: str | None
    zone: str | None


def assign(
    tokens: Sequence[str], findings: Sequence[Range], marks: Sequence[Mark]
) -> list[tuple[Place, ...]]:
    """The places of each finding, none or several.

    Args:
        tokens: the words of the document in lower case.
        findings: token ranges of the clause's findings, in order.
        marks: the clause's words of place, in order, none within a finding.
    """
    before: list[tuple[Place, ...]] = [()] * len(findings)
    after: list[tuple[Place, ...]] = [()] * len(findings)
    fronted: tuple[Place, ...] = ()
    for group in _groups(tokens, findings, marks):
        places = read(tokens, group)
        start, stop = group[0].start, group[-1].stop
        following = next((i for i, f in enumerate(findings) if f[0] >= stop), None)
        preceding = next(
            (i for i in reversed(range(len(findings))) if findings[i][1] <= start), None
        )
        if following is not None and _direct(tokens, stop, findings[following][0]):
            before[following] = places
        elif preceding is not None:
            if not _strays(tokens, findings[preceding][1], start):
                after[preceding] = _added(after[preceding], places)
        else:
            fronted = places
    for i in reversed(range(len(findings) - 1)):
        if not before[i] and not after[i] and not before[i + 1] and _joined(tokens, findings, i):
            after[i] = after[i + 1]
    for i in range(1, len(findings)):
        plain = findings[i][0] - findings[i - 1][1] == 1
        if not before[i] and not after[i] and plain and _joined(tokens, findings, i - 1):
            before[i] = before[i - 1]
    return [
        tuple(_settled(_joint(_joint(own, behind), fronted)))
        for own, behind in zip(before, after, strict=True)
    ]


def read(tokens: Sequence[str], group: Sequence[Mark]) -> tuple[Place, ...]:
    """The places that a group of words names.

    "left upper and lower" is two places on the left, "mid and lower zones of the right lung" two
    on the right, "left and right" bilateral; "left lower lobe base" is the base alone.
    """
    zoned: list[Place] = []
    sides: list[str] = []
    side: str | None = None
    spare = False  # a side that no zone has taken yet
    last = group[0].start  # where the zone before ended
    for mark in group:
        if mark.side is not None and mark.side != "plural":
            side, spare = mark.side, True
            sides.append(mark.side)
        if mark.zone is None:
            continue
        place: Place = (side or mark.side, mark.zone)
        if zoned and not _listed(tokens, last, mark.start):
            place = _narrower(zoned.pop(), place)
        zoned.append(place)
        spare, last = False, mark.stop
    if not zoned:
        return ((_one(sides), None),)
    if spare:
        open_places = [place for place in zoned if place[0] in (None, "plural")]
        if not open_places and "bilateral" not in sides:
            zoned.append((side, None))
        zoned = [(side, zone) if old in (None, "plural") else (old, zone) for old, zone in zoned]
    return tuple(dict.fromkeys(zoned))


def _groups(
    tokens: Sequence[str], findings: Sequence[Range], marks: Sequence[Mark]
) -> list[list[Mark]]:
    groups: list[list[Mark]] = []
    for mark in marks:
        last = groups[-1][-1] if groups else None
        if last is None or not _together(tokens, findings, groups[-1][0], last, mark):
            groups.append([mark])
        else:
            groups[-1].append(mark)
    return groups


def _together(
    tokens: Sequence[str], findings: Sequence[Range], first: Mark, last: Mark, mark: Mark
) -> bool:
    """Whether a mark continues the group that so far is ``first`` to ``last``."""
    between = tokens[last.stop : mark.start]
    if not all(word in words("filler") for word in between):
        return False
    if not any(word in words("filler", "conjunctions") for word in between):
        return True
    # "effusion on the left | and right basal atelectasis": either side has a finding of its own
    has_own = any(stop <= first.start for _, stop in findings)
    following = next((start for start, _ in findings if start >= mark.stop), None)
    return not (has_own and following is not None and _direct(tokens, mark.stop, following))


def _direct(tokens: Sequence[str], start: int, stop: int) -> bool:
    """Whether nothing but adjectives and words like "lung" stands between."""
    barred = words("clauses", "prepositions") | words("clauses", "verbs")
    barred |= words("clauses", "interpret")
    return not any(word in barred for word in tokens[start:stop])


def _strays(tokens: Sequence[str], start: int, stop: int) -> bool:
    """Whether something else has come in between: ", with improved aeration of the ..."."""
    between = tokens[start:stop]
    turns = [index for index, word in enumerate(between) if word == "with"]
    return any(word not in words("filler") for word in between[turns[-1] + 1 :]) if turns else False


def _added(places: tuple[Place, ...], more: tuple[Place, ...]) -> tuple[Place, ...]:
    """A further group behind a finding: "larger on the left and smaller on the right"."""
    sides = {side for side, _ in (*places, *more)}
    if places and sides >= {"left", "right"} and all(zone is None for _, zone in (*places, *more)):
        return (("bilateral", None),)
    return _joint(places, more)


def _joined(tokens: Sequence[str], findings: Sequence[Range], index: int) -> bool:
    """Whether a finding and the next are members of one list."""
    between = tokens[findings[index][1] : findings[index + 1][0]]
    return len(between) <= 4 and any(
        word in ("and", "or", "/", "versus", "vs", "vs.") for word in between[:2]
    )


def _listed(tokens: Sequence[str], start: int, stop: int) -> bool:
    return any(word in words("filler", "conjunctions") for word in tokens[start:stop])


def _narrower(first: Place, second: Place) -> Place:
    """The more precise of two zones of one finding."""
    zone = first[1] if second[1] in _GENERAL else second[1]
    sides = [side for side in (second[0], first[0]) if side not in (None, "plural")]
    return (sides[0] if sides else second[0] or first[0], zone)


def _one(sides: Sequence[str]) -> str | None:
    different = set(sides)
    return sides[0] if len(different) == 1 else "bilateral"


def _joint(own: tuple[Place, ...], other: tuple[Place, ...]) -> tuple[Place, ...]:
    """The places of two groups joined: one gives the sides, the other the zones."""
    if not own or not other:
        return own or other
    sides = {side for side, _ in own if side not in (None, "plural")}
    if not sides:
        zones = [zone for _, zone in own]
        return tuple(dict.fromkeys((s, z) for s, _ in other for z in zones))
    if all(zone is None for _, zone in own):
        loose = [zone for side, zone in other if side in (None, "plural") or side in sides]
        return tuple(dict.fromkeys((s, z) for s, _ in own for z in loose)) or own
    return own


def _settled(places: tuple[Place, ...]) -> list[Place]:
    return [("bilateral" if side == "plural" else side, zone) for side, zone in places]
