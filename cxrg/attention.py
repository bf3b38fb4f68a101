"""Where a phrase's tokens look: cross-attention probabilities, observed and not replaced.

For one layer with queries ``Q`` (image positions) and keys ``K`` (tokens), per head::

    A[p, k] = softmax_k(Q[p] . K[k] * scale + bias[k])        (Vaswani et al. 2017, equation 1)

with the bias by which transformers hide padding, and none in U-Nets. Forward hooks on ``to_q`` and
``to_k`` hand over ``Q`` and ``K``; the softmax is taken outside, so the network keeps its fused
kernel and its output is bit-identical. Heads are averaged and the phrase's tokens joined on the
spot: what stays is one ``(h, w)`` map per layer and row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrg.capacity import Capacity
from cxrg.context import Context
from cxrg.errors import ModelError
from cxrg.layers import grid_of
from cxrg.model import Model
from cxrg.options import Reduce
from cxrg.phrase import Prompt


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AttentionMaps:
    """One phrase's attention: float32 maps ``(T, h, w)`` per layer, read at ``timesteps`` (T,)."""

    layers: dict[str, NDArray[np.float32]]
    timesteps: tuple[int, ...]


class _AllRead(Exception):  # noqa: N818 - a signal, not an error
    """Every watched layer has been read; the rest of the forward pass is not needed."""


@dataclass(slots=True)
class Recorder:
    """Collects the maps of one forward pass at a time; made by `watch`."""

    wanted: int
    weights: Tensor
    stop_early: bool
    maps: dict[str, Tensor] = field(default_factory=dict)
    _queries: dict[str, Tensor] = field(default_factory=dict)
    _grids: dict[str, tuple[int, int]] = field(default_factory=dict)
    _biases: dict[str, Tensor | None] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget what the last forward pass left."""
        self.maps.clear()
        self._queries.clear()
        self._grids.clear()
        self._biases.clear()

    def see_grid(self, name: str, hidden: Tensor, patch: int) -> None:
        self._grids[name] = (hidden.shape[-2] // patch, hidden.shape[-1] // patch)

    def see_bias(self, name: str, bias: Tensor | None) -> None:
        self._biases[name] = bias

    def see_query(self, name: str, query: Tensor) -> None:
        self._queries[name] = query

    def see_key(self, name: str, attention: Any, key: Tensor) -> None:
        probability = attention_to(
            self._queries.pop(name),
            key,
            self.weights,
            heads=attention.heads,
            scale=attention.scale,
            bias=self._biases.pop(name),
        )
        self.maps[name] = probability.view(-1, *self._grids[name])
        if self.stop_early and len(self.maps) == self.wanted:
            raise _AllRead


def attention_to(
    query: Tensor,
    key: Tensor,
    weights: Tensor,
    *,
    heads: int,
    scale: float,
    bias: Tensor | None = None,
) -> Tensor:
    """Attention of image positions to weighted tokens, averaged over heads.

    Args:
        query: ``(B, P, heads * d)``.
        key: ``(B, L, heads * d)``.
        weights: ``(B, L)``, each row's weight per token.
        heads: number of heads.
        scale: factor on the scores.
        bias: added to the scores, ``(B, 1, L)``: far below zero where padding is hidden.

    Returns:
        float32 ``(B, P)``: the mean over heads of ``sum_k weights[k] * softmax_k(scores)[k]``.
    """
    rows, _, width = query.shape
    query = query.float().view(rows, -1, heads, width // heads).transpose(1, 2)
    key = key.float().view(rows, -1, heads, width // heads).transpose(1, 2)
    scores = query @ key.transpose(-1, -2) * scale
    if bias is not None:
        scores += bias.float()[:, None]
    probability = torch.softmax(scores, dim=-1)
    return (probability @ weights[:, None, :, None]).squeeze(-1).mean(dim=1)


@contextmanager
def watch(
    unet: Any, names: Sequence[str], weights: Tensor, *, stop_early: bool = False
) -> Iterator[Recorder]:
    """Watch cross-attention layers while the block runs; no hook is left behind.

    Args:
        unet: the network.
        names: full names of ``attn2`` modules.
        weights: float32 ``(B, L)``, each row's weight per token, for the passes in the block.
        stop_early: end a pass after its last watched layer, see `read`.

    Raises:
        ModelError: a layer's probabilities cannot be had from its projections.
    """
    recorder = Recorder(wanted=len(names), weights=weights, stop_early=stop_early)
    handles = []
    try:
        for name in names:
            attention = unet.get_submodule(name)
            _refuse_unusual(name, attention)
            handles += _hook(unet, name, attention, recorder)
        yield recorder
    finally:
        for handle in handles:
            handle.remove()


def _hook(unet: Any, name: str, attention: Any, recorder: Recorder) -> list[Any]:
    source, patch = grid_of(unet, name)

    def grid(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder.see_grid(name, args[0] if args else kwargs["hidden_states"], patch)

    def bias(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder.see_bias(name, kwargs.get("attention_mask", args[2] if len(args) > 2 else None))

    def query(_: Any, args: Any, output: Tensor) -> None:
        recorder.see_query(name, output)

    def key(_: Any, args: Any, output: Tensor) -> None:
        recorder.see_key(name, attention, output)

    return [
        source.register_forward_pre_hook(grid, with_kwargs=True),
        attention.register_forward_pre_hook(bias, with_kwargs=True),
        attention.to_q.register_forward_hook(query),
        attention.to_k.register_forward_hook(key),
    ]


def _refuse_unusual(name: str, attention: Any) -> None:
    for why, unusual in (
        ("queries and keys are normalised (norm_q)", attention.norm_q is not None),
        ("queries and keys are normalised (norm_k)", attention.norm_k is not None),
        ("its projections are fused; call unfuse_qkv_projections()", attention.fused_projections),
        ("it has added key projections", attention.added_kv_proj_dim is not None),
        ("keys are shared between heads", attention.inner_dim != attention.inner_kv_dim),
    ):
        if unusual:
            raise ModelError(f"{name}: not handled, {why}; choose other layers or another model")


def read_attention(
    model: Model,
    latents: Sequence[tuple[int, Tensor]],
    prompts: Sequence[Prompt],
    layers: Sequence[str],
    *,
    reduce: Reduce = "mean",
    batch: int | Literal["auto"] = "auto",
) -> list[AttentionMaps]:
    """Read all phrases at all latents of one image, several in one network evaluation.

    Args:
        model: the model.
        latents: ``(timestep, z_t)`` with ``z_t`` of shape ``(1, C, h, w)``.
        prompts: the phrases.
        layers: full names of cross-attention layers.
        reduce: join a phrase's tokens by ``mean`` or ``sum``.
        batch: most rows in one evaluation; a row is one latent with one phrase.

    Returns:
        One `AttentionMaps` per phrase, its first axis in the order of ``latents``.
    """
    requests = ((latents, prompt) for prompt in prompts)
    capacity = Capacity.of(model, batch)
    readings = read_each(model, requests, layers, reduce=reduce, capacity=capacity)
    return [maps for _, maps in readings]


def read_each(
    model: Model,
    requests: Iterable[tuple[Sequence[tuple[int, Tensor]], Prompt]],
    layers: Sequence[str],
    *,
    reduce: Reduce,
    capacity: Capacity,
) -> Iterator[tuple[Prompt, AttentionMaps]]:
    """Read phrases of any number of images; rows of several share a network evaluation.

    Lazy in both directions: requests are taken when their rows are read, and a phrase's maps are
    handed over as soon as they are complete. So memory does not grow with the requests.

    Args:
        model: the model.
        requests: an image's latents, ``(timestep, z_t)`` with ``z_t`` of shape ``(1, C, h, w)``,
            and a phrase.
        layers: full names of cross-attention layers.
        reduce: join a phrase's tokens by ``mean`` or ``sum``.
        capacity: most rows in one evaluation.

    Yields:
        The prompt and its `AttentionMaps`, in the order of the requests.
    """
    unfinished: deque[tuple[Prompt, tuple[int, ...]]] = deque()

    def rows() -> Iterator[tuple[int, Tensor, Prompt]]:
        for latents, prompt in requests:
            unfinished.append((prompt, tuple(t for t, _ in latents)))
            yield from ((t, z_t, prompt) for t, z_t in latents)

    ready: dict[str, list[NDArray[np.float32]]] = {name: [] for name in layers}
    for part in capacity.run(rows(), lambda some: _read(model, some, layers, reduce)):
        for name in layers:
            ready[name].extend(part[name])
        while unfinished and len(ready[layers[0]]) >= len(unfinished[0][1]):
            prompt, timesteps = unfinished.popleft()
            count = len(timesteps)
            joined = {name: np.stack(maps[:count]) for name, maps in ready.items()}
            for maps in ready.values():
                del maps[:count]
            yield prompt, AttentionMaps(layers=joined, timesteps=timesteps)


def _read(
    model: Model, rows: Sequence[tuple[int, Tensor, Prompt]], layers: Sequence[str], reduce: Reduce
) -> dict[str, NDArray[np.float32]]:
    """Maps ``(B, h, w)`` per layer of one network evaluation, which ends after the last layer."""
    times, latents, prompts = zip(*rows, strict=True)
    weights = torch.stack([_weights(prompt, reduce) for prompt in prompts]).to(model.device)
    with watch(model.denoiser, layers, weights, stop_early=True) as recorder, suppress(_AllRead):
        model.denoise(
            torch.cat(latents),
            torch.tensor(times),
            Context.join([prompt.context for prompt in prompts]),
        )
    return {name: recorder.maps[name].cpu().numpy() for name in layers}


def _weights(prompt: Prompt, reduce: Reduce) -> Tensor:
    weights = torch.zeros(prompt.embeds.shape[0])
    weights[list(prompt.selected)] = 1.0 if reduce == "sum" else 1.0 / len(prompt.selected)
    return weights
