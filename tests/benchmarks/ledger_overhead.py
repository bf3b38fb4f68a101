"""What a run costs per image beyond reading and the network, with a STUBBED network.

No image is grounded here: `StubbedNetwork` gives a made-up result at once. What is measured is the
rest: finding, hashing, claiming, entering and telling, through the same `Run`, `InProcess` pipeline
and ledger as the command line uses; then the same for a second run that skips everything.

    python -m tests.benchmarks.ledger_overhead --rows 100000 --items 10000

Reading is not part of it (the stub does not open the file), but hashing is, since it is the
ledger that needs it. Memory is the process's own resident size, sampled while it runs; it is flat
if the second half of the run needs no more than the first. With --check it fails if a limit of
5 ms per item or 5 MB of growth is broken.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cxrg.batch.ledger import Ledger
from cxrg.batch.local import InProcess
from cxrg.batch.run import Run
from cxrg.batch.task import InputResult, Job, Outcome, Row, Setting, Task
from cxrg.options import Options

MOST_MS, MOST_MB = 5.0, 5.0
PHRASE = "left basal opacity"
SETTING = Setting(identity="sha256:stub", options=Options())


class StubbedNetwork:
    """A worker without a network: the row of a result that nobody computed."""

    setting = SETTING

    def read(self, task: Task) -> Task:
        return task

    def look(self, task: Task) -> Task:
        return task

    def write(self, task: Task) -> Outcome:
        image = hashlib.sha256(task.path.read_bytes()).hexdigest()
        return Outcome(task=task, rows=(made_up(image),))


def made_up(image: str) -> Row:
    """A row as large as a real one."""
    box = {"x0": 1.0, "y0": 2.0, "x1": 3.0, "y1": 4.0, "score": 0.5, "where": "left lower"}
    record: dict[str, Any] = {
        "image": {"sha256": image, "uid": "1.2.840.113619.2.5.1762583153", "width": 2000},
        "phrase": PHRASE,
        "boxes": [box] * 3,
        "options": {"stub": "x" * 700},
        "warnings": [],
    }
    return Row(phrase=PHRASE, stem=f"{image[:16]}-left-basal-opacity-0123abcd", record=record)


def fill(ledger: Ledger, rows: int) -> None:
    """Enter results of other images."""
    ledger.settle(SETTING)
    path = Path("elsewhere.png")
    for number in range(rows):
        image = hashlib.sha256(b"other%d" % number).hexdigest()
        task = Task(index=number, path=path, phrases=(PHRASE,))
        ledger.claim(path, image, task.phrases, complete=lambda stem: True)
        ledger.finish(image, Outcome(task=task, rows=(made_up(image),)))


def images(folder: Path, count: int) -> Iterator[Task]:
    """Small files that differ, made on demand."""
    folder.mkdir(exist_ok=True)
    for index in range(count):
        path = folder / f"{index:06}"
        if not path.exists():
            path.write_bytes(b"%d" % index * 100)
        yield Task(index=index, path=path, phrases=(PHRASE,))


def resident() -> float:
    """Resident memory of this process in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(folder: Path, items: int) -> dict[str, float]:
    """One run over all items: milliseconds each, and growth of memory in its second half."""
    engine = InProcess(Job(model="stub", preset="fast", out=folder))
    engine._worker = StubbedNetwork()  # type: ignore[assignment]
    sizes: list[float] = []

    def report(result: InputResult) -> None:
        for row in result.rows:
            sink.write(json.dumps(row.record) + "\n")
        sizes.append(resident())

    with Path(os.devnull).open("w") as sink, Ledger(folder) as ledger:
        # No format is requested, so that writing files, which is not overhead, is left out.
        run = Run(
            images(folder / "in", items),
            engine=engine,
            ledger=ledger,
            out=folder,
            formats=(),
            report=report,
        )
        wall, cpu = time.perf_counter(), time.process_time()
        summary = run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert summary.total == items
    return {
        "done": summary.done,
        "skipped": summary.skipped,
        "wall_ms": 1e3 * wall / items,
        "cpu_ms": 1e3 * cpu / items,
        "growth_mb": max(sizes[items // 2 :]) - max(sizes[items // 10 : items // 2]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="results in the ledger before")
    parser.add_argument("--items", type=int, default=10_000, help="images of the run")
    parser.add_argument("--check", action="store_true", help="fail where a limit is broken")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Ledger(folder) as ledger:
            fill(ledger, given.rows)
        list(images(folder / "in", given.items))
        runs = {"new": measure(folder, given.items), "again": measure(folder, given.items)}
        size = (folder / "cxrg.sqlite").stat().st_size / 1e6
    figures = {"stubbed_network": True, "rows": given.rows, "items": given.items, "ledger_mb": size}
    print(json.dumps({**figures, **runs}, indent=2))
    broken = any(each["wall_ms"] > MOST_MS or each["growth_mb"] > MOST_MB for each in runs.values())
    return int(given.check and broken)


if __name__ == "__main__":
    sys.exit(main())
