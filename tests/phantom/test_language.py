"""What report language may and must say, checked with word lists of the test's own."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cxrg.errors import UsageError
from cxrg.phantom import grammar, language
from cxrg.phantom.language import Query

LEFT = {"left", "left-sided", "lll", "lul"}
RIGHT = {"right", "right-sided", "rll", "rul", "rml"}
BOTH = {
    "both", "bilateral", "bilaterally", "bibasilar", "bibasal", "bi-basal", "biapical", "bi-apical",
}  # fmt: skip
ONE_SIDED = {"left": LEFT, "right": RIGHT}
ZONE_WORDS = {
    "upper": {"upper", "lul", "rul"},
    "mid": {"mid", "midzone", "midlung", "midlungs", "middle", "lingular", "rml"},
    "lower": {"lower", "lll", "rll"},
    "apical": {"apical", "apex", "apices", "biapical", "bi-apical"},
    "basal": {
        "base", "bases", "basal", "basilar", "bibasilar", "bibasal", "bi-basal",
    },
    "perihilar": {"perihilar", "parahilar", "peri-hilar", "hilum", "hila"},
    "retrocardiac": {"retrocardiac", "retro-cardiac", "behind"},
    "costophrenic angle": {"costophrenic", "cp"},
}  # fmt: skip
CUES = re.compile(
    r"\b(no|not|without|absence|absent|negative|resolved|resolution|cleared|removed|removal)\b",
    re.I,
)
FINDINGS = language.concepts("finding")
EVERY = language.queries(sizes=False)
DRAWS = 40


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9-]+", text.lower())


def faults(query: Query, text: str) -> list[str]:
    """What is wrong with the side or zone of a text about this query."""
    said = set(words(text))
    found = []
    for side, own in ONE_SIDED.items():
        if (query.side == side) != bool(said & own):
            found.append(f"{side} side")
    if (query.side == "bilateral") != bool(said & BOTH):
        found.append("bilateral")
    if query.concept not in FINDINGS:
        return found  # anatomy and devices carry such words in their names
    for zone, own in ZONE_WORDS.items():
        if (query.zone == zone) != bool(said & own):
            found.append(f"{zone} zone")
    return found


def all_texts(query: Query, rng: random.Random) -> Iterator[str]:
    for _ in range(DRAWS):
        yield language.say(query, rng)
        yield language.sentence(query, rng)
        if query.concept in FINDINGS:
            yield language.negate(query, rng)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A copy of the vocabulary that a test may spoil."""
    spoilt = copy.deepcopy(grammar.vocabulary())
    for module in (grammar, language):
        monkeypatch.setattr(module, "vocabulary", lambda: spoilt)
    language._grammar.cache_clear()
    yield spoilt
    language._grammar.cache_clear()


def test_side_and_zone_are_said_if_and_only_if_asked() -> None:
    rng = random.Random(1)
    wrong = [
        (query, text, found)
        for query in EVERY
        for text in all_texts(query, rng)
        if (found := faults(query, text))
    ]
    assert not wrong, wrong[:5]


@pytest.mark.parametrize(
    ("query", "spoil"),
    [
        (
            Query("opacity", "left", "lower"),
            lambda v: v["lung"]["lower"]["before"].append("right lower lobe"),
        ),
        (
            Query("opacity", "right", "lower"),
            lambda v: v["lung"]["lower"]["after"].append("in the lower lung"),
        ),
        (
            Query("nodule", "right", "upper"),
            lambda v: v["lung"]["upper"]["right"].append("RLL"),
        ),
        (
            Query("pneumonia"),
            lambda v: v["findings"]["pneumonia"]["alone"].append("basal pneumonia"),
        ),
        (
            Query("pleural effusion", "bilateral"),
            lambda v: v["pleura"]["none"]["after_both"].append("on the left"),
        ),
        (Query("hilum", "left"), lambda v: v["fixed"]["hilum"]["one"].append("hilar region")),
    ],
)
def test_a_bad_vocabulary_entry_is_caught(
    planted: dict[str, Any], query: Query, spoil: Callable[[dict[str, Any]], None]
) -> None:
    assert not [
        t for _ in range(20) for t in all_texts(query, random.Random(2)) if faults(query, t)
    ]
    language._grammar.cache_clear()
    spoil(planted)
    rng = random.Random(3)
    assert any(faults(query, text) for _ in range(20) for text in all_texts(query, rng))


def test_denials_hold_a_cue_and_phrases_do_not() -> None:
    rng = random.Random(4)
    for query in EVERY:
        if query.concept in language.concepts("anatomy"):
            continue
        for _ in range(10):
            assert CUES.search(language.negate(query, rng)), query
            said = language.say(query, rng)
            # a pneumothorax may be "without tension"
            assert not CUES.search(said.lower().split(" without ")[0]), said


def test_absent_queries_are_denied() -> None:
    rng = random.Random(5)
    query = Query("pleural effusion", "left", size="large", present=False)
    for _ in range(50):
        assert CUES.search(language.say(query, rng))
        assert CUES.search(language.sentence(query, rng))


def test_anatomy_cannot_be_denied() -> None:
    with pytest.raises(UsageError, match="anatomy"):
        language.negate(Query("heart"), random.Random(0))


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (Query("zebra"), "concept 'zebra' is not known.*pneumothorax"),
        (Query("opacity", "middle"), "no side 'middle'"),
        (Query("opacity", "left", "lobar"), "no zone 'lobar'"),
        (Query("opacity", "left", "lower", "huge"), "no size 'huge'"),
        (Query("cardiomegaly", "left"), "no side 'left' here; use one of: none"),
        (Query("opacity", "right", "retrocardiac"), "use one of: left"),
        (Query("pleural effusion", "left", "perihilar"), "no zone 'perihilar'"),
        (Query("heart", zone="upper"), "no zone 'upper'"),
    ],
)
def test_impossible_queries_are_refused(query: Query, says: str) -> None:
    assert not language.sayable(query)
    for speak in (language.say, language.sentence, language.negate):
        with pytest.raises(UsageError, match=says):
            speak(query, random.Random(0))


def test_the_same_seed_says_the_same() -> None:
    def speech(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [*(language.say(query, rng) for query in EVERY), *language.corpus(rng, 50)]

    assert speech(7) == speech(7)
    assert speech(7) != speech(8)


@pytest.mark.parametrize(
    ("query", "terse"),
    [
        (Query("opacity", "left", "lower"), "left lower lung opacity"),
        (Query("opacity", "right"), "right lung opacity"),
        (Query("opacity", "bilateral"), "bilateral lung opacities"),
        (Query("opacity", "bilateral", "mid"), "bilateral mid lung opacities"),
        (Query("opacity"), "lung opacity"),
        (Query("ground-glass opacity", "bilateral"), "bilateral ground glass opacities"),
        (Query("ground-glass opacity", "left"), "left lung ground glass opacity"),
        (Query("consolidation", "bilateral", "lower"), "bilateral lower lung consolidation"),
        (Query("pneumonia", "right"), "right lung pneumonia"),
        (Query("pleural effusion", "left"), "left pleural effusion"),
        (Query("pneumothorax", "right"), "right pneumothorax"),
        (Query("infiltrate"), "infiltrate"),
        (Query("cardiomegaly"), "cardiomegaly"),
        (Query("airways"), "trachea and main bronchi"),
        (Query("heart and mediastinum"), "heart and mediastinum"),
        (Query("lung", "right"), "right lung"),
        (Query("leads"), "monitoring leads"),
    ],
)
def test_plain_phrases_are_common(query: Query, terse: str) -> None:
    rng = random.Random(9)
    said = [language.say(query, rng).lower().rstrip(".") for _ in range(2000)]
    assert said.count(terse) > 0.04 * len(said)


def test_terse_forms_are_about_four_in_ten() -> None:
    rng = random.Random(10)
    form = re.compile(r"(left|right) (lower|mid|upper) lung \w+( \w+)?$")
    asked = [q for q in EVERY if q.concept in ("opacity", "pneumonia", "infiltrate")]
    asked = [q for q in asked if q.side in ONE_SIDED and q.zone in ("upper", "mid", "lower")]
    said = [language.say(query, rng).lower().rstrip(".") for query in asked for _ in range(200)]
    share = sum(bool(form.match(text)) for text in said) / len(said)
    assert 0.35 < share < 0.55


def test_there_are_many_ways_to_say_it() -> None:
    rng = random.Random(11)
    for concept in FINDINGS:
        side = None if concept == "cardiomegaly" else "left"
        said = {language.say(Query(concept, side), rng).lower().rstrip(".") for _ in range(3000)}
        assert len(said) > (15 if concept == "cardiomegaly" else 100), concept
    said = {language.say(Query("opacity", "left", "lower"), rng).lower() for _ in range(3000)}
    assert len(said) > 900
    assert {"opacity in the left lower lobe", "lll opacity"} <= said
    assert any("airspace disease" in text for text in said)


def test_sizes_are_said_in_about_half() -> None:
    rng = random.Random(12)
    sized = {"small", "tiny", "trace", "minimal", "slight"}
    query = Query("pleural effusion", "right", size="small")
    said = [bool(sized & set(words(language.say(query, rng)))) for _ in range(2000)]
    assert 0.35 < sum(said) / len(said) < 0.65
    unsized = Query("pleural effusion", "right")
    assert not any(sized & set(words(language.say(unsized, rng))) for _ in range(500))


def test_english_is_tidy() -> None:
    rng = random.Random(13)
    for text in language.corpus(rng, 20_000):
        assert text == text.strip()
        assert not re.search(r"  | [.,]|\.\.|\{|\}", text), text
        assert not re.search(r"\b(\w+) \1\b", text.lower().replace("-", "")), text
        assert not re.search(r"\ban? (a|an|the|both)\b|\ba [aeio]|\ban [bcdfgjkpqtvwz]", text), text
        assert text.isascii()


def test_casing_and_full_stops_vary() -> None:
    rng = random.Random(14)
    said = [language.say(Query("opacity", "left"), rng) for _ in range(2000)]
    assert 0.7 < sum(text[0].islower() for text in said) / len(said) < 0.9
    assert 0.05 < sum(text.endswith(".") for text in said) / len(said) < 0.15
    told = [language.sentence(Query("opacity", "left"), rng) for _ in range(200)]
    assert all(text.endswith(".") and not text[0].islower() for text in told)


def test_normal_reports_name_no_abnormality_as_present() -> None:
    rng = random.Random(15)
    said = {language.normal(rng).lower().rstrip(".") for _ in range(2000)}
    assert len(said) > 50
    names = re.compile(r"opacit|consolidation|pneumonia|effusion|pneumothorax|nodule|edema")
    assert not [text for text in said if names.search(text)]


def test_corpus_mixes_all_kinds() -> None:
    texts = list(language.corpus(random.Random(16), 4000))
    assert len(texts) == 4000
    assert len(set(texts)) > 2500
    denied = sum(bool(CUES.search(text)) for text in texts) / len(texts)
    assert 0.1 < denied < 0.4
    for needle in ("oedema", "edema", "GGO", "hemidiaphragm", "pacemaker", "bibasilar", "RML"):
        assert any(needle in text for text in texts), needle
