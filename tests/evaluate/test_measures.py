"""Leakage and classification: one network evaluation for both maps, and runs that go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cxrg.anatomy import locate
from cxrg.anatomy.folder import fingerprint
from cxrg.chest.findings import findings
from cxrg.errors import InputError, UsageError
from cxrg.evaluate.datasets import Dataset
from cxrg.evaluate.measures import classification as classify
from cxrg.evaluate.measures import leakage
from cxrg.evaluate.measures.common import MAPS, Measured, reduced, union, write
from cxrg.evaluate.method import LatentDiffusion, Method
from cxrg.evaluate.run import Settings
from cxrg.evaluate.sample import Problems, Sample
from cxrg.geometry import Box
from cxrg.grounding import ground
from cxrg.image.read import CxrImage
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import Options, resolve
from tests.fakes import tiny_models
from tests.fakes.evaluate import SIZE, Answer, Fake, chest

IMAGES = 9
MEASURES: dict[str, Callable[..., Measured]] = {
    "leakage": leakage.measure,
    "classification": classify.measure,
}
both = pytest.mark.parametrize("name", MEASURES)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Nine patients with an opacity on one side; every other one has a nodule, too."""
    samples = []
    for i in range(IMAGES):
        noise = np.random.default_rng(i).integers(20, 200, (SIZE, SIZE), dtype=np.uint8)
        path = tmp_path / f"i{i}.png"
        cv2.imwrite(str(path), noise)
        side = "left" if i % 2 else "right"
        asked = {"Lung Opacity": True, "Nodule": bool(i % 2)}
        samples += [
            Sample(
                id=f"{category} {i}",
                image=path,
                phrase=f"{side} {category.lower()}",
                category=category,
                patient=f"p{i}",
                boxes=(Box(0, 0, 1, 1),) if there else (),
                side=side,
            )
            for category, there in asked.items()
        ]
    return Dataset(name="x", format="manifest", samples=tuple(samples), problems=Problems())


@dataclass
class Noise(Fake):
    """Another map for every image and phrase, none for the first; ``stop`` interrupts that call."""

    stop: int = 0
    images: list[str] = field(default_factory=list)

    def ground(self, image: CxrImage, phrases: Sequence[str]) -> list[Any]:
        self.images.append(image.path.name)
        if len(self.images) == self.stop:
            raise KeyboardInterrupt
        return [self._noise(image, phrase) for phrase in phrases]

    def _noise(self, image: CxrImage, phrase: str) -> Answer:
        seed = hashlib.sha256(f"{image.sha256}{phrase}".encode()).digest()
        heat = np.random.default_rng(list(seed)).random((SIZE, SIZE), np.float32)
        score = float(heat[0, 0])
        if image.path.name == "i0.png":
            heat[:] = np.nan
        return Answer(heat, (), "found", score)


def go(name: str, data: Dataset, out: Path, method: Method, **changes: Any) -> Measured:
    facts = {"source": changes.pop("source", "rectangles")}
    settings = Settings(**changes)
    measured = MEASURES[name](data, {"frozen": method}, chest, settings, out, facts=facts)
    write(measured, data, out)
    return measured


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


@both
def test_an_interrupted_measure_goes_on_to_the_same_bytes(
    name: str, data: Dataset, tmp_path: Path
) -> None:
    whole = Noise()
    expected = go(name, data, tmp_path / "whole", whole)
    assert whole.images == [f"i{i}.png" for i in range(IMAGES)]  # the figure's not again
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        go(name, data, out, Noise(stop=6))
    assert len((out / f"{name}.jsonl").read_text().splitlines()) in (5, 7)
    rest = Noise()
    assert repr(go(name, data, out, rest).tables) == repr(expected.tables)
    assert files(out) == files(tmp_path / "whole")
    missing = {f"i{i}.png" for i in range(5, IMAGES)}
    assert missing <= set(rest.images)
    assert len(rest.images) == len(set(rest.images))
    if name == "classification":
        assert set(rest.images) == missing
    again = Noise()
    go(name, data, out, again)
    assert len(again.images) == (leakage.SHOWN if name == "leakage" else 0)
    assert files(out) == files(tmp_path / "whole")


@both
def test_a_record_that_was_cut_short_is_measured_again(
    name: str, data: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    go(name, data, out, Noise())
    expected = files(out)
    lines = expected[f"{name}.jsonl"].splitlines(keepends=True)
    (out / f"{name}.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:60])
    with pytest.raises(KeyboardInterrupt):
        go(name, data, out, Noise(stop=2))
    go(name, data, out, Noise())
    assert files(out) == expected


@both
def test_a_measure_may_be_made_longer_and_shorter(name: str, data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # Seven samples of the eighteen: one image is cut between its two.
    few = go(name, data, out, Noise(), limit=7)
    fresh = go(name, data, tmp_path / "few", Noise(), limit=7)
    assert repr(few.tables) == repr(fresh.tables)
    every = go(name, data, out, Noise())
    fresh = go(name, data, tmp_path / "every", Noise())
    assert repr(every.tables) == repr(fresh.tables)
    assert {r["id"]: r for r in every.records} == {r["id"]: r for r in fresh.records}
    again = Noise()
    assert repr(go(name, data, out, again, limit=7).tables) == repr(few.tables)
    # What lies beyond the limit is kept.
    kept = (out / f"{name}.jsonl").read_text().splitlines()
    assert len(kept) == len(fresh.records)


@both
def test_another_measurement_is_refused(name: str, data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    go(name, data, out, Noise())
    for key, method, changes in (
        ("readers", Noise(name="other"), {}),
        ("settings", Noise(), {"seed": 1}),
        ("source", Noise(), {"source": "masks"}),
    ):
        with pytest.raises(UsageError, match=rf"another run \({key} differ\).*--out"):
            go(name, data, out, method, **changes)
    two = {"frozen": Noise(), "tuned": Noise()}
    with pytest.raises(UsageError, match="readers differ"):
        MEASURES[name](data, two, chest, Settings(), out, facts={"source": "rectangles"})
    shorter = replace(data, samples=data.samples[1:])
    with pytest.raises(UsageError, match="dataset differ"):
        go(name, shorter, out, Noise())
    (out / f"{name}.run.json").unlink()
    with pytest.raises(UsageError, match="unknown run"):
        go(name, data, out, Noise())


@both
def test_a_spoilt_record_is_refused(name: str, data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    go(name, data, out, Noise())
    text = (out / f"{name}.jsonl").read_text()
    for spoilt in ("{", "[]", '{"id": 1}'):
        (out / f"{name}.jsonl").write_text(f"{spoilt}\n{text}")
        with pytest.raises(InputError, match="line 1"):
            go(name, data, out, Noise())


def test_measures_share_a_folder(data: Dataset, tmp_path: Path) -> None:
    for name in MEASURES:
        go(name, data, tmp_path / "out", Noise())
    assert {f"{name}.html" for name in MEASURES} <= set(files(tmp_path / "out"))


def test_images_without_anatomy_are_told_again(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "i1.png").write_bytes(b"\x89PNG nothing more")
    go("classification", data, tmp_path / "out", Noise())
    told = (tmp_path / "out" / "classification.json").read_bytes()
    assert json.loads(told)["problems"] == {"no anatomy": 1}
    fresh = replace(data, problems=Problems())
    go("classification", fresh, tmp_path / "out", Noise())
    assert (tmp_path / "out" / "classification.json").read_bytes() == told


def test_a_fingerprint_tells_masks_apart(tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    (masks / "a").mkdir(parents=True)
    (masks / "a" / "heart.png").write_bytes(b"12")
    first = fingerprint(masks)
    masks.rename(tmp_path / "moved")
    assert fingerprint(tmp_path / "moved") == first
    (tmp_path / "moved" / "a" / "heart.png").write_bytes(b"123")
    assert fingerprint(tmp_path / "moved") != first


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tiny_models.compact(tmp_path_factory.mktemp("tiny")), device="cpu")


@dataclass(frozen=True)
class Heard(LatentDiffusion):
    """A model, and what was asked of it call by call."""

    calls: list[tuple[CxrImage, list[str]]] = field(default_factory=list)

    def ground(self, image: CxrImage, phrases: Sequence[str]) -> Sequence[Any]:
        self.calls.append((image, list(phrases)))
        return LatentDiffusion.ground(self, image, phrases)


def in_two_passes(method: Heard) -> dict[str, dict[tuple[str, str], Any]]:
    """By map, then image and phrase: each call's phrases read twice, once for each map."""
    plain = replace(method.options, normalise="none", mask="none")
    ways: dict[str, Options] = dict(zip(MAPS, (plain, method.options), strict=True))
    return {
        kind: {
            (image.path.name, found.phrase): found
            for image, phrases in method.calls
            for found in ground(image, phrases, model=method.model, options=options)
        }
        for kind, options in ways.items()
    }


@both
def test_one_evaluation_gives_what_two_gave(
    name: str, data: Dataset, model: Model, tmp_path: Path
) -> None:
    passes: list[int] = []
    count = model.denoiser.register_forward_pre_hook(lambda *_: passes.append(1))
    method = Heard(model=model, options=resolve("fast", model.card.presets, draws=1))
    few = replace(data, samples=data.samples[:4])
    try:
        measured = go(name, few, tmp_path / "out", method)
        once = len(passes)
        twice = in_two_passes(method)
    finally:
        count.remove()
    assert len(method.calls) == 2
    assert once > 0
    assert len(passes) - once == 2 * once
    if name == "leakage":
        assert "leakage" in measured.pictures  # and no evaluation more for it
    image = method.calls[0][0]
    masks = locate(reduced(chest(image)))
    checked = 0
    for record in measured.records:
        stem = f"i{record['id'].split()[-1]}.png"
        for key, expected in _expected(name, record, masks, stem, twice):
            assert key == expected
            checked += 1
    assert checked >= 12


def _expected(
    name: str, record: Any, masks: Any, image: str, maps: Any
) -> list[tuple[float, float]]:
    """What a record says, and what two passes give."""
    pairs = []
    for kind in MAPS:
        if name == "leakage":
            mask = union(masks, record["locations"])
            for side, phrases in record["phrases"].items():
                for form, text in phrases.items():
                    said = record["leak"][f"frozen/{form}/{kind}"][side]
                    pairs.append((said, leakage.leak(maps[kind][image, text].heatmap, mask)))
            continue
        for concept, scores in record["scores"].items():
            mask = union(masks, findings()[concept].plausible)
            found = maps[kind][image, "lung opacity" if concept == "opacity" else concept]
            pairs.append((scores[f"frozen/{kind}"], classify.margin(found.heatmap, mask)))
            pairs.append((scores["frozen/presence"], found.score))
    return pairs
