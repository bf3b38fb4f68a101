"""The JSON record of a grounding, schema ``cxrg.grounding/3``.

Its JSON Schema is the file beside this one. A field is never removed or given another meaning
within one version. The record names the image by its hash and SOPInstanceUID only: file names and
all other DICOM elements may identify the patient. It holds nothing that differs between two equal
runs, so records can be compared byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrg.about import NOTICE, __version__
from cxrg.files import atomic_write
from cxrg.options import modernise

if TYPE_CHECKING:
    from cxrg.heatmap.draws import BoxDraws, Draws
    from cxrg.image.read import CxrImage
    from cxrg.phrase.intent import Intent
    from cxrg.result import Grounding, Laterality

SCHEMA = "cxrg.grounding/3"
SCHEMA_FILE = Path(__file__).with_name("grounding-3.schema.json")
_EDGES = ("x0", "y0", "x1", "y1")


def record(grounding: Grounding) -> dict[str, Any]:
    """A grounding without its arrays, as JSON values."""
    image = grounding.image
    height, width = image.frame.source
    return {
        "schema": SCHEMA,
        "image": {
            "sha256": image.sha256,
            "uid": image.uid,
            "width": width,
            "height": height,
            "grey": image.window,
            "mended": image.mended
            and {
                "clockwise": image.mended.clockwise,
                "inverted": image.mended.inverted,
            },
        },
        "phrase": grounding.phrase,
        "asked": grounding.asked,
        "meaning": _meaning(grounding.intent),
        "status": grounding.status,
        "score": grounding.score,
        "presence": grounding.presence,
        "draws": _draws(grounding.draws),
        "boxes": _boxes(grounding),
        "laterality": _laterality(grounding.laterality),
        "parts": [
            {
                "phrase": part.phrase,
                "certainty": part.intent.kind,
                "status": part.status,
                "score": part.score,
                "presence": part.presence,
                "draws": _draws(part.draws),
                "boxes": _boxes(part),
                "laterality": _laterality(part.laterality),
            }
            for part in grounding.parts
        ],
        "tokens": list(grounding.tokens),
        "layers": list(grounding.layers),
        "evaluations": grounding.evaluations,
        "model": asdict(grounding.model),
        "options": asdict(grounding.options),
        "warnings": list(grounding.warnings),
        "cxrg": __version__,
        "notice": NOTICE,
    }


def _draws(draws: Draws | None) -> dict[str, Any] | None:
    if draws is None:
        return None
    return {
        "count": len(draws.scores),
        "found": draws.found,
        "mean": draws.mean,
        "minimum": draws.minimum,
        "maximum": draws.maximum,
        "scores": list(draws.scores),
    }


def _box_draws(draws: BoxDraws) -> dict[str, Any]:
    return {
        "agree": draws.agree,
        **{edge: getattr(draws, edge) and list(getattr(draws, edge)) for edge in _EDGES},
    }


def _boxes(grounding: Grounding) -> list[dict[str, Any]]:
    drawn = grounding.draws
    spread = [_box_draws(each) for each in drawn.boxes] if drawn else repeat(None)
    return [
        {
            "x0": float(box.x0),
            "y0": float(box.y0),
            "x1": float(box.x1),
            "y1": float(box.y1),
            "score": box.score,
            "where": place,
            "draws": draws,
        }
        for box, place, draws in zip(grounding.boxes, grounding.places, spread, strict=False)
    ]


def _laterality(sides: Laterality) -> dict[str, Any]:
    return {"phrase": sides.phrase, "boxes": list(sides.boxes), "agrees": sides.agrees}


def _meaning(intent: Intent) -> dict[str, Any]:
    return {
        "kind": intent.kind,
        "summary": intent.summary,
        "findings": [asdict(each) for each in intent.stated],
        "side": intent.side,
        "zone": intent.zone,
        "count": intent.count,
        "compares": intent.compares,
        "mended": [{"typed": typed, "read": known} for typed, known in intent.mended],
        "nearest": list(intent.nearest),
    }


def upgraded(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A record of schema ``cxrg.grounding/1`` or ``/2`` as this version has it.

    Version 1 had device, precision and batch size among the options; version 2 had knobs that are
    no more. One with such a knob in use stays of version 2. Tokens were averaged then unless
    ``reduce`` said otherwise; now they are summed, and so is the score.
    """
    options, model = dict(facts["options"]), dict(facts["model"])
    if "dtype" in options:
        model["precision"] = options.pop("dtype")
        del options["device"], options["batch"]
    knobs = modernise(options["preset"], options)
    if knobs is None:
        return {**facts, "schema": "cxrg.grounding/2", "model": model, "options": options}
    tokens = len(facts["tokens"]) if options.get("reduce") == "mean" else 1
    score = min(facts["score"] * tokens, 1.0)
    return {**facts, "schema": SCHEMA, "score": score, "model": model, "options": knobs}


def record_line(
    facts: Mapping[str, Any], *, path: str | None = None, files: Mapping[str, Path] | None = None
) -> str:
    """A record as one line of JSON in ASCII.

    Args:
        facts: what `record` made.
        path: the image's path as the caller gave it; for standard output, never for a file.
        files: what was written, by format.
    """
    line = dict(facts)
    if path is not None:
        line["image"] = {**line["image"], "path": path}
    if files is not None:
        line["files"] = {kind: str(file) for kind, file in files.items()}
    return json.dumps(line, allow_nan=False)


def write_record(grounding: Grounding, image: CxrImage, path: Path) -> None:
    """Write the record as a JSON file.

    Raises:
        CxrgError: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(json.dumps(record(grounding), allow_nan=False, indent=2).encode() + b"\n")
