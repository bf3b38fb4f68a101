"""Seeded damage to image files, and the process that reads what is left of them.

`mutant(n)` is the same file for the same ``n`` for ever. A native decoder may end the process, so
this module runs as one: ``python tests/fakes/fuzzing.py FIRST LAST FOLDER`` reads the mutants FIRST
to LAST - 1, keeps the number of the one being read in FOLDER/now, and prints one JSON line for each
that did not end as a result or as an `ImageError` of one clean line.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cxrg.errors import ImageError
from cxrg.image.read import read_image
from tests.fakes.fuzz_seeds import SECRET, Seed, Span, dicom_seeds, picture_seeds, whole

HANG = 20.0  # seconds of the processor after which one file counts as hung; typical are 5 ms
STUCK = 300.0  # seconds by the clock, for what waits instead of computing
MEMORY = 3 << 30  # bytes that may be mapped beyond what the imports took
_VRS = b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OW PN SH SL SQ SS ST SV TM UC UI UL UN UR"
_SYNTAXES = [
    *("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"),
    *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91, 92, 93, 100, 102)),
    *(f"1.2.840.10008.1.2.4.{n}" for n in (110, 201, 202, 203, 205)),
    *("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.6.1", "1.2.3", ""),
]
_SIZES = (0, 1, 2, 3, 15, 16, 17, 127, 255, 256, 4095, 32767, 32768, 65534, 65535)
_TEXTS = (b"1e999", b"nan", b"-inf", b"", b"\\" * 9, b"\0" * 8, b"9" * 40, b"\xff\xfe\x80", b"0\\0")
Rng = np.random.Generator


# --- damage ---------------------------------------------------------------------------------------

Damage = Callable[[Seed, bytearray, Rng], None]


def _place(seed: Seed, data: bytearray, rng: Rng) -> int:
    """Somewhere: in the header, at the start of the pixels or anywhere, each as often."""
    where = rng.integers(3)
    low, high = ((0, seed.pixels), (seed.pixels, seed.pixels + 300), (0, len(data)))[where]
    return int(rng.integers(min(low, len(data) - 1), min(max(high, low + 1), len(data))))


def flip_bits(seed: Seed, data: bytearray, rng: Rng) -> None:
    for _ in range(rng.integers(1, 12)):
        data[_place(seed, data, rng)] ^= 1 << int(rng.integers(8))


def overwrite(seed: Seed, data: bytearray, rng: Rng) -> None:
    at, count = _place(seed, data, rng), int(rng.integers(1, 64))
    run = (bytes(count), b"\xff" * count, rng.bytes(count))[rng.integers(3)]
    data[at : at + count] = run[: len(data) - at]


def cut(seed: Seed, data: bytearray, rng: Rng) -> None:
    del data[max(_place(seed, data, rng), 1) :]


def take_out(seed: Seed, data: bytearray, rng: Rng) -> None:
    at = _place(seed, data, rng)
    del data[at : at + int(rng.integers(1, 200))]


def repeat(seed: Seed, data: bytearray, rng: Rng) -> None:
    at, count = _place(seed, data, rng), int(rng.integers(1, 200))
    data[at:at] = data[at : at + count] * int(rng.integers(1, 4))


def set_number(seed: Seed, data: bytearray, rng: Rng) -> None:
    """An extreme number of two or four bytes where there may be one."""
    at, wide = _place(seed, data, rng), bool(rng.integers(2))
    number = int(rng.choice(_SIZES)) if not wide else int(rng.choice([2**31 - 1, 2**31, 2**32 - 2]))
    data[at : at + 2 + 2 * wide] = struct.pack(seed.order + ("I" if wide else "H"), number)


def _any_span(seed: Seed, rng: Rng) -> Span:
    return seed.spans[int(rng.integers(len(seed.spans)))]


def set_length(seed: Seed, data: bytearray, rng: Rng) -> None:
    """A wrong length of an element."""
    span = _any_span(seed, rng)
    true = span.end - span.value
    wrong = (0, 1, true + 1, true + 2, true - 1, 65535, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
    length = max(int(wrong[rng.integers(len(wrong))]), 0)
    short = seed.explicit and span.value - span.start == 8
    field = (
        struct.pack(seed.order + "H", length % 65536)
        if short
        else struct.pack(seed.order + "I", length)
    )
    data[span.value - len(field) : span.value] = field


def swap_vr(seed: Seed, data: bytearray, rng: Rng) -> None:
    span, vrs = _any_span(seed, rng), [*_VRS.split(), b"??", b"\0\0", b"US", b"UT"]
    data[span.start + 4 : span.start + 6] = vrs[int(rng.integers(len(vrs)))]


def drop_element(seed: Seed, data: bytearray, rng: Rng) -> None:
    span = _any_span(seed, rng)
    del data[span.start : span.end]


def double_element(seed: Seed, data: bytearray, rng: Rng) -> None:
    span, other = _any_span(seed, rng), _any_span(seed, rng)
    data[other.start : other.start] = data[span.start : span.end]


def claim(seed: Seed, data: bytearray, rng: Rng) -> None:
    """Rows, columns, frames or bits that are not there, up to gigabytes of pixels."""
    words = ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"]
    words += ["PixelRepresentation", "PlanarConfiguration"]
    found = [span for span in seed.spans if span.keyword in words]
    for _ in range(int(rng.integers(1, 4)) if found else 0):
        span = found[int(rng.integers(len(found)))]
        number = int(rng.choice([*_SIZES, 10_000, 9_999, 30_000]))
        data[span.value : span.value + 2] = struct.pack(seed.order + "H", number)


def set_text(seed: Seed, data: bytearray, rng: Rng) -> None:
    """A text that is no number, no code and no UID, in the room of an element's value."""
    span, words = _any_span(seed, rng), _TEXTS[int(rng.integers(len(_TEXTS)))]
    room = span.end - span.value
    data[span.value : span.end] = words[:room].ljust(room)


def break_items(seed: Seed, data: bytearray, rng: Rng) -> None:
    """A wrong length in the items of the encapsulated pixels, or one item too many or too few."""
    item = b"\xfe\xff\x00\xe0"
    places: list[int] = []
    at = data.find(item, seed.pixels)
    while at >= 0 and len(places) < 8:
        places.append(at)
        at = data.find(item, at + 4)
    if not places:
        return flip_bits(seed, data, rng)
    at, what = places[int(rng.integers(len(places)))], int(rng.integers(5))
    length = (0, 1, 3, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)[int(rng.integers(7))]
    if what == 0:
        data[at + 4 : at + 8] = struct.pack("<I", length)
    elif what == 1:
        del data[at : at + 8]
    elif what == 2:
        data[at:at] = (item + struct.pack("<I", 4) + rng.bytes(4)) * int(rng.integers(1, 50))
    elif what == 3:
        data[at + 4 : at + 8] = struct.pack("<I", 8)
        data[at + 8 : at + 8] = struct.pack("<II", length, 0)
    else:
        del data[-8:]
    return None


def other_syntax(seed: Seed, data: bytearray, rng: Rng) -> None:
    found = [span for span in seed.spans if span.keyword == "TransferSyntaxUID"]
    if not found:
        return
    (span,) = found
    uid = str(rng.choice(_SYNTAXES)).encode()
    uid += b"\0" * (len(uid) % 2)
    data[span.value - 2 : span.end] = struct.pack("<H", len(uid)) + uid


def nest(seed: Seed, data: bytearray, rng: Rng) -> None:
    """A sequence in a sequence in a sequence, in front of the pixels' description."""
    depth = int(rng.choice([2, 60, 400, 5000]))
    tag = struct.pack(
        seed.order + "HH", *((0x28, 0x3010), (0x28, 0x3000), (0x54, 0x220))[depth % 3]
    )
    head = tag + (b"SQ\0\0" if seed.explicit else b"") + b"\xff" * 4
    item = struct.pack(seed.order + "HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    places = [span.start for span in seed.spans if span.keyword in ("Rows", "PixelData")]
    at = places[0] if places else len(data)
    data[at:at] = (head + item) * depth


def splice(seed: Seed, data: bytearray, rng: Rng) -> None:
    """The pixels of another file."""
    others = dicom_seeds()
    other = others[int(rng.integers(len(others)))]
    data[seed.pixels :] = other.data[other.pixels :]


DAMAGES: tuple[Damage, ...] = (flip_bits, overwrite, cut, take_out, repeat, set_number)
DICOM_DAMAGES: tuple[Damage, ...] = (
    *DAMAGES,
    *(flip_bits, overwrite, set_number, set_length, set_length, swap_vr, drop_element),
    *(double_element, claim, claim, set_text, break_items, break_items, other_syntax, nest, splice),
)


def mutant(number: int, pictures: bool = False) -> tuple[str, bytes]:
    """The words for a damaged file, and its bytes."""
    rng = np.random.default_rng([20261122, number, pictures])
    seeds = picture_seeds() if pictures else dicom_seeds()
    seed = seeds[number % len(seeds)]
    data = bytearray(seed.data)
    damages = [(DAMAGES if pictures else DICOM_DAMAGES)[i] for i in _picks(rng, pictures)]
    for damage in damages:
        if data:
            damage(seed, data, rng)
    words = f"{seed.name}: {', '.join(damage.__name__ for damage in damages)}"
    return words, whole(seed, bytes(data))


def _picks(rng: Rng, pictures: bool) -> list[int]:
    # Mostly one damage: a file that breaks in the first byte shows nothing of what comes after it.
    count = int(rng.choice([1, 1, 1, 2, 3]))
    return [int(n) for n in rng.integers(len(DAMAGES if pictures else DICOM_DAMAGES), size=count)]


# --- the process ----------------------------------------------------------------------------------


def read(path: Path) -> str:
    """``read``, ``refused``, or what is wrong with how it ended."""
    try:
        image = read_image(path, side=32)
    except ImageError as error:
        return _judge_message(path, str(error))
    except BaseException as error:  # noqa: BLE001 - it is what is looked for
        return f"raised {type(error).__name__}: {error}"[:300]
    if not (np.isfinite(image.grey).all() and image.grey.min() >= 0 and image.grey.max() <= 1):
        return "grey beyond [0, 1]"
    if image.pixels.shape != (32, 32) or not np.isfinite(image.pixels).all():
        return "the model's pixels are wrong"
    if SECRET in repr((image.warnings, image.window, image.uid)):
        return "repeats the patient's name"
    return "read"


def _judge_message(path: Path, text: str) -> str:
    clean = (
        text.startswith(f"{path}: ") and "; " in text and "\n" not in text and SECRET not in text
    )
    return "refused" if clean else f"unclear message: {text}"[:300]


def main(first: int, last: int, folder: Path, pictures: bool) -> None:
    now, file = os.open(folder / "now", os.O_RDWR | os.O_CREAT), folder / "mutant"
    bound_memory()
    counts: dict[str, int] = {}
    slowest, most = (0.0, -1), (0, -1)
    for number in range(first, last):
        words, data = mutant(number, pictures)
        file.write_bytes(data)
        os.pwrite(now, f"{number:9d}".encode(), 0)
        Path("/proc/self/clear_refs").write_text("5")
        before, start = peak(), time.process_time()
        # Both end the process even inside a native decoder: the first by its signal's default.
        signal.setitimer(signal.ITIMER_PROF, HANG)
        faulthandler.dump_traceback_later(STUCK, exit=True)
        ended = read(file)
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, (time.process_time() - start, number))
        most = max(most, (peak() - before, number))
        if ended in ("read", "refused"):
            counts[ended] = counts.get(ended, 0) + 1
        else:
            say(number=number, mutant=words, ended=ended)
    say(counts=counts, slowest=slowest, most=most)


def arguments() -> tuple[int, int, Path, bool]:
    return int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:] == ["pictures"]


def bound_memory() -> None:
    """No more address space than the imports took and `MEMORY` beyond that."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def peak() -> int:
    """Highest resident memory in bytes since it was last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/self/status has no VmHWM")


def say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*arguments())
