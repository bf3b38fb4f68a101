"""Attention to a phrase without an image: recorded while an image is sampled from it.

Ordinary text-to-image sampling (`cxrg.latents.sample`) with guidance 16, as the text bias of
Generate to Ground needs it (Nützel, Dombrowski, Kainz, arXiv 2507.12236, released code). No image
is involved, so a phrase's run serves every image.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from cxrg.attention.read import ReadSettings, as_maps, read_maps, token_weights
from cxrg.attention.watch import AttentionMaps, Layers, watch
from cxrg.latents.resample import leading_timesteps
from cxrg.latents.sample import guided, sample, seeded_noise
from cxrg.model.conditioning import Conditioning
from cxrg.model.microbatch import Microbatch
from cxrg.model.model import Model
from cxrg.options import Options
from cxrg.phrase.encode import Prompt

GUIDANCE = 16.0
REMEMBERED_RUNS = 8  # of 5 MB each in Stable Diffusion 1.5
_runs: WeakKeyDictionary[Model, OrderedDict[object, FreeRun]] = WeakKeyDictionary()


def free_run(
    model: Model, prompt: Prompt, layers: Sequence[str], options: Options, microbatch: Microbatch
) -> FreeRun:
    """Sample an image from a phrase and record attention to its chosen tokens at all steps.

    The steps are in order of noise, the cleanest first. Runs of the phrases used last are kept:
    most calls read many images.

    Args:
        model: the model.
        prompt: the phrase.
        layers: full names of cross-attention layers.
        options: ``steps``, ``seed``, and how attention is read.
        microbatch: most rows in one network evaluation; a step has two.
    """
    how = replace(ReadSettings.of(options), extra=())
    known = _runs.setdefault(model, OrderedDict())
    key = (prompt.text, prompt.selected, tuple(layers), how, options.steps, options.seed)
    run = known.pop(key, None) or _run(model, prompt, layers, options, how, microbatch)
    known[key] = run
    if len(known) > REMEMBERED_RUNS:
        known.popitem(last=False)
    return run


def _run(
    model: Model,
    prompt: Prompt,
    layers: Sequence[str],
    options: Options,
    how: ReadSettings,
    microbatch: Microbatch,
) -> FreeRun:
    times = leading_timesteps(options.steps, len(model.schedule))
    noise = seeded_noise(model, options.seed)
    collected: list[Layers] = []

    def predict(z: Tensor, t: int) -> Tensor:
        (empty, conditional), seen = _watched(model, z, t, prompt, layers, how, microbatch)
        collected.append(seen)
        return guided(empty, conditional, GUIDANCE)

    sample(model.schedule, noise, options.steps, predict)
    cleanest_first = collected[::-1]
    joined = {name: np.stack([seen[name] for seen in cleanest_first], axis=1) for name in layers}
    maps = as_maps(joined, tuple(times), how)
    # Each step evaluates the network without and with the phrase.
    return FreeRun(maps=maps, side=noise.shape[-1], evaluations=2 * len(collected))


def _watched(
    model: Model,
    z: Tensor,
    t: int,
    prompt: Prompt,
    layers: Sequence[str],
    how: ReadSettings,
    microbatch: Microbatch,
) -> tuple[Tensor, Layers]:
    """Outputs ``(2, 1, C, h, w)`` for the empty prompt and the phrase, and the phrase's maps."""
    weights = token_weights(prompt, how).to(model.device)
    seen: list[Layers] = []

    def few(part: list[Conditioning]) -> Tensor:
        rows = len(part)
        wanted = weights.expand(rows, -1, -1)
        with watch(model.denoiser, layers, wanted, sparse=how.sparse) as recorder:
            outputs = model.denoise(z.expand(rows, -1, -1, -1), t, Conditioning.join(part))
        seen.append(read_maps(recorder, layers))
        return outputs

    outputs = torch.cat(list(microbatch.run([model.embedding(""), prompt.conditioning], few)))
    # The phrase is the last row of the last part.
    return outputs[:, None], {name: maps[-1] for name, maps in seen[-1].items()}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FreeRun:
    """A free run's attention.

    Attributes:
        maps: of the chosen tokens at all steps.
        side: of the latents.
        evaluations: network evaluations that it took.
    """

    maps: AttentionMaps
    side: int
    evaluations: int
