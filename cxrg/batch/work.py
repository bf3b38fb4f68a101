"""The worker: one image in, files and small rows out.

A worker loads the model once. What is wrong with one image or its phrases becomes a `Failure`;
what would go wrong with every image (the disk is full, an option does not fit the model) is raised.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from cxrg.batch.task import Failure, FailureKind, Job, Outcome, Row, Setting, Task, printable
from cxrg.errors import CxrgError, ImageError, PhraseError
from cxrg.files import stem
from cxrg.options import RunSettings, resolve
from cxrg.output import formats
from cxrg.output.record import record

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.model.model import Model
    from cxrg.options import Options
    from cxrg.result import Grounding


@dataclass(frozen=True, slots=True)
class Done:
    """A task on its way through a worker: what its last stage made, what failed, time spent."""

    task: Task
    image: CxrImage | None = None
    groundings: Sequence[tuple[str, Grounding]] = ()
    failure: Failure | None = None
    seconds: float = 0.0


def open_worker(job: Job) -> Worker:
    """A worker with the job's model loaded.

    Raises:
        ModelError: the model is not available.
        UsageError: the device, the precision or an option is not.
    """
    from cxrg.model.load import load

    model = load(
        job.model,
        device=job.device,
        dtype=job.dtype,
        revision=job.revision,
        offline=job.offline,
        adapter=job.adapter,
    )
    return Worker(job, model, resolve(job.preset, model.card.presets, **job.knobs))


class Worker:
    """Does tasks, whole (`do`) or in three stages that may each have their own thread.

    Attributes:
        setting: the model and options that results are made with.
    """

    def __init__(self, job: Job, model: Model, options: Options) -> None:
        self._job, self._model, self._options = job, model, options
        self.setting = Setting(identity=model.identity, precision=model.precision, options=options)
        self._run = RunSettings(batch=job.batch)

    def do(self, task: Task) -> Outcome:
        """All of a task.

        Raises:
            CxrgError: an error that affects every task; never one of an image or a phrase.
        """
        return self.write(self.look(self.read(task)))

    def read(self, task: Task) -> Done:
        """The first stage: the image of a task, read and decoded."""
        from cxrg.image.read import read_image

        start = perf_counter()
        try:
            image = read_image(task.path, side=self._model.side, fit=self._options.fit)
        except Exception as error:  # noqa: BLE001 - whatever a damaged file does, the run goes on
            return Done(task, failure=self._failure(task, error), seconds=perf_counter() - start)
        return Done(task, image=image, seconds=perf_counter() - start)

    def look(self, done: Done) -> Done:
        """The second stage: the network, and heatmaps and boxes.

        Raises:
            CxrgError: an option does not fit the model.
        """
        if done.image is None:
            return done
        start = perf_counter()
        groundings, failure = self._ground(done.task, done.image)
        spent = done.seconds + perf_counter() - start
        return replace(done, groundings=groundings, failure=failure, seconds=spent)

    def write(self, done: Done) -> Outcome:
        """The last stage: the files.

        Raises:
            WriteError: a file cannot be written.
        """
        start = perf_counter()
        rows: tuple[Row, ...] = ()
        failure = done.failure
        try:
            if done.image is not None:
                rows = tuple(self._write(*each, done.image) for each in done.groundings)
        except CxrgError:
            raise
        except Exception as error:  # noqa: BLE001 - as in `read`
            failure = self._failure(done.task, error)
        spent = done.seconds + perf_counter() - start
        return Outcome(task=done.task, rows=rows, failure=failure, seconds=spent)

    def _ground(
        self, task: Task, image: CxrImage
    ) -> tuple[list[tuple[str, Grounding]], Failure | None]:
        """Results of the valid phrases, and one failure that names all invalid ones."""
        from cxrg.grounding import ground, phrase_errors

        try:
            errors = phrase_errors(task.phrases, self._model, self._options)
            failure = failure_of(task.path, _joined(errors.values())) if errors else None
            valid = [phrase for phrase in task.phrases if phrase not in errors]
            if not valid:
                return [], failure
            results = ground(
                image, valid, model=self._model, options=self._options, settings=self._run
            )
            return list(zip(valid, results, strict=True)), failure
        except Exception as error:
            if isinstance(error, CxrgError) and not isinstance(error, ImageError):
                raise
            return [], self._failure(task, error)

    def _write(self, phrase: str, result: Grounding, image: CxrImage) -> Row:
        key = (result.image.sha256, result.phrase, result.model.identity, self.setting.facts)
        name = stem(*key)
        formats.write(result, image, formats.paths(self._job.out, name, self._job.formats))
        return Row(phrase=phrase, stem=name, record=record(result))

    def _failure(self, task: Task, error: Exception) -> Failure:
        detail = traceback.format_exc() if self._job.debug else ""
        return failure_of(task.path, error, detail=detail)


def failure_of(path: Path, error: Exception, *, detail: str = "") -> Failure:
    """Make the failure of an error that affects one image only."""
    kind: FailureKind
    if isinstance(error, (ImageError, PhraseError)):
        kind = "phrase" if isinstance(error, PhraseError) else "image"
        if kind == "image" and not os.path.exists(path):
            kind = "missing"
        return Failure(path=path, kind=kind, message=str(error), detail=detail)
    name = type(error).__name__  # its text may repeat what the file holds
    text = f"{printable(path)}: unexpected {name}; run this file alone with --debug"
    return Failure(path=path, kind="internal", message=text, detail=detail)


def _joined(errors: Iterable[PhraseError]) -> PhraseError:
    return PhraseError("; ".join(dict.fromkeys(map(str, errors))))


def poisoned(task: Task, ended: str) -> Outcome:
    """The outcome of a task that ended two workers, the second while it was alone there.

    Args:
        task: the task.
        ended: what a worker was, in the plural.
    """
    words = f"ended two {ended}, so it is set aside; look at the file, or free memory"
    message = f"{printable(task.path)}: {words}"
    return Outcome(task=task, failure=Failure(path=task.path, kind="poisoned", message=message))
