"""The other measures of ``cxrg evaluate``: leakage, classification, anatomy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrg.cli.knobs import check_masks
from cxrg.cli.terminal import Reporter, table, write
from cxrg.errors import UsageError
from cxrg.options import RunSettings, resolve

if TYPE_CHECKING:
    from cxrg.anatomy import Source
    from cxrg.evaluate.datasets import Dataset
    from cxrg.evaluate.measures.common import Measured
    from cxrg.evaluate.run import Open, Settings
    from cxrg.image.read import CxrImage

GROUNDING = "grounding"
GATE = "gate"
MEASURES = (GROUNDING, "leakage", "classification", "anatomy", GATE)
_PHANTOMS = "phantoms"
_ANATOMY_SIDE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRequest:
    """What to measure and with which model; ``loading`` are keywords of `cxrg.load`."""

    measure: str
    model: str
    adapter: Path | None
    masks: Path | None
    other: Path | None
    preset: str
    knobs: Mapping[str, Any]
    settings: RunSettings
    loading: Mapping[str, Any]


def check_measure(measure: str, masks: Path | None, other: Path | None) -> None:
    """Check the measure and its options, before anything slow is imported.

    Raises:
        UsageError: the measure is unknown, or an option is not for it.
    """
    if measure not in MEASURES:
        raise UsageError(f"measure {measure!r} is unknown; use one of {', '.join(MEASURES)}")
    if masks is not None and measure in (GROUNDING, GATE):
        raise UsageError("--masks is for leakage, classification and anatomy; set --measure")
    if other is not None and measure != GATE:
        raise UsageError("--other is for gate; set --measure gate")
    if other is not None and not other.is_dir():
        raise UsageError(f"--other {other} is no folder; give one of images that show no chest")
    check_masks(masks)


def run_measure(
    request: MeasureRequest, data: Dataset, settings: Settings, out: Path, reporter: Reporter
) -> Measured:
    """Measure and write the files."""
    from cxrg.evaluate.measures.common import write as write_files

    if request.measure == "anatomy":
        measured = _anatomy(request, data, settings, reporter)
    elif request.measure == GATE:
        measured = _gate(request, data, settings, reporter)
    else:
        measured = _attention(request, data, settings, out, reporter)
    write_files(measured, data, out)
    return measured


def show(measured: Measured, out: Path) -> None:
    """Print the tables and the path of the page."""
    for each in measured.tables:
        first, *others = each.head
        table((f"{each.title}: {first}", *others), [list(map(str, row)) for row in each.rows])
    write(f"{out / measured.name}.html")


def _attention(
    request: MeasureRequest, data: Dataset, settings: Settings, out: Path, reporter: Reporter
) -> Measured:
    from cxrg.evaluate.measures import classification as classify
    from cxrg.evaluate.measures import leakage
    from cxrg.evaluate.method import LatentDiffusion
    from cxrg.evaluate.phantoms import drawn, exact_anatomy
    from cxrg.model.load import load

    reporter.show(f"loading model {request.model}")
    models = {"frozen": load(request.model, **request.loading)}
    if request.adapter is not None:
        models["tuned"] = load(request.model, adapter=request.adapter, **request.loading)
    readers = {
        name: LatentDiffusion(
            model=model,
            options=resolve(request.preset, model.card.presets, **request.knobs),
            settings=request.settings,
        )
        for name, model in models.items()
    }
    rendered = data.format == _PHANTOMS
    exact = rendered and request.masks is None
    source = exact_anatomy(settings.seed) if exact else _source(request)
    common: dict[str, Any] = {
        "facts": {"source": "phantoms"} if exact else _source_facts(request),
        "open_image": _opener(data, settings, models["frozen"].side),
        "advance": _advancer(reporter),
    }
    if request.measure == "leakage":
        return leakage.measure(data, readers, source, settings, out, **common)
    if rendered:
        common["drawn"] = lambda sample: drawn(sample, settings.seed)
    return classify.measure(data, readers, source, settings, out, **common)


def _anatomy(
    request: MeasureRequest, data: Dataset, settings: Settings, reporter: Reporter
) -> Measured:
    from functools import partial

    from cxrg.evaluate.measures import anatomy as outlines
    from cxrg.evaluate.phantoms import exact_anatomy

    measure = partial(outlines.measure, data, _read, _source(request), settings)
    return measure(
        open_image=_opener(data, settings, _ANATOMY_SIDE),
        advance=_advancer(reporter),
        exact=exact_anatomy(settings.seed) if data.format == _PHANTOMS else None,
        facts=_source_facts(request),
    )


def _gate(
    request: MeasureRequest, data: Dataset, settings: Settings, reporter: Reporter
) -> Measured:
    from cxrg.evaluate.measures import gate

    return gate.measure(
        data,
        _read,
        settings,
        open_image=_opener(data, settings, _ANATOMY_SIDE),
        advance=_advancer(reporter),
        other=request.other,
    )


def _read(image: Path | CxrImage) -> CxrImage:
    """The image where no grounding model reads it."""
    from cxrg.image.read import CxrImage, read_image

    return image if isinstance(image, CxrImage) else read_image(image, side=_ANATOMY_SIDE)


def _source(request: MeasureRequest) -> Source:
    if request.masks is not None:
        from cxrg.anatomy.folder import mask_folder

        return mask_folder(request.masks)
    from cxrg.anatomy.segmenter import shipped

    return shipped()


def _source_facts(request: MeasureRequest) -> dict[str, str]:
    if request.masks is None:
        return {"source": "shipped segmenter"}
    from cxrg.anatomy.folder import fingerprint

    return {"source": "masks", "masks": fingerprint(request.masks)}


def _opener(data: Dataset, settings: Settings, side: int) -> Open:
    from cxrg.evaluate.phantoms import opener
    from cxrg.evaluate.run import open_file

    return opener(settings.seed, side) if data.format == _PHANTOMS else open_file


def _advancer(reporter: Reporter) -> Any:
    def advance(name: str, done: int) -> None:
        reporter.show(name)
        for _ in range(done):
            reporter.advance()

    return advance
