"""The values that travel between the driver of a run, its engine and its workers.

All of them are small, frozen and can be pickled: paths travel, pixels never do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cxrg.options import Options
from cxrg.output.formats import DEFAULT_FORMATS, settings_text

FailureKind = Literal["missing", "image", "phrase", "input", "outside", "internal", "poisoned"]
FAILURE_KINDS: Mapping[FailureKind, str] = {
    "missing": "not there",
    "image": "no usable image",
    "phrase": "no usable phrase",
    "input": "not understood",
    "outside": "outside the image root",
    "internal": "unexpected error",
    "poisoned": "set aside after ending two workers",
}
"""Why an input failed, in the words of the summary."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One image and the phrases to ground in it.

    Attributes:
        index: the place in the order of the inputs, from 0.
        path: the image.
        phrases: what to look for, at least one.
        line: the line or row that named the image, in a list of images or a manifest.
        sheet: where to draw all its phrases on one sheet; None: nowhere.
    """

    index: int
    path: Path
    phrases: tuple[str, ...]
    line: int | None = None
    sheet: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Settings of a run, the same for all its workers and tasks.

    Attributes:
        model: a name, folder or hub id, as `cxrg.model.load.load` takes it.
        adapter: a file of an adapter, as `cxrg.model.load.load` takes it.
        device: of this worker: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: the precision wanted, see `RunSettings`.
        batch: most latents in one network evaluation, see `RunSettings`.
        threads: of one operation on the CPU, see `RunSettings`.
        any_image: whether pictures of other kinds are grounded, see `RunSettings`.
        mend: whether turned pictures and negatives are mended, see `RunSettings`.
        force_ground: whether phrases are grounded whatever they mean, see `RunSettings`.
        preset: a named set of options.
        knobs: values that replace those of the preset, by name.
        formats: the formats to write, some of `cxrg.output.formats.FORMATS`.
        out: the folder to write to.
        deidentify: replace DICOM UIDs by hashes, and copy no patient data into DICOM files.
        debug: report unexpected errors with their traceback, which may hold file names.
    """

    model: str
    preset: str
    out: Path
    adapter: Path | None = None
    revision: str | None = None
    offline: bool = False
    device: str = "auto"
    dtype: str = "auto"
    batch: int | Literal["auto"] = "auto"
    threads: int | Literal["auto"] = "auto"
    any_image: bool = False
    mend: bool = False
    force_ground: bool = False
    knobs: Mapping[str, Any] = field(default_factory=dict)
    formats: tuple[str, ...] = DEFAULT_FORMATS
    deidentify: bool = False
    debug: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """The model and options as loaded; with image and phrase, the key of a result.

    Attributes:
        identity: the model's fingerprint, its adapter's with it.
        precision: the precision of the network, such as ``float32``.
        options: every knob as it is used.
        deidentify: whether records hold the hash of the SOPInstanceUID in its place.
        force_ground: whether phrases are grounded whatever they mean.
        mend: whether turned pictures and negatives are mended.
    """

    identity: str
    precision: str = "float32"
    options: Options
    deidentify: bool = False
    force_ground: bool = False
    mend: bool = False

    @property
    def facts(self) -> str:
        """Precision and options as text, for file names and the ledger."""
        return settings_text(
            self.precision,
            self.options,
            deidentify=self.deidentify,
            force_ground=self.force_ground,
            mend=self.mend,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """The result of one phrase, without its arrays.

    Attributes:
        phrase: the phrase as given.
        stem: the name of its files, less the suffix.
        record: the JSON record, see `cxrg.output.record`.
    """

    phrase: str
    stem: str
    record: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why there is no result.

    Attributes:
        path: the input.
        kind: one of `FAILURE_KINDS`.
        message: one line for the user that names the file and the remedy.
        detail: a traceback, with ``--debug``.
    """

    path: Path
    kind: FailureKind
    message: str
    detail: str = ""

    @property
    def reason(self) -> str:
        """The message without the input's name, which may be a patient's."""
        name = printable(self.path)
        text = self.message.removeprefix(f"{name}: ")
        for part in (name, printable(self.path.name)):
            text = text.replace(part, "the file") if len(part) > 1 else text
        return text


MOST_REASONS = 100


def short_reason(failure: Failure) -> str:
    """The reason of a failure without details in brackets and without the remedy."""
    return re.sub(r" ?\([^()]*\)", "", failure.reason.partition("; ")[0])


def printable(path: Path | str) -> str:
    """A path as messages show it: on one line, whatever letters its name has."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(path))


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The outcome of a task: rows, a failure, or both where only some phrases could be used.

    Attributes:
        task: the task, as it was given out.
        rows: one for each phrase that was grounded, in the task's order.
        failure: why other phrases, or all, have no result.
    """

    task: Task
    rows: tuple[Row, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class InputResult:
    """Result of one input, as it is reported.

    Attributes:
        task: the input.
        rows: its results, in the order of its phrases.
        old: how many of them an earlier run, or another process, made.
        failure: why other phrases, or all, have no result.
        sheet: the sheet of its phrases, where one was wanted and drawn.
    """

    task: Task
    rows: tuple[Row, ...] = ()
    old: int = 0
    failure: Failure | None = None
    sheet: Path | None = None


@dataclass(slots=True)
class RunSummary:
    """Counts of inputs by outcome and reason; `interrupted` if the user stopped the run early.

    An input counts as done if anything was computed for it, as skipped if nothing had to be.
    """

    done: int = 0
    skipped: int = 0
    failed: Counter[FailureKind] = field(default_factory=Counter)
    reasons: Counter[tuple[FailureKind, str]] = field(default_factory=Counter)
    interrupted: bool = False

    @property
    def total(self) -> int:
        return self.done + self.skipped + sum(self.failed.values())

    def add(self, result: InputResult) -> None:
        if result.failure:
            kind = result.failure.kind
            self.failed[kind] += 1
            reason = kind, short_reason(result.failure)
            # Reasons are few; a bound all the same, as memory does not grow with the inputs.
            if reason in self.reasons or len(self.reasons) < MOST_REASONS:
                self.reasons[reason] += 1
        elif result.old == len(result.rows):
            self.skipped += 1
        else:
            self.done += 1
