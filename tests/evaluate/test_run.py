"""Runs from label file to reports with methods that are made up, so that the truth is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxrg.errors import InputError, UsageError
from cxrg.evaluate.controls import MAP_CONTROLS, OTHER_IMAGE
from cxrg.evaluate.datasets import Dataset, read_dataset
from cxrg.evaluate.metrics import heatmaps as metrics
from cxrg.evaluate.record import METHOD, Record, as_boxes, load
from cxrg.evaluate.report.summary import summarise_run, verdict
from cxrg.evaluate.run import SAMPLES, Settings, laterality_hit, reduce, run
from cxrg.image.read import CxrImage
from tests.fakes.evaluate import PLACES, SIZE, Answer, Fake, blob, manifest

SETTINGS = Settings()


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Three images with four phrases each, one of them a negative."""
    return read_dataset(manifest(tmp_path, patients=3))


def records_of(data: Dataset, out: Path, method: Fake | None = None) -> list[Record]:
    return run(data, method or Fake(), SETTINGS, out)


def test_every_phrase_of_an_image_goes_in_one_call(data: Dataset, tmp_path: Path) -> None:
    method = Fake()
    records = records_of(data, tmp_path / "out", method)
    # The phrases of the first image are asked on another's, too, before that one's turn.
    assert len(method.calls) == 3 + 1
    assert all(len(set(phrases)) == len(phrases) for phrases in method.calls)
    own = {sample.phrase for sample in data.samples[:4]}
    assert any(own <= set(phrases) for phrases in method.calls)
    assert [record.id for record in records] == [sample.id for sample in data.samples]


def test_records_hold_what_the_metrics_say(data: Dataset, tmp_path: Path) -> None:
    record = records_of(data, tmp_path / "out")[0]
    box = PLACES["left"]
    expected = metrics.score_heatmap(blob(box), [box])
    for name, value in expected.items():
        assert record.values[METHOD][name] == pytest.approx(value, abs=1e-6), name
    assert set(record.values) == {METHOD, *MAP_CONTROLS, "shuffled", "image_only", OTHER_IMAGE}
    assert record.area == pytest.approx(16 * 20 / SIZE**2)
    assert as_boxes(record.truth) == (box,)
    best = max(found.iou(box) for found in as_boxes(record.boxes[METHOD]))
    assert record.values[METHOD]["box_iou"] == pytest.approx(best)
    assert record.shuffled_phrase != record.phrase
    other = blob(next((b for s, b in PLACES.items() if s in str(record.shuffled_phrase)), None))
    assert record.values["shuffled"]["miou"] == pytest.approx(metrics.miou(other, [box]))
    assert record.sweep[METHOD][9] == pytest.approx(metrics.iou_at(blob(box), [box], [0.5])[0])
    assert (record.group, record.side, record.status) == ("finding", "left", "found")


def test_negatives_have_scores_but_no_localisation(data: Dataset, tmp_path: Path) -> None:
    record = next(r for r in records_of(data, tmp_path / "out") if not r.present)
    assert record.values == {}
    assert (record.status, record.score, record.laterality_hit) == ("not found", 0.1, None)


def test_blank_pixels_are_blank_for_controls_too(data: Dataset, tmp_path: Path) -> None:
    method = Fake(blank_columns=32)
    record = next(
        r for r in run(data, method, SETTINGS, tmp_path / "out") if r.phrase.startswith("right")
    )
    # All of the truth lies where the method never looked, so nothing is defined to contrast.
    assert all(math.isnan(values["auc_roc"]) for values in record.values.values())
    assert all(values["miou"] == 0 for values in record.values.values())
    zero = Settings(outside="zero")
    record = next(
        r for r in run(data, method, zero, tmp_path / "zero") if r.phrase.startswith("right")
    )
    assert record.values["uniform"]["auc_roc"] < 0.5


def test_without_controls(data: Dataset, tmp_path: Path) -> None:
    method = Fake()
    records = run(data, method, Settings(controls=False), tmp_path / "out")
    assert set(records[0].values) == {METHOD}
    assert len(method.calls[0]) == 4
    assert verdict(summarise_run(records)["all"])["miou"] == {}


def test_a_method_without_a_start_token_has_no_image_only_control(
    data: Dataset, tmp_path: Path
) -> None:
    records = records_of(data, tmp_path / "out", Fake(bare=False))
    assert "image_only" not in records[0].values
    assert "image_only" not in summarise_run(records)["all"].maps


def test_a_run_goes_on_where_it_was_cut(data: Dataset, tmp_path: Path) -> None:
    whole = records_of(data, tmp_path / "whole")
    out = tmp_path / "out"
    records_of(data, out)
    lines = (out / SAMPLES).read_text().splitlines(keepends=True)
    # Cut in the middle of the sixth sample, which is the second of the second image.
    (out / SAMPLES).write_text("".join(lines[:5]) + lines[5][:40])
    method = Fake()
    assert records_of(data, out, method) == whole
    assert len(method.calls) == 2 + 1, "and the second image's phrases on the first's"
    assert sorted((out / SAMPLES).read_text().splitlines()) == sorted(
        line.rstrip("\n") for line in lines
    )
    again = Fake()
    records_of(data, out, again)
    assert again.calls == []


def test_any_text_outlasts_a_cut(tmp_path: Path) -> None:
    # Ends of a line to Unicode, none to JSON; and a letter of two bytes, cut between them.
    data = read_dataset(manifest(tmp_path, patients=2, phrase="{} n\u2028\x85 n\u00f6dule"))
    out = tmp_path / "out"
    records = records_of(data, out)
    text = (out / SAMPLES).read_bytes()
    assert load(out / SAMPLES) == records
    (out / SAMPLES).write_bytes(text[: text.rindex("\u00f6".encode()) + 1])
    method = Fake()
    assert records_of(data, out, method) == records
    assert len(method.calls) == 1 + 1
    assert (out / SAMPLES).read_bytes() == text


def test_an_interrupted_run_keeps_its_images(data: Dataset, tmp_path: Path) -> None:
    class Stops(Fake):
        def ground(self, image: CxrImage, phrases: Sequence[str]) -> list[Answer]:
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().ground(image, phrases)

    with pytest.raises(KeyboardInterrupt):
        run(data, Stops(), SETTINGS, tmp_path / "out")
    assert len(load(tmp_path / "out" / SAMPLES)) == 4


def test_another_run_is_refused(data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    records_of(data, out)
    with pytest.raises(UsageError, match=r"method differ.*--out"):
        records_of(data, out, Fake(name="other"))
    with pytest.raises(UsageError, match="settings"):
        run(data, Fake(), Settings(outside="zero"), out)
    shorter = replace(data, samples=data.samples[1:])
    with pytest.raises(UsageError, match="dataset"):
        records_of(shorter, out)
    (out / "run.json").unlink()
    with pytest.raises(UsageError, match="unknown run"):
        records_of(data, out)


def test_another_image_or_spelling_is_another_run(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, image = tmp_path / "out", tmp_path / "i1.png"
    records_of(data, out)
    before = image.read_bytes()
    swapped = (tmp_path / "i2.png").read_bytes()
    image.write_bytes(swapped)
    with pytest.raises(UsageError, match="dataset differ"):
        records_of(data, out)
    # One bit of the pixels of a file that keeps its size.
    image.write_bytes(before[:2000] + bytes([before[2000] ^ 1]) + before[2001:])
    with pytest.raises(UsageError, match="dataset differ"):
        records_of(data, out)
    image.write_bytes(before)
    records_of(data, out)
    with monkeypatch.context() as patched:
        patched.setattr("cxrg.evaluate.resume.normalise", str.upper)
        with pytest.raises(UsageError, match="dataset differ"):
            records_of(data, out)
    for change in ({"space": (64.0, 64.5)}, {"zone": "upper"}):
        changed = (replace(data.samples[0], **change), *data.samples[1:])
        with pytest.raises(UsageError, match="dataset differ"):
            records_of(replace(data, samples=changed), out)


def test_a_moved_data_set_is_the_same_run(data: Dataset, tmp_path: Path) -> None:
    out, moved = tmp_path / "out", tmp_path / "elsewhere"
    records_of(data, out)
    moved.mkdir()
    for path in (*tmp_path.glob("*.png"), tmp_path / "set.csv"):
        path.rename(moved / path.name)
    method = Fake()
    assert len(records_of(read_dataset(moved / "set.csv"), out, method)) == len(data.samples)
    assert method.calls == []


def test_a_spoilt_line_is_refused(data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    records_of(data, out)
    text = (out / SAMPLES).read_text()
    (out / SAMPLES).write_text('{"id": 1}\n' + text)
    with pytest.raises(InputError, match="line 1"):
        records_of(data, out)


def test_limit_takes_a_seeded_draw_and_can_grow(data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    few = run(data, Fake(), Settings(limit=5), out)
    assert len(few) == 5
    assert few == run(data, Fake(), Settings(limit=5), tmp_path / "again")
    other = run(data, Fake(), Settings(limit=5, seed=1), tmp_path / "seed")
    assert [r.id for r in other] != [r.id for r in few]
    more = run(data, Fake(), Settings(limit=9), out)
    assert len(more) == 9
    assert {r.id: r for r in few}.items() <= {r.id: r for r in more}.items()


def test_unreadable_images_are_counted_and_strict_stops(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "i1.png").write_bytes(b"\x89PNG nothing more")
    records = records_of(data, tmp_path / "out")
    assert len(records) == len(data.samples) - 4
    assert data.problems.counts() == {"cannot be grounded": 4}
    strict = replace(data, problems=replace(data.problems, strict=True))
    with pytest.raises(InputError, match=r"set\.csv row \d+: cannot be grounded: "):
        records_of(strict, tmp_path / "strict")


def test_images_of_other_proportions_are_counted(data: Dataset, tmp_path: Path) -> None:
    bent = replace(data, samples=(replace(data.samples[0], space=(64.0, 90.0)), *data.samples[1:]))
    assert len(records_of(bent, tmp_path / "out")) == len(data.samples) - 1
    assert data.problems.counts() == {"image of other proportions": 1}


def test_nothing_to_score_is_an_error(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sample"):
        records_of(replace(data, samples=()), tmp_path / "out")


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="exclude or zero"):
        Settings(outside="drop")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 16"):
        Settings(longest=8)
    with pytest.raises(UsageError, match="limit"):
        Settings(limit=-1)


def test_scores_at_reduced_resolution(data: Dataset, tmp_path: Path) -> None:
    record = run(data, Fake(), Settings(longest=32), tmp_path / "out")[0]
    half = PLACES["left"]
    box = type(half)(half.x0 / 2, half.y0 / 2, half.x1 / 2, half.y1 / 2)
    assert record.values[METHOD]["miou"] == pytest.approx(
        metrics.miou(reduce(blob(half), 32), [box]), abs=1e-6
    )
    assert record.shape == (64, 64)
    assert as_boxes(record.truth) == (half,)


def test_reduce_keeps_blanks_and_means() -> None:
    heat = np.arange(16, dtype=np.float32).reshape(4, 4)
    heat[:, :2] = np.nan
    small = reduce(heat, 2)
    assert np.isnan(small[:, 0]).all()
    np.testing.assert_allclose(small[:, 1], [np.mean([2, 3, 6, 7]), np.mean([10, 11, 14, 15])])
    assert reduce(heat, 0) is heat
    assert reduce(heat, 9) is heat


def test_laterality_is_the_patients() -> None:
    assert laterality_hit(blob(PLACES["left"]), "left nodule") == 1
    assert laterality_hit(blob(PLACES["left"]), "right nodule") == 0
    assert laterality_hit(blob(PLACES["left"]), "nodule") is None
    assert laterality_hit(np.ones((4, 4), np.float32), "left nodule") == 0.5
    assert laterality_hit(np.ones((4, 5), np.float32), "left nodule") == pytest.approx(0.4)
