"""How well the view network separates upright frontal chest X-rays from other pictures.

``python -m tests.benchmarks.view ../shared/data`` prints two tables of shares: how real X-rays are
judged as they are and changed as `cxrg evaluate --measure gate` changes them; and how other
pictures are: photographs and drawings of scikit-image, histology, noise, and every object of the
DICOM corpora of pydicom and pydicom-data that cxrg reads.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrg.anatomy.view import KINDS, SIDE
from cxrg.errors import CxrgError
from cxrg.evaluate.measures.gate import CHANGES, judged
from cxrg.image.read import read_image
from tests.benchmarks.common import markdown

Grey = NDArray[np.float32]

PHOTOGRAPHS = (
    *("astronaut", "camera", "coins", "moon", "page", "text", "clock", "chelsea", "coffee"),
    *("rocket", "brick", "grass", "gravel", "horse", "hubble_deep_field", "cell", "logo"),
    *("checkerboard", "colorwheel", "immunohistochemistry", "microaneurysms"),
)


def read_grey(path: Path) -> Grey:
    """A raster file in [0, 1]."""
    grey = np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.float32)
    return grey / np.float32(255)


def real(data: Path) -> dict[str, list[Path]]:
    """Real frontal X-rays that the network was not trained on, by data set."""
    with (data / "normals/index.csv").open(newline="", encoding="utf-8") as file:
        normals = [data / "normals" / row["file"] for row in csv.DictReader(file)][-500:]
    with (data / "realval/manifest.csv").open(newline="", encoding="utf-8") as file:
        realval = sorted({data / "realval" / row["image"] for row in csv.DictReader(file)})
    with (data / "classed/index.csv").open(newline="", encoding="utf-8") as file:
        classed = [data / "classed" / row["file"] for row in csv.DictReader(file)]
    return {"realval": realval, "classed": classed, "normals held out": normals}


def others(data: Path) -> Iterator[tuple[str, Grey]]:
    """Pictures that are no frontal chest X-ray, with the name of their set."""
    from skimage import data as photographs

    for name in PHOTOGRAPHS:
        try:
            picture = np.asarray(getattr(photographs, name)(), np.float32)
        except (OSError, ImportError):  # some are downloaded
            continue
        grey = picture[..., :3].mean(-1) if picture.ndim == 3 else picture
        yield "scikit-image", grey / max(float(grey.max()), 1.0)
    for path in sorted((data / "monuseg").rglob("*.png")):
        yield "histology", read_grey(path)
    rng = np.random.default_rng(0)
    for scale in range(20):
        noise = cv2.GaussianBlur(rng.random((256, 256)), (0, 0), 0.3 * 1.3**scale)
        yield "noise", ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    for path in corpus():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = read_image(path, side=SIDE)
        except CxrgError:
            continue
        yield "DICOM corpora", np.nan_to_num(image.grey)


def corpus() -> list[Path]:
    """The files of pydicom and pydicom-data."""
    names = ("pydicom.data", "data_store")
    folders = (Path(import_module(name).__file__ or "").parent for name in names)
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def row(name: str, kinds: list[str]) -> list[str]:
    """A line of a table: the number of pictures, and the share of each kind."""
    shares = [f"{kinds.count(kind) / len(kinds):.3f}" for kind in (*KINDS, "negative")]
    return [name, str(len(kinds)), *shares]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder of normals/, realval/ and monuseg/")
    parser.add_argument("--every", type=int, default=1, help="take every Nth X-ray")
    given = parser.parse_args()
    head = ["", "n", *KINDS, "negative"]
    lines = []
    for name, paths in real(given.data).items():
        pictures = [read_grey(path) for path in paths[:: given.every]]
        for name_of_change, change in CHANGES.items():
            rng = np.random.default_rng(0)
            found = [judged(change.make(each, rng)) for each in pictures]
            lines.append(row(f"{name}, {name_of_change}", found))
    print(markdown(head, lines), end="\n\n")
    kinds: dict[str, list[str]] = {}
    for name, picture in others(given.data):
        kinds.setdefault(name, []).append(judged(picture))
    print(markdown(head, [row(name, each) for name, each in kinds.items()]))


if __name__ == "__main__":
    main()
