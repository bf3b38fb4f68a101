"""Ground report phrases in chest X-rays with latent diffusion models. Research use only.

>>> from cxrg import load, ground
>>> model = load()
>>> result = ground("examples/left_basal_opacity.dcm", "left basal opacity", model=model)

The public names load on first use: ``import cxrg`` imports neither torch nor diffusers, which take
seconds to load and are not needed for help, usage errors or geometry.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cxrg.about import __version__

if TYPE_CHECKING:
    from cxrg.geometry import Box
    from cxrg.grounding import ground
    from cxrg.image.read import CxrImage, read_image
    from cxrg.model.load import load
    from cxrg.model.model import Model
    from cxrg.options import PRESETS, Options, RunSettings
    from cxrg.result import Grounding, show

__all__ = [
    "PRESETS",
    "Box",
    "CxrImage",
    "Grounding",
    "Model",
    "Options",
    "RunSettings",
    "__version__",
    "ground",
    "load",
    "read_image",
    "show",
]

_HOME = {
    "Box": "cxrg.geometry",
    "CxrImage": "cxrg.image.read",
    "Grounding": "cxrg.result",
    "Model": "cxrg.model.model",
    "Options": "cxrg.options",
    "PRESETS": "cxrg.options",
    "RunSettings": "cxrg.options",
    "ground": "cxrg.grounding",
    "load": "cxrg.model.load",
    "read_image": "cxrg.image.read",
    "show": "cxrg.result",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
