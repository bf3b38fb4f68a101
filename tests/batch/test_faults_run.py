"""Runs of ``cxrg ground`` that are killed, starved and disturbed: nothing is lost or done twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import processes, tiny_models
from tests.fakes.batch import chest
from tests.fakes.processes import Running, start, until
from tests.image.test_image import pillow

PHRASES = ("left opacity", "heart")
QUICK = ("--device", "cpu", "--set", "timesteps=450", "--set", "draws=1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.compact(tmp_path_factory.mktemp("models") / "tiny")


def picture(seed: int) -> bytes:
    return pillow(chest(seed, (40, 32)), "PNG")


def place(folder: Path, count: int) -> Path:
    """A folder with distinct images, and one file among them that is damaged."""
    images = folder / "images"
    images.mkdir(parents=True)
    for n in range(count):
        (images / f"{n:03d}.png").write_bytes(picture(n))
    (images / "damaged.png").write_bytes(picture(0)[:60])
    return folder


def command(tiny: Path, *more: object) -> list[object]:
    phrases = [word for phrase in PHRASES for word in ("-p", phrase)]
    return ["ground", "images", *phrases, "--model", tiny, *QUICK, "--json", *more]


def files(folder: Path) -> dict[str, bytes]:
    """What was written for users: all but the ledger, which tells when it was."""
    return {
        file.name: file.read_bytes()
        for file in sorted((folder / "cxrg-out").iterdir())
        if not file.name.startswith("cxrg.sqlite")
    }


def results(folder: Path) -> int:
    return sum(1 for _ in folder.glob("cxrg-out/[!.]*.json"))


def counts(run: Running) -> tuple[int, int]:
    """What the summary tells: done, and done before."""
    last = run.err.splitlines()[-1]
    done, before = re.search(r"(\d+) done", last), re.search(r"(\d+) done before", last)
    assert done, run.err
    return int(done[1]), int(before[1]) if before else 0


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Running]:
    """An undisturbed run over so many images."""
    made: dict[int, Running] = {}

    def run(count: int) -> Running:
        if count not in made:
            folder = place(tmp_path_factory.mktemp("undisturbed"), count)
            made[count] = start(command(tiny), folder)
            assert made[count].wait() == 1, made[count].err  # the damaged one
            assert len(made[count].out.splitlines()) == count * len(PHRASES)
        return made[count]

    return run


def same(run: Running, oracle: Running) -> None:
    """The same JSON lines and the same files, byte for byte, and nothing left over."""
    assert sorted(run.out.splitlines()) == sorted(oracle.out.splitlines())
    assert files(run.folder) == files(oracle.folder)
    assert not list(run.folder.glob("cxrg-out/.*"))


# --- killed ---------------------------------------------------------------------------------------


def killed_and_resumed(tiny: Path, folder: Path, *, kills: int, step: int, fresh: bool) -> Running:
    """Kill a run at so many moments, each at most ``step`` results after the last; then finish."""
    rng = np.random.default_rng(kills)
    struck = 0
    for number in range(kills):
        goal = results(folder) + int(rng.integers(0, step + 1))
        run = start(command(tiny), folder, name=f"killed{number}", fresh=fresh)
        until(lambda run=run, goal=goal: results(folder) >= goal or run.ended())
        time.sleep(float(rng.uniform(0, 0.1)))
        if not run.ended():
            run.signal(signal.SIGKILL)
        struck += run.wait() == -signal.SIGKILL
    assert struck == kills
    last = start(command(tiny), folder, fresh=fresh)
    assert last.wait() == 1, last.err
    return last


@pytest.mark.slow
def test_killed_four_times_of_twenty_images(tiny: Path, tmp_path: Path, undisturbed: Any) -> None:
    folder = place(tmp_path, 20)
    last = killed_and_resumed(tiny, folder, kills=4, step=8, fresh=False)
    assert counts(last)[1] > 0  # it did go on from there
    same(last, undisturbed(20))


@pytest.mark.slow
def test_killed_twenty_times_of_two_hundred_images(
    tiny: Path, tmp_path: Path, undisturbed: Any
) -> None:
    folder = place(tmp_path, 200)
    last = killed_and_resumed(tiny, folder, kills=20, step=18, fresh=True)
    assert counts(last)[1] > 20
    same(last, undisturbed(200))


@pytest.mark.slow
def test_what_is_done_is_not_done_again(tiny: Path, tmp_path: Path, undisturbed: Any) -> None:
    folder = place(tmp_path, 20)
    assert start(command(tiny), folder).wait() == 1
    before = {file: file.stat().st_mtime_ns for file in folder.glob("cxrg-out/*.json")}
    again = start(command(tiny), folder)
    assert again.wait() == 1
    assert counts(again) == (0, 20)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    same(again, undisturbed(20))


# --- interrupted ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_finishes_what_is_begun_and_the_run_goes_on(
    tiny: Path, tmp_path: Path, undisturbed: Any
) -> None:
    folder = place(tmp_path, 20)
    run = start(command(tiny), folder, name="first")
    until(lambda: results(folder) >= 3)
    run.signal(signal.SIGINT)
    assert run.wait() == 130, run.err
    assert "Traceback" not in run.err
    assert run.err.splitlines()[-1].startswith("cxrg: interrupted before the end; ")
    told = [line["image"]["path"] for line in run.lines()]
    assert 3 <= results(folder) < 40
    assert all(told.count(path) == len(PHRASES) for path in told)
    assert len(told) == results(folder)  # what was done was told, what was begun was done
    last = start(command(tiny), folder)
    assert last.wait() == 1
    assert counts(last)[1] == len(set(told))
    same(last, undisturbed(20))


# --- two at once ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_runs_at_once_share_the_work(tiny: Path, tmp_path: Path, undisturbed: Any) -> None:
    folder = place(tmp_path, 20)
    both = [start(command(tiny), folder, name=name) for name in ("one", "two")]
    assert [run.wait() for run in both] == [1, 1], [run.err for run in both]
    assert sum(counts(run)[0] for run in both) == 20
    for run in both:
        same(run, undisturbed(20))


# --- no room --------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """A small file system at ``cxrg-out``; the call mounts it again with other options."""
    out = tmp_path / "cxrg-out"
    out.mkdir()

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(out)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            pytest.skip("a file system cannot be mounted here (that takes root)")

    mount("size=1m")
    yield mount
    subprocess.run(["umount", str(out)], check=True)


def one_line(run: Running, words: str) -> None:
    """It ended with exit code 1 and one line that says why, warnings apart."""
    assert run.wait() == 1, run.err
    passing = ("damaged.png", "cxrg: warning: ")
    lines = [line for line in run.err.splitlines() if not any(each in line for each in passing)]
    assert len(lines) == 1, run.err
    assert re.match(r"cxrg: cxrg-out/\S+: cannot be written \(.*\); ", lines[0]), run.err
    assert words in lines[0]


@pytest.mark.slow
def test_disk_full_and_then_not(
    tiny: Path, tmp_path: Path, undisturbed: Any, disk: Callable[[str], None]
) -> None:
    folder = place(tmp_path, 20)
    one_line(start(command(tiny), folder, name="full"), "")
    said = (folder / "full.stderr").read_text()
    assert "No space left on device" in said or "disk is full" in said
    assert 0 < results(folder) < 40
    oracle = files(undisturbed(20).folder)
    for name, data in files(folder).items():
        assert name == "failures.jsonl" or data == oracle[name]
    disk("remount,size=100m")
    last = start(command(tiny), folder)
    assert last.wait() == 1
    assert counts(last)[1] > 0
    same(last, undisturbed(20))


FULL = """
import os
real, count = os.fsync, 0
def fsync(number):
    global count
    count += 1
    if count > 25:
        raise OSError(28, "No space left on device")
    real(number)
os.fsync = fsync
"""


@pytest.mark.slow
def test_disk_full_as_the_operating_system_tells(
    tiny: Path, tmp_path: Path, undisturbed: Any
) -> None:
    folder = place(tmp_path, 20)
    one_line(start(command(tiny), folder, name="full", before=FULL), "No space left on device")
    oracle = files(undisturbed(20).folder)
    assert all(name == "failures.jsonl" or data == oracle[name]
               for name, data in files(folder).items())  # fmt: skip
    last = start(command(tiny), folder)
    assert last.wait() == 1
    same(last, undisturbed(20))


def test_output_folder_that_is_read_only(
    tiny: Path, tmp_path: Path, disk: Callable[[str], None]
) -> None:
    folder = place(tmp_path, 2)
    disk("remount,ro")
    run = start(command(tiny), folder)
    assert run.wait() == 1, run.err
    assert run.err.count("\n") == 1
    assert "cannot be written" in run.err
    assert run.out == ""


# --- files that do not stay -----------------------------------------------------------------------

# Does something to a file after it was hashed and before it is read.
AFTER_HASHING = """
from cxrg.batch.ledger import Ledger
real = Ledger.identify
def identify(self, path):
    found = real(self, path)
    if path.name == "003.png" and not path.with_name("done").exists():
        path.with_name("done").touch()
        {deed}
    return found
Ledger.identify = identify
"""


def test_a_file_that_vanishes_is_named_and_the_others_are_done(tiny: Path, tmp_path: Path) -> None:
    folder = place(tmp_path, 6)
    vanish = AFTER_HASHING.format(deed="path.unlink()")
    run = start(command(tiny), folder, before=vanish)
    assert run.wait() == 1
    assert "cxrg: images/003.png: does not exist; check the name" in run.err.splitlines()
    assert len(run.lines()) == 5 * len(PHRASES)
    told = map(json.loads, (folder / "cxrg-out" / "failures.jsonl").read_text().splitlines())
    assert [line["kind"] for line in told] == ["missing", "image"]


def test_a_file_that_changes_is_taken_for_what_was_read(tiny: Path, tmp_path: Path) -> None:
    folder = place(tmp_path, 6)
    new = picture(99)
    (folder / "new.png").write_bytes(new)
    change = AFTER_HASHING.format(deed="path.write_bytes(open('new.png', 'rb').read())")
    run = start(command(tiny), folder, before=change)
    assert run.wait() == 1
    (line, _) = (line for line in run.lines() if line["image"]["path"] == "images/003.png")
    assert line["image"]["sha256"] == hashlib.sha256(new).hexdigest()
    again = start(command(tiny), folder, name="again")
    assert again.wait() == 1
    assert counts(again) == (0, 6)
    assert sorted(again.out.splitlines()) == sorted(run.out.splitlines())
    hashes = {hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("images/*.png")}
    assert {line["image"]["sha256"] for line in again.lines()} <= hashes


def test_a_folder_of_things_that_are_no_files(tiny: Path, tmp_path: Path) -> None:
    folder = place(tmp_path, 3)
    images = folder / "images"
    (images / "round").symlink_to(images, target_is_directory=True)
    (images / "self.png").symlink_to("self.png")
    (images / "gone.png").symlink_to("nowhere.png")
    (images / "endless.png").symlink_to("/dev/zero")
    os.mkfifo(images / "pipe.png")
    (images / "empty.png").touch()
    (images / "linked.png").symlink_to("001.png")
    run = start(command(tiny), folder)
    assert run.wait() == 1
    told = {line["image"]["path"] for line in run.lines()}
    assert told == {f"images/{name}.png" for name in ("000", "001", "002", "linked")}


def test_a_pipe_and_a_device_by_name(tiny: Path, tmp_path: Path) -> None:
    folder = place(tmp_path, 1)
    os.mkfifo(folder / "pipe.png")
    for name in ("pipe.png", "/dev/zero"):
        run = start(["ground", name, "heart", "--model", tiny], folder)
        assert run.wait() == 3
        assert run.err == f"cxrg: {name}: is not a regular file; save the image to a file first\n"


def test_processes_would_be_waited_for_in_vain(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="in vain"):
        until(lambda: False, 0.05)
    assert processes.PATIENCE > 0
