"""What is read from report text: hand-labelled sentences, phantom English, and rules by hand."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from typing import Any, cast

import pytest

from cxrg.chest.findings import entries, read_as
from cxrg.chest.places import organ_names, zone_names
from cxrg.phantom import language
from cxrg.reports import Side, Statement, statements
from cxrg.reports.clauses import starts
from cxrg.reports.places import Mark, assign, read
from cxrg.reports.statement import phrase
from cxrg.reports.vocabulary import vocabulary
from tests import report_scores
from tests.report_scores import Label

KNOWN = tuple(read_as())
SIDES: tuple[Side | None, ...] = (None, "left", "right", "bilateral")
REPORT = """EXAM: Portable chest radiograph. INDICATION: Fever, evaluate for pneumonia.
COMPARISON: Radiograph with a right effusion.

FINDINGS: The endotracheal tube ends 4 cm above the carina. There is a small left
pleural  effusion with adjacent atelectasis. No pneumothorax or right
effusion. Heart size is normal.

IMPRESSION:
1. Left effusion.
2. Right basal opacity, likely atelectasis, although pneumonia cannot be excluded.
"""


def labels(text: str) -> list[Label]:
    return report_scores.read(text)


@pytest.mark.parametrize(
    ("part", "precision", "recall"),
    [("dev", 0.98, 0.98), ("held_out", 0.97, 0.97), ("hard", 0.95, 0.94), ("final", 0.91, 0.91)],
)
def test_hand_labelled_sentences_are_read(part: str, precision: float, recall: float) -> None:
    score = report_scores.scores(part, report_scores.whole)["all"]
    assert score.precision >= precision
    assert score.recall >= recall


def test_at_least_two_hundred_sentences_are_labelled() -> None:
    parts = [report_scores.labelled(part) for part in report_scores.PARTS]
    texts = [entry["text"] for part in parts for entry in part]
    assert len(texts) == len(set(texts)) >= 200


def test_scores_count_what_is_missing_and_what_is_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = [
        {"text": "Left effusion.", "expect": [["pleural effusion", "left", None, "present"]]},
        {"text": "No edema.", "expect": [["edema", None, None, "present"]]},
        {"text": "Right edema.", "expect": []},
    ]
    monkeypatch.setattr(report_scores, "labelled", lambda part: entries)
    score = report_scores.scores("dev", report_scores.whole)
    assert (score["all"].right, score["all"].expected, score["all"].made) == (1, 2, 3)
    assert score["absent"].precision == 0
    assert score["present"].recall == pytest.approx(1 / 2)


def test_phantom_english_gives_its_query_back() -> None:
    result = report_scores.phantom(800, seed=3)
    for kind in ("present", "absent"):
        tally = result[kind]
        assert tally["names"] / tally["texts"] >= 0.985
        assert tally["exact"] / tally["texts"] >= 0.94
        assert tally["contradicted"] / tally["texts"] <= 0.005
    assert report_scores.normal_phrases(300) >= 0.93


def test_a_report_is_read_without_its_indication_and_comparison() -> None:
    assert labels(REPORT) == [
        ("endotracheal tube", None, None, "present"),
        ("pleural effusion", "left", None, "present"),
        ("atelectasis", "left", None, "present"),
        ("pneumothorax", None, None, "absent"),
        ("pleural effusion", "right", None, "absent"),
        ("heart", None, None, "normal"),
        ("pleural effusion", "left", None, "present"),
        ("opacity", "right", "basal", "present"),
        ("atelectasis", "right", "basal", "uncertain"),
        ("pneumonia", "right", "basal", "uncertain"),
    ]


def test_spans_are_those_of_the_text_as_given() -> None:
    said = [REPORT[slice(*statement.span)] for statement in statements(REPORT)]
    assert said == [
        "endotracheal tube", "pleural  effusion", "atelectasis", "pneumothorax", "effusion",
        "Heart size", "effusion", "opacity", "atelectasis", "pneumonia",
    ]  # fmt: skip
    second = statements(REPORT)[1]
    assert second.sentence == "There is a small left pleural effusion with adjacent atelectasis."


def test_a_phrase_grounds_what_is_present_or_uncertain() -> None:
    found = statements("Left basal consolidation or mass. No pneumothorax.")
    assert [(s.finding, s.phrase) for s in found] == [
        ("consolidation", "left basal consolidation"),
        ("mass", "left basal mass"),
        ("pneumothorax", None),
    ]
    assert phrase("opacity", "bilateral", "lower") == "bilateral lower lung opacities"
    assert phrase("pleural effusion", "right", "lower") == "right lower pleural effusion"


def test_every_phrase_says_its_own_query() -> None:
    kinds = (*language.concepts("finding"), *language.concepts("device"))
    asked = [query for query in language.queries(sizes=False) if query.concept in kinds]
    assert len(asked) > 300
    for query in asked:
        text = phrase(query.concept, cast(Any, query.side), query.zone)
        assert labels(text) == [(query.concept, query.side, query.zone, "present")], text


@pytest.mark.parametrize("finding", KNOWN)
def test_every_finding_is_read_from_its_own_phrase(finding: str) -> None:
    sides = (None,) if entries()[finding].place == "none" else SIDES
    for side in sides:
        text = phrase(finding, side, None)
        assert labels(text) == [(finding, side, None, "present")], text


def test_the_vocabulary_has_the_phantoms_names() -> None:
    known = set(KNOWN)
    assert known >= {*language.concepts("finding"), *language.concepts("device")}
    assert set(zone_names()) == set(language.ZONES)
    anatomy = set(organ_names()) - {
        "chest",
        "pleura",
        "bones",
        "pulmonary vessels",
        "aorta",
    }
    assert anatomy <= set(language.concepts("anatomy"))


def test_a_diagnosis_has_the_place_of_what_it_explains_and_a_neighbour_has_not() -> None:
    assert labels("Left basal opacity, possible pneumonia.")[1][:3] == (
        "pneumonia",
        "left",
        "basal",
    )
    assert labels("Left basal opacity with adjacent effusion.")[1][1:3] == ("left", None)
    assert labels("Left basal opacity, mild edema.")[1] == ("edema", None, None, "present")


def test_another_side_is_denied_without_saying_the_finding_again() -> None:
    both = [
        ("pleural effusion", "left", None, "present"),
        ("pleural effusion", "right", None, "absent"),
    ]
    assert labels("Effusion on the left but not on the right.") == both
    assert labels("Effusion on the left, none on the right.") == both
    assert labels("No effusion; a left one cannot be excluded.") == [
        ("pleural effusion", None, None, "absent")
    ]


@pytest.mark.parametrize(
    ("text", "certainty"),
    [
        ("No effusion.", "absent"),
        ("Not without effusion.", "present"),
        ("No change in effusion.", "present"),
        ("No increase in effusion.", "present"),
        ("Effusion is not seen.", "absent"),
        ("Effusion has not resolved.", "present"),
        ("Effusion cannot be excluded.", "uncertain"),
        ("Effusion is excluded.", "absent"),
        ("Atelectasis versus effusion.", "uncertain"),
        ("Previously seen effusion has resolved.", "absent"),
        ("No pneumothorax, but a small effusion.", "present"),
        ("No pneumothorax, small effusion.", "present"),
        ("No pneumothorax, large effusion, or edema.", "absent"),
        ("EFFUSION IS SUSPECTED.", "uncertain"),
        ("Evaluate for effusion.", None),
        ("HISTORY: effusion.", None),
    ],
)
def test_certainty(text: str, certainty: str | None) -> None:
    said = [label[3] for label in labels(text) if label[0] == "pleural effusion"]
    assert said == ([] if certainty is None else [certainty])


def test_a_title_ends_with_its_sentence_and_a_silent_section_with_its_paragraph() -> None:
    effusion = [("pleural effusion", None, None, "present")]
    assert labels("EXAM: Chest. Effusion.") == effusion
    assert labels("INDICATION: Edema.\nMass.\n\nEffusion.") == effusion
    assert labels("INDICATION:\n\nEdema.\n\nEffusion.") == effusion
    assert labels("Cardiomegaly with a history: mass") != []


def test_windows_line_ends_and_lists_are_read() -> None:
    assert labels("HISTORY: Edema.\r\n\r\n- Mass.\r\n- No PTX.\r\n") == [
        ("mass", None, None, "present"),
        ("pneumothorax", None, None, "absent"),
    ]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The lungs are clear.", [("lungs", None)]),
        ("The lungs are not clear.", []),
        ("The heart size may be normal.", []),
        ("Normal heart size and clear hila.", [("heart", None), ("hilum", None)]),
        ("The left lung is clear.", [("lung", "left")]),
        ("Normal heart with left lung opacity.", [("heart", None)]),
        ("No acute bony abnormality.", [("bones", None)]),
        ("An abnormality of the ribs.", []),
        ("Unremarkable chest.", [(None, None)]),
        ("Normal.", [(None, None)]),
    ],
)
def test_what_is_called_normal(text: str, normal: list[tuple[str | None, str | None]]) -> None:
    assert [label[:2] for label in labels(text) if label[3] == "normal"] == normal


def test_clauses_begin_where_the_subject_changes() -> None:
    words = ["no", "edema", "is", "seen", "and", "the", "mass", "is", "stable", "but", "small"]
    assert list(starts(words, [(1, 2), (6, 7)], {9}, 0, len(words))) == [4, 9]
    words = ["no", "edema", ",", "mass", "or", "nodule"]
    assert list(starts(words, [(1, 2), (3, 4), (5, 6)], set(), 0, len(words))) == []
    words = ["no", "edema", ",", "small", "mass"]
    assert list(starts(words, [(1, 2), (4, 5)], set(), 0, len(words))) == [2]


def _marks(words: list[str]) -> list[Mark]:
    sides, zones = {"left", "right", "bilateral"}, {"upper", "mid", "lower", "basal"}
    return [
        Mark(
            start=index,
            stop=index + 1,
            side=word if word in sides else None,
            zone=word if word in zones else None,
        )
        for index, word in enumerate(words)
        if word in sides | zones
    ]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("left upper and lower", {("left", "upper"), ("left", "lower")}),
        ("mid and lower zones of the right lung", {("right", "mid"), ("right", "lower")}),
        ("right upper and left lower", {("right", "upper"), ("left", "lower")}),
        ("left lower and right upper", {("left", "lower"), ("right", "upper")}),
        ("left and right", {("bilateral", None)}),
        ("left lower lobe basal", {("left", "basal")}),
        ("lower lobes bilateral", {("bilateral", "lower")}),
    ],
)
def test_words_of_place_are_read_as_places(text: str, places: set[tuple[str, str]]) -> None:
    words = text.split()
    assert set(read(words, _marks(words))) == places


def test_places_go_to_the_finding_they_belong_to() -> None:
    words = re.findall(r"\w+", "small basal F on the right and left upper F with F")
    found = [(index, index + 1) for index, word in enumerate(words) if word == "F"]
    expected = [(("right", "basal"),), (("left", "upper"),), ()]
    assert assign(words, found, _marks(words)) == expected


def test_any_text_is_read_without_an_error() -> None:
    rng = random.Random(11)
    terms = [name for names in read_as().values() for name in names]
    terms += [*vocabulary()["denied"]["before"], *vocabulary()["doubted"]["after"]]
    terms += [
        "left",
        "right",
        "both bases",
        "RLL",
        ",",
        ".",
        "and",
        "but",
        "\n\n",
        "\n",
        "FINDINGS:",
    ]
    terms += ["INDICATION:", "clear", "lungs", "is", "\u00e9\U0001f642", "1.", "\t", "or", "not"]
    terms += [
        "Hx:",
        "Findings -",
        "-",
        "--",
        "\u2014",
        ":",
        "?",
        "(-)",
        "none",
        "(2)",
        "#3",
        "\u2022",
    ]
    terms += ["effsuion", "Rt.", "L.", "kein", "\ud800", "\u00ad", "\u2028", "\ufb01", "withdrawn"]
    for _ in range(300):
        text = " ".join(rng.choices(terms, k=rng.randrange(25)))
        for statement in statements(text):
            _check(text, statement)


def _check(text: str, statement: Statement) -> None:
    start, stop = statement.span
    assert 0 <= start < stop <= len(text)
    assert " ".join(text[start:stop].split()) in statement.sentence
    assert statement.zone is None or statement.zone in language.ZONES
    assert statement.side in (None, *language.SIDES)
    assert (statement.phrase is None) == (statement.certainty in ("absent", "normal"))
    if statement.certainty != "normal":
        assert statement.finding in KNOWN


def test_a_report_of_three_hundred_words_takes_less_than_fifty_milliseconds() -> None:
    text = REPORT * 6
    assert len(text.split()) > 300
    statements(text)
    times = []
    for _ in range(5):
        before = time.process_time()
        statements(text)
        times.append(time.process_time() - before)
    assert min(times) < 0.05


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_it_needs_neither_spacy_nor_torch() -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(('spacy', 'negspacy', 'torch'));"
        "from cxrg.reports import statements; print(statements('no effusion')[0].certainty)"
    )
    assert _python(code).stdout.strip() == "absent"
