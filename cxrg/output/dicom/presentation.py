"""The boxes as Grayscale Softcopy Presentation State (PS3.3 A.33.1): drawn by the viewer itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import Dataset
from pydicom.multival import MultiValue

from cxrg.about import NOTICE
from cxrg.image.grayscale import items, pixel_aspect, text
from cxrg.output.dicom.objects import identity_of, short, write_object
from cxrg.output.dicom.source import Source

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.result import Grounding


def write(grounding: Grounding, image: CxrImage, path: Path) -> None:
    """Write the boxes of a grounding as DICOM presentation state.

    Raises:
        CxrgError: it cannot be made or written.
    """
    write_object(path, image, lambda source: _presentation(grounding, source))


def _presentation(grounding: Grounding, source: Source) -> Dataset:
    from highdicom import PresentationLUTTransformation, pr

    header = _with_one_view(source.header)
    layer = pr.GraphicLayer("CXRG", order=1, description=short(NOTICE))
    outlines, labels = _marks(grounding, source)
    annotation = pr.GraphicAnnotation(
        referenced_images=[header],
        graphic_layer=layer,
        graphic_objects=outlines,
        text_objects=labels,
    )
    # Identity would show a MONOCHROME1 picture as its negative.
    inverse = text(header, "PhotometricInterpretation") == "MONOCHROME1"
    ds = pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[header],
        graphic_layers=[layer],
        graphic_annotations=[annotation],
        presentation_lut_transformation=PresentationLUTTransformation(
            presentation_lut_shape="INVERSE" if inverse else "IDENTITY"
        ),
        content_label="CXRG",
        content_description=short(f"{grounding.status}: {grounding.phrase}"),
        **identity_of(grounding, source, "PR"),
    )
    ds.Laterality = ""  # of the series: a chest has both sides
    _stretch_tables(ds)
    _keep_aspect(ds, header)
    return ds


_WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation")


def _with_one_view(header: Dataset) -> Dataset:
    """Return the header with its first table or window only, as a state has one (PS3.3 C.11.8).

    A table comes before a window, as it does where the image is read.
    """
    kept = Dataset()
    for element in header:
        kept.add(element)
    if tables := items(header, "VOILUTSequence"):
        kept.VOILUTSequence = tables[:1]
        for keyword in (*_WINDOW, "VOILUTFunction"):
            kept.pop(keyword, None)
    for keyword in _WINDOW:
        if (value := kept.get(keyword)) and isinstance(value, MultiValue):
            setattr(kept, keyword, value[0])
    return kept


_SHORT_TEXT = 1024
"""Characters of a Short Text (PS3.5 6.2)."""


def _marks(grounding: Grounding, source: Source) -> tuple[list[Any], list[Any]]:
    """Return an outline and a number for each box, and the phrase with its status."""
    from highdicom import pr

    outlines = []
    labels = [
        pr.TextObject(
            text_value=short(f"{grounding.phrase}: {grounding.status}", _SHORT_TEXT),
            units="DISPLAY",
            bounding_box=(0.0, 0.0, 1.0, 0.05),
            text_justification="LEFT",
        )
    ]
    for number, box in enumerate(grounding.boxes, 1):
        corners = source.outline(box)
        outlines.append(
            pr.GraphicObject(graphic_type="POLYLINE", graphic_data=corners, units="PIXEL")
        )
        x, y = corners[0]
        labels.append(
            pr.TextObject(
                text_value=str(number),
                units="PIXEL",
                anchor_point=(float(x), float(y)),
                anchor_point_visible=False,
            )
        )
    return outlines, labels


def _stretch_tables(ds: Dataset) -> None:
    """Let the entries of VOI tables reach white, which has 8 or 16 bits here (PS3.3 C.11.8).

    The image's own tables often have 10 or 12 bits; kept as they are they would show it dark.
    """
    for transformation in ds.get("SoftcopyVOILUTSequence", ()):
        for table in transformation.get("VOILUTSequence", ()):
            bits = int(table.LUTDescriptor[2])
            kind = np.dtype("u1" if bits == 8 else "<u2")
            entries = np.frombuffer(table.LUTData, kind, int(table.LUTDescriptor[0]) or 2**16)
            scaled = entries * ((2**bits - 1) / max(int(entries.max()), 1))
            table.LUTData = np.rint(scaled).astype(kind).tobytes()


def _keep_aspect(ds: Dataset, header: Dataset) -> None:
    """Show pixels in the shape that the image gives them (PS3.3 C.10.4)."""
    aspect = pixel_aspect(header)
    if aspect != 1:
        for item in ds.DisplayedAreaSelectionSequence:
            item.PresentationPixelAspectRatio = [max(round(aspect * 1000), 1), 1000]
