"""Read attention of phrases at latents: many rows per evaluation, one set of maps per phrase.

A row is one latent with one phrase. Rows of several phrases and images share an evaluation; of
each, only maps with its tokens already summed are kept.
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
from torch.nn.utils.rnn import pad_sequence

from cxrg.attention.watch import AllRead, AttentionMaps, Extra, Layers, Recorder, watch
from cxrg.errors import ModelError
from cxrg.model.conditioning import Conditioning
from cxrg.model.microbatch import Microbatch
from cxrg.model.model import Model
from cxrg.options import Options, Sparse
from cxrg.phrase.encode import Prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadSettings:
    """How attention is read.

    Attributes:
        sparse: scores to probabilities, see `cxrg.attention.sparse`.
        extra: what is read in addition to the chosen tokens, see `AttentionMaps`.
        tokens: whether each token of the phrase is read alone, too.
    """

    sparse: Sparse = "off"
    extra: tuple[Extra, ...] = ()
    tokens: bool = False

    @classmethod
    def of(cls, options: Options, *, tokens: bool = False) -> ReadSettings:
        """The settings that the options select; ``tokens`` as above."""
        extra: tuple[Extra, ...] = ("start",) if options.bbm != "off" else ()
        return cls(sparse=options.sparse, extra=extra, tokens=tokens)


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
            count, kinds = len(timesteps), len(token_weights(prompt, how))
            joined = {
                name: np.stack([each[:kinds] for each in maps[:count]], axis=1)
                for name, maps in ready.items()
            }
            for maps in ready.values():
                del maps[:count]
            yield prompt, as_maps(joined, timesteps, how)


def as_maps(joined: Layers, timesteps: tuple[int, ...], how: ReadSettings) -> AttentionMaps:
    """Maps ``(K, T, h, w)`` per layer: of the chosen tokens, the extra ones, each token alone."""
    known = 1 + len(how.extra)
    first, *more = ({name: maps[k] for name, maps in joined.items()} for k in range(known))
    return AttentionMaps(
        layers=first,
        timesteps=timesteps,
        extra=dict(zip(how.extra, more, strict=True)),
        tokens={name: maps[known:] for name, maps in joined.items()} if how.tokens else {},
    )


def _read(
    model: Model,
    rows: Sequence[tuple[int, Tensor, Prompt]],
    layers: Sequence[str],
    how: ReadSettings,
) -> Layers:
    """Maps ``(B, K, h, w)`` per layer of an evaluation, which ends after the last layer."""
    times, latents, prompts = zip(*rows, strict=True)
    weights = pad_sequence([token_weights(prompt, how) for prompt in prompts], batch_first=True)
    weights = weights.to(model.device)
    with (
        watch(model.denoiser, layers, weights, sparse=how.sparse, stop_early=True) as recorder,
        suppress(AllRead),
    ):
        model.denoise(
            torch.cat(latents),
            torch.tensor(times),
            Conditioning.join([prompt.conditioning for prompt in prompts]),
        )
    return read_maps(recorder, layers)


def read_maps(recorder: Recorder, layers: Sequence[str]) -> Layers:
    """The maps of a forward pass, ``(B, K, h, w)`` per layer."""
    return {name: recorder.maps[name].cpu().numpy() for name in layers}


def token_weights(prompt: Prompt, how: ReadSettings) -> Tensor:
    """Weights ``(K, L)`` of the chosen tokens, then of the extra ones, then of each token alone.

    Raises:
        ModelError: the start token is to be read, and the tokenizer sets none.
    """
    if how.extra and prompt.span.start == 0:
        raise ModelError("the tokenizer sets no token before a phrase; use bbm=off")
    weights = torch.zeros(1 + len(how.extra), prompt.embeds.shape[0])
    weights[0, list(prompt.selected)] = 1.0
    weights[1:, 0] = 1.0
    if how.tokens:
        weights = torch.cat([weights, torch.eye(len(prompt.embeds))[prompt.span]])
    return weights
