"""The heatmap of a phrase, made of its attention maps by the options."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cxrg.attention.free_run import FreeRun
from cxrg.attention.watch import AttentionMaps, Layers
from cxrg.errors import UsageError
from cxrg.geometry import Box, Frame
from cxrg.heatmap.bias_merging import merge
from cxrg.heatmap.maps import aggregate, confine, enlarge, scale, smooth
from cxrg.heatmap.presence import presence
from cxrg.latents.invert import window_indices
from cxrg.options import Options


def heatmap_of(
    maps: AttentionMaps, frame: Frame, options: Options, free: FreeRun | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Make the heatmap of one phrase on the model's square, its attention and its presence score.

    The score is taken from the absolute map of the chosen tokens, whatever the heatmap is made of.

    Args:
        maps: the phrase's attention.
        frame: where the image is on the square.
        options: all knobs.
        free: a free run, where biases are merged.

    Returns:
        The heatmap, background included, and the attention of which it was made, both float32
        ``(S, S)`` in [0, 1], and the score in [0, 1].
    """
    finish = partial(_finish, frame=frame, options=options)
    read = counted(maps, options)
    absolute = attention_of(read.layers, frame, options)
    score = min(max(presence(absolute), 0.0), 1.0)
    attention = absolute.clip(0, 1)
    if free:
        merged = merge(scale(_joined(read, free.side, options)), maps, free)
        return scale(finish(enlarge(merged, frame.side, options.enlarge))), attention, score
    each = options.normalise == "minmax"
    heat = finish(_joined(read, frame.side, options)) if each else absolute
    return (heat.clip(0, 1) if options.normalise == "none" else scale(heat)), attention, score


def attention_of(layers: Layers, frame: Frame, options: Options) -> NDArray[np.float32]:
    """The mean attention over layers and steps, smoothed, float32 ``(S, S)``: linear in its maps.

    Args:
        layers: ``(T, h, w)`` per layer.
        frame: where the image is on the square; beside the image is the smallest value in it.
        options: all knobs.
    """
    return _finish(aggregate(layers, frame.side, how=options.enlarge), frame, options)


def attention_by(
    maps: AttentionMaps, frame: Frame, options: Options, what: Literal["layer", "timestep"]
) -> dict[str | int, NDArray[np.float32]]:
    """Split the attention that a heatmap is made of by layer or by timestep.

    Args:
        maps: the phrase's attention.
        frame: where the image is on the square.
        options: all knobs.
        what: ``layer`` or ``timestep``; several noise draws of a timestep are averaged.

    Returns:
        For each its attention probabilities, float32 ``(S, S)`` in [0, 1], smoothed. Their mean is
        the attention that `heatmap_of` returns, where every timestep has as many draws.

    Raises:
        UsageError: ``what`` is neither of the two.
    """
    if what not in ("layer", "timestep"):
        raise UsageError(f"by {what!r} is unknown; use layer or timestep")
    read = counted(maps, options)
    steps = np.array(read.timesteps)
    parts: Mapping[str | int, Layers] = (
        {name: {name: layer} for name, layer in read.layers.items()}
        if what == "layer"
        else {
            step: {name: layer[steps == step] for name, layer in read.layers.items()}
            for step in dict.fromkeys(read.timesteps)
        }
    )
    return {name: attention_of(layers, frame, options).clip(0, 1) for name, layers in parts.items()}


def counted(maps: AttentionMaps, options: Options) -> AttentionMaps:
    """The maps that make the heatmap: where biases are merged, more was read than the window."""
    if options.bbm == "off":
        return maps
    return maps.first(int(window_indices(options.window, len(maps.timesteps))[1]))


def _finish(heat: NDArray[np.float32], frame: Frame, options: Options) -> NDArray[np.float32]:
    """Smooth a map and leave nothing beside the image."""
    height, width = frame.source
    seen = frame.to_canonical(Box(0, 0, width, height))
    assert seen is not None  # every frame holds its image
    return confine(smooth(heat, options.sigma * frame.side), seen)


def _joined(maps: AttentionMaps, side: int, options: Options) -> NDArray[np.float32]:
    """Join all layers and steps to one map ``(side, side)``, scaled by option ``normalise``."""
    each = options.normalise == "minmax"
    return aggregate(maps.layers, side, how=options.enlarge, normalise=each)
