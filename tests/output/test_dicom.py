"""DICOM objects are valid, say what the record says, and lie where the stored pixels do."""

from __future__ import annotations

import copy
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from cxrg.chest import findings, places
from cxrg.chest.whereabouts import codes_of
from cxrg.cli import main
from cxrg.errors import ImageError, UsageError
from cxrg.geometry import Box
from cxrg.image.mending import Mending, mended_by
from cxrg.image.orientation import Turn
from cxrg.image.read import deidentify, read_image
from cxrg.options import Options
from cxrg.output import formats
from cxrg.output.dicom.source import read_source
from cxrg.output.record import record
from cxrg.phantom.dx import write_dx
from cxrg.phrase.intent import read_intent
from cxrg.result import Grounding
from tests.fakes import samples, tiny_models
from tests.fakes.batch import chest, draw
from tests.test_security import TRACES, full_of_canaries, traces

DICOM = tuple(name for name in formats.FORMATS if name.startswith("dicom-"))
SHAPE = 96, 80
PLANTED = Box(10, 20, 34, 60)  # in stored pixels, in no symmetric place


def pixels(top: int) -> NDArray[np.uint16]:
    """Dark noise with one bright rectangle."""
    dark = np.random.default_rng(1).random(SHAPE) * 0.5
    dark[int(PLANTED.y0) : int(PLANTED.y1), int(PLANTED.x0) : int(PLANTED.x1)] = 1
    return (dark * top).astype(np.uint16)


def stored(bits: int = 12, *, monochrome1: bool = False, **elements: Any) -> Dataset:
    """A DX object of a made-up patient, with some elements changed or, if None, removed."""
    file = io.BytesIO()
    top = 2 ** max(bits, 12) - 1
    write_dx(file, pixels(top), seed=4, monochrome1=monochrome1)  # type: ignore[arg-type]  # a file
    file.seek(0)
    ds = pydicom.dcmread(file)
    if bits < 12:
        array = ds.pixel_array >> (12 - bits)
        ds.BitsStored, ds.HighBit, ds.BitsAllocated = bits, bits - 1, 8 if bits <= 8 else 16
        ds.PixelData = array.astype(np.uint8 if bits <= 8 else np.uint16).tobytes()
        ds.WindowCenter, ds.WindowWidth = 2 ** (bits - 1), 2**bits
    with pydicom.config.disable_value_validation():
        for keyword, value in elements.items():
            if value is None:
                del ds[keyword]
            else:
                setattr(ds, keyword, value)
    return ds


def cr(bits: int = 10, **elements: Any) -> Dataset:
    """A CR object."""
    ds = stored(bits, **elements)
    for keyword in ("PresentationIntentType", "PixelIntensityRelationship", "RescaleType"):
        ds.pop(keyword, None)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    ds.Modality = "CR"
    return ds


def with_voi_lut(ds: Dataset, *, keep_window: bool = False, tables: int = 1) -> Dataset:
    """The same with lookup tables, in the place of its window or beside it; one is straight."""
    if not keep_window:
        del ds.WindowCenter, ds.WindowWidth
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 12]
    item.add_new("LUTData", "OW", np.arange(4096, dtype="<u2").tobytes())
    item.LUTExplanation = "straight"
    negative = copy.deepcopy(item)
    negative.LUTData = np.arange(4096, dtype="<u2")[::-1].tobytes()
    ds.VOILUTSequence = [item, negative][:tables]
    return ds


def compressed(syntax: str) -> Dataset:
    ds = stored()
    ds.compress(syntax)
    return ds


def encoded(syntax: str) -> Dataset:
    ds = stored()
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = ds.pixel_array.astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    return ds


SOURCES: dict[str, Callable[[], Dataset]] = {
    "dx 12 bits": stored,
    "dx 16 bits": lambda: stored(16),
    "dx 8 bits": lambda: stored(8),
    "monochrome1": lambda: stored(monochrome1=True),
    "cr": cr,
    "cr monochrome1 16 bits": lambda: cr(16, monochrome1=True),
    "low pixels": lambda: stored(ImagerPixelSpacing=["0.1", "0.2"]),
    "tall pixels": lambda: stored(ImagerPixelSpacing=None, PixelAspectRatio=["2", "1"]),
    "implicit": lambda: encoded(ImplicitVRLittleEndian),
    "big endian": lambda: encoded(ExplicitVRBigEndian),
    "deflated": lambda: encoded(DeflatedExplicitVRLittleEndian),
    "jpeg 2000": lambda: compressed(JPEG2000Lossless),
    "jpeg-ls": lambda: compressed(JPEGLSLossless),
    "rle": lambda: compressed(RLELossless),
    "mirrored": lambda: stored(PatientOrientation=["R", "F"]),
    "upside down": lambda: stored(PatientOrientation=["R", "H"]),
    "lying": lambda: stored(PatientOrientation=["F", "L"]),
    "lying, tall pixels": lambda: stored(
        PatientOrientation=["H", "L"], ImagerPixelSpacing=["0.2", "0.1"]
    ),
    "voi lut": lambda: with_voi_lut(stored()),
    "voi lut and window": lambda: with_voi_lut(stored(), keep_window=True),
    "two windows": lambda: stored(
        WindowCenter=["2048", "900"],
        WindowWidth=["4096", "500"],
        WindowCenterWidthExplanation=["WIDE", "NARROW"],
    ),
    "two voi luts": lambda: with_voi_lut(stored(), tables=2),
    "frame of reference": lambda: stored(FrameOfReferenceUID="1.2.3"),
    "latin letters": lambda: stored(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Zoë"),
    "kanji": lambda: stored(
        SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎"
    ),
    "no dates": lambda: stored(StudyDate=None, StudyTime="", PatientBirthDate="unknown"),
    "no patient": lambda: stored(PatientName=None, PatientID=None, PatientSex="X"),
}


def save(ds: Dataset, path: Path) -> Path:
    little = ds.file_meta.TransferSyntaxUID.is_little_endian
    implicit = ds.file_meta.TransferSyntaxUID.is_implicit_VR
    with pydicom.config.disable_value_validation():
        pydicom.dcmwrite(path, ds, implicit_vr=implicit, little_endian=little, force_encoding=True)
    return path


@dataclass(frozen=True)
class Written:
    """A source, a result and its objects."""

    file: Path
    grounding: Grounding
    files: dict[str, Path]


@pytest.fixture(scope="module", params=SOURCES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("source")
    file = save(SOURCES[request.param](), folder / "source.dcm")
    grounding = ground(file)
    return Written(file, grounding, write(grounding, folder / "out"))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return save(stored(), tmp_path / "source.dcm")


def ground(path: Path | Dataset, phrase: str = "left basal opacity", **changes: Any) -> Grounding:
    """A result whose heatmap and box are the bright rectangle of the upright picture."""
    image = read_image(path, side=64)
    bright = image.grey > 0.8
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    box = Box(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1, 0.75)
    ramp = np.linspace(0.1, 1, bright.size, dtype=np.float32).reshape(bright.shape)
    heatmap = np.where(bright, ramp, np.float32(0))
    heatmap[:, 0] = np.nan
    return samples.grounding(image, phrase, **{"heatmap": heatmap, "boxes": (box,), **changes})


def not_found(grounding: Grounding, status: Any = "not found") -> Grounding:
    return replace(grounding, status=status, boxes=(), places=(), edge=None)


def refused(grounding: Grounding) -> Grounding:
    nothing = np.full_like(grounding.heatmap, np.nan)
    return replace(not_found(grounding, "unknown phrase"), heatmap=nothing, evaluations=0)


def write(grounding: Grounding, folder: Path) -> dict[str, Path]:
    files = formats.paths(folder, "result", DICOM)
    formats.write(grounding, grounding.image, files)
    return files


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} (Debian dicom3tools, dcmtk) is not installed")
    command = [found, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


# --- valid ----------------------------------------------------------------------------------------


def test_dciodvfy_finds_no_error(written: Written) -> None:
    for path in written.files.values():
        done = run("dciodvfy", path)
        assert "Error" not in done.stdout + done.stderr, path.name


@pytest.mark.parametrize("make", [not_found, refused])
def test_results_without_boxes_are_valid_too(
    plain: Path, tmp_path: Path, make: Callable[[Grounding], Grounding]
) -> None:
    for path in write(make(ground(plain)), tmp_path).values():
        done = run("dciodvfy", path)
        assert "Error" not in done.stdout + done.stderr, path.name


def test_deidentified_objects_are_valid(written: Written, tmp_path: Path) -> None:
    grounding = replace(written.grounding, image=deidentify(written.grounding.image))
    for path in write(grounding, tmp_path).values():
        done = run("dciodvfy", path)
        assert "Error" not in done.stdout + done.stderr, path.name


def test_dsrdump_reads_the_report(written: Written) -> None:
    done = run("dsrdump", "+Pl", written.files["dicom-sr"])
    printed = [line for line in done.stderr.splitlines() if "ISO_IR 192" not in line]
    assert (done.returncode, printed) == (0, [])
    assert "left basal opacity" in done.stdout
    assert "UNVERIFIED" in done.stdout
    assert "PRELIMINARY" in done.stdout


# --- equal to the record --------------------------------------------------------------------------


def report(path: Path) -> Any:
    return hd.sr.srread(path).content


def items(ds: Dataset) -> list[Dataset]:
    """All content items of a report, in the order of the tree."""
    found = []
    for item in ds.get("ContentSequence", ()):
        found += [item, *items(item)]
    return found


def test_boxes_of_the_report_are_the_planted_rectangle(written: Written) -> None:
    grounding = written.grounding
    (group,) = report(written.files["dicom-sr"]).get_planar_roi_measurement_groups()
    corners = group.roi.value
    assert np.array_equal(corners[0], corners[-1])
    assert (*corners.min(0), *corners.max(0)) == (PLANTED.x0, PLANTED.y0, PLANTED.x1, PLANTED.y1)
    turn = read_source(grounding.image).turn
    upright = turn.box(Box(*corners.min(0), *corners.max(0)), SHAPE)
    (box,) = record(grounding)["boxes"]
    assert [upright.x0, upright.y0, upright.x1, upright.y1] == [
        box[e] for e in ("x0", "y0", "x1", "y1")
    ]
    (score,) = group.get_measurements()
    assert score.value == box["score"]


@pytest.mark.parametrize("presence", [None, 0.75])
def test_the_report_has_the_score_and_the_probability_if_calibrated(
    plain: Path, tmp_path: Path, presence: float | None
) -> None:
    grounding = replace(ground(plain), presence=presence)
    content = report(write(grounding, tmp_path)["dicom-sr"])
    (group,) = content.get_image_measurement_groups()
    found = {each.name.meaning: each.value for each in group.get_measurements()}
    expected = {"Presence score": grounding.score, "Probability of presence": presence}
    assert found == {name: value for name, value in expected.items() if value is not None}


def test_the_segmentation_is_the_heatmap(written: Written) -> None:
    grounding = written.grounding
    ds = hd.seg.segread(written.files["dicom-seg"])
    frame = ds.pixel_array / ds.MaximumFractionalValue
    assert frame.shape == SHAPE
    assert "FrameOfReferenceUID" not in ds  # a projection has no place in one
    lit = frame > 0
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == (10, 20, 34, 60)
    upright = read_source(grounding.image).turn.array(frame)
    expected = np.nan_to_num(grounding.heatmap)
    np.testing.assert_allclose(upright, expected, atol=0.5 / 255 + 1e-6)


def test_the_presentation_state_outlines_the_rectangle(written: Written) -> None:
    ds = pydicom.dcmread(written.files["dicom-gsps"])
    (annotation,) = ds.GraphicAnnotationSequence
    (outline,) = annotation.GraphicObjectSequence
    corners = np.array(outline.GraphicData).reshape(-1, 2)
    assert (*corners.min(0), *corners.max(0)) == (PLANTED.x0, PLANTED.y0, PLANTED.x1, PLANTED.y1)
    source = pydicom.dcmread(written.file)
    inverse = source.PhotometricInterpretation == "MONOCHROME1"
    assert ds.PresentationLUTShape == ("INVERSE" if inverse else "IDENTITY")
    image = written.grounding.image
    (area,) = ds.DisplayedAreaSelectionSequence
    vertical, horizontal = area.PresentationPixelAspectRatio
    shown = image.frame.crop.width / image.frame.crop.height
    turned = read_source(image).turn.transpose
    assert vertical / horizontal == pytest.approx(1 / shown if turned else shown)


# dcmp2pgm reads no compressed pixels, and no image without a patient's name.
RENDERED = [name for name in SOURCES if name not in ("jpeg 2000", "jpeg-ls", "rle", "no patient")]


@pytest.mark.parametrize("written", RENDERED, indirect=True)
def test_dcmtk_shows_the_presentation_state_in_the_grey_that_is_read(
    written: Written, tmp_path: Path
) -> None:
    """A renderer of other authors; it stretches pixels that are not square."""
    shown = tmp_path / "shown.pgm"
    done = run("dcmp2pgm", "--pstate", written.files["dicom-gsps"], written.file, shown)
    assert done.returncode == 0, done.stderr
    grey = np.asarray(Image.open(shown), np.float64) / 255
    image = written.grounding.image
    expected = read_source(image).turn.inverse.array(image.grey)
    if image.frame.crop.width == image.frame.crop.height:
        assert grey.shape == expected.shape
    square = cv2.resize(grey, expected.shape[::-1], interpolation=cv2.INTER_NEAREST)
    np.testing.assert_allclose(square, expected, atol=1.01 / 255)


def test_the_capture_is_the_picture_and_says_that_text_is_burned_in(
    plain: Path, tmp_path: Path
) -> None:
    from cxrg.output.picture import render

    grounding = ground(plain)
    ds = pydicom.dcmread(write(grounding, tmp_path)["dicom-sc"])
    assert np.array_equal(ds.pixel_array, render(grounding, grounding.image))
    assert ds.BurnedInAnnotation == "YES"


def test_objects_belong_to_patient_and_study(written: Written) -> None:
    source = pydicom.dcmread(written.file)
    for path in written.files.values():
        ds = pydicom.dcmread(path)
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID"):
            assert str(ds[keyword].value) == str(source.get(keyword, "")), (path.name, keyword)


@pytest.mark.parametrize(
    ("phrase", "change", "status"),
    [
        ("left basal opacity", None, "found"),
        ("left basal opacity", not_found, "not-found"),
        ("left basal opacity", lambda g: replace(g, status="uncalibrated"), "uncalibrated"),
        ("no pneumothorax", lambda g: not_found(g, "nothing to mark"), "nothing-to-mark"),
        ("blue banana", refused, "unknown-phrase"),
    ],
)
def test_the_report_states_what_became_of_the_phrase(
    plain: Path, tmp_path: Path, phrase: str, change: Any, status: str
) -> None:
    grounding = ground(plain, phrase)
    grounding = change(grounding) if change else grounding
    ds = pydicom.dcmread(write(grounding, tmp_path)["dicom-sr"])
    found = items(ds)
    texts = [item.TextValue for item in found if item.ValueType == "TEXT"]
    named = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.ConceptCodeSequence[0].CodeValue
        for item in found
        if item.ValueType == "CODE"
    }
    assert phrase in texts
    assert named["Status of the phrase"] == status
    assert ("Finding" in named) == (status == "found")
    boxes = any(item.ValueType == "SCOORD" for item in found)
    assert boxes == (status in ("found", "uncalibrated"))
    numbers = [item for item in found if item.ValueType == "NUM"]
    assert bool(numbers) == (grounding.evaluations > 0)
    assert f"fingerprint={grounding.model.identity}" in texts
    assert "cxrg" in texts


def test_the_report_answers_each_finding_of_a_phrase(plain: Path, tmp_path: Path) -> None:
    whole = ground(plain, "left opacity and right effusion")
    first = ground(plain, "left opacity")
    second = not_found(ground(plain, "right effusion"))
    whole = replace(whole, parts=(first, second))
    ds = pydicom.dcmread(write(whole, tmp_path)["dicom-sr"])
    statuses = [
        item.ConceptCodeSequence[0].CodeValue
        for item in items(ds)
        if item.ValueType == "CODE"
        and item.ConceptNameCodeSequence[0].CodeMeaning == "Status of the phrase"
    ]
    assert statuses == ["found", "found", "not-found"]
    assert sum(item.ValueType == "SCOORD" for item in items(ds)) == 2


@pytest.mark.parametrize("name", DICOM)
def test_a_phrase_of_any_characters_and_length_is_written(
    plain: Path, tmp_path: Path, name: str
) -> None:
    """Control characters become spaces: text of DICOM may hold none, escape sequences least."""
    phrase = "left\x1b[31m opacity\x07\\\n\x00=x" + " and more" * 200
    hostile = replace(ground(plain), phrase=phrase)
    ds = pydicom.dcmread(write(hostile, tmp_path)[name])
    ds.walk(lambda parent, element: None)  # decodes all text
    written = str(ds)
    assert "left [31m opacity" in written
    assert not any(code in written for code in ("\x1b", "\\x1b", "\x07", "\\x07", "\x00"))


# --- UIDs -----------------------------------------------------------------------------------------


def uids(path: Path) -> list[str]:
    found: list[str] = []
    pydicom.dcmread(path).walk(lambda _, e: found.append(str(e.value)) if e.VR == "UI" else None)
    return found


def test_the_same_result_has_the_same_uids(plain: Path, tmp_path: Path) -> None:
    first, again = write(ground(plain), tmp_path / "1"), write(ground(plain), tmp_path / "2")
    for name in DICOM:
        assert uids(first[name]) == uids(again[name]), name
        assert all(pydicom.uid.UID(uid).is_valid for uid in uids(first[name]))


def test_objects_and_settings_have_uids_of_their_own(plain: Path, tmp_path: Path) -> None:
    grounding = ground(plain)
    others = {
        "first": grounding,
        "phrase": ground(plain, "right basal opacity"),
        "options": replace(grounding, options=Options(seed=7)),
        "model": replace(grounding, model=replace(grounding.model, identity="sha256:4567")),
        "status": not_found(grounding),
        "deidentified": replace(grounding, image=deidentify(grounding.image)),
        "mended": replace(grounding, image=replace(grounding.image, mended=Mending(inverted=True))),
    }
    instances = [
        pydicom.dcmread(path)[keyword].value
        for name, each in others.items()
        for path in write(each, tmp_path / name).values()
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID")
    ]
    assert len(set(instances)) == len(instances) == len(others) * len(DICOM) * 2


def test_rounding_on_another_device_makes_no_other_uids(plain: Path, tmp_path: Path) -> None:
    grounding = ground(plain)
    other = replace(grounding, score=grounding.score + 1e-7)
    first, again = write(grounding, tmp_path / "1"), write(other, tmp_path / "2")
    assert [uids(first[name]) for name in DICOM] == [uids(again[name]) for name in DICOM]


# --- de-identified --------------------------------------------------------------------------------


def secret() -> Dataset:
    """A radiograph whose every other element names the patient."""
    ds = full_of_canaries()
    ds.StudyInstanceUID = ds.SeriesInstanceUID = "1.2.826.0.1.6660666.2"
    return ds


@pytest.mark.parametrize("in_memory", [False, True])
def test_deidentified_objects_tell_nothing_of_the_patient(tmp_path: Path, in_memory: bool) -> None:
    path = save(secret(), tmp_path / "source.dcm")
    grounding = ground(secret() if in_memory else path)
    named = write(grounding, tmp_path / "named")
    assert all("CANARY" in traces(file.read_bytes()) for file in named.values())
    hidden = replace(grounding, image=deidentify(grounding.image))
    for name, file in write(hidden, tmp_path / "hidden").items():
        assert traces(file.read_bytes()) == [], name
        ds = pydicom.dcmread(file)
        assert ds.PatientIdentityRemoved == "YES"
        assert (ds.PatientName, ds.PatientID, ds.StudyDate, ds.AccessionNumber) == ("", "", "", "")
        assert record(hidden)["image"]["uid"] in uids(file) or name == "dicom-sc"


def test_studies_of_deidentified_objects_stay_together(tmp_path: Path) -> None:
    """Two images of one study are of one study still, and of no other."""
    studies = []
    for number, study in enumerate(["1.2.3", "1.2.3", "1.2.4"]):
        ds = stored(StudyInstanceUID=study, SOPInstanceUID=f"1.2.5.{number}")
        grounding = ground(save(ds, tmp_path / f"{number}.dcm"))
        hidden = replace(grounding, image=deidentify(grounding.image))
        file = write(hidden, tmp_path / str(number))["dicom-sr"]
        studies.append(pydicom.dcmread(file).StudyInstanceUID)
    assert studies[0] == studies[1] != studies[2]
    assert all(uid.startswith("2.25.") for uid in studies)


def test_no_library_prints_or_warns_of_the_header(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ds = stored(PatientName="CANARY" * 20, StudyDescription="CANARY" * 20, PatientID="CANARY" * 20)
    grounding = ground(save(ds, tmp_path / "source.dcm"))
    write(grounding, tmp_path / "out")
    printed = capfd.readouterr()
    assert traces((printed.out + printed.err).encode()) == []
    assert TRACES[0] in str(ds.PatientName)


# --- sources that cannot be used ------------------------------------------------------------------


def test_a_picture_without_study_is_refused(tmp_path: Path) -> None:
    grounding = samples.grounding(samples.image())
    with pytest.raises(
        ImageError, match=r"is no DICOM object.*; give the DICOM file, or leave out"
    ):
        grounding.save(tmp_path / "out", ("json", "dicom-sr"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", ["", "1.2.abc"])
def test_an_object_without_study_or_series_is_refused(
    tmp_path: Path, keyword: str, value: str
) -> None:
    ds = stored(**{keyword: value})  # type: ignore[arg-type]
    path = save(ds, tmp_path / "source.dcm")
    with pytest.raises(ImageError, match=f"lacks a valid {keyword}.*; export it again"):
        formats.check_image(read_image(path, side=64), DICOM)


def test_a_file_that_has_changed_is_refused(plain: Path) -> None:
    image = read_image(plain, side=64)
    save(stored(PatientID="another"), plain)
    with pytest.raises(ImageError, match="has changed since it was read; ground it again"):
        formats.check_image(image, DICOM)


def test_a_data_set_in_memory_is_a_source(tmp_path: Path) -> None:
    files = ground(stored()).save(tmp_path, ("dicom-sr", "json"))
    assert pydicom.dcmread(files["dicom-sr"]).PatientID == "CXRG-PHANTOM-4"
    assert files["dicom-sr"].name == f"{files['json'].stem}.sr.dcm"


def test_without_highdicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrg.output.dicom.find_spec", lambda name: None)
    formats.check_formats(["json", "png"])
    with pytest.raises(UsageError, match=r"need highdicom; pip install 'cxrg\[dicom\]'"):
        formats.check_formats(["json", "dicom-seg"])


# --- codes and turns ------------------------------------------------------------------------------


def known_codes() -> list[tuple[str, Any]]:
    named = [(name, each.code) for name, each in findings.entries().items()]
    named += [(name, each.code) for name, each in places.entries().items()]
    return [(name, code) for name, code in named if code]


SNOMED_ONLY = {"Lung consolidation", "Pneumonia", "Atelectasis", "Cardiomegaly"} | {
    "Pulmonary emphysema",
    "Bronchiectasis",
    "Fracture of bone",
}
"""Codes that SNOMED CT has and DICOM PS3.16 does not."""


@pytest.mark.parametrize(("name", "code"), known_codes())
def test_codes_mean_in_the_standard_what_the_vocabulary_says(name: str, code: Any) -> None:
    listed = getattr(codes, code.scheme)
    meanings = {
        (each.value, each.meaning) for each in (getattr(listed, word) for word in dir_of(listed))
    }
    if code.meaning in SNOMED_ONLY:
        assert code.value not in {value for value, _ in meanings}
    else:
        assert (code.value, code.meaning) in meanings


def dir_of(collection: Any) -> list[str]:
    return [word for word in dir(collection) if word[0].isupper()]


@pytest.mark.parametrize(
    ("phrase", "code"),
    [
        ("pneumothorax", "36118008"),
        ("left pleural effusions", "60046008"),
        ("pulmonary edema", "19242006"),
        ("CHF", None),
        ("congestive heart failure", None),
        ("tracheostomy tube", None),
        ("pacemaker", "14106009"),
        ("ICD", None),
        ("opacity and effusion", None),
        ("left lung", None),
    ],
)
def test_a_phrase_has_the_code_of_what_it_names(phrase: str, code: str | None) -> None:
    from cxrg.output.dicom.codes import finding_code

    grounding = samples.grounding(samples.image(), phrase, intent=read_intent(phrase))
    found = finding_code(grounding)
    assert (found.value if found else None) == code


@pytest.mark.parametrize(
    ("place", "meanings"),
    [
        ("left lower zone", ["Lower zone of lung"]),
        ("right upper and mid zones", ["Upper zone of lung", "Middle zone of lung"]),
        ("left lung", ["Lung"]),
        ("both lungs", ["Lung"]),
        ("mediastinum", ["Mediastinum"]),
        ("below the right lung", []),
        ("left side, lower third", []),
    ],
)
def test_places_of_boxes_have_codes(place: str, meanings: list[str]) -> None:
    assert [code.meaning for code in codes_of(place)] == meanings


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("flip_rows", [False, True])
@pytest.mark.parametrize("flip_columns", [False, True])
def test_the_inverse_of_a_turn_leads_back(
    transpose: bool, flip_rows: bool, flip_columns: bool
) -> None:
    turn = Turn(transpose=transpose, flip_rows=flip_rows, flip_columns=flip_columns)
    array = np.arange(12).reshape(3, 4)
    assert np.array_equal(turn.inverse.array(turn.array(array)), array)
    box = Box(0, 1, 2, 3)
    assert turn.inverse.box(turn.box(box, (3, 4)), turn.shape((3, 4))) == box


# --- from the command line ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.compact(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def cxrg(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run ``cxrg ground`` with a tiny model; exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        model = ("--model", tiny, "--device", "cpu")
        monkeypatch.setattr("sys.argv", ["cxrg", "ground", *map(str, (*arguments, *model))])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def test_in_a_run_images_without_study_fail_alone(tmp_path: Path, cxrg: Any) -> None:
    write_dx(tmp_path / "a.dcm", (chest(1, (96, 80)) * 16).astype(np.uint16), seed=1)
    draw(tmp_path / "b.png", seed=2)
    asked = (
        "a.dcm",
        "b.png",
        "-p",
        "opacity",
        "--format",
        "json,dicom-sr,dicom-seg",
        "--out",
        "out",
    )
    code, _, err = cxrg(*asked)
    assert code == 1
    assert "b.png: is no DICOM object" in err
    assert "1 of 2 inputs failed" in err
    suffixes = sorted(path.name.partition(".")[2] for path in Path("out").iterdir())
    assert suffixes == ["json", "jsonl", "seg.dcm", "sqlite", "sr.dcm"]
    (record,) = Path("out").glob("*.json")
    (sr,) = Path("out").glob("*.sr.dcm")
    assert json.loads(record.read_text())["image"]["uid"] in uids(sr)
    failure = json.loads(Path("out/failures.jsonl").read_text())
    assert failure["remedy"].startswith("give the DICOM file, or leave out the formats")
    before = sr.read_bytes()
    assert "1 done before" in cxrg(*asked)[2]
    assert sr.read_bytes() == before
    sr.unlink()
    assert "1 done" in cxrg(*asked)[2]
    assert sr.is_file()


def test_a_picture_alone_ends_the_command(tmp_path: Path, cxrg: Any) -> None:
    draw(tmp_path / "b.png")
    code, out, err = cxrg("b.png", "opacity", "--format", "dicom-sr", "--out", "out")
    assert (code, out) == (3, "")
    assert err.startswith("cxrg: b.png: is no DICOM object")
    assert err.count("\n") == 1


def test_without_highdicom_the_command_ends_at_once(
    cxrg: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cxrg.output.dicom.find_spec", lambda name: None)
    code, out, err = cxrg("a.dcm", "opacity", "--format", "json,dicom-sc")
    assert (code, out) == (2, "")
    assert err == "cxrg: formats dicom-... need highdicom; pip install 'cxrg[dicom]'\n"


@pytest.mark.parametrize("source", ["dx 12 bits", "lying", "mirrored"])
@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_boxes_of_a_mended_picture_lead_back_to_stored_pixels(
    source: str, clockwise: Literal[90, 180, 270], tmp_path: Path
) -> None:
    image = read_image(save(SOURCES[source](), tmp_path / "source.dcm"), side=64)
    mended = mended_by(image, Mending(clockwise=clockwise))
    rows, columns = np.nonzero(mended.grey > 0.8)
    box = Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    corners = read_source(mended).outline(box)
    assert (*corners.min(0), *corners.max(0)) == (PLANTED.x0, PLANTED.y0, PLANTED.x1, PLANTED.y1)


def test_the_report_says_that_the_picture_was_mended(plain: Path, tmp_path: Path) -> None:
    grounding = ground(plain)
    mended = mended_by(grounding.image, Mending(clockwise=180, inverted=True))
    ds = pydicom.dcmread(write(replace(grounding, image=mended), tmp_path)["dicom-sr"])
    texts = [item.TextValue for item in items(ds) if item.ValueType == "TEXT"]
    said = "The picture was turned by 180 degrees and inverted before it was read."
    assert said in texts


def test_in_a_run_a_header_that_cannot_be_copied_fails_alone(tmp_path: Path, cxrg: Any) -> None:
    """A presentation state in grey is none for a picture in colour."""
    grey = chest(1, (96, 80))
    coloured = stored(8)
    coloured.SamplesPerPixel, coloured.PlanarConfiguration = 3, 0
    coloured.PhotometricInterpretation = "RGB"
    coloured.PixelData = np.repeat(grey[..., None], 3, 2).tobytes()
    save(coloured, tmp_path / "a.dcm")
    write_dx(tmp_path / "b.dcm", (grey * 16).astype(np.uint16), seed=1)
    asked = ("a.dcm", "b.dcm", "-p", "opacity", "--format", "dicom-gsps", "--out", "out")
    code, _, err = cxrg(*asked)
    assert code == 1
    assert "a.dcm: has a header that no DICOM result can be derived from" in err
    assert "1 of 2 inputs failed" in err
    assert len(list(Path("out").glob("*.gsps.dcm"))) == 1
