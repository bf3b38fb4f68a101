"""Variants of PNG, JPEG and TIFF, each with the picture that it holds.

The files are written by tifffile, imagecodecs and by hand, never by the libraries that cxrg reads
with, and the picture is the array that was written. ``python -m tests.oracles.rasters`` reads them
all and prints how many are read right, refused or read wrong.
"""

from __future__ import annotations

import io
import itertools
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from cxrg.errors import ImageError
from cxrg.image.read import read_image, read_layout

HEIGHT, WIDTH = 48, 40  # neither a multiple of 7-row strips nor, both, of 16-pixel tiles
RAMP = np.arange(HEIGHT * WIDTH, dtype=np.uint32).reshape(HEIGHT, WIDTH) * 65535 // 1919
WEIGHTS = np.array([0.299, 0.587, 0.114])
Grey = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """A file and the grey in [0, 1] that it shows, within ``tolerance``; `None`: to be refused."""

    group: str
    name: str
    data: bytes
    grey: Grey | None
    tolerance: float


def turned(grey: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The upright picture of a stored one, by the words of TIFF 6.0 for tag 274."""
    turns: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
        1: lambda g: g,
        2: np.fliplr,
        3: lambda g: np.rot90(g, 2),
        4: np.flipud,
        5: lambda g: np.swapaxes(g, 0, 1),
        6: lambda g: np.rot90(g, -1),
        7: lambda g: np.rot90(np.swapaxes(g, 0, 1), 2),
        8: np.rot90,
    }
    return turns[orientation](grey)


def stored(orientation: int, pixels: NDArray[Any]) -> NDArray[Any]:
    """What a file with that orientation stores, so that ``pixels`` come out upright."""
    back = orientation if orientation not in (6, 8) else 14 - orientation
    return np.ascontiguousarray(turned(pixels, back))


# --- TIFF -----------------------------------------------------------------------------------------

TYPES = ("u1", "u2", "i1", "i2", "u4", "i4", "f2", "f4", "f8")
# name: photometric interpretation, channels, extra samples
COLOURS: dict[str, tuple[str, int, list[str]]] = {
    "black is zero": ("minisblack", 1, []),
    "white is zero": ("miniswhite", 1, []),
    "grey+alpha": ("minisblack", 2, ["unassalpha"]),
    "palette": ("palette", 1, []),
    "RGB": ("rgb", 3, []),
    "RGB+alpha": ("rgb", 4, ["unassalpha"]),
    "RGB+premultiplied": ("rgb", 4, ["assocalpha"]),
    "RGB+unspecified": ("rgb", 4, ["unspecified"]),
    "CMYK": ("separated", 4, []),
    "YCbCr": ("ycbcr", 3, []),
    "CIELab": ("cielab", 3, []),
}
COMPRESSIONS: tuple[str | int | None, ...] = (
    *(
        None,
        "lzw",
        "adobe_deflate",
        "deflate",
        "packbits",
        "zstd",
        "lzma",
        "jpeg",
        "webp",
        "jpeg2000",
    ),
)
LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "tiles": {"tile": (16, 16)},
}


def _unit(dtype: str) -> tuple[float, float]:
    """Lowest and highest value of a type, 0 and 1 for floats."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return 0.0, 1.0
    return float(np.iinfo(kind).min), float(np.iinfo(kind).max)


def _samples(dtype: str, colour: str) -> tuple[NDArray[Any], Grey]:
    """Samples of a colour and type ``(H, W[, channels])``, and the grey that they show."""
    ramp = RAMP / 65535
    low, high = _unit(dtype)
    levels = (lambda x: np.rint(x * 255) / 255) if high < 256 else (lambda x: x)
    alpha = np.where(np.arange(WIDTH) < 8, 0.4, 1.0) * np.ones((HEIGHT, 1))
    channels = np.dstack([levels(ramp), levels(ramp * 0.98), levels(ramp[::-1])])
    if colour in ("black is zero", "white is zero", "palette"):
        unit, grey = levels(ramp), ramp if colour != "white is zero" else 1 - ramp
    elif colour == "grey+alpha":
        unit, grey = np.dstack([levels(ramp), levels(alpha)]), ramp * alpha
    elif colour in ("RGB", "CIELab"):
        unit, grey = channels, channels @ WEIGHTS
    elif colour == "YCbCr":
        unit = np.dstack([ramp, np.full_like(ramp, 0.5), np.full_like(ramp, 0.5)])
        grey = ramp
    elif colour == "CMYK":
        unit, grey = np.dstack([1 - channels, 0 * ramp]), channels @ WEIGHTS
    elif colour == "RGB+premultiplied":
        unit = np.dstack([channels * alpha[..., None], alpha])
        grey = channels @ WEIGHTS * alpha
    elif colour == "RGB+unspecified":
        unit, grey = np.dstack([channels, ramp[:, ::-1]]), channels @ WEIGHTS
    else:
        unit, grey = np.dstack([channels, alpha]), channels @ WEIGHTS * alpha
    scaled = unit * (high - low) + low
    return (scaled if high == 1 else np.rint(scaled)).astype(dtype), grey


def tiff_variant(
    dtype: str,
    colour: str,
    *,
    planar: str = "contig",
    layout: str = "one strip",
    compression: str | int | None = None,
    order: Any = "<",
    predictor: bool = False,
    big: bool = False,
    orientation: int = 1,
) -> Variant | None:
    """One TIFF, or None where tifffile does not write that combination."""
    photometric, channels, extra = COLOURS[colour]
    pixels, grey = _samples(dtype, colour)
    pixels = stored(orientation, pixels)
    if planar == "separate":
        pixels = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    options: dict[str, Any] = {}
    if colour == "palette":
        options["colormap"] = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
    if colour == "YCbCr":
        options["subsampling"] = (1, 1)
    if orientation != 1:
        options["extratags"] = [(274, 3, 1, orientation, True)]
    file = io.BytesIO()
    try:
        tifffile.imwrite(
            file,
            pixels,
            photometric=photometric,
            planarconfig=planar if channels > 1 else None,
            extrasamples=extra or None,
            compression=compression,
            predictor=predictor,
            byteorder=order,
            bigtiff=big,
            metadata=None,
            **LAYOUTS[layout],
            **options,
        )
    except (ValueError, RuntimeError, NotImplementedError, TypeError, KeyError):
        return None
    data = file.getvalue()
    lossy = compression in ("jpeg", "webp", "jpeg2000")
    if not lossy:  # another decoder finds in the file what was meant
        found = tifffile.imread(io.BytesIO(data))
        np.testing.assert_array_equal(found.reshape(pixels.shape), pixels)
    tolerance = 4 / 255 if lossy else 1.2 / 255 if dtype.endswith("1") else 2 / 65535
    tolerance += 1 / 255 if colour == "RGB+premultiplied" else 0
    words = [dtype, colour, planar, layout, str(compression), order, "predictor" * predictor]
    words += ["BigTIFF" * big, f"orientation {orientation}"]
    return Variant(
        group=f"TIFF {dtype} {colour}" + " in planes" * (planar == "separate"),
        name=" ".join(word for word in words if word),
        data=data,
        grey=None if colour == "CIELab" else grey,
        tolerance=tolerance,
    )


def tiffs(thin: bool = False) -> Iterator[Variant]:
    """All TIFFs; ``thin`` leaves most compressions, and integers of 32 bits and floats, out."""
    made: list[Variant | None] = []
    for dtype, colour, layout in itertools.product(TYPES, COLOURS, LAYOUTS):
        read = dtype in ("u1", "u2") or colour == "black is zero"
        if not read and (thin or layout != "one strip"):
            continue
        several = COLOURS[colour][1] > 1
        for compression, planar, order in itertools.product(
            COMPRESSIONS if read and not thin else COMPRESSIONS[:2],
            ["contig", "separate"][: 1 + several],
            "<>",
        ):
            given: dict[str, Any] = {"planar": planar, "layout": layout, "compression": compression}
            made.append(tiff_variant(dtype, colour, order=order, **given))
            if compression in ("lzw", "adobe_deflate"):
                made.append(tiff_variant(dtype, colour, order=order, predictor=True, **given))
    for dtype, colour, planar in itertools.product(TYPES[:2], COLOURS, ["contig", "separate"]):
        if planar == "separate" and COLOURS[colour][1] == 1:
            continue
        for compression in (None, "adobe_deflate"):
            given = {"planar": planar, "compression": compression}
            made.append(tiff_variant(dtype, colour, big=True, **given))
            for orientation in range(2, 9):
                made.append(tiff_variant(dtype, colour, orientation=orientation, **given))
    yield from filter(None, made)
    yield from packed_tiffs()


def packed_tiffs() -> Iterator[Variant]:
    """One uncompressed strip of 1 to 16 bits a sample, by hand: no encoder writes all of these."""
    for bits, photometric, order, fill in itertools.product(
        (1, 2, 4, 6, 8, 10, 12, 14, 16), (0, 1, 3), "<>", (1, 2)
    ):
        yield packed_tiff(bits, photometric, order, fill)


def packed_tiff(bits: int, photometric: int, order: str, fill: int) -> Variant:
    """A TIFF whose samples are packed; ``fill`` 2 has the lowest bit of a byte first."""
    values = RAMP >> (16 - bits)
    if bits == 16:
        data = values.astype(order + "u2").tobytes()
    else:
        shifts = np.arange(bits - 1, -1, -1)
        rows = (values[..., None] >> shifts & 1).reshape(HEIGHT, -1).astype(np.uint8)
        data = np.packbits(rows, axis=1).tobytes()
    if fill == 2:
        data = np.packbits(
            np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little"
        ).tobytes()
    tags: list[tuple[int, int, int]] = [
        *((256, 3, WIDTH), (257, 3, HEIGHT), (258, 3, bits), (259, 3, 1), (262, 3, photometric)),
        *((266, 3, fill), (273, 4, 8), (277, 3, 1), (278, 3, HEIGHT), (279, 4, len(data))),
    ]
    palette = b""
    if photometric == 3:
        colours = np.linspace(0, 65535, 2**bits).round().astype(order + "u2").tobytes() * 3
        palette, data = colours, data + b"\0" * (len(data) % 2)
        tags.append((320, 3, 8 + len(data)))
    body = b""
    for tag, kind, value in tags:
        count = len(palette) // 2 if tag == 320 else 1
        wide = kind == 4 or tag == 320
        field = struct.pack(order + ("I" if wide else "HH"), *([value] if wide else [value, 0]))
        body += struct.pack(order + "HHI", tag, kind, count) + field
    at = 8 + len(data) + len(palette)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    directory = struct.pack(order + "H", len(tags)) + body + bytes(4)
    grey = values / (2**bits - 1)
    return Variant(
        group=f"TIFF packed {bits} bits, photometric {photometric}",
        name=f"packed {bits} bits photometric {photometric} {order} fill order {fill}",
        data=head + data + palette + directory,
        grey=1 - grey if photometric == 0 else grey,
        tolerance=0.6 / 255 if bits <= 8 else 2 / 65535,
    )


# --- PNG ------------------------------------------------------------------------------------------

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# Adam7 (PNG 8.2): first column, first row, column step, row step.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _rows(values: NDArray[Any], depth: int, sieve: int) -> bytes:
    """Filtered rows of samples ``(H, W, channels)``; ``sieve`` 1 is filter Sub."""
    height, _, channels = values.shape
    flat = values.reshape(height, -1)
    if depth >= 8:
        packed = np.frombuffer(flat.astype(f">u{depth // 8}").tobytes(), np.uint8).reshape(
            height, -1
        )
    else:
        bits = flat[..., None] >> np.arange(depth - 1, -1, -1) & 1
        packed = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    if sieve:
        back = max(channels * depth // 8, 1)
        before = np.pad(packed, ((0, 0), (back, 0)))[:, : packed.shape[1]]
        packed = packed - before
    return b"".join(bytes([sieve]) + row.tobytes() for row in packed)


def png_variant(
    colour: int, depth: int, *, interlaced: bool, keyed: bool, sieve: int, orientation: int
) -> Variant:
    """A PNG of a colour type and depth; ``keyed``: a chunk tRNS makes one value transparent."""
    top, count = 2**depth - 1, _CHANNELS[colour]
    values = np.repeat((RAMP >> (16 - depth))[..., None], count, axis=2)
    if colour in (2, 6):
        values[..., 2] = values[::-1, :, 2]
    unit = values / top
    grey = unit[..., :3] @ WEIGHTS if colour in (2, 6) else unit[..., 0]
    if colour in (4, 6):
        values[..., -1] = np.where(np.arange(WIDTH) < 8, top // 2, top)
        grey = grey * values[..., -1] / top
    extra = b""
    if colour == 3:
        ramp = np.linspace(0, 255, 2**depth).round().astype(np.uint8)
        extra += _chunk(b"PLTE", np.repeat(ramp, 3).tobytes())
        grey = ramp[values[..., 0]] / 255
    if keyed:
        key = values[20, 20]
        body = struct.pack(f">{count}H", *key) if colour != 3 else b"\xff" * int(key[0]) + b"\0"
        extra += _chunk(b"tRNS", body)
        grey = np.where(np.all(values == key, axis=-1), 0, grey)
    if orientation != 1:
        tag = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 274, 3, 1, orientation, 0, 0)
        extra += _chunk(b"eXIf", tag)
    values = stored(orientation, values)
    shape = values.shape
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    parts = [values[y::dy, x::dx] for x, y, dx, dy in passes]
    body = b"".join(_rows(part, depth, sieve) for part in parts if part.size)
    head = struct.pack(">IIBBBBB", shape[1], shape[0], depth, colour, 0, 0, interlaced)
    data = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + extra
    data += _chunk(b"IDAT", zlib.compress(body)) + _chunk(b"IEND", b"")
    name = f"colour {colour} depth {depth} interlaced {interlaced} keyed {keyed} sieve {sieve}"
    return Variant(
        group=f"PNG colour type {colour}, {depth} bits" + ", keyed" * keyed,
        name=f"{name} orientation {orientation}",
        data=data,
        grey=grey,
        tolerance=1.2 / 255 if depth <= 8 else 2 / 65535,
    )


def pngs() -> Iterator[Variant]:
    for colour, depths in _DEPTHS.items():
        for depth, interlaced, keyed, sieve, orientation in itertools.product(
            depths, (False, True), (False, True), (0, 1), range(1, 9)
        ):
            if not (keyed and colour in (4, 6)):
                yield png_variant(
                    colour, depth, interlaced=interlaced, keyed=keyed, sieve=sieve,
                    orientation=orientation,
                )  # fmt: skip


# --- JPEG -----------------------------------------------------------------------------------------


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with an Exif segment that has nothing but the orientation."""
    tag = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 274, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tag
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def jpegs() -> Iterator[Variant]:
    """Grey, colour with each subsampling, CMYK, 12 bits and lossless, in all orientations."""
    ramp = (RAMP >> 8).astype(np.uint8)
    colour = np.dstack([ramp, ramp, np.full_like(ramp, 90)])
    # Stored inverted, as Adobe's marker, which the encoder writes, means it.
    cmyk = np.dstack([colour, np.full_like(ramp, 255)])
    lum = colour / 255 @ WEIGHTS
    kinds: list[tuple[str, NDArray[Any], Grey | None, dict[str, Any]]] = [
        ("grey", ramp, ramp / 255, {}),
        ("grey optimized", ramp, ramp / 255, {"optimize": True}),
        *(
            (f"YCbCr {s}", colour, lum, {"subsampling": s, "colorspace": "RGB"})
            for s in ("444", "422", "420", "411", "440")
        ),
        ("RGB", colour, lum, {"colorspace": "RGB", "outcolorspace": "RGB"}),
        ("CMYK", cmyk, lum, {"colorspace": "CMYK", "outcolorspace": "CMYK"}),
        ("YCCK", cmyk, lum, {"colorspace": "CMYK", "outcolorspace": "YCCK"}),
        ("12 bits", (RAMP >> 4).astype(np.uint16), RAMP / 65535, {"bitspersample": 12}),
        ("lossless", ramp, ramp / 255, {"lossless": True}),
    ]
    for name, pixels, grey, options in kinds:
        for orientation in range(1, 9):
            turned_pixels = stored(orientation, pixels)
            data = bytes(imagecodecs.jpeg8_encode(turned_pixels, level=98, **options))
            yield Variant(
                group=f"JPEG {name}",
                name=f"{name} orientation {orientation}",
                data=with_orientation(data, orientation) if orientation > 1 else data,
                grey=grey,
                tolerance=6 / 255,
            )


# --- reading --------------------------------------------------------------------------------------


def outcome(variant: Variant, folder: Path) -> str:
    """``right``, ``refused``, or what is wrong."""
    path = folder / "file"
    path.write_bytes(variant.data)
    try:
        found = read_image(path, side=16).grey
    except ImageError:
        return "refused"
    if variant.grey is None:
        return "wrong: read, though no array says what it shows"
    if found.shape != variant.grey.shape:
        return f"wrong: {found.shape} instead of {variant.grey.shape}"
    layout = read_layout(path)
    if layout is None or layout.upright != found.shape:
        return "wrong: the size in the header is not that of the picture"
    worst = float(np.abs(found - variant.grey).max())
    return "right" if worst <= variant.tolerance else f"wrong: off by {worst:.4f}"


def count(variants: Iterator[Variant], folder: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """How many of each group are right and refused, and those that are wrong."""
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    for variant in variants:
        ended = outcome(variant, folder)
        counts[variant.group, ended.partition(":")[0]] += 1
        if ended.startswith("wrong"):
            wrong.append(f"{variant.name}: {ended}")
    return counts, wrong


def table(counts: Counter[tuple[str, str]]) -> str:
    """One line for each group."""
    lines = [f"{'right':>6} {'refused':>8} {'wrong':>6}"]
    for group in sorted({group for group, _ in counts}):
        numbers = [counts[group, ended] for ended in ("right", "refused", "wrong")]
        lines.append(_line(numbers, group))
    sums = [sum(n for (_, e), n in counts.items() if e == x) for x in ("right", "refused", "wrong")]
    return "\n".join([*lines, _line(sums, "all")])


def _line(numbers: list[int], name: str) -> str:
    right, refused, wrong = numbers
    return f"{right:6d} {refused:8d} {wrong:6d}  {name}"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        every = itertools.chain(tiffs(), pngs(), jpegs())
        counts, wrong = count(every, Path(folder))
    sys.stdout.write("\n".join([table(counts), *wrong]) + "\n")


if __name__ == "__main__":
    main()
