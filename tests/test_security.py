"""Nothing that names the patient is written, nothing that is read can run, no path escapes."""

from __future__ import annotations

import ast
import csv
import html.parser
import io
import json
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset

import cxrg
from cxrg.cli import main
from cxrg.evaluate.datasets import read_dataset
from cxrg.evaluate.report.write import finish
from cxrg.evaluate.run import Settings
from cxrg.evaluate.run import run as evaluate
from cxrg.image.dicom import KEYWORDS
from tests.fakes import tiny_models
from tests.fakes.evaluate import Fake, manifest
from tests.fakes.fuzz_seeds import as_bytes, dataset

SOURCE = Path(cxrg.__file__).parent
Run = Callable[..., tuple[int, str, str]]


# --- what the source never does -------------------------------------------------------------------


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in the source: its file, its dotted name, its node."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield str(file.relative_to(SOURCE)), ast.unparse(node.func), node


def keyword(node: ast.Call, name: str) -> Any:
    (found,) = [k.value for k in node.keywords if k.arg == name] or [ast.Constant(None)]
    return found.value if isinstance(found, ast.Constant) else ast.unparse(found)


def test_nothing_is_unpickled_or_run() -> None:
    forbidden = {"eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "__import__"}
    forbidden |= {f"{module}.{name}" for module in ("pickle", "dill", "joblib", "marshal")
                  for name in ("load", "loads", "Unpickler")}  # fmt: skip
    for file, name, node in calls():
        assert name not in forbidden, (file, name)
        if name == "torch.load":
            assert keyword(node, "weights_only") is True, file
        if name.endswith("np.load") or name == "numpy.load":
            assert keyword(node, "allow_pickle") in (None, False), file
        assert keyword(node, "shell") in (None, False), (file, name)


def test_no_code_of_a_model_is_trusted() -> None:
    words = "trust_remote_code"
    for file in sorted(SOURCE.rglob("*")):
        if file.suffix not in (".py", ".toml", ".json", ".md"):
            continue
        text = file.read_text(encoding="utf-8")
        allowed = len(re.findall(words + r'"?\s*[:=]\s*False\b', text))
        assert text.count(words) == allowed, file


# --- pickled weights ------------------------------------------------------------------------------


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def as_torch(trap: Trap) -> bytes:
    """The trap as ``torch.save`` would have packed it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(trap, 2))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.compact(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line; exit code, standard output, standard error, libraries' included."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["cxrg", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capfd.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return call


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("disguised", [False, True])
def test_pickled_weights_are_refused_unread(
    run: Run, tiny: Path, tmp_path: Path, part: str, disguised: bool
) -> None:
    import shutil

    folder = shutil.copytree(tiny, tmp_path / "model")
    (weights,) = (folder / part).glob("*.safetensors")
    mark = tmp_path / "it ran"
    trap = as_torch(Trap(mark))
    if disguised:
        weights.write_bytes(trap)
    else:
        weights.unlink()
        name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
        (folder / part / name).write_bytes(trap)
    (tmp_path / "a.dcm").write_bytes(as_bytes(dataset(RAMP)))
    asked = ("ground", tmp_path / "a.dcm", "opacity", "--model", folder, "--device", "cpu")
    code, out, err = run(*asked, "--out", tmp_path / "out")
    assert (code, out) == (4, "")
    assert err.count("\n") == 1
    assert ("can run code" in err and "safe_serialization" in err) or disguised
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))  # the trap works
    assert mark.exists()


# --- patients -------------------------------------------------------------------------------------

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
WORD = "CANARY"
CANARIES: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"), WORD),
    "DA": "19630217",
    "DT": "19630217031415.926",
    "TM": "031415.926",
    "AS": "093Y",
    "UI": "1.2.826.0.1.6660666.1",
    "IS": "6660666",
    "DS": "6660666.5",
}
# As bytes, because files are searched; a year alone or an age may well be part of a digest.
TRACES = (WORD, "canary", "Canary", "19630217", "1963-02-17", "031415", "6660666", "03:14:15")


def full_of_canaries(**elements: Any) -> Dataset:
    """A radiograph in which every element that cxrg has no use for names the patient."""
    ds = dataset(RAMP)
    for tag, (vr, _, _, _, name) in DicomDictionary.items():
        group = tag >> 16
        known = name in (*KEYWORDS, "SpecificCharacterSet")
        if vr in CANARIES and name and not known and group in IDENTIFYING:
            ds.add_new(tag, vr, CANARIES[vr])
    ds.PatientName, ds.PatientID, ds.AccessionNumber = f"{WORD}^JANE", f"{WORD}-1", f"{WORD}2"
    ds.ImageComments = ds.PatientComments = f"{WORD} was here"
    private = ds.private_block(0x0009, f"{WORD} PRIVATE", create=True)
    private.add_new(1, "LO", WORD)
    ds.RequestAttributesSequence = [Dataset()]
    ds.RequestAttributesSequence[0].RequestedProcedureDescription = WORD
    # Of those that are read, all that may hold free text.
    ds.VOILUTFunction, ds.ViewPosition = WORD, WORD
    ds.ViewCodeSequence = [Dataset()]
    ds.ViewCodeSequence[0].CodeMeaning = f"{WORD} lateral"
    for name, value in elements.items():
        setattr(ds, name, value)
    return ds


IDENTIFYING = (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040, 0x4008)


def traces(text: bytes) -> list[str]:
    """Which canaries are in some bytes, packed ones included."""
    return [trace for trace in TRACES if trace.encode() in text]


def contents(file: Path) -> Iterator[bytes]:
    """The bytes of a file, and what is packed in it."""
    data = file.read_bytes()
    yield data
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(file) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        at = 8
        while at < len(data):
            (length,) = np.frombuffer(data[at : at + 4], ">u4")
            kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + int(length)]
            assert kind in (b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"pHYs", b"sRGB"), kind
            yield body if kind != b"IDAT" else b""
            at += 12 + int(length)


def written(folder: Path) -> list[tuple[str, str]]:
    """Canaries in the names and contents of all files below a folder."""
    found = []
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        found += [(name, f"name: {trace}") for trace in traces(name.encode())]
        if file.is_file():
            found += [(name, trace) for data in contents(file) for trace in traces(data)]
    return found


def damaged() -> dict[str, bytes]:
    """Files full of canaries that fail in many places."""
    whole = as_bytes(full_of_canaries())
    at = whole.index(b"\x28\x00\x10\x00US")
    made = {
        "truncated": whole[:-1000],
        "rows": whole[: at + 8] + b"\xff\xff" + whole[at + 10 :],
        "header only": whole[: at + 4],
        "syntax": whole.replace(b"1.2.840.10008.1.2.1\0", f"{WORD}12345678901234".encode()[:20], 1),
        "words": whole.replace(b"MONOCHROME2", f"{WORD:11s}".encode()),
    }
    colour = full_of_canaries()
    colour.NumberOfFrames = 9
    return {**made, "frames": as_bytes(colour)}


def test_the_canaries_are_there_and_would_be_found(tmp_path: Path) -> None:
    data = as_bytes(full_of_canaries())
    assert {WORD, "19630217", "031415", "6660666"} <= set(traces(data))
    ds = pydicom.dcmread(io.BytesIO(data))
    assert sum(traces(str(e.value).encode()) != [] for e in ds) > 300
    (tmp_path / WORD).mkdir()
    np.savez_compressed(tmp_path / "a.npz", x=np.array(WORD))
    (tmp_path / "b").write_bytes(zlib.compress(WORD.encode()) + b"031415")
    assert {name for name, _ in written(tmp_path)} >= {WORD, "b"}


@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["plain", "debug"])
def test_nothing_of_the_patient_is_written_or_said(
    run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debug: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.dcm").write_bytes(as_bytes(full_of_canaries()))
    inverse = full_of_canaries(PhotometricInterpretation="MONOCHROME1", Modality=WORD)
    (folder / "second.dcm").write_bytes(as_bytes(inverse))
    for name, data in damaged().items():
        (folder / f"{name}.dcm").write_bytes(data)
    asked = ("ground", "in", "-p", "left opacity", "--model", tiny, "--device", "cpu")
    code, out, err = run(*asked, "--json", *debug)
    assert code == 1
    assert len(out.splitlines()) == 2
    assert traces(out.encode()) == []
    assert traces(err.encode()) == []
    code, out, err = run(*asked, *debug)
    assert traces((out + err).encode()) == []
    assert len(list(tmp_path.glob("cxrg-out/*.json"))) == 2
    written_there = [found for found in written(tmp_path) if not found[0].startswith("in/")]
    assert written_there == []


def test_file_names_of_patients_stay_out_of_what_is_written(
    run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in" / f"{WORD}^JANE 19630217"
    folder.mkdir(parents=True)
    (folder / f"{WORD}.dcm").write_bytes(as_bytes(full_of_canaries()))
    (folder / f"{WORD}-bad.dcm").write_bytes(damaged()["truncated"])
    asked = ("ground", "in", "-p", "left opacity", "--model", tiny, "--device", "cpu")
    code, out, err = run(*asked, "--json")
    assert code == 1
    (line,) = map(json.loads, out.splitlines())
    # Only where the reader of the stream must know which file it is about.
    good, bad = (str(Path("in", folder.name, f"{WORD}{end}.dcm")) for end in ("", "-bad"))
    assert line["image"].pop("path") == good
    assert traces(json.dumps(line).encode()) == []
    assert traces(err.replace(good, "").replace(bad, "").encode()) == []
    found = [each for each in written(tmp_path) if not each[0].startswith("in/")]
    assert found == []


def test_evaluation_of_patients_tells_nothing_of_their_headers(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(as_bytes(full_of_canaries()))
    (tmp_path / "b.dcm").write_bytes(damaged()["truncated"])
    rows = ["image,phrase,category,boxes,patient"]
    rows += [f'{n}.dcm,left nodule,Nodule,"[[8, 8, 40, 40]]",{n}' for n in "ab"]
    (tmp_path / "set.csv").write_text("\n".join(rows) + "\n")
    data = read_dataset(tmp_path / "set.csv")
    out = tmp_path / "out"
    records = evaluate(data, Fake(), Settings(), out)
    finish(records, data, Fake(), Settings(), out)
    assert (out / "report.html").is_file()
    assert written(out) == []


# --- paths ----------------------------------------------------------------------------------------


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images with an image beside it, and links that lead there."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    for file in (root / "in.dcm", root / "sub" / "deep.dcm", tmp_path / "beside.dcm"):
        file.write_bytes(as_bytes(dataset(RAMP + np.uint16(len(file.name)))))
    (root / "link.dcm").symlink_to(tmp_path / "beside.dcm")
    (root / "up").symlink_to(tmp_path, target_is_directory=True)
    return root


def leaving(tmp: Path) -> list[str]:
    beside = str(tmp / "beside.dcm")
    return ["../beside.dcm", "sub/../../beside.dcm", beside, "link.dcm", "up/beside.dcm"]


def listed(kind: str, names: list[str]) -> str:
    if kind == "csv":
        return "image,phrase\n" + "".join(f"{name},heart\n" for name in names)
    return "".join(json.dumps({"image": name, "phrase": "heart"}) + "\n" for name in names)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("where", ["beside the images", "elsewhere"])
def test_paths_of_a_manifest_stay_inside(
    run: Run, tiny: Path, rooms: Path, tmp_path: Path, kind: str, where: str
) -> None:
    names = ["in.dcm", "sub/deep.dcm", *leaving(tmp_path)]
    manifest = (rooms if where == "beside the images" else tmp_path) / f"list.{kind}"
    manifest.write_text(listed(kind, names))
    root = [] if where == "beside the images" else ["--image-root", rooms]
    asked = ("ground", "--manifest", manifest, *root, "--model", tiny, "--device", "cpu", "--json")
    code, out, err = run(*asked)
    assert code == 1
    found = [Path(json.loads(line)["image"]["path"]).name for line in out.splitlines()]
    assert found == ["in.dcm", "deep.dcm"]
    assert err.count("leaves the image root; set --image-root, or --allow-outside") == 5
    code, out, err = run(*asked, "--allow-outside")
    assert code == 0, err
    assert len(out.splitlines()) == len(names)


def test_paths_on_standard_input_stay_inside_where_a_root_is_given(
    run: Run, tiny: Path, rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["in.dcm", *leaving(tmp_path)]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(names).encode())))
    asked = ("ground", "-", "heart", "--image-root", rooms, "--model", tiny, "--device", "cpu")
    code, out, err = run(*asked, "--json")
    assert (code, len(out.splitlines())) == (1, 1)
    assert err.count("leaves the image root") == 5


def test_paths_of_an_evaluation_stay_inside(rooms: Path, tmp_path: Path) -> None:
    names = ["in.dcm", "../beside.dcm", "sub/../../beside.dcm", str(tmp_path / "beside.dcm")]
    rows = ["image,phrase,category,boxes"]
    rows += [f'{name},heart,Heart,"[[8, 8, 40, 40]]"' for name in names]
    (rooms / "set.csv").write_text("\n".join(rows) + "\n")
    data = read_dataset(rooms / "set.csv")
    assert [sample.image.resolve() for sample in data.samples] == [rooms / "in.dcm"]


# --- what others read -----------------------------------------------------------------------------

SCRIPT = "<script>alert(1)</script>"
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1")


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def test_html_of_an_evaluation_is_escaped(tmp_path: Path) -> None:
    labels = manifest(tmp_path, patients=4, phrase="{} " + SCRIPT)
    text = labels.read_text().replace(",Nodule,", f",\"<b onclick='x'>{SCRIPT}\",")
    labels.write_text(text + f'none{SCRIPT}.png,"{SCRIPT}",Nodule,[],p1\n')
    data = read_dataset(labels)
    method = Fake(name=f"model {SCRIPT}")
    out = tmp_path / "out"
    finish(evaluate(data, method, Settings(), out), data, method, Settings(), out)
    page = (out / "report.html").read_text()
    assert "&lt;script&gt;" in page
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.seen
    assert "table" in tags.seen


def test_no_cell_of_a_table_is_a_formula(tmp_path: Path) -> None:
    labels = manifest(tmp_path, patients=4)
    lines = labels.read_text().splitlines()
    for number, formula in enumerate(FORMULAS):
        buffer = io.StringIO()
        row = ["i0.png", f"left {number}", formula, "[[8, 8, 40, 40]]", "p0"]
        csv.writer(buffer, lineterminator="").writerow(row)
        lines.append(buffer.getvalue())
    labels.write_text("\n".join(lines) + "\n", newline="")
    data = read_dataset(labels)
    out = tmp_path / "out"
    finish(evaluate(data, Fake(), Settings(), out), data, Fake(), Settings(), out)
    with (out / "report.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    texts = [cell for cell in cells if not is_number(cell)]
    assert [cell for cell in texts if re.match(r"\s*[=+\-@\t\r|%]", cell)] == []
    assert "'=1+1" in cells


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
