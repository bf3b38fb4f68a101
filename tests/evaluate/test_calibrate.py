"""Calibration fitted to runs, against scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from cxrg.cli import app
from cxrg.errors import InputError, UsageError
from cxrg.evaluate.calibrate import LabelledScore, calibrate, fit
from cxrg.model.calibration import logit
from cxrg.model.checkpoint.identity import with_calibration

OPTIONS = {"timesteps": [100], "sigma": 0.03, "threshold": 0.4}


def samples(count: int = 400) -> list[LabelledScore]:
    """Two findings with different scores, and one that is never there."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(count):
        concept = ("edema", "mass", "emphysema")[index % 3]
        present = bool(rng.random() < {"edema": 0.5, "mass": 0.2, "emphysema": 0.0}[concept])
        middle = {"edema": 0.3, "mass": 0.6, "emphysema": 0.8}[concept]
        score = float(np.clip(rng.normal(middle + 0.15 * present, 0.15), 0, 1))
        terms = (concept, f"upper {concept}") if index % 2 else (concept,)
        found.append(LabelledScore(terms=terms, score=score, present=present))
    return found


def test_the_fit_equals_a_weighted_logistic_regression() -> None:
    some = samples()
    found = fit(some, options={}, fitted_on="")
    terms = sorted({term for each in some for term in each.terms})
    features = np.array(
        [[logit(each.score), *(name in each.terms for name in terms)] for each in some]
    )
    there = np.array([each.present for each in some])
    weights = np.ones(len(some))
    for name in ("edema", "mass"):
        own = np.array([each.terms[0] == name for each in some])
        for present in (True, False):
            rows = own & (there == present)
            weights[rows] = own.sum() / (2 * rows.sum())
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
    theirs.fit(features, there, sample_weight=weights)
    expected = theirs.predict_proba(features)[:, 1]
    ours = [found.probability(each.score, each.terms) for each in some]
    assert np.abs(expected - ours).max() < 1e-3


def test_a_finding_that_is_never_there_needs_a_higher_score() -> None:
    found = fit(samples(), options={}, fitted_on="")
    needed = {name: found.score(0.5, [name]) for name in found.offsets}
    assert needed["emphysema"] > needed["mass"] > needed["edema"]


def test_a_term_that_healthy_images_were_hardly_asked_has_no_offset() -> None:
    rare = [LabelledScore(terms=("mass", "perihilar mass"), score=0.9, present=True)] * 3
    few = [LabelledScore(terms=("mass", "perihilar mass"), score=0.1, present=False)] * 9
    found = fit([*samples(), *rare, *few], options={}, fitted_on="")
    assert "perihilar mass" not in found.offsets
    assert "upper mass" in found.offsets
    enough = fit([*samples(), *rare, *few, few[0]], options={}, fitted_on="")
    assert "perihilar mass" in enough.offsets


def test_what_cannot_be_fitted_is_refused() -> None:
    there = [each for each in samples() if each.present]
    with pytest.raises(InputError, match="findings that are there and findings that are not"):
        fit(there, options={}, fitted_on="")
    upside_down = [
        LabelledScore(terms=("mass",), score=0.7 - 0.4 * each.present, present=each.present)
        for each in samples()
    ]
    with pytest.raises(InputError, match="nothing to calibrate"):
        fit(upside_down, options={}, fitted_on="")


def write_run(folder: Path, some: list[LabelledScore], **options: object) -> Path:
    """A run's folder with these samples, in `cxrg evaluate`'s layout."""
    folder.mkdir()
    method = {"identity": "sha256:0", "options": {**OPTIONS, **options}}
    facts = {"dataset": {}, "settings": {}, "method": method}
    (folder / "run.json").write_text(json.dumps(facts), "utf-8")
    blank: dict[str, object] = {
        "side": None, "zone": None, "shape": [8, 8], "area": 0.0, "status": "found", "truth": [],
        "laterality_hit": None, "shuffled_phrase": None, "boxes": {"method": []}, "values": {},
        "sweep": {}, "warnings": [], "group": "finding",
        "patient": "p",
    }  # fmt: skip
    lines = [
        {
            "id": str(i),
            "image": f"{i}",
            "phrase": f"left {each.terms[-1]}",
            "category": each.terms[0],
            **blank,
        }
        | {"present": each.present, "score": each.score}
        for i, each in enumerate(some)
    ]
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", "utf-8")
    return folder


def test_a_calibrated_model_can_be_calibrated_again(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", samples()[:200])
    b = write_run(tmp_path / "b", samples()[200:])
    facts = json.loads((b / "run.json").read_text("utf-8"))
    facts["method"]["identity"] = with_calibration("sha256:0", {"slope": 1.0})
    (b / "run.json").write_text(json.dumps(facts), "utf-8")
    assert facts["method"]["identity"] != "sha256:0"
    assert len(calibrate([a, b], fitted_on="")[1]) == 400


def test_runs_of_other_scores_are_not_joined(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", samples()[:200])
    b = write_run(tmp_path / "b", samples()[200:], threshold=0.9)
    found, some = calibrate([a, b], fitted_on="two runs")
    assert len(some) == 400
    assert found == fit(some, options={"timesteps": [100], "sigma": 0.03}, fitted_on="two runs")
    c = write_run(tmp_path / "c", samples(), sigma=0.1)
    with pytest.raises(UsageError, match=r"a and .*c are runs of different models or options"):
        calibrate([a, c], fitted_on="")


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"[1]",
        b"\xff\xfe",
        b'{"x": 1}',
        b'{"dataset": {}, "settings": {}, "method": {}}',
        b'{"dataset": {}, "settings": {}, "method": {"options": null}}',
        b'{"method": {"options": {}}}',
    ],
)
def test_a_damaged_run_is_named(tmp_path: Path, damaged: bytes) -> None:
    from cxrg.evaluate.report.compare import compare

    run = write_run(tmp_path / "run", samples())
    (run / "run.json").write_bytes(damaged)
    for use in (lambda: calibrate([run], fitted_on=""), lambda: compare(run, run)):
        with pytest.raises(InputError, match=r"run holds no readable run\.json"):
            use()


def test_a_run_with_an_adapter_does_not_calibrate_the_model(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples())
    facts = json.loads((run / "run.json").read_text("utf-8"))
    facts["method"]["adapter"] = "lora"
    (run / "run.json").write_text(json.dumps(facts), "utf-8")
    with pytest.raises(UsageError, match="give runs without --adapter"):
        calibrate([run], fitted_on="")


def test_the_command_writes_the_card_and_keeps_its_other_facts(tmp_path: Path) -> None:
    from cxrg.model.card import read_card

    run = write_run(tmp_path / "run", samples())
    card = tmp_path / "cxrg.json"
    card.write_text(json.dumps({"name": "mine", "side": 64}), "utf-8")
    done = CliRunner().invoke(app, ["calibrate", str(run), "--card", str(card)])
    assert done.exit_code == 0, done.output
    assert "emphysema" in done.output
    read = read_card(tmp_path)
    assert read is not None
    assert (read.side, read.presence["fitted_on"]) == (64, "run")
    assert read.presence["slope"] > 0
    card.write_text("[]", "utf-8")
    done = CliRunner().invoke(app, ["calibrate", str(run), "--card", str(card)])
    assert done.exit_code == 3
    assert card.read_text("utf-8") == "[]"


def test_an_evaluation_judges_by_presence_where_it_is_calibrated(tmp_path: Path) -> None:
    from dataclasses import replace

    from cxrg.evaluate.report.presence import presence_of
    from cxrg.evaluate.run import read_records

    plain = read_records(
        write_run(tmp_path / "run", [s for s in samples() if s.terms[0] == "mass"])
    )
    certain = [replace(record, presence=float(record.present)) for record in plain]
    before, after = presence_of(plain), presence_of(certain)
    assert before.both is not None
    assert after.both is not None
    assert before.both.auroc.value < 0.9 < 1.0 == after.both.auroc.value


def test_what_is_absent_counts_only_where_nothing_is_present(tmp_path: Path) -> None:
    from dataclasses import replace

    from cxrg.evaluate.calibrate import labelled_scores
    from cxrg.evaluate.run import read_records

    there, elsewhere, healthy = (
        replace(record, image=image, phrase=phrase, present=present)
        for record, image, phrase, present in zip(
            read_records(write_run(tmp_path / "run", samples(3))),
            ("ill", "ill", "well"),
            ("left edema", "right edema", "right edema"),
            (True, False, False),
            strict=True,
        )
    )
    heart = replace(there, image="well", phrase="heart")  # no finding, and always there
    counted = labelled_scores([there, elsewhere, healthy, heart])
    assert [each.present for each in counted] == [True, False]
    assert [each.score for each in counted] == [there.score, healthy.score]
