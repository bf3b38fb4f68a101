"""Which variants of TIFF 6.0 are read, and which page of a file is its picture.

Decoders return garbage, or memory that nothing was written to, for some variants that they do not
know. So only those pass that the tests compare with another decoder; the others are refused.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cxrg.image.codec import takes_too_long
from cxrg.image.file import MAX_PIXELS, image_error

MAX_PAGES = 64

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_JPEG = 7
# None, CCITT (three), LZW, JPEG, deflate (two), PackBits, LZMA, ZSTD.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, _JPEG, 8, 32946, 32773, 34925, 50000})
_GREY, _RGB, _PALETTE, _CMYK, _YCBCR = frozenset({0, 1}), 2, 3, 5, 6
_UNSIGNED, _SIGNED, _STRAIGHT_ALPHA = 1, 2, 2
_REMEDY = "save it as grey TIFF or PNG of 8 or 16 bits"


def select_page(path: Path, picture: Any) -> None:
    """Go to the one page that is a picture of its own.

    Reduced pictures of another page, and masks, are none (TIFF 6.0, NewSubfileType).

    Raises:
        ImageError: there are several.
    """
    full = []
    for number in range(MAX_PAGES):
        try:
            picture.seek(number)
        except EOFError:
            break
        if not picture.tag_v2.get(_SUBFILE, 0) & (_REDUCED | _MASK):
            full.append(number)
    if len(full) > 1 or number == MAX_PAGES - 1:
        raise image_error(path, "has more than one page or frame", "save the one to look at")
    picture.seek(full[0] if full else 0)


def check_variant(path: Path, picture: Any, data: bytes) -> None:
    """Refuse variants that no test proves right, and files whose strips or tiles are incomplete.

    Raises:
        ImageError: one of these.
    """
    tags = picture.tag_v2
    bits, formats = set(tags.get(_BITS, (1,))), set(tags.get(_FORMAT, (_UNSIGNED,)))
    if formats - {_UNSIGNED, _SIGNED} or max(bits) > 16:
        problem = "has pixels that are no integers of at most 16 bits"
        raise image_error(path, problem, "save it as 16-bit grey PNG")
    big_endian = tags.prefix == b"MM"
    if problem := _unread(tags, bits, formats, big_endian):
        raise image_error(path, f"is a TIFF variant that is not read ({problem})", _REMEDY)
    if not _complete(tags):
        raise image_error(path, "lacks parts of its picture", "copy or export it again")
    tall, wide = _part_shape(tags)
    if tags.get(_COMPRESSION, 1) == _JPEG and takes_too_long(data, tall * wide):
        raise image_error(path, "has too many JPEG scans to be decoded", _REMEDY)


def stored_size(picture: Any) -> tuple[int, int]:
    """Height and width as stored; Pillow gives those of the upright picture."""
    return int(picture.tag_v2[_HEIGHT]), int(picture.tag_v2[_WIDTH])


def sample_bits(picture: Any) -> int:
    """Bits of a sample: 12 where the file has 12, else 8 or 16, to which decoders scale up."""
    bits = max(picture.tag_v2.get(_BITS, (1,)))
    return 8 if bits <= 8 else int(bits)


def is_signed(picture: Any) -> bool:
    return bool(picture.tag_v2.get(_FORMAT, (_UNSIGNED,))[0] == _SIGNED)


def is_white_zero(picture: Any) -> bool:
    return bool(picture.tag_v2.get(_PHOTOMETRIC) == 0)


def _unread(tags: Any, bits: set[int], formats: set[int], big_endian: bool) -> str:
    """What is unusual about a page, in a few words; nothing where it is read."""
    photometric, samples = tags.get(_PHOTOMETRIC), tags.get(_SAMPLES, 1)
    compression, planar = tags.get(_COMPRESSION, 1), tags.get(_PLANAR, 1)
    if len(bits) > 1 or len(formats) > 1:
        return "samples of different kinds"
    if compression not in _COMPRESSIONS:
        return f"compression {compression}"
    (depth,) = bits
    if formats == {_SIGNED} and (samples > 1 or photometric != 1 or depth not in (8, 16)):
        return "signed samples in colour, or white is zero"
    if formats == {_SIGNED} and depth == 16 and compression != 1 and big_endian:
        return "signed samples, big-endian and compressed"
    if photometric in _GREY:
        return "" if samples == 1 or (samples == 2 and depth == 8) else f"{samples} grey channels"
    if photometric == _PALETTE:
        return "" if samples == 1 else "a palette with other channels"
    if photometric not in (_RGB, _CMYK, _YCBCR):
        return f"photometric interpretation {photometric}"
    if depth == 16 and (planar != 1 or photometric != _RGB or samples not in (3, 4)):
        return "16-bit colour in separate planes, or not RGB"
    if depth == 16 and samples == 4 and tags.get(_EXTRA) != (_STRAIGHT_ALPHA,):
        return "16-bit colour with a fourth channel that is no plain opacity"
    if photometric == _YCBCR and compression != _JPEG:
        return "YCbCr without JPEG"
    return ""


def _complete(tags: Any) -> bool:
    """Whether there is a place and a size for every strip or tile, none of them too large."""
    height, width = tags[_HEIGHT], tags[_WIDTH]
    tall, wide = _part_shape(tags)
    if min(tall, wide) < 1 or tall * wide > MAX_PIXELS:
        return False
    count = math.ceil(height / tall) * math.ceil(width / wide)
    count *= tags.get(_SAMPLES, 1) if tags.get(_PLANAR, 1) == 2 else 1
    tiled = _TILE_WIDTH in tags
    places = tags.get(_TILES if tiled else _STRIPS, ())
    sizes = tags.get(_TILE_SIZES if tiled else _STRIP_SIZES, places)
    return min(len(places), len(sizes)) >= count and all(places[:count]) and all(sizes[:count])


def _part_shape(tags: Any) -> tuple[int, int]:
    """Height and width of a tile or strip."""
    if _TILE_WIDTH in tags:
        return int(tags.get(_TILE_HEIGHT, 0)), int(tags[_TILE_WIDTH])
    height = int(tags[_HEIGHT])
    return min(tags.get(_ROWS_PER_STRIP, height), height), int(tags[_WIDTH])
