"""What the user names becomes tasks: folders, patterns, lists, manifests, kept in their root."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    MediaStorageDirectoryStorage,
)

from cxrg import files
from cxrg.batch.sources import Entry, from_arguments, from_lines, from_manifest, tasks
from cxrg.batch.task import Outcome, Task
from cxrg.errors import ImageError, InputError
from cxrg.image.read import read_image
from cxrg.phantom.dx import write_dx
from tests.fakes.batch import draw


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def names(entries: Iterable[Entry]) -> list[str]:
    return [str(entry.path) for entry in entries]


def kinds(entries: Iterable[Entry]) -> list[str | None]:
    return [entry.failure.kind if entry.failure else None for entry in entries]


def arguments(*given: str) -> Iterator[Entry]:
    return from_arguments(given, out=Path("cxrg-out"))


def lines(*given: str, root: Path | None = None, outside: bool = False) -> list[Entry]:
    return list(from_lines(given, root=root, outside=outside))


def manifest(
    text: str, name: str = "m.csv", root: Path | None = None, outside: bool = False
) -> list[Entry]:
    Path(name).write_text(text)
    return list(from_manifest(Path(name), root=root, outside=outside))


# --- arguments ------------------------------------------------------------------------------------


def test_folders_are_searched_by_content_in_sorted_order(place: Path) -> None:
    for name in ("s/b.png", "s/a/deep", "s/c/x.dcm", "s/.hidden/y"):
        draw(Path(name))
    Path("s/notes.txt").write_text("no image")
    assert names(arguments("s")) == ["s/.hidden/y", "s/a/deep", "s/b.png", "s/c/x.dcm"]


def test_what_is_left_of_an_image_in_a_folder_is_told_and_not_passed_over(place: Path) -> None:
    draw(Path("s/b.png"))
    Path("s/empty.DCM").touch()
    Path("s/page.jpg").write_text("not found")
    found = {entry.path.name: entry.failure for entry in arguments("s")}
    assert found.pop("b.png") is None
    assert set(found) == {"empty.DCM", "page.jpg"}
    assert all(failure is not None and failure.kind == "image" for failure in found.values())


@pytest.mark.parametrize("preamble", [True, False])
def test_dicom_objects_that_are_no_images_are_passed_over_in_a_folder(
    place: Path, preamble: bool
) -> None:
    draw(Path("disc/IM000000"))
    Path("disc/PT").mkdir()
    write_dx(Path("disc/PT/x.dcm"), np.arange(4096, dtype=np.uint16).reshape(64, 64), seed=1)
    icon = Dataset()
    icon.Rows = icon.Columns = 8
    icon.PixelData = bytes(64)
    icon["PixelData"].VR = "OB"
    for name, sop_class, elements in (
        ("DICOMDIR", MediaStorageDirectoryStorage, {}),
        ("report.dcm", BasicTextSRStorage, {}),
        ("icon.dcm", BasicTextSRStorage, {"IconImageSequence": [icon]}),
        ("state.dcm", GrayscaleSoftcopyPresentationStateStorage, {}),
    ):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = sop_class, "2.25.7"
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
        if preamble:
            ds.file_meta = FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            ds.file_meta.MediaStorageSOPClassUID = sop_class
        dcmwrite(
            Path("disc", name), ds, implicit_vr=False, little_endian=True,
            enforce_file_format=preamble,
        )  # fmt: skip
    found = list(arguments("disc"))
    assert names(found) == ["disc/IM000000", "disc/PT/x.dcm"]
    assert kinds(found) == [None, None]
    # Each is refused with its own reason where it is read.
    Path("disc/PT/x.dcm").write_bytes(Path("disc/PT/x.dcm").read_bytes()[:-9])
    for name, problem in (
        ("disc/DICOMDIR", "is a DICOM directory" if preamble else "has no pixel data"),
        ("disc/icon.dcm", "has no pixel data"),
        ("disc/PT/x.dcm", "is truncated|cannot be decoded"),
    ):
        with pytest.raises(ImageError, match=problem):
            read_image(name, side=16)


def test_the_output_folder_is_no_input(place: Path) -> None:
    draw(Path("a.png"))
    draw(Path("cxrg-out/result.png"))
    assert names(arguments(".")) == ["a.png"]
    assert names(arguments("cxrg-out")) == ["cxrg-out/result.png"]  # unless it is what is asked for


def test_links_to_folders_are_not_followed(place: Path) -> None:
    draw(Path("s/a.png"))
    Path("s/round").symlink_to(place / "s")
    Path("s/b.png").symlink_to(place / "s/a.png")
    assert names(arguments("s")) == ["s/a.png", "s/b.png"]


def test_patterns_that_the_shell_left(place: Path) -> None:
    for name in ("s/b.png", "s/a.png", "t/c.png", "x[1].png"):
        draw(Path(name))
    assert names(arguments("s/*.png")) == ["s/a.png", "s/b.png"]
    assert names(arguments("**/c.png")) == ["t/c.png"]
    assert names(arguments("x[1].png")) == ["x[1].png"]  # a file before it is a pattern
    (none,) = arguments("*.dcm")
    assert none.failure
    assert none.failure.message == "*.dcm: matches no file; check the pattern"


def test_what_is_no_image_is_refused_in_its_place(place: Path) -> None:
    draw(Path("a.png"))
    Path("text.dcm").write_text("no image" * 100)
    Path("empty").mkdir()
    found = list(arguments("gone.png", "a.png", "text.dcm", "empty", "zero\0byte"))
    assert kinds(found) == ["missing", None, "image", "image", "missing"]


def test_a_folder_that_may_not_be_read_is_told(place: Path, monkeypatch) -> None:
    draw(Path("s/a.png"))
    draw(Path("s/shut/b.png"))
    look = Path.iterdir

    def guarded(path: Path) -> Iterator[Path]:  # rights do not hold root off, so not by chmod
        if path.name == "shut":
            raise PermissionError(13, "Permission denied")
        return look(path)

    monkeypatch.setattr(Path, "iterdir", guarded)
    found = list(arguments("s"))
    assert kinds(found) == [None, "image"]
    assert found[1].failure
    assert found[1].failure.message.startswith("s/shut: cannot be searched (Permission denied)")


def test_a_folder_that_may_be_listed_but_not_entered_is_reported(place: Path, monkeypatch) -> None:
    draw(Path("s/a.png"))
    draw(Path("shut/b.png"))
    status = os.stat

    def guarded(path: Any, **more: Any) -> os.stat_result:
        if "shut/" in str(path):
            raise PermissionError(13, "Permission denied")
        return status(path, **more)

    monkeypatch.setattr(os, "stat", guarded)
    (found,) = arguments("shut")
    assert found.failure
    assert found.failure.message == "shut: cannot be searched (Permission denied); check its rights"
    assert kinds(arguments("s", "shut")) == [None, "image"]


def test_a_name_that_is_too_long_is_refused(place: Path) -> None:
    assert kinds(arguments("x" * 5000, "a/" * 5000)) == ["missing", "missing"]


def test_searching_is_lazy(place: Path, monkeypatch) -> None:
    draw(Path("s/a.png"))
    draw(Path("s/b/c.png"))
    found = arguments("s", "gone")
    assert str(next(found).path) == "s/a.png"
    monkeypatch.setattr(Path, "iterdir", None)
    with pytest.raises(TypeError):
        next(found)


# --- lists ----------------------------------------------------------------------------------------


def test_lines_are_paths_or_json(place: Path) -> None:
    for name in ("a.png", "b c.png", "d.png"):
        draw(Path(name))
    asked = {"image": "d.png", "phrase": "one", "phrases": ["two", "three"]}
    found = lines("a.png\n", "\n", "b c.png\r\n", json.dumps(asked), '{"image": "a.png"}')
    assert [(str(e.path), e.phrases, e.line) for e in found] == [
        ("a.png", (), 1),
        ("b c.png", (), 3),
        ("d.png", ("one", "two", "three"), 4),
        ("a.png", (), 5),
    ]


@pytest.mark.parametrize(
    "line",
    [
        *('{"image": ', "{}", '{"image": 3}', "{'image': 'a.png'}"),
        '{"image": ' + "[" * 100_000,
        '{"image": "a.png", "phrase": 3}',
        '{"image": "a.png", "phrases": "heart"}',
        '{"image": "a.png", "phrases": [" "]}',
    ],
)
def test_lines_that_mean_nothing_are_refused_and_not_repeated(place: Path, line: str) -> None:
    draw(Path("a.png"))
    bad, good = lines(line, "a.png")
    assert bad.failure
    assert bad.failure.kind == "input"
    assert bad.failure.message.startswith("line 1: ")
    assert "a.png" not in bad.failure.message
    assert "; " in bad.failure.message
    assert not good.failure


def test_lines_come_one_by_one(place: Path) -> None:
    draw(Path("a.png"))

    def given() -> Iterator[str]:
        yield "a.png"
        raise AssertionError("the second line was asked for before the first was used")

    assert next(from_lines(given(), root=None, outside=False)).line == 1


def test_manifest_table(place: Path) -> None:
    for name in ("a.png", "b.png", "sub/c.png"):
        draw(Path("data") / name)
    text = "\ufeffphrase, image ,extra\nheart,a.png,1\nleft lung,a.png,2\n,b.png,3\n"
    text += '"a, b",sub/c.png,4\nheart,a.png,5\nno,,6\n'
    found = manifest(text, "data/m.csv")
    assert [(str(e.path), e.phrases, e.line) for e in found] == [
        ("data/a.png", ("heart", "left lung"), 1),
        ("data/b.png", (), 3),
        ("data/sub/c.png", ("a, b",), 4),
        ("data/a.png", ("heart",), 5),
        ("line 6", (), 6),
    ]
    assert kinds(found) == [None] * 4 + ["input"]


def test_a_byte_order_mark_is_no_part_of_the_first_line(place: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(Path(name))
    assert names(lines("\ufeffa.png\r\n", "b.png\r\n")) == ["a.png", "b.png"]
    row = json.dumps({"image": "a.png", "phrase": "heart"})
    (entry,) = lines(f"\ufeff{row}\r\n")
    assert (entry.failure, entry.phrases) == (None, ("heart",))


def test_backslashes_of_lists_are_slashes_where_that_is_a_file(place: Path) -> None:
    draw(Path("sub/b.png"))
    draw(Path("odd\\name.png"))
    rows = ["sub\\b.png", "odd\\name.png"]
    expected = ["sub/b.png", "odd\\name.png"]
    assert names(lines(*rows)) == expected
    assert names(manifest("image\n" + "\n".join(rows), "m.csv")) == expected
    draw(Path("out.png"))
    Path("root").mkdir()
    assert kinds(lines("..\\out.png", root=Path("root"))) == ["outside"]


@pytest.mark.parametrize("phrase", [r"left \ud83d opacity", "\udce9panchement"])
def test_a_phrase_that_is_no_unicode_text_fails_alone(place: Path, phrase: str) -> None:
    """Half of an emoji, escaped; a byte of Latin-1, as standard input passes it on."""
    draw(Path("a.png"))
    row = '{"image": "a.png", "phrase": "heart"}'
    rows = [row.replace("heart", phrase), row]
    Path("m.jsonl").write_bytes("\n".join(rows).encode(errors="surrogateescape"))
    for found in (lines(*rows), list(from_manifest(Path("m.jsonl"), root=None, outside=False))):
        assert kinds(found) == ["input", None]
        assert found[0].failure
        assert found[0].failure.message == (
            "line 1: has phrases that are no Unicode text; correct it"
        )


def test_a_path_that_is_no_unicode_text_fails_alone(place: Path) -> None:
    draw(Path("a.png"))
    for root in (None, Path()):
        assert kinds(lines(r'{"image": "\ud83d.png"}', "a.png", root=root)) == ["input", None]


def test_a_row_of_a_table_that_cannot_be_used_fails_alone(place: Path) -> None:
    draw(Path("a.png"))
    rows = [
        b"image,phrase,name",
        b"a.png,heart,M\xfcller",
        b"a.png,\xe9panchement,x",
        b"a.png," + b"x" * 200_000 + b",y",
        b"a.png,left lung,z",
    ]
    Path("m.csv").write_bytes(b"\n".join(rows))
    found = list(from_manifest(Path("m.csv"), root=None, outside=False))
    assert kinds(found) == [None, "input", "input", None]
    assert [entry.line for entry in found] == [1, 2, 3, 4]
    assert [entry.phrases for entry in found if not entry.failure] == [("heart",), ("left lung",)]


def test_a_table_without_names_of_columns_is_not_repeated(place: Path) -> None:
    with pytest.raises(InputError, match="name the columns in its first row") as caught:
        manifest("DOE^JANE,1950-01-01,a.png\n")
    assert "DOE" not in str(caught.value)


def test_a_pipe_that_no_program_writes_to_is_refused(place: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "WRITER_SECONDS", 0.1)
    os.mkfifo("m.csv")
    with pytest.raises(InputError, match=r"m\.csv: is a pipe that no program writes to"):
        list(from_manifest(Path("m.csv"), root=None, outside=False))


def test_a_manifest_may_come_through_a_pipe(place: Path) -> None:
    draw(Path("a.png"))
    os.mkfifo("m.csv")
    text = "image,phrase\n" + "a.png,heart\n" * 20_000  # more than a pipe holds
    writer = threading.Thread(target=Path("m.csv").write_text, args=(text,))
    writer.start()
    (entry,) = from_manifest(Path("m.csv"), root=None, outside=False)
    writer.join()
    assert entry.phrases == ("heart",) * 20_000


def test_manifest_lines(place: Path) -> None:
    draw(Path("images/a.png"))
    rows: list[Any] = [{"image": "a.png", "phrase": "one"}, {"image": "a.png", "phrases": ["two"]}]
    text = "\n".join(map(json.dumps, rows)) + "\n\n[]\n"
    found = manifest(text, "m.jsonl", root=Path("images"))
    assert [(str(e.path), e.phrases, e.line) for e in found] == [
        ("images/a.png", ("one", "two"), 1),
        ("line 4", (), 4),
    ]


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b"picture,phrase\na,b\n", "m.csv", r"m\.csv: has no column image; name the columns"),
        (b"", "m.csv", "no column image"),
        ("image\na.png\n".encode("utf-16"), "m.csv", "in its first row, in UTF-8"),
        (None, "gone.csv", r"gone\.csv: cannot be read"),
    ],
)
def test_what_is_no_manifest_is_told(
    place: Path, data: bytes | None, name: str, words: str
) -> None:
    if data is not None:
        Path(name).write_bytes(data)
    with pytest.raises(InputError, match=words):
        list(from_manifest(Path(name), root=None, outside=False))


@pytest.fixture
def prison(place: Path) -> Path:
    """A root with ways out of it, and an image inside and one outside."""
    draw(Path("root/in.png"))
    draw(Path("out.png"))
    Path("root/link.png").symlink_to(place / "out.png")
    Path("root/dir").symlink_to(place)
    return place


@pytest.mark.parametrize("way", ["../out.png", "/{place}/out.png", "link.png", "dir/out.png"])
def test_paths_of_lists_stay_in_their_root(prison: Path, way: str) -> None:
    way = way.replace("/{place}", str(prison))
    root = Path("root")
    rows = [json.dumps({"image": name, "phrase": "x"}) for name in (way, "in.png", "dir/../in.png")]
    for found in (
        lines(*rows, root=root),
        lines(way, "in.png", "dir/../root/in.png", root=root),
        manifest("\n".join(rows), "root/m.jsonl"),
        manifest(f"image,phrase\n{way},x\nin.png,x\n./in.png,x\n", "m.csv", root=root),
    ):
        assert kinds(found)[:2] == ["outside", None]
        assert found[0].failure
        assert found[0].failure.message.endswith("--allow-outside if that is meant")
    for found in (
        lines(way, root=root, outside=True),
        manifest(rows[0], "root/m.jsonl", outside=True),
    ):
        assert kinds(found) == [None]


def test_names_that_cannot_be_are_refused(place: Path) -> None:
    Path("loop").symlink_to("loop")
    asked = ['{"image": "a\\u0000b"}', '{"image": "loop"}', '{"image": "' + "x" * 5000 + '"}']
    assert all(kinds(lines(*asked, root=Path())))
    assert all(kinds(lines(*asked)))


# --- numbers --------------------------------------------------------------------------------------


def test_entries_are_numbered_and_take_the_phrases_of_the_run(place: Path) -> None:
    own = [Entry(path=Path("a"), phrases=("own", "own")), Entry(path=Path("b"), line=4)]
    first, second = tasks(own, ["run", "two", "run"])
    assert first == Task(index=0, path=Path("a"), phrases=("own",))
    assert second == Task(index=1, path=Path("b"), phrases=("run", "two"), line=4)
    (bare,) = tasks(own[1:], [])
    assert isinstance(bare, Outcome)
    assert bare.failure
    assert bare.failure.message == "b: has no phrase; give one with --phrase"
