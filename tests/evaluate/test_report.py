"""What reports tell of runs with methods that are made up, so that the truth is known."""

from __future__ import annotations

import csv
import json
import math
import sys
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cxrg.errors import InputError
from cxrg.evaluate.datasets import Dataset, read_dataset
from cxrg.evaluate.record import METHOD, Record, parse
from cxrg.evaluate.report.compare import compare
from cxrg.evaluate.report.glossary import glossary
from cxrg.evaluate.report.page import pick
from cxrg.evaluate.report.published import published
from cxrg.evaluate.report.summary import NAMES, Part, summarise_run, verdict, write_csv
from cxrg.evaluate.report.verdict import answers, sentence
from cxrg.evaluate.report.write import finish
from cxrg.evaluate.run import SAMPLES, Settings, run
from cxrg.evaluate.sample import Problem
from tests.fakes.evaluate import Fake, deaf, manifest

SETTINGS = Settings()


@dataclass(frozen=True)
class Made:
    """A finished run of six images with four phrases each, one of them a negative."""

    data: Dataset
    out: Path
    records: list[Record]
    parts: dict[str, Part]


def made(folder: Path, method: Fake) -> Made:
    data = read_dataset(manifest(folder))
    records = run(data, method, SETTINGS, folder / "out")
    return Made(data, folder / "out", records, summarise_run(records))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("good"), Fake())


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("bad"), Fake(deaf))


def test_a_method_that_listens_beats_controls_and_a_deaf_one_does_not(
    good: Made, bad: Made
) -> None:
    part = good.parts["finding"]
    assert part.maps[METHOD]["pointing_game"].micro.value == 1
    beats = verdict(part)["pointing_game"]
    assert beats["shuffled"]
    assert beats["image_only"]
    assert not beats["mean_box_side"], "it is told the side, and all nodules lie alike"
    part = bad.parts["finding"]
    assert part.maps[METHOD]["pointing_game"].micro.value == 0.5
    assert not any(verdict(part)["pointing_game"][name] for name in ("shuffled", "mean_box_side"))
    assert part.beaten["shuffled"]["miou"].value == 0


def test_groups_apart_and_together(good: Made) -> None:
    parts = good.parts
    assert list(parts) == ["all", "finding", "anatomy"]
    assert [(p.positives, p.negatives) for p in parts.values()] == [(18, 6), (12, 6), (6, 0)]
    assert set(parts["all"].maps[METHOD]["miou"].categories) == {"Nodule", "Lungs"}
    micro = parts["all"].maps[METHOD]["miou"].micro.value
    apart = [parts[g].maps[METHOD]["miou"].micro.value for g in ("finding", "anatomy")]
    assert micro == pytest.approx((12 * apart[0] + 6 * apart[1]) / 18)


def test_set_metrics(good: Made, bad: Made) -> None:
    sets = good.parts["finding"].sets
    assert sets["null_accuracy"].value == 1
    assert sets["false_box_rate"].value == 0
    assert sets["presence_auroc"].value == 1
    assert sets["presence_auroc_same_category"].n == 18
    assert sets["laterality_obeyed"].value == 1
    assert sets["laterality_obeyed"].n == 12
    assert sets["f1_30"].value > 0.9
    assert sets["ap50"].n == 18
    deaf_sets = bad.parts["finding"].sets
    assert deaf_sets["laterality_obeyed"].value == 0.5
    assert deaf_sets["f1_30"].value == pytest.approx(0.5)


def test_a_set_of_negatives_only(good: Made, tmp_path: Path) -> None:
    negatives = [record for record in good.records if not record.present]
    parts = finish(negatives, good.data, Fake(), SETTINGS, tmp_path)
    assert parts["all"].maps == {}
    assert parts["all"].sets["null_accuracy"].value == 1
    assert math.isnan(parts["all"].sets["presence_auroc"].value)


class Checker(HTMLParser):
    """Notes tags that are not closed, and everything that would load or run something."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.images += tag == "img"
        for name, value in attrs:
            if name in ("src", "href", "onload", "onerror") and not (value or "").startswith(
                "data:"
            ):
                self.loads.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass


def test_reports(tmp_path: Path) -> None:
    evil = '"<script>alert(1)</script> {} & nodule"'
    text = (
        manifest(tmp_path, patients=2, phrase="@")
        .read_text()
        .replace("@", evil.strip('"').format("left"))
    )
    (tmp_path / "set.csv").write_text(text.replace("Nodule,", "<b>Nodule,"))
    data = read_dataset(tmp_path / "set.csv")
    data.problems.found.append(Problem("<i>kind", "<u>where", "<s>what"))
    out = tmp_path / "out"
    parts = finish(run(data, Fake(), SETTINGS, out), data, Fake(), SETTINGS, out, cases=4)

    report = json.loads((out / "report.json").read_text())
    assert report["schema"] == "cxrg.evaluation/1"
    micro = report["parts"]["all"]["maps"]["method"]["miou"]["micro"]
    assert micro["value"] == pytest.approx(parts["all"].maps[METHOD]["miou"].micro.value, abs=1e-6)
    assert report["counts"]["patients"] == 2
    assert report["problems"]["counts"] == {"<i>kind": 1}
    assert report["published"] == []
    assert str(tmp_path) not in json.dumps(report)

    page = (out / "report.html").read_text()
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.loads == []
    assert checker.images == 4
    for evil_tag in ("<script", "<b>", "<i>", "<u>", "<s>"):
        assert evil_tag not in page
    plots = [part.split("</svg>")[0] for part in page.split("<svg")[1:]]
    assert len(plots) == 3 * 4, "of three groups; no category has both present and absent phrases"
    for plot in plots:
        ElementTree.fromstring(f"<svg{plot}</svg>")

    with (out / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(
        r
        for r in rows
        if (r["part"], r["map"], r["metric"], r["average"]) == ("all", METHOD, "miou", "macro")
    )
    assert float(row["value"]) == pytest.approx(
        parts["all"].maps[METHOD]["miou"].macro.value, abs=1e-6
    )


def test_the_page_gives_the_verdict_first_and_folds_the_rest(good: Made, tmp_path: Path) -> None:
    finish(good.records, good.data, Fake(), SETTINGS, tmp_path, cases=4)
    page = (tmp_path / "report.html").read_text().split("</style>", 1)[1]
    folded = "".join(part.split("</details>")[0] for part in page.split("<details>")[1:])
    order = (
        "The model reads the phrase, is not shown to see the image and partly beats the usual",
        "its map points into the true region for 100% (100% to 100%) of 12 phrases",
        "Does it see the image?",
        "<th>map</th>",
        "same phrase, another patient&#39;s image",
        "<svg",
        "not found if absent",
        "expected calibration error",
        "Best cases",
        "Anatomy: 6 phrases present, 0 absent",
        "Every metric, mean over phrases",
    )
    places = [page.find(text) for text in order]
    assert min(places) >= 0, order[places.index(min(places))]
    assert places == sorted(places)
    for text in ("Every metric, mean over phrases", "contrast, first published code", "sha256"):
        assert text in folded or text not in page
        assert page.count(text) == folded.count(text)
    # The widest table holds one interval a row, and a column for each map.
    assert max(row.count("<td>") for row in page.split("<tr")) == 1 + 9


def test_the_verdict_names_what_is_won(good: Made, bad: Made) -> None:
    reads, sees, beats = answers(good.parts["finding"])
    assert (reads.answer, sees.answer, beats.answer) == ("yes", "no", "partly")
    assert sees.clause == "is not shown to see the image"
    assert "usual place of the category: better by" in beats.detail
    assert answers(bad.parts["finding"])[0].answer != "yes"
    without = summarise_run([replace(r, values=only_method(r)) for r in good.records])["all"]
    assert answers(without) == []
    assert sentence(without).startswith("Its map points into the true region for")
    assert sentence(summarise_run([r for r in good.records if not r.present])["all"]) == ""


def only_method(record: Record) -> dict[str, dict[str, float]]:
    return {name: values for name, values in record.values.items() if name == METHOD}


def test_the_page_says_why_a_control_is_missing(good: Made, tmp_path: Path) -> None:
    alone = replace(good.data, samples=tuple(replace(s, patient="p") for s in good.data.samples))
    records = run(alone, Fake(), SETTINGS, tmp_path)
    finish(records, alone, Fake(), SETTINGS, tmp_path, cases=0)
    page = (tmp_path / "report.html").read_text()
    assert "All images are of one patient" in page
    assert "Does it see the image?" not in page
    assert "The model is not shown to read the phrase" in page, "one patient gives no interval"


def test_glossary_explains_everything_that_is_shown(good: Made) -> None:
    part = good.parts["all"]
    assert set(glossary("maps")) == set(part.maps)
    assert set(glossary("metrics")) == set(NAMES)
    assert set(glossary("sets")) == set(part.sets)
    titles = [
        term.title for name in ("maps", "metrics", "sets") for term in glossary(name).values()
    ]
    assert len(set(titles)) == len(titles)


def test_the_best_and_worst_cases_are_of_the_first_group(good: Made, tmp_path: Path) -> None:
    finish(good.records, good.data, Fake(), SETTINGS, tmp_path, cases=6)
    page = (tmp_path / "report.html").read_text()
    captions = [part.split("<br>")[0] for part in page.split("<figcaption>")[1:]]
    cases = [text for text in captions if "<" not in text and "nodule" in text]
    assert len(cases) == 6
    assert not any(text.startswith("lungs") for text in captions)


def test_spreadsheets_get_no_formula(good: Made, tmp_path: Path) -> None:
    named = [replace(record, category="=HYPERLINK(1)") for record in good.records]
    write_csv(summarise_run(named), tmp_path / "r.csv")
    assert "'=HYPERLINK(1)" in (tmp_path / "r.csv").read_text()
    assert ",=HYPERLINK" not in (tmp_path / "r.csv").read_text()


def test_published_values_only_beside_their_data_set(good: Made, tmp_path: Path) -> None:
    assert published("nih") == []
    known = {(v.family, v.model, v.value) for v in published("ms-cxr")}
    assert ("miou", "BioViL-T", 0.24) in known
    assert ("iou_fg_bg", "Generate to Ground", 0.54) in known
    assert ("miou", "Generate to Ground", 0.54) not in known
    as_ms = replace(good.data, format="ms-cxr")
    finish(good.records, as_ms, Fake(), SETTINGS, tmp_path / "ms", cases=0)
    assert "GLoRIA" in (tmp_path / "ms" / "report.html").read_text()
    told = json.loads((tmp_path / "ms" / "report.json").read_text())["published"]
    assert {value["family"] for value in told} == {"cnr", "miou", "iou_fg_bg"}
    finish(good.records, good.data, Fake(), SETTINGS, tmp_path / "own", cases=0)
    assert "GLoRIA" not in (tmp_path / "own" / "report.html").read_text()


def test_best_and_worst_do_not_overlap(good: Made) -> None:
    records = good.records
    shown = pick(records, 6)
    values = [record.values[METHOD]["miou"] for record in shown]
    assert values == sorted(values, reverse=True)
    positive = sorted(r.values[METHOD]["miou"] for r in records if r.present)
    assert (values[0], values[-1]) == (positive[-1], positive[0])
    few = [record for record in records if record.present][:3]
    assert len({record.id for record in pick(few, 6)}) == len(pick(few, 6)) == 2


def test_record_lines_are_strict_json(good: Made) -> None:
    record = good.records[0]
    odd = replace(record, values={METHOD: {"miou": float("nan")}})
    assert "NaN" not in odd.line()
    assert math.isnan(parse(odd.line()).values[METHOD]["miou"])
    assert parse(record.line()) == record


def test_compare_pairs_samples(good: Made, bad: Made) -> None:
    result = compare(good.out, bad.out)
    point = result.parts["finding"]["pointing_game"]
    assert point.micro.value == 0.5
    assert point.micro.low == point.micro.high == 0.5, "every patient gains the same"
    back = compare(bad.out, good.out).parts["finding"]["pointing_game"]
    assert back.micro.value == -0.5
    assert (result.shared, result.only_a, result.only_b) == (18, 0, 0)
    assert result.warnings == ()
    same = compare(good.out, good.out).parts["all"]["miou"].micro
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_compare_warns_of_unlike_runs(good: Made, tmp_path: Path) -> None:
    moved = replace(good.data.samples[0], phrase="other")
    other = replace(good.data, samples=(moved, *good.data.samples[1:4]))
    run(other, Fake(), Settings(longest=32), tmp_path / "b")
    result = compare(good.out, tmp_path / "b")
    assert (result.shared, result.only_a, result.only_b) == (3, 20, 0)
    assert len(result.warnings) == 3
    with pytest.raises(InputError, match=r"samples\.jsonl"):
        compare(tmp_path, good.out)
    nothing = tmp_path / "c"
    nothing.mkdir()
    (nothing / SAMPLES).write_text("")
    with pytest.raises(InputError, match="in common"):
        compare(good.out, nothing)


def test_the_page_counts_samples_in_words_and_lists_each_option(good: Made, tmp_path: Path) -> None:
    class Optioned(Fake):
        @property
        def facts(self) -> dict[str, object]:
            return {"model": "m", "options": {"steps": 50, "path": "ddim"}}

    finish(good.records, good.data, Optioned(), SETTINGS, tmp_path, cases=0)
    page = (tmp_path / "report.html").read_text()
    assert "<td>24 of 24 samples, 6 images, 6 patients, 6 negatives</td>" in page
    assert "<td>options: steps</td><td>50</td>" in page
    assert "{" not in page.split("</style>")[1].split("</table>")[0]


def test_equal_runs_give_equal_pages(good: Made, tmp_path: Path) -> None:
    for name in ("a", "b"):
        finish(good.records, good.data, Fake(), SETTINGS, tmp_path / name, cases=2)
    first, second = ((tmp_path / name / "report.html").read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_page_without_matplotlib_lacks_its_plots_alone(
    good: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(good.records, good.data, Fake(), SETTINGS, tmp_path / "with", cases=2)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    finish(good.records, good.data, Fake(), SETTINGS, tmp_path / "without", cases=2)
    plotted, plain = ((tmp_path / n / "report.html").read_text() for n in ("with", "without"))
    assert plain.count("install cxrg[plots] for the plots") == plotted.count("<svg") == 18
    assert "<svg" not in plain
    for tag in ("<h2>", "<h3>", "<tr>", "<td>", "<img"):
        assert plain.count(tag) == plotted.count(tag) > 0
