"""Make ``left_basal_opacity.dcm``: a synthetic DICOM X-ray whose only finding is what it is named.

    python examples/make_example.py

Chests are rendered seed by seed until one fits. The X-ray is a valid DX object with an invented
patient.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrg.chest.regions import regions
from cxrg.phantom import anatomy
from cxrg.phantom.appearance import expose
from cxrg.phantom.dx import write_dx
from cxrg.phantom.findings import Chest, draw_opacity

SIDE = 768
FILE = Path(__file__).with_name("left_basal_opacity.dcm")


def draw(seed: int, side: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
    """Grey (side, side) in [0, 1] and the opacity's mask; None where it is elsewhere or faint."""
    rng = np.random.default_rng(seed)
    built = anatomy.build(rng, side)
    named = regions(built.masks)
    chest = Chest(image=built.image, regions=named)
    image, opacity = draw_opacity(rng, chest, "left", "consolidation")
    if opacity is None or opacity.size != "moderate":
        return None
    mask = opacity.mask
    if (mask & named["left basal"]).sum() < 0.6 * mask.sum():
        return None
    grey = expose(rng, image)
    clear = grey[mask].mean() - grey[named["right basal"]].mean() > 0.25
    return (grey, mask) if clear else None


def main() -> None:
    # Small renderings are quick, so they say which seeds are worth a large one.
    likely = (seed for seed in count() if draw(seed, 128))
    seed, (grey, mask) = next((seed, drawn) for seed in likely if (drawn := draw(seed, SIDE)))
    write_dx(FILE, np.rint(grey * 4095).astype(np.uint16), seed=seed)
    rows, columns = np.nonzero(mask)
    box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    print(f"{FILE.name}: seed {seed}, the opacity is in x0 y0 x1 y1 =", *map(int, box))


if __name__ == "__main__":
    main()
