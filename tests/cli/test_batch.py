"""``cxrg ground`` over many images: where they come from, what is told, how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cxrg.batch.failures import FAILURES
from cxrg.cli.terminal import exit_code_of, stopping
from cxrg.errors import PhraseError
from tests.cli.test_ground import Library, Run, library, lines_of, place, raising, run, tiny
from tests.fakes import tiny_models
from tests.fakes.batch import draw
from tests.fakes.processes import until

__all__ = ["library", "place", "run", "tiny"]  # fixtures


def asked(library: Library) -> list[tuple[str, list[str]]]:
    return [(str(call["path"]), call["phrases"]) for call in library.grounds]


# --- inputs ---------------------------------------------------------------------------------------


def test_standard_input_names_images_and_phrases(
    run: Run, library: Library, place: Path, monkeypatch
) -> None:
    for name in ("b.png", "c.png"):
        draw(Path(name), seed=ord(name[0]))
    text = 'b.png\n{"image": "c.png", "phrases": ["one", "two"]}\n\nnone.png\n'
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    code, out, err = run("ground", "-", "left lung", "--json")
    assert asked(library) == [("b.png", ["left lung"]), ("c.png", ["one", "two"])]
    assert [line["phrase"] for line in lines_of(out)] == ["left lung", "one", "two"]
    assert code == 1
    assert "none.png: does not exist" in err
    listed = json.loads(Path("cxrg-out", FAILURES).read_text())
    assert (listed["input"], listed["line"], listed["kind"]) == (3, 4, "missing")


def test_a_list_needs_no_phrase_argument(
    run: Run, library: Library, place: Path, monkeypatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"image": "DOE^JANE.png", "phrase": "x"}\n'))
    assert run("ground", "-", "--quiet")[0] == 0
    assert asked(library) == [("DOE^JANE.png", ["x"])]


def test_manifest_phrases_and_files_join(run: Run, library: Library, place: Path) -> None:
    draw(Path("images/b.png"), seed=2)
    draw(Path("images/c.png"), seed=3)
    Path("m.csv").write_text("image,phrase\nb.png,own\nc.png,\n../DOE^JANE.png,out\n")
    Path("p.txt").write_text("# of the run\n\n  left lung \nheart\n")
    arguments = ["ground", "DOE^JANE.png", "--manifest", "m.csv", "--image-root", "images"]
    code, _, err = run(*arguments, "--phrases", "p.txt", "-p", "right lung")
    everywhere = ["right lung", "left lung", "heart"]
    assert asked(library) == [
        ("DOE^JANE.png", everywhere),
        ("images/b.png", ["own"]),
        ("images/c.png", everywhere),
    ]
    assert code == 1
    assert "../DOE^JANE.png: leaves the image root; set --image-root, or --allow-outside" in err
    assert "1 of 4 inputs failed (1 outside the image root)" in err
    library.grounds.clear()
    code, _, _ = run("ground", "--manifest", "m.csv", "--image-root", "images", "--allow-outside")
    assert asked(library) == [("images/../DOE^JANE.png", ["out"])]  # the others are done or bare


def test_patterns(run: Run, library: Library, place: Path) -> None:
    draw(Path("b.png"), seed=2)
    assert run("ground", "*.png", "heart", "--quiet")[0] == 0
    assert [name for name, _ in asked(library)] == ["DOE^JANE.png", "b.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "arguments are missing; give an image and a phrase"),
        (["-p", "x"], 2, "images are missing; give files, folders, - or --manifest"),
        (["--phrases", "none.txt", "DOE^JANE.png"], 3, "none.txt: cannot be read"),
        (["--phrases", "empty.txt", "DOE^JANE.png"], 3, "empty.txt: holds no phrase"),
        (["--manifest", "none.csv"], 3, "none.csv: cannot be read"),
        (["--manifest", "empty.txt"], 3, "empty.txt: has no column image"),
        (["DOE^JANE.png", "x", "--device", "cpu,tpu"], 2, "device 'tpu' is unknown"),
    ],
)
def test_usage_errors(
    run: Run, library: Library, place: Path, arguments: list[str], code: int, words: str
) -> None:
    Path("empty.txt").write_text("# nothing\n")
    got, out, err = run("ground", *arguments)
    assert (got, out) == (code, "")
    assert err.startswith(f"cxrg: {words}")
    assert err.count("\n") == 1
    assert not library.loads


REPORT = "Mrs Doe, 61 years. The heart is enlarged. There is a left effusion. No pneumothorax."


@pytest.mark.parametrize(
    ("arguments", "which"),
    [
        (["DOE^JANE.png", REPORT], "the phrase is a whole report"),
        (["DOE^JANE.png", "-p", "heart", "-p", REPORT], "phrase 2 of 2 is a whole report"),
        (["DOE^JANE.png", "--phrases", "report.txt"], "the phrase is a whole report"),
        (["DOE^JANE.png", "-p", "heart", "-p", " "], "phrase 2 of 2 is empty"),
    ],
)
def test_a_report_or_nothing_is_no_phrase(
    run: Run, library: Library, place: Path, arguments: list[str], which: str
) -> None:
    Path("report.txt").write_text(REPORT)
    code, out, err = run("ground", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"cxrg: {which}")
    assert "empty" in which or "--report" in err
    assert "Doe" not in err
    assert not library.loads
    assert not Path("cxrg-out").exists()


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "-"])
def test_a_row_with_a_report_as_phrase_is_refused_without_its_text(
    run: Run, library: Library, place: Path, monkeypatch, name: str
) -> None:
    rows = [("DOE^JANE.png", REPORT), ("DOE^JANE.png", "heart")]
    if name == "m.csv":
        text = "image,phrase\n" + "".join(f'{image},"{phrase}"\n' for image, phrase in rows)
    else:
        text = "".join(json.dumps({"image": i, "phrase": p}) + "\n" for i, p in rows)
    Path("m.csv" if name == "m.csv" else "m.jsonl").write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    code, out, err = run("ground", *(["-"] if name == "-" else ["--manifest", name]), "--json")
    assert code == 1
    assert asked(library) == [("DOE^JANE.png", ["heart"])]
    assert "line 1: gives a whole report as the phrase; give phrases, or one image with" in err
    written = "".join(f"{path.name} {path.read_bytes()!r}" for path in place.glob("cxrg-out/*"))
    assert "Mrs" not in out + err + written
    assert "mrs" not in written


def test_a_report_gives_phrases_and_says_what_is_not_grounded(
    run: Run, library: Library, place: Path
) -> None:
    Path("report.txt").write_text(
        "There is a left pleural effusion. No right pneumothorax in Mrs Doe.\n"
    )
    code, out, err = run("ground", "DOE^JANE.png", "--report", "report.txt", "--json")
    assert code == 0
    ((_, phrases),) = asked(library)
    assert len(phrases) == 1
    assert "effusion" in phrases[0]
    first, *others = [json.loads(line) for line in out.splitlines()]
    assert first == {
        "schema": "cxrg.statement/2",
        "finding": "pneumothorax",
        "side": "right",
        "zone": None,
        "certainty": "absent",
    }
    assert len(others) == 1
    command = ["ground", "DOE^JANE.png", "--report", "report.txt"]
    _, seen, told = run(*command)
    assert "cxrg: report: right pneumothorax: absent, not grounded\n" in told
    assert "Mrs" not in out + err + seen + told
    _, out, _ = run(*command, "--json", "--report-sentences")
    first = json.loads(out.splitlines()[0])
    assert first["sentence"] == "No right pneumothorax in Mrs Doe."
    _, _, told = run(*command, "--report-sentences")
    assert "absent, not grounded ('No right pneumothorax in Mrs Doe.')" in told


def test_a_report_in_another_language_is_named(run: Run, library: Library, place: Path) -> None:
    Path("report.txt").write_text("Kein Pneumothorax.\n")
    code, out, err = run("ground", "DOE^JANE.png", "--report", "report.txt")
    assert (code, out) == (3, "")
    assert err.startswith("cxrg: report.txt: characters 0 to 18 are not in English, so they are")
    code, _, err = run("ground", "DOE^JANE.png", "-p", "heart", "--report", "report.txt", "-q")
    assert code == 0
    assert "are not in English" in err


# --- what is told ---------------------------------------------------------------------------------


def test_a_second_run_tells_the_same_and_computes_nothing(
    run: Run, library: Library, place: Path
) -> None:
    draw(Path("b.png"), seed=2)
    command = ["ground", "DOE^JANE.png", "b.png", "-p", "one", "-p", "two", "--json"]
    _, first, _ = run(*command)
    library.grounds.clear()
    code, second, err = run(*command)
    assert (code, second) == (0, first)
    assert err == "cxrg: 2 inputs: 0 done, 2 done before (--force computes again)\n"
    assert not library.grounds
    assert run(*command, "--force")[1] == first
    assert len(library.grounds) == 2


def test_what_is_done_is_shown_without_torch(run: Run, place: Path, tiny: Path) -> None:
    draw(Path("b.png"), seed=2)
    draw(Path("c.png"), seed=3)
    command = ["ground", "b.png", "c.png", "heart", "--model", tiny, "--device", "cpu", "--json"]
    code, first, _ = run(*command)
    assert code == 0
    program = (
        "import sys\n"
        "from cxrg.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    again = subprocess.run(
        [sys.executable, "-c", program, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (again.returncode, again.stdout) == (0, first), again.stderr
    assert "2 done before" in again.stderr


def test_other_options_are_other_results(run: Run, library: Library, place: Path) -> None:
    for number, more in enumerate((["--seed", "1"], ["--seed", "2"], ["--seed", "1"])):
        assert run("ground", "DOE^JANE.png", "x", *more)[0] == 0
        assert len(library.grounds) == min(number + 1, 2)
    assert len(list(Path("cxrg-out").glob("*.png"))) == 2


def test_names_and_phrases_do_not_command_the_terminal(
    run: Run, library: Library, place: Path
) -> None:
    library.warnings = ("view \x1b]0;unknown",)
    draw(Path("a\x1b[2Jb.png"), seed=4)
    Path("bad\x1b[2J.png").write_text("no image")
    code, out, err = run("ground", *map(str, sorted(Path().glob("*.png"))), "left \x1b[31mlung")
    assert code == 1
    assert "left ?[31mlung" in out
    assert "a?[2Jb.png" in err
    assert "bad?[2J.png: is not" in err
    assert "\x1b" not in out + err


@pytest.mark.slow
def test_a_long_run_has_no_table(run: Run, library: Library, place: Path) -> None:
    draw(Path("many/0.png"), seed=5)
    phrases = [part for number in range(51) for part in ("-p", f"phrase {number}")]
    code, out, _ = run("ground", "many", *phrases[:-2])
    assert (code, out.count("phrase 1 ")) == (0, 1)
    code, out, err = run("ground", "many", *phrases)
    assert (code, out, err) == (0, "", "")


def test_failures_are_counted_by_reason(run: Run, library: Library, place: Path) -> None:
    Path("in").mkdir()
    for number in range(3):
        Path(f"in/{number}.png").write_text("no image")
    Path("in/3.png").touch()
    Path("in/4.png").touch()
    draw(Path("in/5.png"))
    code, _, err = run("ground", "in", "heart")
    assert code == 1
    last = err.splitlines()[-1]
    assert last.startswith("cxrg: 5 of 6 inputs failed (5 no usable image: 3 is ")
    assert re.search(r", 2 is empty\), 1 done", last)
    assert ".png" not in last


def test_debug_shows_where_an_unexpected_error_came_from(
    run: Run, library: Library, place: Path, monkeypatch
) -> None:
    draw(Path("b.png"), seed=2)
    monkeypatch.setattr(
        import_module("cxrg.grounding"), "ground_each", raising(ValueError("of DOE"))
    )
    code, _, err = run("ground", "b.png", "b.png", "x")
    assert code == 1
    assert "Traceback" not in err
    assert "DOE" not in err
    assert "b.png: unexpected ValueError; run this file alone with --debug" in err
    assert "2 of 2 inputs failed (2 unexpected error)" in err
    _, _, err = run("ground", "b.png", "b.png", "x", "--debug")
    assert "ValueError: of DOE" in err


def test_valid_phrases_are_grounded_together_beside_an_invalid_one(
    run: Run, library: Library, place: Path
) -> None:
    library.invalid["bad"] = PhraseError("phrase 'bad' has no token; use words")
    flags = ["-p", "one", "-p", "bad", "-p", "two", "--json"]
    code, out, err = run("ground", "DOE^JANE.png", *flags)
    assert [line["phrase"] for line in lines_of(out)] == ["one", "two"]
    assert asked(library) == [("DOE^JANE.png", ["one", "two"])]
    assert code == 1
    assert "phrase 'bad' has no token; use words" in err


def test_several_devices_are_several_processes(
    run: Run, library: Library, place: Path, monkeypatch
) -> None:
    made: list[list[str]] = []

    class Engine:
        def __init__(self, job: Any, devices: list[str], *, halt: Any) -> None:
            made.append(devices)

        def run(self, tasks: Any) -> Any:
            return iter([*tasks])  # all are missing, so there are none

        def close(self) -> None:
            made.append([])

    monkeypatch.setattr(import_module("cxrg.batch.devices"), "PerDevice", Engine)
    Path("DOE^JANE.png").unlink()
    run("ground", "a.png", "b.png", "x", "--device", "cuda:0,cuda:1")
    assert made == [["cuda:0", "cuda:1"], []]


@pytest.mark.parametrize(
    ("first", "second", "words", "codes"),
    [
        ("SIGINT", "SIGINT", "finishing what is begun; Ctrl-C again stops at once", (130, 130)),
        ("SIGTERM", "SIGTERM", "received SIGTERM; finishing what is begun; a second", (143, 143)),
        ("SIGTERM", "SIGINT", "received SIGTERM; finishing what is begun; a second", (143, 130)),
        ("SIGINT", "SIGTERM", "finishing what is begun; Ctrl-C again stops at once", (130, 143)),
    ],
)
def test_a_signal_asks_to_stop_and_a_second_one_stops(
    capfd, first: str, second: str, words: str, codes: tuple[int, int]
) -> None:
    one, other = signal.Signals[first], signal.Signals[second]
    # Not what the tests were started with: a job in the background ignores the signal.
    before = {each: signal.signal(each, signal.SIG_IGN) for each in {one, other}}
    try:
        with stopping() as stop:
            assert not stop()
            signal.raise_signal(one)
            assert stop()
            assert stop.exit_code == codes[0]
            assert words in capfd.readouterr().err
            with pytest.raises(KeyboardInterrupt) as ended:
                signal.raise_signal(other)
            assert exit_code_of(ended.value) == codes[1]
        assert all(signal.getsignal(each) is signal.SIG_IGN for each in before)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_sigterm_finishes_what_is_begun_and_the_run_goes_on_later(
    run: Run, library: Library, place: Path, monkeypatch
) -> None:
    for name in "abcdefgh":
        draw(Path(f"in/{name}.png"), seed=ord(name))
    grounded = library.ground_each

    def ground_each(image: Any, phrases: list[str], **more: Any) -> list[Any]:
        found = grounded(image, phrases, **more)
        if len(library.grounds) == 2:
            signal.raise_signal(signal.SIGTERM)
        return found

    monkeypatch.setattr(import_module("cxrg.grounding"), "ground_each", ground_each)
    code, out, err = run("ground", "in", "heart", "--json")
    assert code == 143
    assert "interrupted before the end; the same command continues from here" in err
    assert len(lines_of(out)) == len(library.grounds) == 2
    code, out, _ = run("ground", "in", "heart", "--json")
    assert code == 0
    assert len(lines_of(out)) == len(library.grounds) == 8


def test_sigterm_ends_other_commands_in_one_line(run: Run, monkeypatch) -> None:
    def command() -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(import_module("cxrg.cli.options"), "knob_rows", command)
    assert run("options") == (143, "", "cxrg: interrupted\n")


# --- real processes -------------------------------------------------------------------------------


COUNT = 12
FLAGS = ["--device", "cpu", "--json", "--format", "json,npz", "--set", "draws=1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.compact(tmp_path_factory.mktemp("models") / "tiny")


def archive(folder: Path) -> Path:
    for number in range(COUNT):
        draw(folder / "in" / f"{number:02}.png", seed=number)
    (folder / "in/99.png").write_bytes((folder / "in/00.png").read_bytes()[:300])
    return folder


def start(folder: Path, model: Path, *more: str, before: str = "") -> subprocess.Popen[str]:
    """Begin ``cxrg ground`` over the archive; ``before`` is Python to run first."""
    program = ["-c", f"{before}\nfrom cxrg.cli import main\nmain()"] if before else ["-m", "cxrg"]
    command = [sys.executable, *program, "ground", "in", "-p", "heart", "-p", "left lung"]
    return subprocess.Popen(
        [*command, "--model", str(model), *FLAGS, *more],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )


def end(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    assert process.stdout
    assert process.stderr
    with process:  # not by `communicate`, which loses what `readline` has read ahead
        out, err = process.stdout.read(), process.stderr.read()
    return process.returncode, out.splitlines(), err


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = archive(tmp_path_factory.mktemp("undisturbed"))
    code, lines, err = end(start(folder, model))
    assert code == 1
    assert f"1 of {COUNT + 1} inputs failed (1 no usable image), {COUNT} done" in err
    assert len(lines) == 2 * COUNT
    return folder / "cxrg-out", lines


def same_files(one: Path, other: Path) -> None:
    """Both folders hold the same results, and nothing half done."""
    files = [{file.name for file in each.iterdir()} - LEDGER for each in (one, other)]
    assert files[0] == files[1]
    for name in files[0]:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


LEDGER = {"cxrg.sqlite", "cxrg.sqlite-wal", "cxrg.sqlite-shm"}


@pytest.mark.slow
def test_killed_and_resumed(model: Path, undisturbed: Any, tmp_path: Path) -> None:
    folder = archive(tmp_path)
    for moment in (0, 1, 5):
        process = start(folder, model)
        assert process.stdout
        for _ in range(moment):
            assert process.stdout.readline()
        process.kill()
        assert end(process)[0] == -signal.SIGKILL
    code, lines, err = end(start(folder, model))
    assert (code, lines) == (1, undisturbed[1])
    assert "done before" in err
    same_files(folder / "cxrg-out", undisturbed[0])


@pytest.mark.slow
def test_interrupted_and_resumed(model: Path, undisturbed: Any, tmp_path: Path) -> None:
    folder = archive(tmp_path)
    process = start(folder, model)
    assert process.stdout
    begun = [process.stdout.readline().rstrip("\n") for _ in range(3)]
    process.send_signal(signal.SIGINT)
    code, lines, err = end(process)
    assert code == 130
    assert begun + lines == undisturbed[1][: len(begun + lines)]
    assert len(begun + lines) % 2 == 0  # the image that was begun is finished
    assert len(begun + lines) < 2 * COUNT
    assert "cxrg: finishing what is begun; Ctrl-C again stops at once" in err
    assert "cxrg: interrupted before the end; the same command continues from here" in err
    assert "Traceback" not in err
    code, lines, _ = end(start(folder, model))
    assert (code, lines) == (1, undisturbed[1])
    same_files(folder / "cxrg-out", undisturbed[0])


# Run before the command: the first result is held back until the other process has one, too.
MEET = """
import time
from pathlib import Path
from cxrg.batch.work import Worker
write = Worker.write
def meet(self, done):
    Path({mine!r}).touch()
    end = time.monotonic() + 300
    while not Path({other!r}).exists():
        assert time.monotonic() < end, "the other process has no result"
        time.sleep(0.01)
    return write(self, done)
Worker.write = meet
"""


@pytest.mark.slow
def test_two_runs_at_once(model: Path, undisturbed: Any, tmp_path: Path) -> None:
    folder = archive(tmp_path)
    names = ("one", "two")
    both = [
        start(folder, model, before=MEET.format(mine=mine, other=other))
        for mine, other in (names, names[::-1])
    ]
    done = 0
    for code, lines, err in map(end, both):
        assert (code, lines) == (1, undisturbed[1]), err
        (count,) = re.findall(r"\), (\d+) done", err)
        assert int(count) > 0
        done += int(count)
    assert done == COUNT
    same_files(folder / "cxrg-out", undisturbed[0])


# Run before the command: stop this process while it has claims and is in no transaction.
STOP = """
import os, signal
from cxrg.batch import owners, run
from cxrg.batch.ledger import Ledger
run.NOTICE = 0.0
explain = run.Run._explain_waiting
def shorten(self):
    explain(self)
    if self._noticed:
        owners.LEASE = 0.0  # the two minutes are over
run.Run._explain_waiting = shorten
claim, count = Ledger.claim, 0
def stop(self, *given, **more):
    global count
    found = claim(self, *given, **more)
    count += 1
    if {stops} and count == 5:
        with self._lock:
            os.kill(os.getpid(), signal.SIGSTOP)
    return found
Ledger.claim = stop
"""


@pytest.mark.slow
def test_a_stopped_run_is_named_and_its_claims_are_taken_over(
    model: Path, undisturbed: Any, tmp_path: Path
) -> None:
    folder = archive(tmp_path)
    first = start(folder, model, before=STOP.format(stops=True))
    until(lambda: Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    second = start(folder, model, before=STOP.format(stops=False))
    code, lines, err = end(second)
    assert (code, lines) == (1, undisturbed[1]), err
    assert f"cxrg: waiting for process {first.pid}, which computes " in err
    assert "and is stopped: they are taken over after 120 s" in err
    done = int(re.findall(r"\), (\d+) done", err)[0])
    first.send_signal(signal.SIGCONT)
    code, lines, err = end(first)
    assert (code, lines) == (1, undisturbed[1]), err
    assert done + int(re.findall(r"\), (\d+) done", err)[0]) == COUNT
    same_files(folder / "cxrg-out", undisturbed[0])


STOP_WRITING = """
import os, signal
from cxrg.batch import ledger
ledger.PATIENCE, ledger.LOOK = 1.0, 0.1
put = ledger.Ledger._put
def stop(self, *given, **more):
    put(self, *given, **more)
    if {stops}:
        os.kill(os.getpid(), signal.SIGSTOP)
ledger.Ledger._put = stop
"""


@pytest.mark.slow
def test_a_run_that_is_stopped_while_it_writes_the_ledger_is_named(
    model: Path, undisturbed: Any, tmp_path: Path
) -> None:
    folder = archive(tmp_path)
    first = start(folder, model, before=STOP_WRITING.format(stops=True))
    until(lambda: Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    code, lines, err = end(start(folder, model, before=STOP_WRITING.format(stops=False)))
    assert (code, lines) == (1, [])
    file = Path("cxrg-out/cxrg.sqlite")
    assert err.splitlines() == [
        f"cxrg: waiting for stopped process {first.pid}, which has locked {file}",
        f"cxrg: {file}: is locked by stopped process {first.pid}; continue or end that process",
    ]
    first.kill()
    end(first)
    code, lines, _ = end(start(folder, model))
    assert (code, lines) == (1, undisturbed[1])


DECODING = """
import time
from pathlib import Path
from cxrg.batch.work import Worker
read = Worker.read
def endless(self, task):
    if task.index == 2:
        Path("decoding").touch()
        time.sleep(1000)
    return read(self, task)
Worker.read = endless
"""


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait_for_an_image_that_is_decoded(
    model: Path, undisturbed: Any, tmp_path: Path
) -> None:
    folder = archive(tmp_path)
    process = start(folder, model, before=DECODING)
    assert process.stderr
    until((folder / "decoding").exists)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert "Ctrl-C again stops at once" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    code, _, err = end(process)
    assert (code, err) == (130, "cxrg: interrupted\n")
    code, lines, _ = end(start(folder, model))
    assert (code, lines) == (1, undisturbed[1])


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_results_are_written_whatever_stream_is_closed(
    model: Path, undisturbed: Any, tmp_path: Path, closed: str
) -> None:
    folder = archive(tmp_path)
    flags = " ".join(FLAGS)
    command = f"{sys.executable} -m cxrg ground in -p heart -p 'left lung' --model {model} {flags}"
    done = subprocess.run(
        ["sh", "-c", f"{command} {closed}"],
        cwd=folder,
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1  # the damaged one
    same_files(folder / "cxrg-out", undisturbed[0])


@pytest.mark.slow
def test_one_process_per_device(model: Path, undisturbed: Any, tmp_path: Path) -> None:
    folder = archive(tmp_path)
    code, lines, err = end(start(folder, model, "--device", "cpu,cpu"))
    assert (code, lines) == (1, undisturbed[1]), err
    same_files(folder / "cxrg-out", undisturbed[0])


@pytest.mark.slow
def test_a_closed_pipe_ends_the_run_quietly(model: Path, undisturbed: Any, tmp_path: Path) -> None:
    folder = archive(tmp_path)
    with start(folder, model) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
    code, lines, _ = end(start(folder, model))
    assert (code, lines) == (1, undisturbed[1])


# --- sheets ---------------------------------------------------------------------------------------


def test_a_sheet_per_image_is_named_on_standard_output(
    run: Run, library: Library, place: Path
) -> None:
    arguments = ("ground", "DOE^JANE.png", "-p", "left lung", "-p", "heart", "--sheet")
    code, out, _ = run(*arguments, "--json")
    sheets = {line["files"]["sheet"] for line in lines_of(out)}
    assert (code, len(sheets)) == (0, 1)
    sheet = Path(sheets.pop())
    assert re.fullmatch(r"[0-9a-f]{16}-sheet-[0-9a-f]{8}\.png", sheet.name)
    assert sheet.is_file()
    code, out, _ = run(*arguments)
    assert f"sheet: {sheet}" in out
    code, _, err = run(*arguments, "--format", "none")
    assert (code, "--sheet writes a file" in err) == (2, True)
