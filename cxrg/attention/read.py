"""Read attention of phrases at latents: many rows per evaluation, one set of maps per phrase.

A row is one latent with one phrase. Rows of several phrases and images share an evaluation; of
each, only maps with its tokens already joined are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrg.attention.completion import complete, complete_iterated
from cxrg.attention.layers import self_attention_layers
from cxrg.attention.watch import AllRead, AttentionMaps, Extra, Layers, Recorder, watch
from cxrg.errors import ModelError
from cxrg.model.conditioning import Conditioning
from cxrg.model.microbatch import Microbatch
from cxrg.model.model import Model
from cxrg.options import Completion, Options, Readout, Reduce
from cxrg.phrase.encode import PARTS, Prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadSettings:
    """How attention is read.

    Attributes:
        reduce: join a phrase's tokens by ``mean`` or ``sum``.
        readout: scores to probabilities, see `cxrg.attention.sparse`.
        completion: how self-attention completes the maps, see `cxrg.attention.completion`.
        self_attention: the self-attention layers that complete them.
        extra: what is read in addition to the chosen tokens, see `AttentionMaps`.
    """

    reduce: Reduce = "mean"
    readout: Readout = "softmax"
    completion: Completion = "off"
    self_attention: tuple[str, ...] = ()
    extra: tuple[Extra, ...] = ()

    @classmethod
    def of(cls, model: Model, options: Options) -> ReadSettings:
        """The settings that the options select."""
        start: tuple[Extra, ...] = ("start",) if options.bbm != "off" else ()
        span: tuple[Extra, ...] = ("span",) if options.normalise == "competition" else ()
        parts: tuple[Extra, ...] = PARTS if options.evidence == "template" else ()
        return cls(
            reduce=options.reduce,
            readout=options.readout,
            completion=options.completion,
            self_attention=self_attention_layers(model) if options.completion != "off" else (),
            extra=start + span + parts,
        )


def read_attention(
    model: Model,
    latents: Sequence[tuple[int, Tensor]],
    prompts: Sequence[Prompt],
    layers: Sequence[str],
    *,
    how: ReadSettings = ReadSettings(),
    batch: int | Literal["auto"] = "auto",
) -> list[AttentionMaps]:
    """Read all phrases at all latents of one image, several in one network evaluation.

    Args:
        model: the model.
        latents: ``(timestep, z_t)`` with ``z_t`` of shape ``(1, C, h, w)``.
        prompts: the phrases.
        layers: full names of cross-attention layers.
        how: how attention is read.
        batch: most rows in one evaluation; a row is one latent with one phrase.

    Returns:
        One `AttentionMaps` per phrase, its first axis in the order of ``latents``.
    """
    requests = ((latents, prompt) for prompt in prompts)
    microbatch = Microbatch.of(model, batch)
    readings = read_each(model, requests, layers, how=how, microbatch=microbatch)
    return [maps for _, maps in readings]


def read_each(
    model: Model,
    requests: Iterable[tuple[Sequence[tuple[int, Tensor]], Prompt]],
    layers: Sequence[str],
    *,
    how: ReadSettings,
    microbatch: Microbatch,
) -> Iterator[tuple[Prompt, AttentionMaps]]:
    """Read phrases; rows of several share a network evaluation.

    Lazy in both directions: requests are consumed when their rows are read, and a phrase's maps are
    yielded as soon as they are complete, so memory does not grow with the requests.

    Args:
        model: the model.
        requests: an image's latents, ``(timestep, z_t)`` with ``z_t`` of shape ``(1, C, h, w)``,
            and a phrase.
        layers: full names of cross-attention layers.
        how: how attention is read.
        microbatch: most rows in one evaluation.

    Yields:
        The prompt and its `AttentionMaps`, in the order of the requests.
    """
    unfinished: deque[tuple[Prompt, tuple[int, ...]]] = deque()

    def rows() -> Iterator[tuple[int, Tensor, Prompt]]:
        for latents, prompt in requests:
            unfinished.append((prompt, tuple(t for t, _ in latents)))
            yield from ((t, z_t, prompt) for t, z_t in latents)

    ready: dict[str, list[NDArray[np.float32]]] = {name: [] for name in layers}
    for part in microbatch.run(rows(), lambda some: _read(model, some, layers, how)):
        for name in layers:
            ready[name].extend(part[name])
        while unfinished and len(ready[layers[0]]) >= len(unfinished[0][1]):
            prompt, timesteps = unfinished.popleft()
            count = len(timesteps)
            joined = {name: np.stack(maps[:count], axis=1) for name, maps in ready.items()}
            for maps in ready.values():
                del maps[:count]
            yield prompt, as_maps(joined, timesteps, how, prompt)


def as_maps(
    joined: Layers, timesteps: tuple[int, ...], how: ReadSettings, prompt: Prompt
) -> AttentionMaps:
    """Maps ``(K, T, h, w)`` per layer, of the chosen tokens, then of the extra ones."""
    first, *more = (
        {name: maps[k] for name, maps in joined.items()} for k in range(1 + len(how.extra))
    )
    extra = {
        kind: maps
        for kind, maps in zip(how.extra, more, strict=True)
        if kind not in PARTS or kind in prompt.parts
    }
    return AttentionMaps(layers=first, timesteps=timesteps, extra=extra)


def _read(
    model: Model,
    rows: Sequence[tuple[int, Tensor, Prompt]],
    layers: Sequence[str],
    how: ReadSettings,
) -> Layers:
    """Maps ``(B, K, h, w)`` per layer of an evaluation, which ends after the last layer."""
    times, latents, prompts = zip(*rows, strict=True)
    weights = torch.stack([token_weights(prompt, how) for prompt in prompts]).to(model.device)
    with (
        watch(
            model.denoiser,
            layers,
            weights,
            self_attention=how.self_attention,
            readout=how.readout,
            stop_early=True,
        ) as recorder,
        suppress(AllRead),
    ):
        model.denoise(
            torch.cat(latents),
            torch.tensor(times),
            Conditioning.join([prompt.conditioning for prompt in prompts]),
        )
    return read_maps(recorder, layers, how)


def read_maps(recorder: Recorder, layers: Sequence[str], how: ReadSettings) -> Layers:
    """The maps of a forward pass, ``(B, K, h, w)`` per layer, completed if so set."""
    maps = {name: recorder.maps[name] for name in layers}
    if how.completion != "off":
        finish = complete if how.completion == "self-attention" else complete_iterated
        maps = finish(maps, recorder.self_attention)
    return {name: each.cpu().numpy() for name, each in maps.items()}


def token_weights(prompt: Prompt, how: ReadSettings) -> Tensor:
    """Weights ``(K, L)`` of the chosen tokens, then of the extra ones.

    A part that the prompt lacks, because it is no template, has weights 0.

    Raises:
        ModelError: the start token is to be read, and the tokenizer sets none.
    """
    weights = torch.zeros(1 + len(how.extra), prompt.embeds.shape[0])

    def join(row: int, tokens: Sequence[int]) -> None:
        weights[row, list(tokens)] = 1.0 if how.reduce == "sum" else 1.0 / max(len(tokens), 1)

    join(0, prompt.selected)
    for row, kind in enumerate(how.extra, start=1):
        if kind == "finding" or kind == "location":
            join(row, prompt.parts.get(kind, ()))
            continue
        if kind == "start" and prompt.span.start == 0:
            raise ModelError("the tokenizer sets no token before a phrase; use bbm=off")
        weights[row, 0 if kind == "start" else prompt.span] = 1.0
    return weights
