"""What phrases mean."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cxrg.phantom import language
from cxrg.phrase.intent import read_intent
from cxrg.phrase.plan import plan_phrase

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize(
    ("phrase", "kind", "subject"),
    [
        ("left basal opacity", "present", "left basal opacity"),
        ("no pneumothorax", "absent", "pneumothorax"),
        ("Left effusion has resolved.", "absent", "left pleural effusion"),
        ("no effusion or pneumothorax", "absent", "pleural effusion and pneumothorax"),
        ("lungs are clear", "normal", "lungs"),
        ("normal chest", "normal", None),
        ("cannot exclude pneumonia", "uncertain", "cannot exclude pneumonia"),
        ("possible nodule", "uncertain", "possible nodule"),
        ("evaluate for pneumonia", "uncertain", "evaluate for pneumonia"),
        ("left lower lobe", "place", "left lower lobe"),
        ("trachea and main bronchi", "place", "trachea and main bronchi"),
        ("no change", "comparison", None),
        ("purple elephant", "unknown", None),
        ("left", "unknown", None),
        ("\u80ba\u708e", "unknown", None),
        ("kein Pneumothorax", "unknown", None),
        ("cardiomegally", "present", "cardiomegaly"),
    ],
)
def test_kind_and_what_is_looked_for(phrase: str, kind: str, subject: str | None) -> None:
    intent = read_intent(phrase)
    assert (intent.kind, intent.subject) == (kind, subject)


@pytest.mark.parametrize(
    ("phrase", "side", "zone", "count", "compares"),
    [
        ("unchanged left effusion", "left", None, None, True),
        ("two nodules in the right upper lobe", "right", "upper", 2, False),
        ("bilateral nodules", "bilateral", None, "several", False),
        ("bibasilar atelectasis", "bilateral", "basal", None, False),
        ("no right pneumothorax, small left effusion", "left", None, None, False),
        ("left lung", "left", None, None, False),
        ("left upper and right lower opacities", "bilateral", None, "several", False),
        ("heart", None, None, None, False),
    ],
)
def test_side_zone_count_and_comparison(
    phrase: str, side: str | None, zone: str | None, count: object, compares: bool
) -> None:
    intent = read_intent(phrase)
    found = (intent.side, intent.zone, intent.count, intent.compares)
    assert found == (side, zone, count, compares)


def test_several_findings_are_split_with_what_is_said_of_each() -> None:
    parts = read_intent("no pneumothorax, small left effusion").parts
    assert [(each.kind, each.subject) for each in parts] == [
        ("absent", "pneumothorax"),
        ("present", "left pleural effusion"),
    ]
    assert read_intent("effusion").parts == ()


def test_typing_errors_are_mended_and_named() -> None:
    intent = read_intent("Left pleural effussion")
    assert intent.text == "Left pleural effusion"
    assert intent.mended == (("effussion", "effusion"),)
    assert read_intent("clavicles").mended == ()


def test_unknown_phrases_come_with_the_nearest_known_words() -> None:
    assert "edema" in read_intent("edemma").nearest
    warning = plan_phrase("edemma", own_language=False).warnings[0]
    assert "nearest known words: edema" in warning


def test_a_model_with_a_language_of_its_own_grounds_unknown_words_with_a_warning() -> None:
    plan = plan_phrase("purple elephant", own_language=True)
    assert (plan.subject, plan.marks, len(plan.warnings)) == ("purple elephant", True, 1)
    denial = plan_phrase("no pneumothorax", own_language=True)
    assert (denial.subject, denial.marks) == ("pneumothorax", False)


@pytest.mark.parametrize("phrase", ["purple elephant", "no pneumothorax", "cardiomegally"])
def test_forced_phrases_are_grounded_as_written(phrase: str) -> None:
    plan = plan_phrase(phrase, own_language=False, forced=True)
    assert (plan.subject, plan.marks, plan.parts) == (phrase, True, ())


def _listed(name: str, separator: str) -> list[list[str]]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [line.split(separator, 1) for line in lines if not line.startswith("#")]


def test_phrases_without_a_finding_are_refused() -> None:
    phrases = [phrase for _, phrase in _listed("phrases_to_refuse.txt", ": ")]
    kept = [phrase for phrase in phrases if read_intent(phrase).kind != "unknown"]
    assert len(phrases) == 101
    assert len(kept) <= 2, kept  # "brain tumour" and "right side"


def test_mistyped_phrases_are_mended() -> None:
    pairs = _listed("phrases_mistyped.txt", " = ")
    missed = [typed for typed, right in pairs if read_intent(typed).text != right]
    assert len(pairs) == 44
    assert len(missed) <= 3, missed  # "plural", "edemma" and "hemidiaphragmm"


def test_no_phrase_of_phantoms_is_refused_or_changed() -> None:
    rng = random.Random(5)
    for query in rng.sample(language.queries(), 300):
        phrase = language.say(query, rng)
        intent = read_intent(phrase)
        assert intent.shows, phrase
        assert not intent.mended, phrase
