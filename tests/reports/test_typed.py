"""Reports as they are typed: fields, numbers, abbreviations, misspellings, signs, languages."""

from __future__ import annotations

import pytest

from cxrg.chest.characters import plain_characters
from cxrg.reports import read, statements
from cxrg.reports.answers import answers
from cxrg.reports.language import is_foreign
from cxrg.reports.sections import passages
from cxrg.reports.spelling import SHORTEST, correct, targets
from cxrg.reports.vocabulary import vocabulary
from tests import report_scores
from tests.report_scores import Label


def labels(text: str) -> list[Label]:
    return report_scores.read(text)


def certainties(text: str) -> list[tuple[str | None, str]]:
    return [(finding, certainty) for finding, _, _, certainty in labels(text)]


@pytest.mark.parametrize("part", ["rough", "blind"])
def test_sentences_typed_in_a_hurry_are_read(part: str) -> None:
    score = report_scores.scores(part, report_scores.whole)["all"]
    assert score.precision >= 0.96
    assert score.recall >= 0.95


@pytest.mark.parametrize(
    ("text", "certainty"),
    [
        ("Mass: no", "absent"),
        ("Mass:none", "absent"),
        ("Mass - nil.", "absent"),
        ("Mass? No.", "absent"),
        ("Mass (-)", "absent"),
        ("Mass = negative", "absent"),
        ("Mass: yes", "present"),
        ("Mass (+)", "present"),
        ("Mass: no change", "present"),
        ("Mass: no significant change.", "present"),
    ],
)
def test_an_answer_no_denies_its_field(text: str, certainty: str) -> None:
    assert certainties(text) == [("mass", certainty)]


def test_an_answer_reaches_no_further_than_its_field() -> None:
    expected = [("mass", "absent"), ("edema", "present"), ("nodule", "absent")]
    assert certainties("Mass: no, edema: yes, nodule: no") == expected
    assert [(a.start, a.stop) for a in answers(["mass", ":", "no", ",", "edema"], 0, 5)] == [(1, 3)]
    assert list(answers(["mass", ":", "no", "edema"], 0, 4)) == []


@pytest.mark.parametrize(
    "text",
    [
        "1.No edema 2.Left nodule",
        "1)No edema. 2) Left nodule",
        "(1) No edema (2) Left nodule",
        "(a) No edema (b) Left nodule",
        "#1 No edema #2 Left nodule",
        "1- No edema 2- Left nodule",
        "\u2022No edema \u2022Left nodule",
        "No edema - left nodule",
        "No edema \u2013 left nodule",
        "No edema\u2014left nodule",
        "No edema -- left nodule",
        "No edema\nLeft nodule",
        "No edema\r\n  Left nodule",
    ],
)
def test_numbers_dashes_and_line_ends_divide_statements(text: str) -> None:
    assert labels(text) == [("edema", None, None, "absent"), ("nodule", "left", None, "present")]


def test_numbers_and_line_ends_within_a_statement_do_not_divide_it() -> None:
    assert [p.text for p in passages("A 2.5 cm nodule, T4. No edema")] == [
        "A 2.5 cm nodule, T4. No edema"
    ]
    assert certainties("No evidence of\nedema or\nNodule.") == [
        ("edema", "absent"),
        ("nodule", "absent"),
    ]
    assert labels("SMALL LEFT PLEURAL\nEFFUSION")[0][1] == "left"


@pytest.mark.parametrize(
    "text",
    [
        "Hx: mass.\nFindings: No edema.",
        "Clinical Info: mass. Findings: No edema.",
        "MEDICAL HISTORY - mass\nFINDINGS - No edema.",
        "No edema. Recommend CT to exclude mass.",
        "No edema. Rotation limits assessment of cardiomegaly.",
        "No edema. A mass cannot be assessed.",
        "No edema. Small nodules may be missed.",
        "No edema. Radiograph to confirm resolution of pneumonia.",
    ],
)
def test_what_is_asked_or_advised_is_not_found(text: str) -> None:
    assert certainties(text) == [("edema", "absent")]


def test_a_cue_of_advice_does_not_hide_what_is_stated() -> None:
    assert certainties("Cannot exclude a mass.") == [("mass", "uncertain")]
    assert certainties("Evaluation of the lungs shows a mass.") == [("mass", "present")]
    assert certainties("CT to ensure resolution of the mass.") == [("mass", "present")]


def test_words_that_weigh_deny_what_they_reject() -> None:
    assert certainties("Doubt edema.") == [("edema", "absent")]
    assert certainties("No doubt about the edema.") == [("edema", "present")]
    assert certainties("Scarring rather than a mass.") == [
        ("scarring", "present"),
        ("mass", "absent"),
    ]
    assert certainties("Without change in the mass.") == [("mass", "present")]
    assert certainties("Without mass.") == [("mass", "absent")]


def test_a_device_moved_by_a_distance_is_still_there() -> None:
    for how in ("2 cm", "1.5 cm", "by 3 cm", "slightly"):
        assert certainties(f"The ET tube was withdrawn {how}.") == [
            ("endotracheal tube", "present")
        ]
    assert certainties("The ET tube was withdrawn.") == [("endotracheal tube", "absent")]


def test_abbreviations_are_read_with_and_without_a_full_stop() -> None:
    expected = [("pneumonia", "right", "lower", "present"), ("mass", "left", None, "present")]
    assert labels("Rt lower lobe PNA, lt mass.") == expected
    assert labels("Rt. lower lobe PNA, Lt. mass.") == expected
    assert labels("R. lower lobe PNA, L. mass.") == expected
    assert labels("No PNA. Left mass.")[1] == ("mass", "left", None, "present")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("nodluar", "nodular"),
        ("effussion", "effusion"),
        ("effusin", "effusion"),
        ("pneumotjorax", "pneumothorax"),
        ("rihgt", "right"),
        ("Wihtout", "without"),
    ],
)
def test_one_edit_is_corrected(typed: str, meant: str) -> None:
    assert [better for better, _, _ in correct(typed)] == [meant]


@pytest.mark.parametrize(
    "word", ["module", "angel", "mask", "light", "hart", "effxxion", "MRI", "nodule"]
)
def test_other_words_stay_as_they_are(word: str) -> None:
    assert list(correct(word)) == []


def test_words_that_stay_are_close_to_known_ones_and_none_of_them() -> None:
    real = vocabulary()["spelling"]["real"]
    assert real == sorted(set(real))
    assert not targets() & set(real)
    assert min(map(len, targets())) == SHORTEST - 1


def test_a_corrected_statement_points_at_the_word_as_typed() -> None:
    text = "Heart  normal.\nSmall\u00a0left effu\u00adssion of 2 cm."
    normal, effusion = statements(text)
    start, stop = effusion.span
    assert text[start:stop] == "effu\u00adssion"
    assert effusion.sentence == "Small left effu\u00adssion of 2 cm."
    assert (effusion.finding, effusion.phrase) == ("pleural effusion", "left pleural effusion")
    assert text[slice(*normal.span)] == "Heart"


def test_typographic_signs_are_those_of_a_keyboard() -> None:
    assert plain_characters("can\u2019t") == ("can't", (0, 1, 2, 3, 4))
    assert plain_characters("a\u2014\ufb01\u00ad\u200bb") == ("a - fib", (0, 1, 1, 1, 2, 2, 5))
    assert plain_characters("a\ud800") == ("a\ufffd", (0, 1))
    assert certainties("A mass can\u2019t be excluded.") == [("mass", "uncertain")]
    assert labels("Left\u2011sided mass.") == [("mass", "left", None, "present")]


@pytest.mark.parametrize(
    "text",
    [
        "Kein Pneumothorax.",
        "Geen pneumothorax.",
        "Sem pneumothorax.",
        "Pas de pneumothorax.",
        "Atelectasis izquierda.",
        "Normale Lunge ohne Pneumothorax.",
        "\u041f\u043d\u0435\u0432\u043c\u043e\u0442\u043e\u0440\u0430\u043a\u0441",
    ],
)
def test_another_language_is_named_and_not_guessed(text: str) -> None:
    found = read(f"Left mass.\n\n{text}\n")
    assert [statement.finding for statement in found.statements] == ["mass"]
    assert found.foreign == ((12, 12 + len(text)),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Pneumothorax.",
        "2 cm",
        "No pneumothorax",
        "A de novo mass.",
        "per CT",
        "Mass in situ, en bloc",
    ],
)
def test_english_is_not_taken_for_another_language(text: str) -> None:
    assert not is_foreign(text)
