"""``cxrg export``: a whole folder as one file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from faster_coco_eval import COCO  # type: ignore[import-untyped]  # has no types

from cxrg.errors import InputError
from tests.cli.test_ground import Library, Run, library, lines_of, place, run, tiny
from tests.fakes.batch import draw

__all__ = ["library", "place", "run", "tiny"]  # fixtures


def test_a_run_becomes_one_file(run: Run, library: Library, place: Path) -> None:
    draw(Path("b.png"), seed=2)
    arguments = ("ground", "DOE^JANE.png", "b.png", "-p", "=heart", "-p", "left lung", "--json")
    code, out, _ = run(*arguments)
    lines = lines_of(out)
    assert (code, len(lines)) == (0, 4)
    wrote = {}
    for to, name in (("coco", "coco.json"), ("csv", "results.csv")):
        code, out, err = run("export", "cxrg-out", "--to", to)
        assert (code, out.strip(), err) == (0, f"cxrg-out/{name}", "")
        wrote[to] = Path("cxrg-out", name).read_bytes()
        assert b"DOE" not in wrote[to]
        run("export", "cxrg-out", "--to", to, "--out", f"again/{name}")
        assert Path("again", name).read_bytes() == wrote[to]
    read = COCO("cxrg-out/coco.json")
    boxes = [box for line in lines for box in line["boxes"]]
    assert len(read.anns) == len(boxes) > 0
    assert len(read.imgs) == 2
    assert {each["name"] for each in read.cats.values()} == {"=heart", "left lung"}
    rows = list(csv.DictReader(wrote["csv"].decode().splitlines()))
    assert len(rows) == len(boxes)
    assert {row["phrase"] for row in rows} == {"'=heart", "left lung"}
    assert {row["file"] for row in rows} == {Path(line["files"]["json"]).stem for line in lines}
    assert json.loads(wrote["coco"])["info"]["description"].endswith("not for diagnosis")


def test_a_folder_without_a_run_is_one_line(run: Run, place: Path) -> None:
    code, out, err = run("export", ".", "--to", "csv")
    assert (code, out) == (InputError.exit_code, "")
    assert err.startswith("cxrg: .: holds no results (cxrg.sqlite is missing); give a folder")
