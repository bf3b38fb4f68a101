"""The worker: one image in, files and small rows out.

A worker loads the model once. What is wrong with one image or its phrases becomes a `Failure`; an
error that affects every image (the disk is full, an option does not fit the model) is raised.

The results of an image leave the network one by one, and each is written while the next is made:
memory does not grow with the number of phrases.
"""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxrg.batch.task import Failure, FailureKind, Job, Outcome, Row, Setting, Task, printable
from cxrg.errors import CxrgError, ImageError, PhraseError
from cxrg.options import RunSettings, resolve
from cxrg.output import formats
from cxrg.output.page import write_png
from cxrg.output.record import record
from cxrg.output.sheet import Sheet

if TYPE_CHECKING:
    from cxrg.image.read import CxrImage
    from cxrg.model.model import Model
    from cxrg.options import Options
    from cxrg.result import Grounding

MOST_UNWRITTEN = 2
"""Results that may wait to be written; the network waits while there are more."""


@dataclass(frozen=True, slots=True)
class ReadTask:
    """A task whose image has been read, or could not be."""

    task: Task
    image: CxrImage | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Unwritten:
    """The result of one phrase before its files are written.

    Attributes:
        sheet: the sheet of the task, if it has one.
        last: whether the sheet is complete with it.
    """

    task: Task
    grounding: Grounding
    image: CxrImage
    sheet: Sheet | None = None
    last: bool = False


def open_worker(job: Job) -> Worker:
    """Return a worker with the job's model loaded.

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


def expected_setting(job: Job) -> Setting | None:
    """The setting that `open_worker` gives a job, from the files of its model alone.

    Neither networks nor torch are loaded. None where only loading the model decides: its precision
    depends on the device, or a file of it cannot be read.

    Raises:
        ModelError: the model is not available.
        UsageError: an option does not fit it.
    """
    from cxrg.model.find import find, identity_of, precision_of

    folder, card = find(job.model, revision=job.revision, offline=job.offline)
    options = resolve(job.preset, card.presets, **job.knobs)
    identity, precision = identity_of(folder, job.adapter), precision_of(job.dtype, card)
    if identity is None or precision is None:
        return None
    return _setting(job, identity, precision, options)


def _setting(job: Job, identity: str, precision: str, options: Options) -> Setting:
    return Setting(
        identity=identity,
        precision=precision,
        options=options,
        deidentify=job.deidentify,
        force_ground=job.force_ground,
        mend=job.mend,
    )


class Worker:
    """Does tasks in three stages that may each have a thread: `read`, `look` and `write`.

    Attributes:
        setting: the model and options that results are made with.
    """

    def __init__(self, job: Job, model: Model, options: Options) -> None:
        self._job, self._model, self._options = job, model, options
        self.setting = _setting(job, model.identity, model.precision, options)
        self._settings = RunSettings(
            batch=job.batch,
            threads=job.threads,
            any_image=job.any_image,
            mend=job.mend,
            force_ground=job.force_ground,
        )

    def read(self, task: Task) -> ReadTask:
        """Read and decode the image of a task."""
        from cxrg.image.read import deidentify, read_image

        try:
            image = read_image(task.path, side=self._model.side, fit=self._options.fit)
            formats.check_image(image, self._job.formats)
        except Exception as error:  # noqa: BLE001 - a damaged file must not end the run
            return ReadTask(task, failure=self._failure(task, error))
        return ReadTask(task, image=deidentify(image) if self._job.deidentify else image)

    def look(self, read: ReadTask) -> Iterator[Unwritten | Failure]:
        """Ground the phrases of a task, each when the one before is taken.

        Yields:
            The result of each valid phrase, and a failure that names all invalid ones.

        Raises:
            CxrgError: an option does not fit the model.
        """
        from cxrg.grounding import ground_each, phrase_errors

        if read.image is None:
            if read.failure:
                yield read.failure
            return
        task, model, options = read.task, self._model, self._options
        try:
            errors = phrase_errors(task.phrases, model, options, self._settings)
            if errors:
                yield failure_of(task.path, _joined(errors.values()))
            valid = [phrase for phrase in task.phrases if phrase not in errors]
            if valid:
                results = ground_each(
                    read.image, valid, model=model, options=options, settings=self._settings
                )
                sheet = Sheet() if task.sheet else None
                for number, grounding in enumerate(results, 1):
                    last = number == len(valid)
                    yield Unwritten(task, grounding, grounding.image, sheet, last)
        except Exception as error:
            if isinstance(error, CxrgError) and not isinstance(error, ImageError):
                raise
            yield self._failure(task, error)

    def write(self, result: Unwritten) -> Row | Failure:
        """Write the files of one result.

        Raises:
            WriteError: a file cannot be written.
        """
        grounding, image = result.grounding, result.image
        name = formats.stem_of(grounding, force_ground=self._job.force_ground)
        try:
            formats.write(grounding, image, formats.paths(self._job.out, name, self._job.formats))
            if result.sheet and result.task.sheet:
                result.sheet.add(grounding)
                if result.last:
                    write_png(result.sheet.render(), result.task.sheet)
            return Row(phrase=grounding.phrase, stem=name, record=record(grounding))
        except Exception as error:
            if isinstance(error, CxrgError) and not isinstance(error, ImageError):
                raise
            return self._failure(result.task, error)

    def _failure(self, task: Task, error: Exception) -> Failure:
        detail = traceback.format_exc() if self._job.debug else ""
        return failure_of(task.path, error, detail=detail)


class Writer:
    """Writes the results of a worker in a thread of its own, while the network makes the next."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._pool = ThreadPoolExecutor(1, "cxrg-write")
        self._waiting: deque[Future[Row | Failure]] = deque()

    def take(self, task: Task, parts: Iterable[Unwritten | Failure]) -> Writing:
        """Take the results of a task as they are made; waits while too many are unwritten."""
        futures = []
        for part in parts:
            if isinstance(part, Failure):
                future: Future[Row | Failure] = Future()
                future.set_result(part)
            else:
                future = self._pool.submit(self._worker.write, part)
                self._waiting.append(future)
                del part  # only the writer's thread holds it now
            futures.append(future)
            while len(self._waiting) > MOST_UNWRITTEN:
                self._waiting.popleft().result()
        return Writing(task, tuple(futures))

    def close(self, *, wait: bool = True) -> None:
        self._pool.shutdown(wait=wait, cancel_futures=not wait)


@dataclass(frozen=True, slots=True)
class Writing:
    """A task whose results are all made and perhaps not all written."""

    task: Task
    futures: tuple[Future[Row | Failure], ...]

    def done(self) -> bool:
        return all(future.done() for future in self.futures)

    def outcome(self) -> Outcome:
        """Wait until all is written, and return the outcome of the task.

        Raises:
            WriteError: a file cannot be written.
        """
        parts = [future.result() for future in self.futures]
        rows = tuple(part for part in parts if isinstance(part, Row))
        failures = (part for part in parts if isinstance(part, Failure))
        return Outcome(task=self.task, rows=rows, failure=next(failures, None))


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
    """Return the outcome of a task that ended two workers, the second while it was alone there.

    Args:
        task: the task.
        ended: what a worker was, in the plural.
    """
    words = f"ended two {ended}, so it is set aside; look at the file, or free memory"
    message = f"{printable(task.path)}: {words}"
    return Outcome(task=task, failure=Failure(path=task.path, kind="poisoned", message=message))
