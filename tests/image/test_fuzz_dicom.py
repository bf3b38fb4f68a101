"""Damaged files through the reader: a result or one clear line, whatever was done to them.

They are read in a process of their own, because a native decoder may end it, hang, or ask for all
the memory there is.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate

from cxrg.errors import ImageError
from cxrg.image.codec import DECODERS
from cxrg.image.read import read_image
from tests.fakes import fuzz_seeds, fuzzing

ROOT = Path(__file__).parents[2]
PEAK = 1 << 30  # bytes that reading one mutant may take at most
SYNTAX = b"\x02\x00\x10\x00UI"


def worker(code: str, *arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    """Run Python in the repository's folder: its exit code, its JSON lines and its stderr."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, lines, done.stderr.decode(errors="replace")


def read_mutants(
    first: int, last: int, folder: Path, *, pictures: bool = False, patch: str = ""
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Read mutants; those that ended badly, and how many ended well and how.

    Where the process ends, the mutant that it was reading is listed and another process continues.
    """
    code = f"from tests.fakes import fuzzing\n{patch}\nfuzzing.main(*fuzzing.arguments())"
    bad: list[dict[str, Any]] = []
    counts: dict[str, int] = {"read": 0, "refused": 0}
    while first < last:
        kind = ["pictures"] if pictures else []
        status, lines, errors = worker(code, first, last, folder, *kind)
        bad += [line for line in lines if "number" in line]
        if status == 0:
            for ended, count in lines[-1]["counts"].items():
                counts[ended] += count
            assert lines[-1]["most"][0] < PEAK, lines[-1]
            break
        now = folder / "now"
        assert now.is_file(), errors
        number = int(now.read_text())
        words = fuzzing.mutant(number, pictures)[0]
        bad.append({"number": number, "mutant": words, "ended": f"exit {status}: {errors}"})
        first = number + 1
        now.unlink()
    return bad, counts


def test_mutants_are_the_same_for_ever() -> None:
    seen = hashlib.sha256()
    for number in range(40):
        words, data = fuzzing.mutant(number)
        assert data == fuzzing.mutant(number)[1], words
        seen.update(data)
    code = "import hashlib\nfrom tests.fakes import fuzzing\n"
    code += "m = [fuzzing.mutant(n)[1] for n in range(40)]\n"
    code += "fuzzing.say(seen=hashlib.sha256(b''.join(m)).hexdigest())"
    assert worker(code)[1] == [{"seen": seen.hexdigest()}]


def test_seeds_have_every_syntax_that_is_read_and_most_can_be_read(tmp_path: Path) -> None:
    read, syntaxes = 0, set()
    for seed in fuzz_seeds.dicom_seeds():
        data, at = seed.data, seed.data.find(SYNTAX)
        length = int.from_bytes(data[at + 6 : at + 8], "little")
        syntaxes.add(data[at + 8 : at + 8 + length].rstrip(b"\0").decode())
        read += fuzzing.read(put(tmp_path, fuzz_seeds.whole(seed, data))) == "read"
    plain = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
    plain |= {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"}
    # The three of HTJ2K are one codestream, and so are the two of lossless JPEG without its data.
    wanted = {*plain, *DECODERS} - {f"1.2.840.10008.1.2.4.{n}" for n in (70, 202, 203)}
    assert wanted <= syntaxes
    assert read >= len(fuzz_seeds.dicom_seeds()) - 4


def test_every_damage_occurs() -> None:
    words = "; ".join(fuzzing.mutant(number)[0] for number in range(400))
    for damage in fuzzing.DICOM_DAMAGES:
        assert damage.__name__ in words


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    bad, counts = read_mutants(0, 400, tmp_path)
    assert bad == []
    assert sum(counts.values()) == 400
    assert min(counts.values()) > 40  # neither all refused at once nor all harmless


def test_damaged_pictures_are_read_or_refused(tmp_path: Path) -> None:
    bad, counts = read_mutants(0, 200, tmp_path, pictures=True)
    assert bad == []
    assert sum(counts.values()) == 200
    assert min(counts.values()) > 20


@pytest.mark.slow
def test_ten_thousand_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    bad, counts = read_mutants(0, 10_000, tmp_path)
    assert bad == []
    assert sum(counts.values()) == 10_000
    bad, counts = read_mutants(0, 2_000, tmp_path, pictures=True)
    assert bad == []
    assert sum(counts.values()) == 2_000


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ("import os; fuzzing.read_image = lambda *a, **k: os.abort()", "exit -6"),
        ("fuzzing.HANG = 0.2\ndef f(*a, **k):\n while 1: pass\nfuzzing.read_image = f", "exit -27"),
        ("fuzzing.STUCK = 0.2\nimport time\n"
         "fuzzing.read_image = lambda *a, **k: time.sleep(60)", "exit 1"),
        ("fuzzing.read_image = lambda *a, **k: bytearray(9 << 30)", "MemoryError"),
        ("fuzzing.read_image = lambda *a, **k: {}['x']", "KeyError"),
    ],
    ids=["crash", "loop", "wait", "memory", "exception"],
)  # fmt: skip
def test_what_is_looked_for_would_be_found(tmp_path: Path, patch: str, words: str) -> None:
    bad, counts = read_mutants(7, 8, tmp_path, patch=patch)
    (found,) = bad
    assert found["number"] == 7
    assert words in found["ended"]
    assert counts == {"read": 0, "refused": 0}


# --- attacks made by hand -------------------------------------------------------------------------


def put(folder: Path, data: bytes) -> Path:
    file = folder / "file"
    file.write_bytes(data)
    return file


def refused(folder: Path, data: bytes, problem: str) -> None:
    with pytest.raises(ImageError, match=problem) as caught:
        read_image(put(folder, data), side=32)
    assert "\n" not in str(caught.value)


def claiming(rows: int, columns: int, **elements: Any) -> bytes:
    ds = fuzz_seeds.dataset(np.arange(256, dtype=np.uint16).reshape(16, 16))
    ds.Rows, ds.Columns = rows, columns
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return fuzz_seeds.as_bytes(ds)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty"),
        (claiming(32768, 32768), "is too large"),  # 2 GiB of pixels
        (claiming(10_000, 10_000), "cannot be decoded"),
        (claiming(16, 16, NumberOfFrames="4000000"), "more than one frame"),
        (claiming(16, 16, NumberOfFrames="9" * 12), "more than one frame"),
        (claiming(10_000, 10_000, SamplesPerPixel=3), "neither grey nor RGB"),
    ],
    ids=["empty", "2 GiB", "200 MB", "frames", "more frames", "samples"],
)
def test_claims_of_headers_are_not_believed(tmp_path: Path, data: bytes, problem: str) -> None:
    refused(tmp_path, data, problem)


@pytest.mark.parametrize("length", [2**31 - 2, 2**31, 2**32 - 2])
def test_pixel_data_that_claims_gigabytes(tmp_path: Path, length: int) -> None:
    whole = claiming(16, 16)
    data = bytearray(whole)
    at = data.rindex(b"\xe0\x7f\x10\x00OW")
    data[at + 8 : at + 12] = struct.pack("<I", length)
    # All pixels are there, so nothing is lost by reading them; without the last they are not.
    expected = read_image(put(tmp_path, whole), side=32).grey
    assert np.array_equal(read_image(put(tmp_path, bytes(data)), side=32).grey, expected)
    refused(tmp_path, bytes(data[:-2]), "cannot be decoded|is truncated")


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", head), *chunks, (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_pictures_that_claim_too_much(tmp_path: Path) -> None:
    refused(tmp_path, png(46_000, 46_000), "is too large")  # 2 GB
    refused(tmp_path, png(2**31 - 1, 2**31 - 1), "is too large|cannot be decoded")
    refused(tmp_path, png(9_000, 9_000, (b"IDAT", zlib.compress(bytes(100)))), "cannot be decoded")
    text = b"Comment\0\0" + zlib.compress(bytes(200 << 20))
    refused(tmp_path, png(64, 64, (b"zTXt", text)), "cannot be decoded")
    photo = io.BytesIO()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(photo, "JPEG")
    jpeg = bytearray(photo.getvalue())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    refused(tmp_path, bytes(jpeg), "is too large")


def test_cut_pictures_are_refused_unless_no_pixel_is_lost(tmp_path: Path) -> None:
    lost = 0
    for seed in fuzz_seeds.picture_seeds():
        whole = read_image(put(tmp_path, seed.data), side=32).grey
        for share in (0.2, 0.5, 0.8, 0.9):
            file = put(tmp_path, seed.data[: int(len(seed.data) * share)])
            if fuzzing.read(file) == "read":
                assert np.array_equal(read_image(file, side=32).grey, whole), seed.name
            else:
                assert fuzzing.read(file) == "refused"
                lost += 1
    assert lost >= 3 * len(fuzz_seeds.picture_seeds())


# The largest picture that is let in, from a file of a few kilobytes.
BOMB = """
import io, sys, time, numpy as np
from tests.fakes import fuzz_seeds, fuzzing
from pathlib import Path
from PIL import Image
from pydicom.encaps import encapsulate
side, file = 10_000, Path(sys.argv[1]) / "bomb"
kind = sys.argv[2]
pixels = np.zeros((side, side), np.uint8)
pixels[: side // 2] = 255
made = io.BytesIO()
Image.MAX_IMAGE_PIXELS = None
if kind == "JPEG2000":
    Image.fromarray(pixels).save(made, kind, no_jp2=True)
    ds = fuzz_seeds.dataset(pixels[:16, :16])
    ds.Rows = ds.Columns = side
    ds.PixelData = encapsulate([made.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
    file.write_bytes(fuzz_seeds.as_bytes(ds))
else:
    Image.fromarray(pixels).save(made, kind, optimize=True)
    file.write_bytes(made.getvalue())
del pixels, made
Path("/proc/self/clear_refs").write_text("5")
fuzzing.bound_memory()
before = fuzzing.peak()
ended = fuzzing.read(file)
fuzzing.say(ended=ended, peak=fuzzing.peak() - before, size=file.stat().st_size)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "JPEG2000"])
def test_the_largest_bomb_that_is_let_in_stays_bounded(tmp_path: Path, kind: str) -> None:
    status, lines, errors = worker(BOMB, tmp_path, kind)
    assert status == 0, errors
    assert lines[0]["ended"] == "read"
    assert lines[0]["size"] < 2 << 20
    assert lines[0]["peak"] < fuzzing.MEMORY


def test_sequences_in_sequences_are_no_traceback(tmp_path: Path) -> None:
    data = claiming(16, 16)
    at = data.index(b"\x28\x00\x02\x00US")
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    for tag in (b"\x28\x00\x10\x30", b"\x28\x00\x00\x30", b"\x40\x00\x75\x02"):
        deep = (tag + b"SQ\0\0" + b"\xff" * 4 + item) * 20_000
        ended = fuzzing.read(put(tmp_path, data[:at] + deep + data[at:]))
        assert ended in ("read", "refused")


def test_an_item_that_points_beyond_the_file(tmp_path: Path) -> None:
    ds = fuzz_seeds.dataset(np.arange(4096, dtype=np.uint16).reshape(64, 64))
    ds.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    ds.PixelData = encapsulate([b"\xff" * 64])
    refused(tmp_path, fuzz_seeds.as_bytes(ds), "cannot be decoded")
    data = bytearray(fuzz_seeds.as_bytes(ds))
    at = data.rindex(b"\xfe\xff\x00\xe0")
    data[at + 4 : at + 8] = struct.pack("<I", 2**31)
    refused(tmp_path, bytes(data), "cannot be decoded|is truncated|is damaged")
