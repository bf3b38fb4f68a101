"""What to look for, for one phrase, after what it means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cxrg.phrase.intent import Intent, read_intent
from cxrg.phrase.normalise import normalise


@dataclass(frozen=True, kw_only=True, slots=True)
class PhrasePlan:
    """What to look for, for one phrase.

    Attributes:
        phrase: the phrase as given.
        intent: what it means.
        subject: the text to encode; None: nothing is looked for, and no network runs.
        marks: whether what is found is marked; if not, the map only shows where it would be.
        warnings: what a reader should know about the phrase.
        parts: the same for each finding of a phrase that names several.
    """

    phrase: str
    intent: Intent
    subject: str | None
    marks: bool
    warnings: tuple[str, ...] = ()
    parts: tuple[PhrasePlan, ...] = ()


def plan_phrase(phrase: str, *, own_language: bool, forced: bool = False) -> PhrasePlan:
    """Plan what to look for.

    A denial or a normal statement is answered with the map of what it is about, so that a reader
    sees where to check it, but nothing is marked: the network attends to "no" as to any other word.

    Args:
        phrase: the phrase as given.
        own_language: whether the model may know words that cxrg does not.
        forced: ground the phrase as it is written, whatever it means.
    """
    intent = read_intent(phrase)
    if forced:
        return PhrasePlan(phrase=phrase, intent=intent, subject=normalise(phrase), marks=True)
    if intent.kind == "unknown" and own_language:
        warning = "phrase names no finding and no place that cxrg knows; the model may know it"
        subject = normalise(phrase)
        return PhrasePlan(
            phrase=phrase, intent=intent, subject=subject, marks=True, warnings=(warning,)
        )
    plan = _plan(phrase, intent)
    return replace(plan, parts=tuple(_plan(each.text, each) for each in intent.parts))


def _plan(phrase: str, intent: Intent) -> PhrasePlan:
    return PhrasePlan(
        phrase=phrase,
        intent=intent,
        subject=intent.subject,
        marks=intent.shows,
        warnings=tuple(_warnings(intent)),
    )


def _warnings(intent: Intent) -> Iterator[str]:
    for typed, known in intent.mended:
        yield f"{typed!r} in the phrase is read as {known!r}"
    if intent.kind == "unknown":
        yield _unknown(intent)
    elif intent.kind == "comparison":
        yield "phrase only compares with an earlier image, so nothing is looked for; name a finding"
    elif not intent.shows:
        where = "the map shows where to look for it" if intent.subject else "there is no map"
        yield f"phrase {intent.summary}: nothing is marked; {where}"


def _unknown(intent: Intent) -> str:
    if intent.foreign:
        return "phrase is not in English, so it is not understood; translate it, or --force-ground"
    near = f"; nearest known words: {', '.join(intent.nearest)}" if intent.nearest else ""
    remedy = "name a finding or place, such as 'left effusion' or 'heart', or --force-ground"
    return f"phrase names no finding and no place that cxrg knows{near}; {remedy}"
