"""The lists of findings and places: each name once, each place with its mask, one list for all."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cxrg.anatomy.folder import canonical
from cxrg.chest import findings, places
from cxrg.chest.categories import GROUPS, group_of, place_of
from cxrg.chest.lung import parts_of
from cxrg.chest.names import SIDES, plain
from cxrg.chest.vocabulary import FINDINGS, locations_of, matcher, terms
from cxrg.phantom import grammar
from cxrg.phantom.queries import covers


def repeated(names: list[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


def test_each_label_means_one_finding_or_one_place() -> None:
    labels = [label for entry in findings.entries().values() for label in entry.labels]
    labels += [label for entry in places.entries().values() for label in entry.labels]
    assert repeated(labels) == []
    assert [label for label in labels if label != plain(label)] == []


def test_each_name_of_a_mask_means_one_location() -> None:
    names = [
        mask.format(side=side)
        for entry in places.entries().values()
        for mask in entry.masks
        for side in (SIDES if "{side}" in mask else ("",))
    ]
    assert repeated(names) == []
    assert {canonical(name) for name in names} == set(places.LOCATIONS)
    for location in places.LOCATIONS:
        assert canonical(location.replace(" ", "_").title()) == location


@pytest.mark.parametrize("location", places.LOCATIONS)
def test_each_place_with_a_mask_has_a_rule_for_it(location: str) -> None:
    left, right = np.zeros((2, 100, 100), bool)
    right[10:90, 5:40] = True
    left[10:90, 60:95] = True
    masks = places.locate({"left lung": left, "right lung": right})
    mask = masks[places.LOCATIONS.index(location)]
    assert mask.any()
    if location.startswith("left"):
        assert mask[:, 50:].sum() > mask[:, :50].sum()


def test_the_groups_are_those_of_the_lists() -> None:
    for entry in findings.entries().values():
        for label in entry.labels:
            assert group_of(label) == entry.group in GROUPS
            assert place_of(label) == entry.phrase_place in ("lung", "side", "none")
    for where in places.entries().values():
        for label in where.labels:
            assert (group_of(label), place_of(label)) == ("anatomy", "none")


def test_a_name_in_no_list_is_a_finding_of_the_lung() -> None:
    assert (group_of("Miliary Pattern"), place_of("Miliary Pattern")) == ("finding", "lung")


def test_findings_are_plausible_at_places_with_a_mask() -> None:
    for entry in findings.findings().values():
        assert set(entry.plausible) | set(entry.at) <= set(places.LOCATIONS)
        assert findings.finding_of(entry.labels[0]) == entry


def test_each_name_that_reports_are_read_by_means_one_finding() -> None:
    names = [name.lower() for several in findings.read_as().values() for name in several]
    assert repeated(names) == []
    assert "consolidative opacity" in findings.read_as()["consolidation"]
    assert "infiltrate" in findings.read_as()["infiltrate"]


def test_only_an_opacity_shares_names_with_narrower_findings() -> None:
    owners: dict[str, set[str]] = {}
    for concept, entry in findings.entries().items():
        for name in entry.read:
            owners.setdefault(name.lower(), set()).add(concept)
    shared = {name: its for name, its in owners.items() if len(its) > 1}
    assert shared
    assert all("opacity" in its and len(its) == 2 for its in shared.values()), shared


def test_unread_names_are_names_that_hold_a_name_which_is_read() -> None:
    read = {name for several in findings.read_as().values() for name in several}
    for entry in findings.entries().values():
        first = {next(filter(None, name)) for name in entry.names}
        assert set(entry.unread) <= first
        for name in entry.unread:
            assert any(name.endswith(short) for short in read), name


def test_phantoms_draw_the_names_of_the_list() -> None:
    drawn = grammar.vocabulary()["findings"]
    for concept, entry in drawn.items():
        assert entry["terms"] == findings.entries()[concept].names
        assert entry["place"] == findings.entries()[concept].place
    named = {concept for concept, entry in findings.entries().items() if entry.names}
    assert set(drawn) == named


def test_each_word_for_a_place_means_one_location() -> None:
    words = [plain(word) for several in places.location_words().values() for word in several]
    assert repeated(words) == []
    assert tuple(places.location_words()) == places.LOCATIONS
    for location, several in places.location_words().items():
        assert matcher("locations")(f"{several[0]} nodule")[0].name == location


def test_each_place_has_a_rule_of_its_own() -> None:
    rules = {place.concept: place.rule for place in places.entries().values() if place.rule}
    assert repeated(list(rules.values())) == []
    lung = np.zeros((100, 100), bool)
    lung[10:90, 5:40] = True
    assert set(rules.values()) == set(parts_of(lung, "right")) - {"perihilar"}
    assert (rules["apex"], rules["lung base"]) == ("apical", "basal")


def test_phantoms_say_devices_and_anatomy_in_the_phrases_of_the_lists() -> None:
    drawn = grammar.vocabulary()["fixed"]
    for concept, entry in findings.entries().items():
        assert (concept in drawn and drawn[concept]["kind"] == "device") == bool(entry.phrases)
    anatomy = {each.labels[0]: each for each in places.entries().values() if each.phrases}
    for concept, place in anatomy.items():
        assert drawn[concept]["plain"] == place.phrases["plain"]
        assert drawn[concept]["kind"] == "anatomy"
    assert {name for name, entry in drawn.items() if entry["kind"] == "anatomy"} == set(anatomy)


def test_reports_read_the_phrases_that_phantoms_say() -> None:
    assert "enteric tube" in findings.read_as()["nasogastric tube"]
    assert "cardiac contour" in places.organ_names()["heart"]
    assert "the heart" not in places.organ_names()["heart"]
    assert "apex" not in places.organ_names()
    assert "costophrenic sulcus" in places.zone_names()["costophrenic angle"]


def test_each_name_of_an_organ_means_one_organ() -> None:
    names = [name for several in places.organ_names().values() for name in several]
    assert repeated(names) == []
    assert "lung parenchyma" in places.organ_names()["lungs"]


def test_findings_with_a_template_are_in_alphabetical_order_and_each_term_has_one() -> None:
    assert list(FINDINGS) == sorted(FINDINGS)
    assert len(FINDINGS) == 8
    several = [terms()["findings"][name] for name in FINDINGS]
    assert repeated([plain(term) for words in several for term in words]) == []


def test_what_a_finding_covers_is_a_finding_that_phantoms_name() -> None:
    for entry in findings.entries().values():
        assert set(entry.covers) <= set(findings.findings())
    assert covers("opacity", "pneumonia")
    assert not covers("pneumonia", "opacity")
    assert covers("nodule", "nodule")


def test_the_usual_place_of_a_finding_has_a_mask() -> None:
    for finding in FINDINGS:
        for location in locations_of(finding, "bilateral", None):
            assert location in places.LOCATIONS
    assert locations_of("pneumothorax", "left", None) == ("left apex",)
    assert locations_of("cardiomegaly", "left", "lower") == ("heart",)
