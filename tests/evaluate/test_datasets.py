"""Readers on small files in each format's own form; nothing wrong may vanish uncounted."""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image

from cxrg.chest.categories import group_of, make_phrase, named_side, place
from cxrg.errors import InputError, UsageError
from cxrg.evaluate.datasets import Dataset, read_dataset
from cxrg.evaluate.datasets.common import merge_duplicates
from cxrg.evaluate.sample import Polygons, Rle, Sample, encode, pseudonym
from cxrg.geometry import Box, mask_boxes
from cxrg.image.read import read_image, read_layout
from cxrg.phantom.dx import write_dx


def image(folder: Path, name: str, size: tuple[int, int] = (64, 64)) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros(size, np.uint8))
    return path


def text(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def kinds(data: Dataset) -> dict[str, int]:
    return data.problems.counts()


def one(data: Dataset) -> Sample:
    assert len(data.samples) == 1
    return data.samples[0]


def test_manifest_csv(tmp_path: Path) -> None:
    image(tmp_path, "a.png", (100, 200))
    path = text(
        tmp_path / "m.csv",
        "image,phrase,category,boxes,patient,side,zone,width,height",
        'a.png,left lower opacity,Opacity,"[[120, 50, 160, 80]]",p7,left,lower,200,100',
        "a.png,pleural effusion,Pleural Effusion absent,[],p7,,,200,100",
        "a.png,nodule,Nodule,[],p7,,,,",
    )
    found, absent, empty = read_dataset(path).samples
    assert found.boxes == (Box(120, 50, 160, 80),)
    assert (found.patient, found.side, found.zone, found.space) == (
        pseudonym("p7"),
        "left",
        "lower",
        (100, 200),
    )
    assert found.present
    assert (absent.present, absent.category) == (False, "Pleural Effusion")
    assert not empty.present
    assert empty.space == (100, 200), "read from the file's header"
    assert found.boxes_in((50, 100)) == (Box(60, 25, 80, 40),)


def test_manifest_jsonl_with_mask_and_the_least_columns(tmp_path: Path) -> None:
    image(tmp_path, "a.png")
    mask = np.zeros((64, 64), bool)
    mask[10:20, 30:40] = True
    coded = encode(mask)
    row = {
        "image": "a.png",
        "phrase": "right nodule",
        "mask": {"size": [64, 64], "counts": coded.counts},
    }
    path = text(tmp_path / "m.jsonl", json.dumps(row), "")
    sample = one(read_dataset(path))
    assert sample.side == "right"
    assert sample.category == "right nodule"
    np.testing.assert_array_equal(sample.truth((64, 64)), mask)


def test_manifest_problems_are_named_and_strict_stops(tmp_path: Path) -> None:
    image(tmp_path, "a.png", (100, 100))
    path = text(
        tmp_path / "m.csv",
        "image,phrase,category,boxes",
        'gone.png,x,Mass,"[[1, 1, 5, 5]]"',
        'a.png,x,Mass,"[[200, 1, 300, 5]]"',
        'a.png,y,Mass,"[[90, 90, 120, 120]]"',
        'a.png,z,Mass,"[[5, 5, 5, 9]]"',
        'a.png,u,Mass,"[[5, 5, 5]]"',
        "a.png,v,Mass,",
        'a.png,w,Mass absent,"[[1, 1, 2, 2]]"',
        'a.png,,Mass,"[[1, 1, 9, 9]]"',
    )
    data = read_dataset(path)
    cut, made = data.samples
    assert cut.boxes == (Box(90, 90, 100, 100),)
    assert made.phrase == "right upper lung mass"
    assert kinds(data) == {
        "missing image": 1,
        "box outside the image": 1,
        "no box": 3,
        "box reaches beyond the image": 1,
        "empty box": 1,
        "bad row": 2,
    }
    with pytest.raises(InputError, match=r"m\.csv row \d+: missing image.*--strict"):
        read_dataset(path, strict=True)


def test_missing_values_are_no_words(tmp_path: Path) -> None:
    image(tmp_path, "a.png", (100, 100))
    rows = [
        {"image": "a.png", "phrase": "left mass", "category": None, "boxes": [[1, 1, 9, 9]]},
        {"image": "a.png", "phrase": None, "category": "Mass", "boxes": [[1, 1, 9, 9]]},
        {"image": "a.png", "phrase": None, "category": float("nan"), "boxes": [[1, 1, 9, 9]]},
        {"image": None, "phrase": "mass", "boxes": [[1, 1, 9, 9]]},
    ]
    data = read_dataset(text(tmp_path / "m.jsonl", *map(json.dumps, rows)))
    assert [(s.phrase, s.category) for s in data.samples] == [
        ("left mass", "left mass"),
        ("right upper lung mass", "Mass"),
    ]
    assert kinds(data) == {"no phrase": 1, "missing image": 1}
    table = text(
        tmp_path / "m.csv",
        "image,phrase,category,boxes,patient,side,zone,width,height",
        'a.png,left mass,NaN,"[[1, 1, 9, 9]]",nan,NA,<NA>,NaN,NaN',
    )
    sample = one(read_dataset(table))
    assert (sample.category, sample.side) == ("left mass", "left")
    assert sample.patient == pseudonym("a")  # of the file's name
    assert sample.space == (100, 100)


def test_no_message_has_a_cell_in_it(tmp_path: Path) -> None:
    path = text(tmp_path / "m.csv", "DOE^JANE,1931-02-03", "a.png,x")
    with pytest.raises(InputError) as refusal:
        read_dataset(path, format="manifest")
    assert "DOE" not in str(refusal.value)
    image(tmp_path, "p1.png")
    path = text(tmp_path / "l.csv", "patientId,x,y,width,height,Target", "p1,DOE,1,1,1,1")
    (problem,) = read_dataset(path).problems.found
    assert (problem.kind, problem.detail) == ("not a number", "x")


@pytest.mark.parametrize("format", ["nih", "manifest", "rsna"])
def test_tables_of_another_encoding_are_refused(format: str, tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_bytes("Image Index,Größe\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_dataset(path, format=format)


def test_wrong_columns_and_files(tmp_path: Path) -> None:
    path = text(tmp_path / "m.csv", "image,caption", "a.png,x")
    with pytest.raises(InputError, match="phrase"):
        read_dataset(path, format="manifest")
    with pytest.raises(InputError, match="--format"):
        read_dataset(path)
    with pytest.raises(InputError, match="no file"):
        read_dataset(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="ms-cxr"):
        read_dataset(path, format="coco")
    with pytest.raises(UsageError, match="--images"):
        read_dataset(path, images=tmp_path / "nowhere")
    with pytest.raises(InputError, match="no JSON"):
        read_dataset(text(tmp_path / "m.jsonl", "{"))
    with pytest.raises(InputError, match="line 1"):
        read_dataset(text(tmp_path / "m.jsonl", '{"image": "a.png"}'))
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"b\.csv"):
        read_dataset(tmp_path / "b.csv")


MS_PATH = "files/p10/p10000032/s50414267/02aa804e-bde0afdd.dcm"


def test_ms_cxr_csv_joins_rows_and_finds_converted_images(tmp_path: Path) -> None:
    image(tmp_path, MS_PATH.replace(".dcm", ".jpg"), (300, 200))
    path = text(
        tmp_path / "ms.csv",
        "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split",
        f"02aa,Pneumonia,Left basal opacity,{MS_PATH},1000,2000,100,200,2000,3000,test",
        f"02aa,Pneumonia,Left basal opacity,{MS_PATH},1500,2000,100,200,2000,3000,test",
        f"02aa,Edema,Edema,{MS_PATH},x,2000,100,200,2000,3000,test",
    )
    data = read_dataset(path)
    sample = one(data)
    assert data.format == "ms-cxr"
    assert sample.boxes == (Box(1000, 2000, 1100, 2200), Box(1500, 2000, 1600, 2200))
    assert (sample.phrase, sample.side) == ("Left basal opacity", "left")
    assert sample.patient == "p10000032"
    assert sample.boxes_in((300, 200))[0] == Box(100, 200, 110, 220)
    assert sample.fits((300, 200))
    assert not sample.fits((200, 200))
    assert kinds(data) == {"not a number": 1}


def test_ms_cxr_json(tmp_path: Path) -> None:
    image(tmp_path, "flat/02aa804e-bde0afdd.png")
    content = {
        "images": [{"id": 3, "path": MS_PATH, "width": 2000, "height": 3000}],
        "categories": [{"id": 5, "name": "Pneumothorax"}],
        "annotations": [
            {"image_id": 3, "category_id": 5, "label_text": "apical pneumothorax", "bbox": box}
            for box in ([10, 20, 30, 40], [50, 60, 70, 80])
        ],
    }
    path = text(tmp_path / "ms.json", json.dumps(content))
    sample = one(read_dataset(path))
    assert sample.boxes == (Box(10, 20, 40, 60), Box(50, 60, 120, 140))
    assert sample.category == "Pneumothorax"
    content["annotations"][0]["label_text"] = None
    data = read_dataset(text(path, json.dumps(content)))
    assert one(data).boxes == (Box(50, 60, 120, 140),)
    assert kinds(data) == {"no phrase": 1}
    content["annotations"][0]["category_id"] = 9
    with pytest.raises(InputError, match="MS-CXR JSON"):
        read_dataset(text(path, json.dumps(content)))


def test_vindr_merges_readers(tmp_path: Path) -> None:
    image(tmp_path, "abc.png", (400, 400))
    path = text(
        tmp_path / "annotations_train.csv",
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max",
        "abc,R1,Nodule/Mass,220,20,320,120",
        "abc,R2,Nodule/Mass,220,20,310,120",
        "abc,R3,Nodule/Mass,20,20,60,60",
        "abc,R1,No finding,,,,",
    )
    data = read_dataset(path)
    sample = one(data)
    assert sample.boxes == (Box(220, 20, 320, 120), Box(20, 20, 60, 60))
    assert sample.side == "bilateral"
    assert sample.phrase == "bilateral upper lung nodule/mass"
    assert kinds(data) == {}
    assert len(data.problems.notes) == 1


def test_vindr_boxes_shrink_with_the_images(tmp_path: Path) -> None:
    image(tmp_path, "abc.png", (192, 176))
    path = text(
        tmp_path / "train.csv",
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max,width,height",
        "abc,Pleural effusion,10,R9,900,960,1300,1300,1408,1536",
        "abc,Nodule/Mass,8,R9,100,120,260,280,1408,1536",
        "abc,No finding,14,R9,NaN,NaN,NaN,NaN,1408,1536",
        "abc,Atelectasis,0,R9,100,120,260,280,,1536",
        "abc,Consolidation,4,R9,100,120,260,280,0,0",
    )
    data = read_dataset(path)
    effusion, nodule = data.samples
    assert effusion.boxes_in((192, 176)) == (Box(112.5, 120, 162.5, 162.5),)
    assert nodule.boxes_in((192, 176)) == (Box(12.5, 15, 32.5, 35),)
    assert nodule.phrase == "right upper lung nodule/mass"
    assert kinds(data) == {"not a number": 1, "bad size": 1}
    assert [note.kind for note in data.problems.notes] == ["row without a box"]


def test_merging_compares_every_pair() -> None:
    # Each is three quarters of the one before: neighbours are near-duplicates, the ends aren't.
    boxes = [Box(0, 0, 100, 10), Box(0, 0, 75, 10), Box(0, 0, 50, 10)]
    assert boxes[2].iou(boxes[0]) < 0.55 < boxes[2].iou(boxes[1])
    assert merge_duplicates(boxes) == (boxes[0],)


def test_nih(tmp_path: Path) -> None:
    image(tmp_path, "images_001/00013118_008.png", (512, 512))
    path = text(
        tmp_path / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,",
        "00013118_008.png,Infiltrate,225.5,547,86.5,79,,,",
        "00013118_008.png,Nodule,1",
    )
    data = read_dataset(path)
    sample = one(data)
    assert sample.boxes == (Box(225.5, 547, 312, 626),)
    assert sample.boxes_in((512, 512)) == (Box(112.75, 273.5, 156, 313),)
    assert (sample.category, sample.patient) == ("Infiltration", "00013118")
    assert sample.phrase == "right mid lung infiltration"
    assert kinds(data) == {"bad row": 1}
    with pytest.raises(InputError, match="header"):
        read_dataset(text(path, "Image Index,Finding Label,x,y,w,h"), format="nih")


def test_rsna_has_negatives(tmp_path: Path) -> None:
    image(tmp_path, "p1.png")
    image(tmp_path, "p2.png")
    path = text(
        tmp_path / "labels.csv",
        "patientId,x,y,width,height,Target",
        "p1,600,100,100,200,1",
        "p1,620,700,100,200,1",
        "p2,,,,,0",
        "p2,,,,,maybe",
        "p1,2000,700,100,200,1",
        "p3,2000,700,100,200,1",
    )
    image(tmp_path, "p3.png")
    data = read_dataset(path, template="{side} {finding} in the chest")
    there, absent = data.samples
    assert [len(there.boxes), len(absent.boxes)] == [2, 0]
    assert there.phrase == "left lung opacity in the chest"
    assert absent.phrase == "lung opacity in the chest"
    assert not absent.present
    # A patient whose boxes are all unusable is no negative.
    assert kinds(data) == {"bad row": 1, "box outside the image": 2, "no box": 1}
    with pytest.raises(UsageError, match="template"):
        read_dataset(path, template="{where} {finding}")


def test_rsna_after_a_table_program(tmp_path: Path) -> None:
    image(tmp_path, "p1.png")
    image(tmp_path, "p2.png")
    path = text(
        tmp_path / "labels.csv",
        "patientId,x,y,width,height,Target",
        "p1,600.0,580.0,220.0,190.0,1.0",
        "p2,NaN,NaN,NaN,NaN,0.0",
        "p2,NaN,1,1,1,1.0",
        "p2,,,,,0.5",
    )
    data = read_dataset(path)
    there, absent = data.samples
    assert there.boxes == (Box(600, 580, 820, 770),)
    assert not absent.present
    assert kinds(data) == {"not a number": 1, "bad row": 1}


NAME = "patient64541_study1_view1_frontal"


@pytest.mark.parametrize(
    "bad",
    [
        [[20, 20]],
        [[20, 20], [60, 70]],
        [[20, 20], [60, 70], [20, 20]],
        [[10, 10], [20, 20], [40, 40]],
        [[10, 10], [20, 20], [40, float("nan")]],
        [],
    ],
)
def test_a_point_or_a_line_is_no_outline(bad: list[list[float]], tmp_path: Path) -> None:
    image(tmp_path, f"{NAME}.png", (192, 176))
    good = [[110, 100], [150, 100], [150, 150], [110, 150]]
    entry = {
        "img_size": [192, 176],
        "Edema": [good],
        "Atelectasis": [bad],
        "Lung Lesion": [bad, good],
    }
    data = read_dataset(text(tmp_path / "gt.json", json.dumps({NAME: entry})))
    assert [sample.category for sample in data.samples] == ["Edema", "Lung Lesion"]
    for sample in data.samples:
        mask = sample.truth((192, 176))
        assert isinstance(mask, np.ndarray)
        assert mask.sum() == 40 * 50
    assert kinds(data) == {"empty outline": 2, "bad entry": 1}
    with pytest.raises(ValueError, match="three points"):
        Polygons((tuple(map(tuple, bad)),))  # type: ignore[arg-type]  # of any length


def test_an_outline_may_cross_itself(tmp_path: Path) -> None:
    image(tmp_path, f"{NAME}.png", (192, 176))
    entry = {"img_size": [192, 176], "Edema": [[[10, 10], [50, 50], [50, 10], [10, 50]]]}
    mask = one(read_dataset(text(tmp_path / "gt.json", json.dumps({NAME: entry})))).truth(
        (192, 176)
    )
    assert isinstance(mask, np.ndarray)
    assert mask.sum() == pytest.approx(40 * 40 / 2, rel=0.1)


def test_chexlocalize_outlines(tmp_path: Path) -> None:
    image(tmp_path, "patient64541/study1/view1_frontal.jpg", (200, 100))
    entry = {
        "img_size": [200, 100],
        "Lung Lesion": [
            [[60, 20], [80, 20], [80, 40], [60, 40]],
            [[10, 100], [20, 100], [20, 120]],
        ],
        "Edema": [],
    }
    content = {NAME: entry, "patient64541_study1_view2_lateral": entry}
    data = read_dataset(text(tmp_path / "gt.json", json.dumps(content)))
    sample = one(data)
    assert (sample.patient, sample.category) == ("patient64541", "Lung Lesion")
    assert isinstance(sample.region, Polygons)
    assert sample.boxes == (Box(60, 20, 80, 40), Box(10, 100, 20, 120))
    mask = sample.truth((200, 100))
    assert isinstance(mask, np.ndarray)
    assert mask[25:35, 65:75].all()
    assert mask.sum() == pytest.approx(20 * 20 + 10 * 20 / 2, rel=0.03)
    assert kinds(data) == {"bad entry": 1}
    assert len(data.problems.notes) == 1


def test_chexlocalize_run_lengths(tmp_path: Path) -> None:
    image(tmp_path, f"{NAME}.png", (40, 20))
    mask = np.zeros((40, 20), bool)
    mask[5:15, 12:18] = True
    coded = {
        kind: {"size": [40, 20], "counts": encode(part).counts}
        for kind, part in (("Edema", mask), ("Fracture", mask & False))
    }
    there, absent = read_dataset(text(tmp_path / "gt.json", json.dumps({NAME: coded}))).samples
    assert isinstance(there.region, Rle)
    np.testing.assert_array_equal(there.truth((40, 20)), mask)
    np.testing.assert_array_equal(there.truth((80, 40)), np.kron(mask, np.ones((2, 2), bool)))
    assert there.boxes == (Box(12, 5, 18, 15),)
    assert not absent.present


def runs(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: of zeros and ones in turn, column after column."""
    lengths, value = [0], 0
    for pixel in mask.ravel(order="F").astype(int):
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return lengths


def test_run_lengths_need_not_be_compressed(tmp_path: Path) -> None:
    image(tmp_path, f"{NAME}.png", (40, 20))
    mask = np.zeros((40, 20), bool)
    mask[5:15, 12:18] = True
    coded = {
        kind: {"size": [40, 20], "counts": runs(part)}
        for kind, part in (("Edema", mask), ("Fracture", mask & False))
    }
    there, absent = read_dataset(text(tmp_path / "gt.json", json.dumps({NAME: coded}))).samples
    np.testing.assert_array_equal(there.truth((40, 20)), mask)
    assert there.boxes == (Box(12, 5, 18, 15),)
    assert not absent.present
    row = {"image": f"{NAME}.png", "phrase": "edema", "mask": coded["Edema"]}
    sample = one(read_dataset(text(tmp_path / "m.jsonl", json.dumps(row))))
    np.testing.assert_array_equal(sample.truth((40, 20)), mask)


@pytest.mark.parametrize(
    ("size", "counts"),
    [
        ([4, 4], "abc"),
        ([4, 4], ""),
        ([4, 4], None),
        ([4, 4], 16),
        ([4, 4], [5, 3]),
        ([4, 4], [5, 3, 9]),
        ([4, 4], [5, -3, 14]),
        ([4, 4], [5.5, 3, 7.5]),
        ([4, 4], ["5", "3", "8"]),
        ([4, 4], [[5], 3]),
        ([0, 4], [0]),
        ([4], [4]),
        ([10**6, 10**6], [10**12]),
        ([4, float("inf")], [4]),
    ],
)
def test_damaged_run_lengths_are_problems(
    size: list[float], counts: object, tmp_path: Path
) -> None:
    image(tmp_path, f"{NAME}.png", (4, 4))
    good, bad = {"size": [4, 4], "counts": [5, 3, 8]}, {"size": size, "counts": counts}
    content = {NAME: {"Edema": bad, "Fracture": good}}
    data = read_dataset(text(tmp_path / "gt.json", json.dumps(content)))
    assert one(data).category == "Fracture"
    assert kinds(data) == {"bad entry": 1}
    rows = [
        json.dumps({"image": f"{NAME}.png", "phrase": phrase, "mask": mask})
        for phrase, mask in (("edema", bad), ("fracture", good))
    ]
    data = read_dataset(text(tmp_path / "m.jsonl", *rows))
    assert one(data).phrase == "fracture"
    assert kinds(data) == {"bad row": 1}


def test_chexlocalize_never_takes_another_patients_view(tmp_path: Path) -> None:
    image(tmp_path, "patient1/study1/view1_frontal.jpg", (200, 100))
    entry = {"img_size": [200, 100], "Edema": [[[60, 20], [80, 20], [80, 40]]]}
    data = read_dataset(text(tmp_path / "gt.json", json.dumps({NAME: entry})))
    assert not data.samples
    assert kinds(data) == {"missing image": 1}


def test_images_of_one_name_are_not_guessed(tmp_path: Path) -> None:
    image(tmp_path, "x/a.png")
    image(tmp_path, "y/a.png")
    row = 'a.png,mass,Mass,"[[1, 1, 9, 9]]"'
    path = text(tmp_path / "m.csv", "image,phrase,category,boxes", row)
    assert kinds(read_dataset(path)) == {"missing image": 1}
    (tmp_path / "y" / "a.png").unlink()
    assert one(read_dataset(path)).image == tmp_path / "x" / "a.png"


def test_padchest_gr(tmp_path: Path) -> None:
    image(tmp_path, "img.png", (300, 200))
    findings: list[dict[str, Any]] = [
        {
            "sentence_en": "Left pleural effusion.",
            "abnormal": True,
            "boxes": [[0.6, 0.5, 0.9, 0.8]],
            "labels": ["pleural effusion"],
        },
        {"sentence_en": "Normal heart.", "abnormal": False, "boxes": []},
        {"sentence_en": "Kyphosis.", "abnormal": True, "boxes": []},
        {"sentence_en": "Mass.", "abnormal": True, "boxes": [[0, 1]]},
        {"sentence_en": None, "abnormal": True, "boxes": [[0.6, 0.5, 0.9, 0.8]]},
        {"sentence_en": "Mass.", "abnormal": True, "boxes": [[0, 0, 1, 1]], "labels": [None]},
    ]
    content = [
        {"StudyID": "s1", "ImageID": "img.png", "findings": findings},
        {"StudyID": None, "ImageID": "img.png", "findings": [{**findings[0], "labels": None}]},
    ]
    path = text(tmp_path / "gr.json", json.dumps(content))
    data = read_dataset(path)
    there, normal, mass, bare = data.samples
    assert there.boxes_in((300, 200)) == (Box(120, 150, 180, 240),)
    assert there.fits((300, 200))
    assert (there.category, there.side, there.patient) == ("pleural effusion", "left", "s1")
    assert not normal.present
    assert (mass.category, bare.category, bare.patient) == ("finding", "finding", "img")
    assert kinds(data) == {"bad entry": 1, "no phrase": 1}
    assert [note.kind for note in data.problems.notes] == ["abnormal without a box"]
    del findings[0]["abnormal"]
    with pytest.raises(InputError, match="PadChest-GR"):
        read_dataset(text(path, json.dumps(content)))


def test_chestx_det(tmp_path: Path) -> None:
    image(tmp_path, "1.png")
    image(tmp_path, "2.png")
    content = [
        {
            "file_name": "1.png",
            "syms": ["Effusion", "Nodule", "Effusion"],
            "boxes": [[600, 600, 700, 700], [100, 100, 120, 120], [700, 600, 800, 700]],
            "polygons": [
                [[600, 600], [700, 600], [700, 700]],
                [],
                [[700, 600], [800, 700], [700, 700]],
            ],
        },
        {"file_name": "2.png", "syms": [], "boxes": [], "polygons": []},
    ]
    path = text(tmp_path / "det.json", json.dumps(content))
    data = read_dataset(path)
    effusion, nodule = data.samples
    assert effusion.phrase == "left effusion"
    assert len(effusion.boxes) == 2
    mask = effusion.truth((1024, 1024))
    assert isinstance(mask, np.ndarray)
    assert mask.sum() == pytest.approx(2 * 100 * 100 / 2, rel=0.05)
    assert nodule.region is None, "without every outline the boxes are the truth"
    assert [note.kind for note in data.problems.notes] == ["normal image"]
    with pytest.raises(InputError, match="ChestX-Det"):
        read_dataset(text(path, json.dumps([{"syms": ["x"]}])))


def test_sizes_come_from_headers(tmp_path: Path) -> None:
    image(tmp_path, "wide.png", (30, 50))
    write_dx(tmp_path / "film", np.zeros((40, 20), np.uint16), seed=1)
    whole = (tmp_path / "film").read_bytes()
    (tmp_path / "bare").write_bytes(whole[132:])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    (tmp_path / "empty").touch()
    layouts = {path.name: read_layout(path) for path in tmp_path.iterdir()}
    assert {name: layout and layout.upright for name, layout in layouts.items()} == {
        "wide.png": (30, 50),
        "film": (40, 20),
        "bare": (40, 20),
        "broken.png": None,
        "empty": None,
    }
    row = 'broken.png,mass,Mass,"[[1, 1, 9, 9]]"'
    data = read_dataset(text(tmp_path / "m.csv", "image,phrase,category,boxes", row))
    assert kinds(data) == {"unreadable image": 1}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_sizes_are_those_of_the_upright_picture(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[274] = 6
    smooth = np.tile(np.arange(0, 200, 5, dtype=np.uint8), (30, 1))
    Image.fromarray(smooth).save(tmp_path / "a.png", kind, exif=exif)
    row = 'a.png,mass,Mass,"[[1, 1, 9, 35]]"'
    (sample,) = read_dataset(text(tmp_path / "m.csv", "image,phrase,category,boxes", row)).samples
    assert sample.space == (40, 30) == read_image(tmp_path / "a.png", side=32).grey.shape
    assert sample.boxes == (Box(1, 1, 9, 35),)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (["L", "F"], Box(2, 3, 8, 9)),
        (["R", "F"], Box(12, 3, 18, 9)),
        (["R", "H"], Box(12, 31, 18, 37)),
        (["F", "L"], Box(3, 2, 9, 8)),
        (["F", "R"], Box(31, 2, 37, 8)),
    ],
)
def test_boxes_turn_with_a_dicom_picture(
    tmp_path: Path, orientation: list[str], upright: Box
) -> None:
    pixels = np.ones((40, 20), np.uint16)
    pixels[3:9, 2:8] = 4000
    write_dx(tmp_path / "a.dcm", pixels, seed=1)
    film = pydicom.dcmread(tmp_path / "a.dcm")
    film.PatientOrientation = orientation
    film.save_as(tmp_path / "a.dcm")
    row = 'a.dcm,mass,Mass,"[[2, 3, 8, 9]]"'
    (sample,) = read_dataset(text(tmp_path / "m.csv", "image,phrase,category,boxes", row)).samples
    grey = read_image(tmp_path / "a.dcm", side=32).grey
    assert sample.space == grey.shape
    assert sample.boxes == (upright,)
    # The box is where the bright pixels are.
    rows, columns = np.nonzero(grey > 0.5)
    assert (columns.min(), rows.min()) == (upright.x0, upright.y0)
    assert (columns.max() + 1, rows.max() + 1) == (upright.x1, upright.y1)


def test_outlines_of_a_turned_dicom_picture_are_counted_and_left_out(tmp_path: Path) -> None:
    write_dx(tmp_path / "a.dcm", np.ones((40, 20), np.uint16), seed=1)
    film = pydicom.dcmread(tmp_path / "a.dcm")
    film.PatientOrientation = ["R", "F"]
    film.save_as(tmp_path / "a.dcm")
    mask = {"size": [40, 20], "counts": encode(np.eye(40, 20, dtype=bool)).counts}
    row = {"image": "a.dcm", "phrase": "mass", "category": "Mass", "mask": mask}
    data = read_dataset(text(tmp_path / "m.jsonl", json.dumps(row)))
    assert kinds(data) == {"turned image": 1}


def test_same_phrase_twice_keeps_both_apart(tmp_path: Path) -> None:
    image(tmp_path, "a.png")
    row = 'a.png,mass,Mass,"[[1, 1, 9, 9]]"'
    data = read_dataset(text(tmp_path / "m.csv", "image,phrase,category,boxes", row, row))
    assert len({sample.id for sample in data.samples}) == 2


def test_mask_boxes_leave_out_specks() -> None:
    mask = np.zeros((50, 50), bool)
    mask[5:25, 5:25] = True
    mask[40, 40] = True
    assert mask_boxes(mask) == (Box(5, 5, 25, 25),)
    assert len(mask_boxes(mask, min_share=0)) == 2
    assert mask_boxes(mask & False) == ()


def test_sides_are_the_patients() -> None:
    size = (100.0, 100.0)
    assert place([Box(60, 10, 80, 30)], size) == ("left", "upper")
    assert place([Box(10, 70, 30, 90)], size) == ("right", "lower")
    assert place([Box(10, 40, 30, 55), Box(60, 40, 80, 55)], size) == ("bilateral", "mid")
    assert place([Box(40, 10, 60, 90)], size) == (None, None)
    assert place([Box(47, 40, 62, 55)], size)[0] == "left"
    assert place([Box(45, 40, 60, 55)], size)[0] is None, "two thirds are not three quarters"
    assert named_side("Left-sided effusion") == "left"
    assert named_side("bilateral opacities, left more than right") is None
    assert named_side("both lungs, left worse") is None
    assert named_side("cardiomegaly") is None


def test_groups_and_phrases() -> None:
    assert [group_of(n) for n in ("Left Lung", "Central Venous Line", "Ground Glass Opacity")] == [
        "anatomy",
        "device",
        "finding",
    ]
    assert group_of("Lung Opacity") == "finding"
    default = "{location} {finding}"
    assert make_phrase(default, "Lung Opacity", "left", "lower") == "left lower lung opacity"
    assert make_phrase(default, "Mass", "left", None) == "left lung mass"
    assert make_phrase(default, "Pleural_Effusion", "right", "lower") == "right pleural effusion"
    assert make_phrase(default, "Cardiomegaly", "left", "lower") == "cardiomegaly"
    assert make_phrase("{zone} {finding}, {side}", "Mass", "left", "mid") == "mid mass, left"


def test_every_phantom_concept_has_its_group() -> None:
    from cxrg.phantom import language

    for kind in ("finding", "device", "anatomy"):
        for concept in language.concepts(kind):
            assert group_of(concept.title()) == kind, concept


def test_place_agrees_with_the_developer_data(shared: Path) -> None:
    data = read_dataset(shared / "data" / "realval" / "manifest.csv")
    assert len(data.samples) == 315
    assert not data.problems.found
    checked = 0
    for sample in data.samples:
        if sample.image.name.startswith("nih") and sample.present and sample.zone:
            assert sample.space is not None
            assert place(sample.boxes, sample.space) == (sample.side, sample.zone), sample.id
            checked += 1
    assert checked > 10


@pytest.mark.skipif(find_spec("torchxrayvision") is None, reason="no torchxrayvision")
def test_the_real_nih_list(tmp_path: Path) -> None:
    spec = find_spec("torchxrayvision")
    assert spec
    assert spec.origin
    packed = Path(spec.origin).parent / "data" / "BBox_List_2017.csv.gz"
    path = tmp_path / "BBox_List_2017.csv"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    for line in path.read_text().splitlines()[1:]:
        (tmp_path / line.split(",")[0]).touch()
    data = read_dataset(path)
    assert len(data.samples) == 984
    assert len({sample.category for sample in data.samples}) == 8
    assert not data.problems.found
