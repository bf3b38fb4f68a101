"""Localisation metrics on one heatmap: every family by its own name, as pure functions.

Metrics of the same name differ between papers, so each published definition has its own name here
and none is ever put under another's. ``h`` is the heatmap, ``B`` the truth (union of boxes, or a
mask), ``mu`` and ``var`` mean and variance of ``h`` inside and outside ``B``:

* ``miou`` (family A; BioViL, Vilouras et al. arXiv 2404.12920): mean over tau in .1 .2 .3 .4 .5 of
  ``IoU({h > tau}, B)``.
* ``iou_fg_bg`` (family B; Nützel et al. arXiv 2507.12236): mean of the IoU of foreground and of
  background of one mask, cut by a two-component Gaussian mixture. Not comparable with ``miou``.
* ``cnr`` = ``(mu_in - mu_out) / sqrt(var_in + var_out)`` in the protocols of :data:`CNR_PROTOCOLS`.
* ``auc_roc`` exact (Mann-Whitney U, ties count a half); ``auc_roc_binned5`` as published with five
  thresholds.
* ``pointing_game`` whether the maximum is in ``B``; tied maxima are averaged, so a constant map
  scores the share of the image that is truth.

Heatmaps are ``(H, W)``, in [0, 1] where thresholds are absolute, and NaN where the model never
looked (*blank*). ``outside`` chooses how blank pixels count: ``exclude`` leaves them out of heatmap
and truth, ``zero`` sets them to 0. ``miou`` and ``pointing_game`` keep blank truth in either case,
by their definition: a lesion that the model never looked at is missed.

An undefined value is NaN (for example AUC where all pixels are truth), for the caller to count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from cxrg.errors import UsageError
from cxrg.geometry import Box, Mask
from cxrg.heatmap.mixture import mask_of_seen, shrink

Heatmap = NDArray[np.floating]
Truth = Mask | Sequence[Box]
Outside = Literal["exclude", "zero"]
CnrProtocol = Literal["union", "per_box", "v1", "v3", "v6"]

MIOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
CNR_PROTOCOLS: tuple[CnrProtocol, ...] = get_args(CnrProtocol)
"""``union``: all boxes against the rest, population variance, signed (the default).
``per_box``: each box against everything that is not that box; mean over boxes.
``v1``: as published by Vilouras et al.: per box, but the pixels of a scored box are blanked for the
boxes after it, so the value depends on their order.
``v3``: as published by Nützel et al.: union, sample variance (n - 1).
``v6``: union, heatmap scaled to its own minimum and maximum first, population variance."""


def box_mask(boxes: Sequence[Box], shape: tuple[int, int]) -> Mask:
    """The union of boxes as a mask of ``shape`` (H, W): pixels whose centre is in a box.

    A box too small to hold a pixel's centre marks the pixel under its own centre.
    """
    mask = np.zeros(shape, dtype=bool)
    height, width = shape
    for box in boxes:
        rows = _span(box.y0, box.y1, height)
        columns = _span(box.x0, box.x1, width)
        mask[rows, columns] = True
    return mask


def _span(low: float, high: float, size: int) -> slice:
    """Pixels with ``low <= i + .5 < high``; at least one, where the span touches the image."""
    if high <= 0 or low >= size:
        return slice(0, 0)
    first, last = int(np.ceil(low - 0.5)), int(np.ceil(high - 0.5))
    if first >= last:
        first = int((low + high) / 2)
        last = first + 1
    return slice(max(first, 0), min(last, size))


def as_mask(truth: Truth, shape: tuple[int, int]) -> Mask:
    """Truth as a boolean mask of ``shape``.

    Raises:
        UsageError: a mask of another shape than the heatmap's.
    """
    if not isinstance(truth, np.ndarray):
        return box_mask(truth, shape)
    if truth.shape != shape:
        raise UsageError(f"the truth is {truth.shape}, the heatmap {shape}; give both one shape")
    return truth.astype(bool, copy=False)


def visible(heatmap: Heatmap, mask: Mask, outside: Outside) -> tuple[Heatmap, Mask]:
    """The pixels that count, as flat arrays (values, is truth), under a policy for blank pixels."""
    seen = ~np.isnan(heatmap)
    if outside == "exclude":
        return heatmap[seen], mask[seen]
    if outside == "zero":
        return np.where(seen, heatmap, 0).ravel(), mask.ravel()
    raise UsageError(f"outside {outside!r} is not known; use exclude or zero")


def iou(predicted: Mask, truth: Mask) -> float:
    """Intersection over union of two masks; 0 where both are empty."""
    union = np.count_nonzero(predicted | truth)
    return float(np.count_nonzero(predicted & truth) / union) if union else 0.0


def iou_at(heatmap: Heatmap, truth: Truth, thresholds: Sequence[float]) -> NDArray[np.float64]:
    """IoU of ``{h > tau}`` with the truth for each threshold; blank pixels are not predicted.

    Compared in the map's own precision, so that a float32 value of .1 isn't above .1.
    """
    mask = as_mask(truth, heatmap.shape)
    inside, rest = heatmap[mask], heatmap[~mask]
    hits = np.array([np.count_nonzero(inside > float(tau)) for tau in thresholds], dtype=float)
    extra = np.array([np.count_nonzero(rest > float(tau)) for tau in thresholds], dtype=float)
    union = inside.size + extra
    result: NDArray[np.float64] = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
    return result


def miou(heatmap: Heatmap, truth: Truth) -> float:
    """Family A: mean IoU over the five absolute thresholds .1 to .5 (strictly above).

    0, and not undefined, where nothing is predicted, so that hard samples keep their weight.
    """
    return float(iou_at(heatmap, truth, MIOU_THRESHOLDS).mean())


def cnr(
    heatmap: Heatmap,
    truth: Truth,
    *,
    protocol: CnrProtocol = "union",
    outside: Outside = "exclude",
) -> float:
    """Signed contrast-to-noise ratio by one of :data:`CNR_PROTOCOLS`.

    0 where both variances vanish, as published. NaN where there is no inside or no outside, except
    for ``v1``, whose undefined values are 0.

    Raises:
        UsageError: protocol not known, or a per-box protocol with a mask for truth.
    """
    if protocol in ("per_box", "v1"):
        parts = _cnr_of_boxes(heatmap, truth, outside=outside, leak=protocol == "v1")
        return float(np.mean(parts)) if parts else float("nan")
    if protocol not in CNR_PROTOCOLS:
        raise UsageError(f"CNR {protocol!r} is not known; use one of {', '.join(CNR_PROTOCOLS)}")
    values, inside = visible(heatmap, as_mask(truth, heatmap.shape), outside)
    if protocol == "v6":
        values = minmax(values)
    return contrast(values[inside], values[~inside], ddof=1 if protocol == "v3" else 0)


def abs_cnr(
    heatmap: Heatmap,
    truth: Truth,
    *,
    protocol: CnrProtocol = "union",
    outside: Outside = "exclude",
) -> float:
    """Contrast-to-noise ratio with ``|mu_in - mu_out|``, per box before the mean over boxes."""
    if protocol in ("per_box", "v1"):
        parts = _cnr_of_boxes(heatmap, truth, outside=outside, leak=protocol == "v1")
        return float(np.mean(np.abs(parts))) if parts else float("nan")
    return abs(cnr(heatmap, truth, protocol=protocol, outside=outside))


def contrast(inside: Heatmap, outside: Heatmap, *, ddof: int = 0) -> float:
    """``(mu_in - mu_out) / sqrt(var_in + var_out)`` of two sets of values, in float64."""
    if min(inside.size, outside.size) <= ddof:
        return float("nan")
    noise = np.var(inside, dtype=np.float64, ddof=ddof) + np.var(
        outside, dtype=np.float64, ddof=ddof
    )
    signal = np.mean(inside, dtype=np.float64) - np.mean(outside, dtype=np.float64)
    # Float32 maps leave rounding dust in the variance of a constant region.
    return float(signal / np.sqrt(noise)) if noise > 1e-20 else 0.0


def _cnr_of_boxes(heatmap: Heatmap, truth: Truth, *, outside: Outside, leak: bool) -> list[float]:
    """CNR of each box on its own; with ``leak`` a scored box is blank for the boxes after it."""
    if isinstance(truth, np.ndarray):
        raise UsageError("CNR per box needs boxes; give boxes or use the union protocol")
    scored = np.zeros(heatmap.shape, dtype=bool)
    parts = []
    for box in truth:
        mask = box_mask([box], heatmap.shape)
        keep = ~scored
        values, inside = visible(heatmap[keep], mask[keep], outside)
        part = contrast(values[inside], values[~inside])
        if leak:
            scored |= mask
            part = 0.0 if np.isnan(part) else part
        parts.append(part)
    return parts


def auc_roc(heatmap: Heatmap, truth: Truth, *, outside: Outside = "exclude") -> float:
    """Exact area under the pixel ROC curve: P(h inside > h outside) + P(equal) / 2.

    NaN where all or none of the pixels are truth. O(n log n) for n pixels.
    """
    values, mask = visible(heatmap, as_mask(truth, heatmap.shape), outside)
    return auc_of(values[mask], values[~mask])


def auc_of(positive: Heatmap, negative: Heatmap) -> float:
    """Exact ROC AUC of two sets of scores, by counting (Mann-Whitney U); NaN where one is empty."""
    if not (positive.size and negative.size):
        return float("nan")
    ordered = np.sort(negative, axis=None)
    wanted = np.sort(positive, axis=None)
    below = np.searchsorted(ordered, wanted, side="left").sum(dtype=np.int64)
    upto = np.searchsorted(ordered, wanted, side="right").sum(dtype=np.int64)
    return (int(below) + int(upto)) / 2 / (positive.size * negative.size)


def auc_roc_binned5(heatmap: Heatmap, truth: Truth, *, outside: Outside = "exclude") -> float:
    """Area under the ROC curve through thresholds 0, .25, .5, .75, 1 only (``h >= tau``).

    As published by Vilouras et al.: coarse, and too low where most of the map is near zero. As in
    the library it came from (torchmetrics, binned), the curve isn't continued to (0, 0).
    """
    values, mask = visible(heatmap, as_mask(truth, heatmap.shape), outside)
    inside, rest = values[mask], values[~mask]
    if not (inside.size and rest.size):
        return float("nan")
    thresholds = np.linspace(1, 0, 5)
    tpr = np.array([np.count_nonzero(inside >= tau) for tau in thresholds]) / inside.size
    fpr = np.array([np.count_nonzero(rest >= tau) for tau in thresholds]) / rest.size
    return float(np.trapezoid(tpr, fpr))


def pointing_game(heatmap: Heatmap, truth: Truth) -> float:
    """Share of the heatmap's maximal pixels inside the truth: 1 or 0 where there is only one.

    0 where everything is blank.
    """
    mask = as_mask(truth, heatmap.shape)
    if np.isnan(heatmap).all():
        return 0.0
    return float(mask[heatmap == np.nanmax(heatmap)].mean())


def dice(
    heatmap: Heatmap, truth: Truth, *, threshold: float = 0.5, outside: Outside = "exclude"
) -> float:
    """``2 |P and B| / (|P| + |B|)`` of the mask ``P = {h > threshold}``; 0 where both are empty."""
    values, mask = visible(heatmap, as_mask(truth, heatmap.shape), outside)
    predicted = values > threshold
    total = np.count_nonzero(predicted) + np.count_nonzero(mask)
    return float(2 * np.count_nonzero(predicted & mask) / total) if total else 0.0


def box_iou(predicted: Sequence[Box], truth: Sequence[Box]) -> float:
    """Best-box IoU: for each true box the IoU of the best predicted box; mean over true boxes.

    0 where nothing is predicted, NaN where there is no true box.
    """
    if not truth:
        return float("nan")
    best = [max((guess.iou(box) for guess in predicted), default=0.0) for box in truth]
    return float(np.mean(best))


def iou_fg_bg(heatmap: Heatmap, truth: Truth, *, outside: Outside = "exclude") -> float:
    """Family B: (IoU of foreground + IoU of background) / 2 after the mixture threshold, at 512.

    0 where the mask comes out empty, as published.
    """
    truth_512 = shrink(as_mask(truth, heatmap.shape).astype(np.float32), 512) >= 0.5
    predicted, seen = mask_of_seen(heatmap, outside=outside)
    predicted, truth_512 = predicted[seen], truth_512[seen]
    if not predicted.any():
        return 0.0
    return (iou(predicted, truth_512) + iou(~predicted, ~truth_512)) / 2


def minmax(values: Heatmap) -> Heatmap:
    """Values scaled to [0, 1] by their own extremes; NaN stays; zeros where they are all equal."""
    if values.size == 0 or np.isnan(values).all():
        return values
    low, high = np.nanmin(values), np.nanmax(values)
    scaled: Heatmap = (values - low) / (high - low) if high > low else values * 0
    return scaled


METRICS = (
    "miou",
    "iou_fg_bg",
    "cnr",
    "abs_cnr",
    "cnr_per_box",
    "cnr_v1",
    "abs_cnr_v1",
    "cnr_v3",
    "cnr_v6",
    "auc_roc",
    "auc_roc_binned5",
    "pointing_game",
    "dice",
)
"""Every metric of one heatmap, by the name it has in reports."""

PER_BOX = frozenset({"cnr_per_box", "cnr_v1", "abs_cnr_v1"})
"""Metrics that need boxes; left out where the truth is a mask."""


def score_heatmap(
    heatmap: Heatmap, truth: Truth, *, outside: Outside = "exclude", names: Sequence[str] = METRICS
) -> dict[str, float]:
    """The named metrics of one heatmap (H, W) against one truth; all metrics by default.

    Those of :data:`PER_BOX` are left out where the truth is a mask.

    Raises:
        UsageError: a name that is not in :data:`METRICS`.
    """
    mask = as_mask(truth, heatmap.shape)
    scores: dict[str, float] = {}
    for name in names:
        if name not in METRICS:
            raise UsageError(f"metric {name!r} is not known; use one of {', '.join(METRICS)}")
        if name not in PER_BOX:
            scores[name] = _score(name, heatmap, mask, outside)
        elif not isinstance(truth, np.ndarray):
            scores[name] = _score(name, heatmap, truth, outside)
    return scores


def _score(name: str, heatmap: Heatmap, truth: Truth, outside: Outside) -> float:
    """One metric by name."""
    if name in _CNR_BY_NAME:
        signed, protocol = _CNR_BY_NAME[name]
        return (cnr if signed else abs_cnr)(heatmap, truth, protocol=protocol, outside=outside)
    if name in ("miou", "pointing_game"):
        return (miou if name == "miou" else pointing_game)(heatmap, truth)
    return _PLAIN[name](heatmap, truth, outside=outside)


_CNR_BY_NAME: dict[str, tuple[bool, CnrProtocol]] = {
    "cnr": (True, "union"),
    "abs_cnr": (False, "union"),
    "cnr_per_box": (True, "per_box"),
    "cnr_v1": (True, "v1"),
    "abs_cnr_v1": (False, "v1"),
    "cnr_v3": (True, "v3"),
    "cnr_v6": (True, "v6"),
}


class _Plain(Protocol):
    def __call__(self, heatmap: Heatmap, truth: Truth, *, outside: Outside) -> float: ...


_PLAIN: dict[str, _Plain] = {
    "iou_fg_bg": iou_fg_bg,
    "auc_roc": auc_roc,
    "auc_roc_binned5": auc_roc_binned5,
    "dice": dice,
}
