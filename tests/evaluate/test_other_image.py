"""The same phrase on another patient's image: pairs, cost, frames, and what is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrg.errors import InputError, PhraseError, UsageError
from cxrg.evaluate.datasets import Dataset, read_dataset
from cxrg.evaluate.metrics import heatmaps as metrics
from cxrg.evaluate.other_image import OtherImages, partners
from cxrg.evaluate.record import METHOD, Record, parse
from cxrg.evaluate.report.compare import compare
from cxrg.evaluate.report.summary import summarise_run, verdict
from cxrg.evaluate.run import RUN, SAMPLES, Settings, draw_order, run
from cxrg.evaluate.sample import Sample, pseudonym
from cxrg.image.read import CxrImage
from tests.fakes.evaluate import PLACES, SIZE, Answer, Fake, Heat

OTHER = "other_image"


class Sees(Fake):
    """Finds every phrase where its image has a bright square; notes the images that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []

    def ground(self, image: CxrImage, phrases: Sequence[str]) -> list[Answer]:
        self.images.append(image.path.name)
        heat = seen(image.grey)
        found = super().ground(image, phrases)
        return [replace(each, heatmap=heat, boxes=self.boxes(heat)) for each in found]


def seen(grey: Heat) -> Heat:
    heat = np.asarray(cv2.GaussianBlur((grey > 0.9).astype(np.float32), (0, 0), 3), np.float32)
    return heat / heat.max()


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Six patients, each with a bright square on one side that the phrase does not name."""
    rows = ["image,phrase,category,boxes,patient"]
    for i in range(6):
        box = PLACES["left" if i % 2 else "right"]
        picture = np.full((SIZE, SIZE), 50, np.uint8)
        picture[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = 255
        picture[0, 0] = i
        cv2.imwrite(str(tmp_path / f"i{i}.png"), picture)
        rows.append(f'i{i}.png,nodule,Nodule,"[[{box.x0}, {box.y0}, {box.x1}, {box.y1}]]",p{i}')
    (tmp_path / "set.csv").write_text("\n".join(rows) + "\n")
    return read_dataset(tmp_path / "set.csv")


def scored(
    data: Dataset, out: Path, method: Fake | None = None, *, limit: int = 0, seed: int = 0
) -> list[Record]:
    return run(data, method or Sees(), Settings(limit=limit, seed=seed), out)


@pytest.mark.parametrize("seed", range(5))
def test_partners_are_the_nearest_of_another_patient(seed: int) -> None:
    patients = [str(n) for n in np.random.default_rng(seed).integers(0, 3, 12)]
    for i, index in enumerate(partners(patients)):
        before = [k for k in range(i) if patients[k] != patients[i]]
        after = [k for k in range(i, 12) if patients[k] != patients[i]]
        assert index == (before[-1] if before else after[0])


def test_one_patient_has_no_partner() -> None:
    assert partners(["p", "p"]) == [None, None]
    assert partners([]) == []


def test_the_map_is_that_of_the_named_image(data: Dataset, tmp_path: Path) -> None:
    images = {pseudonym(f"i{i}.png"): i for i in range(6)}
    truths = {images[s.image_id]: s.boxes for s in data.samples}
    for record in scored(data, tmp_path / "out"):
        own, other = images[record.image], images[str(record.other_image)]
        assert own != other
        grey = Sees().read(tmp_path / f"i{other}.png").grey
        expected = metrics.score_heatmap(seen(grey), truths[own])
        for name in ("miou", "pointing_game", "auc_roc"):
            assert record.values[OTHER][name] == pytest.approx(expected[name], abs=1e-5), name


def test_only_a_method_that_sees_beats_it(data: Dataset, tmp_path: Path) -> None:
    part = summarise_run(scored(data, tmp_path / "sees"))["all"]
    assert part.beaten[OTHER]["miou"].value > 0.3
    blind = summarise_run(scored(data, tmp_path / "blind", Fake()))["all"]
    assert blind.beaten[OTHER]["miou"].value == pytest.approx(0, abs=1e-6)
    assert not verdict(blind)["miou"][OTHER]


def test_one_image_more_than_there_are_is_grounded(data: Dataset, tmp_path: Path) -> None:
    method = Sees()
    scored(data, tmp_path / "out", method)
    assert len(method.images) == 7
    assert set(method.images) == {f"i{i}.png" for i in range(6)}
    few = Sees()
    scored(data, tmp_path / "few", few, limit=3)
    assert len(few.images) == 4
    assert len(set(few.images)) == 3, "its partners are among those that the limit takes"
    alone = Sees()
    run(data, alone, Settings(controls=False), tmp_path / "alone")
    assert len(alone.images) == 6


def test_the_seed_decides_the_pairs(data: Dataset, tmp_path: Path) -> None:
    first, again, other = (
        [record.other_image for record in scored(data, tmp_path / name, seed=seed)]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again != other


def test_a_run_that_was_cut_or_limited_ends_equal(data: Dataset, tmp_path: Path) -> None:
    whole = scored(data, tmp_path / "whole")
    scored(data, tmp_path / "out", limit=3)
    lines = (tmp_path / "out" / SAMPLES).read_text().splitlines(keepends=True)
    (tmp_path / "out" / SAMPLES).write_text("".join(lines[:2]) + lines[2][:30])
    assert scored(data, tmp_path / "out") == whole


def test_images_of_one_patient_have_no_such_control(data: Dataset, tmp_path: Path) -> None:
    alone = replace(data, samples=tuple(replace(s, patient="p") for s in data.samples))
    records = scored(alone, tmp_path / "out")
    assert all(OTHER not in r.values and r.other_image is None for r in records)
    assert OTHER not in summarise_run(records)["all"].maps


def test_samples_whose_partner_cannot_be_read_are_left_out_of_it(
    data: Dataset, tmp_path: Path
) -> None:
    third = draw_order(data.samples, 0)[2][0].image  # the partner of the fourth alone
    third.write_bytes(b"\x89PNG nothing more")
    records = scored(data, tmp_path / "out")
    assert len(records) == 5
    assert data.problems.counts() == {"cannot be grounded": 1}
    assert sum(OTHER in record.values for record in records) == 4
    part = summarise_run(records)["all"]
    assert (part.maps[OTHER]["miou"].micro.n, part.maps[OTHER]["miou"].micro.undefined) == (4, 1)
    assert part.maps[METHOD]["miou"].micro.n == 5


def test_a_phrase_that_fails_elsewhere_spoils_no_other_image(data: Dataset, tmp_path: Path) -> None:
    class Refuses(Sees):
        def ground(self, image: CxrImage, phrases: Sequence[str]) -> list[Answer]:
            if "too long" in phrases:
                raise PhraseError("a phrase has too many tokens")
            return super().ground(image, phrases)

    last = data.samples[-1]
    long = replace(data, samples=(*data.samples[:-1], replace(last, phrase="too long")))
    single = Settings(controls=False)
    alone = run(long, Refuses(), single, tmp_path / "alone")
    assert len(alone) == 5
    others = [s for s in long.samples if s.id != last.id]
    pairs = OtherImages([[s] for s in long.samples], {last.id}, Refuses(), lambda s: s.image)
    assert pairs.wanted_on(others[-1].image) == ["too long"]
    assert pairs.maps(last.image, Refuses().read(last.image).frame) == {}
    with pytest.raises(InputError):
        Refuses().ground(Refuses().read(last.image), ["too long"])


def test_maps_are_restored_undistorted_where_the_pictures_differ(tmp_path: Path) -> None:
    """A wide picture's map on a tall one: a round blob stays round, and the middle the middle."""
    sizes = {"wide": (64, 128), "tall": (200, 100)}
    samples = []
    for name, size in sizes.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.eye(*size, dtype=np.uint8) * 90)
        samples.append(
            Sample(
                id=name,
                image=tmp_path / f"{name}.png",
                phrase="nodule",
                category="Nodule",
                patient=name,
                boxes=(PLACES["left"],),
            )
        )

    class Round(Fake):
        def ground(self, image: CxrImage, phrases: Sequence[str]) -> list[Answer]:
            height, width = image.grey.shape
            heat = np.zeros((height, width), np.float32)
            middle = width // 2, height // 2
            cv2.circle(heat, middle, 16, 1.0, -1)
            return [Answer(heat, (), "found", 0.5) for _ in phrases]

    method = Round()
    pairs = OtherImages([[s] for s in samples], {"wide", "tall"}, method, lambda s: s.image)
    heat = pairs.maps(samples[1].image, method.read(samples[1].image).frame)["nodule"]
    assert heat.shape == (200, 100)
    rows, columns = np.nonzero(heat > 0.5)
    # 32 of 128 pixels of the square are 50 of 200.
    assert np.ptp(rows) + 1 == pytest.approx(50, abs=3)
    assert np.ptp(columns) + 1 == pytest.approx(50, abs=3)
    assert (rows.mean(), columns.mean()) == pytest.approx((100, 50), abs=2)
    assert np.isfinite(heat).all()
    assert heat[0].max() == 0


def test_a_run_of_the_former_layout_is_refused_and_can_be_compared(
    data: Dataset, tmp_path: Path
) -> None:
    records = scored(data, tmp_path / "out")
    scored(data, tmp_path / "old")
    facts = json.loads((tmp_path / "old" / RUN).read_text())
    del facts["layout"]
    (tmp_path / "old" / RUN).write_text(json.dumps(facts))
    lines = []
    for line in (tmp_path / "old" / SAMPLES).read_text().splitlines():
        fields = json.loads(line)
        del fields["other_image"]
        lines.append(json.dumps(fields) + "\n")
    (tmp_path / "old" / SAMPLES).write_text("".join(lines))
    with pytest.raises(UsageError, match=r"another version of cxrg.*choose another --out"):
        scored(data, tmp_path / "old")
    compared = compare(tmp_path / "out", tmp_path / "old")
    assert compared.shared == len(records)
    assert compared.parts["all"]["miou"].micro.value == 0
    assert parse(lines[0]).other_image is None


def test_what_was_never_seen_is_blank_here_too(data: Dataset, tmp_path: Path) -> None:
    class Half(Sees):
        def ground(self, image: CxrImage, phrases: Sequence[str]) -> list[Answer]:
            found = super().ground(image, phrases)
            for each in found:
                each.heatmap[:, :32] = np.nan
            return found

    record = next(r for r in scored(data, tmp_path / "out", Half()) if r.truth[0][0] < 32)
    assert np.isnan(record.values[OTHER]["auc_roc"]), "all of the truth is where nothing was seen"
    assert record.values[OTHER]["miou"] == 0
