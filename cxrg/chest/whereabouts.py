"""The place of a box, in words."""

from __future__ import annotations

from cxrg.geometry import Box

# Half-width of the strip in the middle of the picture that is neither side.
_MIDDLE = 0.05


def whereabouts(box: Box, size: tuple[int, int]) -> str:
    """Side and third of the picture in which the centre of a box lies, such as ``left lower``.

    Left and right are the patient's: in a frontal radiograph as hung, the patient's left is the
    right side of the picture. The thirds are those of the picture, not of a lung.

    Args:
        box: a box in source pixels.
        size: height and width of the source.
    """
    height, width = size
    x = (box.x0 + box.x1) / 2 / width
    y = (box.y0 + box.y1) / 2 / height
    # A box across the midline that reaches well into both halves is on neither side.
    across = box.x0 < 0.35 * width and box.x1 > 0.65 * width
    if across:
        side = "both sides"
    elif abs(x - 0.5) <= _MIDDLE:
        side = "midline"
    else:
        side = "right" if x < 0.5 else "left"
    third = "upper" if y < 1 / 3 else "mid" if y < 2 / 3 else "lower"
    return f"{side} {third}"
