"""Gate sensitivity: what is made of each image, what is counted, and what the command writes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrg.errors import InputError, UsageError
from cxrg.evaluate.datasets import Dataset, read_dataset
from cxrg.evaluate.measures import gate
from cxrg.evaluate.measures.common import Table
from cxrg.evaluate.metrics.bootstrap import Mean
from cxrg.evaluate.metrics.presence import wilson
from cxrg.evaluate.run import Settings
from cxrg.image.read import CxrImage, read_image
from cxrg.phantom.sample import render
from tests.evaluate.test_command import call

pytestmark = pytest.mark.view
IMAGES = 5


def read(image: Path | CxrImage) -> CxrImage:
    return image if isinstance(image, CxrImage) else read_image(image, side=64)


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), (np.asarray(picture) * 255).round().astype(np.uint8))


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Five phantoms of four patients with two phrases each, the last one upside down."""
    rows = ["image,phrase,category,boxes,patient"]
    for i in range(IMAGES):
        picture = np.asarray(render(i, side=160).image)
        write(tmp_path / f"i{i}.png", picture[::-1] if i == IMAGES - 1 else picture)
        for phrase in ("heart", "left lung"):
            rows.append(f'i{i}.png,{phrase},{phrase},"[[1, 1, 9, 9]]",p{i % 4}')
    (tmp_path / "set.csv").write_text("\n".join(rows) + "\n")
    return read_dataset(tmp_path / "set.csv")


def shares(table: Table, column: int = 2) -> dict[str, Mean]:
    return {str(row[0]): mean for row in table.rows if isinstance(mean := row[column], Mean)}


def test_false_alarms_and_sensitivity(data: Dataset) -> None:
    measured = gate.measure(data, read, Settings())
    kept, refused = measured.tables
    alarms = shares(kept)["as it is"]
    assert alarms.value == 1 / IMAGES, "the one that is upside down"
    assert (alarms.low, alarms.high) == wilson(1 / IMAGES, 4), "of four patients"
    assert alarms.n == len(measured.records) == IMAGES, "an image counts once, not each phrase"
    found = shares(refused)
    assert set(found) | set(shares(kept)) == set(gate.CHANGES)
    for name in ("turned clockwise", "inverted", "twice side by side", "noise instead"):
        assert found[name].value == 1, name
    # Upside down once more is upright: neither refused nor named right.
    assert found["turned by 180 degrees"].value == 1 - 1 / IMAGES
    assert shares(refused, 3)["turned by 180 degrees"].value == 1 - 1 / IMAGES


def test_changes_are_the_same_again_by_seed(data: Dataset) -> None:
    first = gate.measure(data, read, Settings()).records
    assert first == gate.measure(data, read, Settings()).records
    picture = gate.picture_of(read(data.samples[0].image))
    one, again, other = (
        gate.CHANGES["a part"].make(picture, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_pictures_keep_their_physical_shape() -> None:
    grey = np.asarray(render(1, side=200).image, np.float32)
    image = read_image(grey, side=64)
    assert gate.picture_of(image).shape == (200, 200)
    tall = read_image(np.repeat(grey, 5, axis=0), side=64)
    assert gate.picture_of(tall).shape == (512, 102)


def test_other_pictures_of_a_folder(data: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "others"
    rng = np.random.default_rng(0)
    for i in range(3):
        write(folder / f"noise{i}.png", rng.random((90, 90)))
    write(folder / "chest.png", np.asarray(render(9, side=160).image))
    (folder / "notes.txt").write_text("no image")
    (folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    measured = gate.measure(data, read, Settings(), other=folder)
    (share,) = shares(measured.tables[2]).values()
    assert (share.value, share.n) == (0.75, 4)
    assert measured.facts["other files that are no readable image"] == 2


def test_a_folder_without_other_pictures_is_refused(data: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "others"
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match="others: no folder with images; give another"):
        gate.measure(data, read, Settings(), other=folder)


def test_images_that_cannot_be_read_are_counted(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "i1.png").write_bytes(b"\x89PNG nothing more")
    measured = gate.measure(data, read, Settings())
    assert len(measured.records) == IMAGES - 1
    assert data.problems.counts() == {"cannot be read": 1}


def test_from_the_command_line_without_a_model(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxrg.model.load.load", lambda *_, **__: pytest.fail("it loads"))
    out = tmp_path / "out"
    done = call("evaluate", tmp_path / "set.csv", "--measure", "gate", "--out", out)
    assert done.exit_code == 0, done.output
    assert "turned clockwise" in done.stdout
    report = json.loads((out / "gate.json").read_text())
    assert report["schema"] == "cxrg.gate/1"
    row = report["tables"][0]["rows"][0]
    assert row["upright X-rays"] == "as it is"
    assert row["refused"]["value"] == 1 / IMAGES
    page = (out / "gate.html").read_text()
    assert page.count("<svg") == 1
    assert str(tmp_path) not in page
    assert len((out / "gate.jsonl").read_text().splitlines()) == IMAGES


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--other", "."), "--other is for gate"),
        (("--measure", "gate", "--other", "nowhere"), "is no folder"),
        (("--measure", "gate", "--masks", "."), "--masks is for leakage"),
    ],
)
def test_options_that_do_not_fit(
    data: Dataset, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    refusal = call("evaluate", tmp_path / "set.csv", *words)
    assert isinstance(refusal.exception, UsageError)
    assert message in str(refusal.exception)
