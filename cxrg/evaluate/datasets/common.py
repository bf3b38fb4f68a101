"""What every reader needs: tables with known columns, images found by name, boxes cleaned."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from cxrg.chest.categories import make_phrase, place
from cxrg.errors import InputError, UsageError
from cxrg.evaluate.sample import Polygons, Problems, Sample, encloses_area, pseudonym
from cxrg.geometry import Box
from cxrg.image.file import SUFFIXES
from cxrg.image.orientation import UPRIGHT
from cxrg.image.read import read_layout

TEMPLATE = "{location} {finding}"
NO_IMAGE = ("missing image", "unreadable image")
"""Kinds of problems that another folder of images may solve."""
Row = dict[str, str]
MISSING = ("na", "nan", "<na>", "null", "none")
"""How table programs write a cell without a value."""


@dataclass(slots=True)
class Images:
    """Finds image files below a folder by the name a data set gives them.

    The path as given is tried first, then with other suffixes, then the bare name anywhere below,
    if only one file has it (data sets are unpacked into various folders, and converted).
    """

    root: Path
    _by_name: dict[str, Path | None] | None = None

    def find(self, name: str, *, anywhere: bool = True) -> Path | None:
        """The file, or None; ``anywhere`` False where a bare name means nothing."""
        inside = PurePosixPath(name.replace("\\", "/").lstrip("/"))
        if ".." in inside.parts or not inside.name or "\0" in name:
            return None  # a label file must not reach beyond the folder of the images
        given = self.root / inside
        for path in (given, *(given.with_name(given.stem + end) for end in SUFFIXES)):
            if path.is_file():
                return path
        for end in SUFFIXES:  # names such as 1.2.840.1 have no suffix, only dots
            if (path := given.with_name(given.name + end)).is_file():
                return path
        if not anywhere:
            return None
        index = self._index()
        return index.get(given.name) or index.get(given.stem)

    def _index(self) -> dict[str, Path | None]:
        """Files below by name and by name without suffix; None where several share it."""
        if self._by_name is None:
            self._by_name = {}
            for path in sorted(self.root.rglob("*")):
                if path.suffix.lower() in (*SUFFIXES, "") and path.is_file():
                    for key in {path.name, path.stem}:
                        self._by_name[key] = None if key in self._by_name else path
        return self._by_name


@dataclass(slots=True)
class Reading:
    """One data set being read: where its images are, how phrases are made, what went wrong."""

    images: Images
    problems: Problems = field(default_factory=Problems)
    template: str = TEMPLATE
    _ids: set[str] = field(default_factory=set)

    def sample(
        self,
        name: str,
        category: str,
        boxes: Sequence[Box],
        *,
        phrase: str | None = None,
        space: tuple[float, float] | None = None,
        absent: bool = False,
        anywhere: bool = True,
        row: str | None = None,
        **more: Any,
    ) -> Sample | None:
        """A sample, or None with a problem counted: no such image, no size, or no box left.

        ``name`` is the image's name in the data set; boxes are in ``space`` (H, W), or in pixels of
        the file without one, and are cleaned here. ``absent``: the phrase names something
        that isn't there; ``anywhere`` is as in :meth:`Images.find`. Without a phrase one is made
        from the template. ``row`` is the place in a label file of the user's own, whose paths and
        patients may be names: hashes stand for them. ``more`` are further fields of the sample;
        None leaves one as it is.

        Samples are in pixels of the upright picture, as images are read. Labels of DICOM are in
        stored pixels, so the boxes of a mirrored or turned one are turned with it.
        """
        image_id = pseudonym(name) if row else ""
        identity = more.pop("id", None) or f"{image_id or name} {phrase or category}"
        where = row or identity
        image = self.images.find(name, anywhere=anywhere)
        if image is None:
            wanted = "the image is not" if row else f"no {name}"
            self.problems.add("missing image", where, f"{wanted} below {self.images.root.name}/")
            return None
        layout = read_layout(image)
        turn = layout.turn if layout and layout.kind == "dicom" else UPRIGHT
        if space is None:
            if layout is None:
                self.problems.add("unreadable image", where, "the file is no image")
                return None
            space = layout.stored if layout.kind == "dicom" else layout.upright
        if turn != UPRIGHT and more.get("region"):
            words = "its outline or mask would have to be turned with it; export the image upright"
            self.problems.add("turned image", where, words)
            return None
        if not all(math.isfinite(side) and side > 0 for side in space):
            self.problems.add("bad size", where, "width and height are not above 0")
            return None
        clean = self.clean(boxes, space, where)
        if not (clean or absent or more.get("region")):
            self.problems.add("no box", where, "no usable box is left")
            return None
        clean = tuple(turn.box(box, space) for box in clean)
        space = turn.shape(space)
        side, zone = place(clean, space) if clean else (None, None)
        given = {key: value for key, value in more.items() if value is not None}
        more = {"patient": PurePosixPath(name).stem, "side": side, "zone": zone, **given}
        if row:
            more |= {"patient": pseudonym(more["patient"]), "image_id": image_id, "row": row}
        text = phrase or (category and self.phrase(category, more["side"], more["zone"]))
        if not text.strip():
            self.problems.add("no phrase", where, "the phrase is empty")
            return None
        return Sample(
            id=self._unique(identity),
            image=image,
            phrase=text.strip(),
            category=category,
            boxes=clean,
            space=space,
            **more,
        )

    def phrase(self, category: str, side: str | None, zone: str | None) -> str:
        """The template filled in.

        Raises:
            UsageError: the template has a field that is not known.
        """
        try:
            return make_phrase(self.template, category, side, zone)
        except (KeyError, IndexError, ValueError) as error:
            raise UsageError(
                f"template {self.template!r} cannot be filled in; "
                "use {location}, {finding}, {side} and {zone} only"
            ) from error

    def clean(self, boxes: Sequence[Box], size: tuple[float, float], where: str) -> tuple[Box, ...]:
        """Boxes clipped to the image, with what is clipped or dropped counted."""
        height, width = size
        kept = []
        for box in boxes:
            text = f"[{box.x0:g}, {box.y0:g}, {box.x1:g}, {box.y1:g}]"
            if not all(map(math.isfinite, (box.x0, box.y0, box.x1, box.y1))) or box.area <= 0:
                self.problems.add("empty box", where, f"{text} has no area")
                continue
            inside = box.intersection(Box(0, 0, width, height))
            if inside is None:
                self.problems.add("box outside the image", where, f"{text} in {width:g}x{height:g}")
                continue
            if inside.area < 0.99 * box.area:
                self.problems.add(
                    "box reaches beyond the image", where, f"{text} in {width:g}x{height:g}, cut"
                )
            kept.append(inside)
        return tuple(kept)

    def outlines(self, rings: Iterable[Sequence[Any]], where: str) -> Polygons | None:
        """The outlines that enclose an area, those that do not counted; None if none does.

        Raises:
            TypeError, ValueError: a point is not two numbers.
        """
        kept = []
        for points in rings:
            ring = tuple((float(x), float(y)) for x, y in points)
            if encloses_area(ring):
                kept.append(ring)
            else:
                self.problems.add("empty outline", where, f"{len(ring)} points enclose no area")
        return Polygons(tuple(kept)) if kept else None

    def _unique(self, name: str) -> str:
        found, count = name, 2
        while found in self._ids:
            found, count = f"{name} ({count})", count + 1
        self._ids.add(found)
        return found


def read_rows(path: Path, columns: Iterable[str]) -> list[Row]:
    """The rows of a CSV file that has these columns (any order, others besides).

    A cell that a table program wrote for a missing value is empty, see `cell`.

    Raises:
        InputError: the file cannot be read as such a table.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            names = [name.strip() for name in reader.fieldnames or ()]
            missing = [name for name in columns if name not in names]
            if missing:
                # What it has is not named: without a header row it is somebody's data.
                raise InputError(
                    f"{path.name} has no column {', '.join(missing)}; check its header row and "
                    "--format"
                )
            reader.fieldnames = names
            return [{k: cell(v) for k, v in row.items() if k} for row in reader]
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path.name} is not UTF-8 at byte {error.start}; convert it"
            ) from error
        except csv.Error as error:
            raise InputError(f"{path.name} is no CSV table: {error}") from error


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: it is in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 at byte {error.start}; convert it") from error


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        InputError: it is none.
    """
    return parse_json(read_text(path), path.name)


def parse_json(text: str, where: str) -> Any:
    """A JSON value.

    Raises:
        InputError: it is none; the message names the place.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, or a number too long
        raise InputError(f"{where} is no JSON: {error}") from error


def cell(value: Any) -> str:
    """A cell or JSON value as text, ``""`` where it is missing: null, or a table program's NaN."""
    text = "" if value is None else str(value).strip()
    return "" if text.lower() in MISSING else text


def numbers(row: Row, names: Sequence[str], where: str, problems: Problems) -> list[float] | None:
    """Fields of a row as numbers; None with a problem counted where one is not a finite number."""
    wrong = [name for name in names if not _is_number(row.get(name, ""))]
    if wrong:
        problems.add("not a number", where, ", ".join(wrong))
        return None
    return [float(row[name]) for name in names]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def xywh(x: float, y: float, width: float, height: float) -> Box:
    """A box from its corner and extent."""
    return Box(x, y, x + width, y + height)


def merge_duplicates(boxes: Sequence[Box], overlap: float = 0.55) -> tuple[Box, ...]:
    """Of every pair of boxes with at least this IoU the smaller one goes (several readers drew)."""
    largest_first = sorted(boxes, key=lambda box: -box.area)
    return tuple(
        box
        for i, box in enumerate(largest_first)
        if all(box.iou(larger) < overlap for larger in largest_first[:i])
    )
