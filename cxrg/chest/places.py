"""The places that a report names, as masks, from the outlines of a few structures.

Where only the lungs are known the rest follows by geometry (methods of arXiv 2506.10633 are not
public; these rules are our own choice). The parts of a lung (zones, apex, base, costophrenic angle,
hilum, hemidiaphragm) have the rules of `cxrg.chest.lung`; beyond them:

* mediastinum: what lies between the lungs, down to half-way from their domes to their lower ends;
* heart: the mediastinum in the lower half of the lungs' height.

A structure that is known by itself wins over its rule. Sides are the patient's: *left* is the right
side of the picture.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrg.chest.codes import Code, code_of
from cxrg.chest.lung import parts_of
from cxrg.chest.names import SIDES
from cxrg.errors import ImageError
from cxrg.geometry import Mask

Structures = Mapping[str, Mask]
"""Boolean masks (H, W) by name; at least ``left lung`` and ``right lung``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A part of the chest by its concept; see ``places.toml`` for what each attribute means."""

    concept: str
    labels: tuple[str, ...]
    masks: tuple[str, ...]
    words: tuple[str, ...]
    rule: str | None
    read: tuple[str, ...] | None
    zone: tuple[str, ...] | None
    phrases: Mapping[str, Any]
    code: Code | None

    @property
    def locations(self) -> tuple[str, ...]:
        """Its names with a mask: one, one per side, or none."""
        if not self.masks:
            return ()
        sided = "{side}" in self.masks[0]
        return tuple(f"{side} {self.concept}" for side in SIDES) if sided else (self.concept,)

    @property
    def organ(self) -> tuple[str, ...]:
        """What reports call it as an organ; empty where they do not know it as one."""
        if self.read is None:
            return ()
        plain = (name.removeprefix("the ") for name in self.phrases.get("plain", ()))
        return tuple(dict.fromkeys((*plain, *self.read)))


@cache
def entries() -> dict[str, Place]:
    """All places by concept."""
    text = files("cxrg.chest").joinpath("places.toml").read_text(encoding="utf-8")
    return {
        concept: Place(
            concept=concept,
            labels=tuple(entry.get("labels", ())),
            masks=tuple(entry.get("masks", ())),
            words=tuple(entry.get("words", ())),
            rule=entry.get("rule"),
            read=_names(entry, "read"),
            zone=_names(entry, "zone"),
            phrases=entry.get("phrases", {}),
            code=code_of(entry),
        )
        for concept, entry in tomllib.loads(text).items()
    }


def _names(entry: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    return tuple(entry[key]) if key in entry else None


@cache
def organ_names() -> dict[str, tuple[str, ...]]:
    """What reports call each organ; a name of two organs belongs to the later one."""
    named = {concept: each.organ for concept, each in entries().items() if each.organ}
    owner = {name: concept for concept, names in named.items() for name in names}
    return {
        concept: tuple(name for name in names if owner[name] == concept)
        for concept, names in named.items()
    }


@cache
def zone_names() -> dict[str, tuple[str, ...]]:
    """What reports call each zone of a finding."""
    return {
        each.rule or concept: (*each.zone, *each.organ)
        for concept, each in entries().items()
        if each.zone is not None
    }


@cache
def labelled_places() -> dict[str, Place]:
    """The place that each label means."""
    return {label: each for each in entries().values() for label in each.labels}


@cache
def mask_names() -> dict[str, str]:
    """The location that each name of a mask means."""
    return {
        mask.format(side=side): location
        for each in entries().values()
        for side, location in zip(SIDES, each.locations * 2, strict=False)
        for mask in each.masks
    }


@cache
def location_words() -> dict[str, tuple[str, ...]]:
    """What phrases call each location."""
    return {
        location: tuple(word.format(side=side) for word in each.words)
        for each in entries().values()
        for side, location in zip(SIDES, each.locations, strict=False)
    }


LOCATIONS: tuple[str, ...] = tuple(
    location for each in entries().values() for location in each.locations
)
"""The twenty locations in the order of :func:`locate`'s first axis."""

_RULES = {concept: each.rule for concept, each in entries().items() if each.rule is not None}
"""The parts of a lung with a mask: location without its side, and name of its geometric rule."""

ZONE_PARTS = {rule: part for part, rule in _RULES.items() if part not in ("hilum", "hemidiaphragm")}
"""A zone as phrases name it, and the location that it names on a side."""

REGIONS = {
    f"{side} {part}": f"{side} {zone}" for zone, part in ZONE_PARTS.items() for side in SIDES
} | {"mediastinum": "heart and mediastinum"}
"""Locations that :func:`cxrg.chest.regions.regions` calls otherwise, by location."""


def locate(known: Structures) -> NDArray[np.float32]:
    """Masks ``(20, H, W)`` in [0, 1] of :data:`LOCATIONS`, in pixels of the structures' masks.

    Raises:
        ImageError: a lung is missing or empty.
    """
    for side in SIDES:
        if f"{side} lung" not in known or not known[f"{side} lung"].any():
            raise ImageError(f"no {side} lung is outlined; give a frontal X-ray, or own --masks")
    found = _by_rules(known) | dict(known)
    return np.stack([found[name] for name in LOCATIONS]).astype(np.float32)


def _by_rules(known: Structures) -> dict[str, Mask]:
    found: dict[str, Mask] = {}
    for side in SIDES:
        lung = known[f"{side} lung"]
        parts = parts_of(lung, side)
        found |= {f"{side} {part}": parts[rule] for part, rule in _RULES.items()}
    left, right = known["left lung"], known["right lung"]
    middle = known.get("mediastinum", between(left, right))
    rows = np.flatnonzero((left | right).any(1))
    lower = np.arange(len(left))[:, None] >= (rows[0] + rows[-1] + 1) / 2
    return found | {"mediastinum": middle, "heart": middle & lower}


def between(left: Mask, right: Mask) -> Mask:
    """The pixels between two lungs, from the higher apex to half-way from domes to sulci.

    Below its dome a lung shows only the costophrenic sulcus, far from the heart, so its medial
    border goes straight on from there; so it does in rows without that lung.
    """
    columns = np.arange(left.shape[1])[None, :]
    domes = _dome(left), _dome(right)
    to_left = _carried(left.argmax(1), np.asarray(left.any(1)), domes[0])
    from_right = _carried(
        left.shape[1] - right[:, ::-1].argmax(1), np.asarray(right.any(1)), domes[1]
    )
    gap = (columns >= from_right[:, None]) & (columns < to_left[:, None])
    rows = np.flatnonzero((left | right).any(1))
    row = np.arange(len(left))[:, None]
    return np.asarray(gap & (row >= rows[0]) & (row < (max(domes) + rows[-1] + 1) / 2))


def _dome(lung: Mask) -> int:
    """One past the row of the dome: where the middle half of a lung's columns ends, in median."""
    xs = np.flatnonzero(lung.any(0))
    quarter = len(xs) // 4
    middle = lung[:, xs[quarter : len(xs) - quarter]]
    return int(np.median(len(lung) - middle[::-1].argmax(0)))


def _carried(edge: NDArray[np.intp], seen: Mask, dome: int) -> NDArray[np.intp]:
    """An edge per row; rows without one, and those below the dome, take that of the row above."""
    first = int(np.argmax(seen))
    seen = seen & (np.arange(len(seen)) < max(dome, first + 1))
    source = np.maximum.accumulate(np.where(seen, np.arange(len(seen)), first))
    return np.asarray(edge[source])
