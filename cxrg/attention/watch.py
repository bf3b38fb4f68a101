"""Record cross-attention probabilities to a phrase's tokens, without replacing the attention.

For one layer with queries ``Q`` (image positions) and keys ``K`` (tokens), per head::

    A[p, k] = softmax_k(Q[p] . K[k] * scale + bias[k])        (Vaswani et al. 2017, equation 1)

with the bias by which transformers hide padding, and none in U-Nets. Forward hooks on ``to_q`` and
``to_k`` pass on ``Q`` and ``K``; the softmax is computed outside, so the network keeps its fused
kernel and its output is bit-identical. Heads are averaged and the chosen tokens' shares summed at
once: what remains is one ``(h, w)`` map per layer and row, and on request one of the start token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cxrg.attention.sparse import probabilities
from cxrg.errors import ModelError
from cxrg.model.families import family_of
from cxrg.options import Sparse

Extra = Literal["start"]
Layers = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AttentionMaps:
    """One phrase's attention: float32 maps ``(T, h, w)`` per layer, read at ``timesteps`` (T,).

    Attributes:
        layers: of the chosen tokens, summed.
        timesteps: where they were read.
        extra: of the start token (``start``), where requested.
        tokens: of each token of the phrase alone, where requested; ``(N, T, h, w)``, chosen or not.
    """

    layers: Layers
    timesteps: tuple[int, ...]
    extra: dict[Extra, Layers] = field(default_factory=dict)
    tokens: Layers = field(default_factory=dict)

    def first(self, count: int) -> Self:
        """The same without what was read after the first timesteps."""
        return self._part(slice(count))

    def every(self, step: int, start: int) -> Self:
        """The same with what was read at every so many-th timestep, from one on."""
        return self._part(slice(start, None, step))

    def _part(self, part: slice) -> Self:
        return replace(
            self,
            layers=_part(self.layers, part),
            timesteps=self.timesteps[part],
            extra={kind: _part(layers, part) for kind, layers in self.extra.items()},
            tokens={name: maps[:, part] for name, maps in self.tokens.items()},
        )


def _part(layers: Layers, part: slice) -> Layers:
    return {name: maps[part] for name, maps in layers.items()}


class AllRead(Exception):  # noqa: N818 - a signal, not an error
    """Every watched layer has been read; the rest of the forward pass is not needed."""


@dataclass(slots=True)
class Recorder:
    """Collects the maps of one forward pass at a time; made by `watch`."""

    wanted: int
    weights: Tensor
    stop_early: bool
    sparse: Sparse
    maps: dict[str, Tensor] = field(default_factory=dict)
    _queries: dict[str, Tensor] = field(default_factory=dict)
    _grids: dict[str, tuple[int, int]] = field(default_factory=dict)
    _biases: dict[str, Tensor | None] = field(default_factory=dict)

    def clear(self) -> None:
        """Discard the maps of the last forward pass."""
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
            sparse=self.sparse,
        )
        self.maps[name] = probability.view(*probability.shape[:-1], *self._grids[name])
        if self.stop_early and len(self.maps) == self.wanted:
            raise AllRead


def attention_to(
    query: Tensor,
    key: Tensor,
    weights: Tensor,
    *,
    heads: int,
    scale: float,
    bias: Tensor | None = None,
    sparse: Sparse = "off",
) -> Tensor:
    """Attention of image positions to weighted tokens, averaged over heads.

    Args:
        query: ``(B, P, heads * d)``.
        key: ``(B, L, heads * d)``.
        weights: ``(B, L)``, each row's weight per token; or ``(B, K, L)``, ``K`` of them.
        heads: number of heads.
        scale: factor on the scores.
        bias: added to the scores, ``(B, 1, L)``: far below zero where padding is hidden.
        sparse: scores to probabilities, see `cxrg.attention.sparse`.

    Returns:
        float32 ``(B, P)``, or ``(B, K, P)``: the mean over heads of ``sum_k weights[k] *
        softmax_k(scores)[k]``.
    """
    rows, _, width = query.shape
    query = query.float().view(rows, -1, heads, width // heads).transpose(1, 2)
    key = key.float().view(rows, -1, heads, width // heads).transpose(1, 2)
    scores = query @ key.transpose(-1, -2) * scale
    if bias is not None:
        scores += bias.float()[:, None]
    probability = probabilities(scores, sparse)
    columns = weights[..., None] if weights.ndim == 2 else weights.mT
    joined = (probability @ columns[:, None]).mean(dim=1)
    return joined.squeeze(-1) if weights.ndim == 2 else joined.mT.contiguous()


@contextmanager
def watch(
    unet: Any,
    names: Sequence[str],
    weights: Tensor,
    *,
    sparse: Sparse = "off",
    stop_early: bool = False,
) -> Iterator[Recorder]:
    """Record cross-attention layers while the block runs, with hooks that are always removed.

    Args:
        unet: the network.
        names: full names of ``attn2`` modules.
        weights: float32 ``(B, L)``, each row's weight per token, for the passes in the block,
            whose maps are ``(B, h, w)``; or ``(B, K, L)`` for maps ``(B, K, h, w)``.
        sparse: scores to probabilities, see `cxrg.attention.sparse`.
        stop_early: end a pass after its last watched layer, with `AllRead`.

    Raises:
        ModelError: a layer's probabilities cannot be computed from its projections.
    """
    recorder = Recorder(wanted=len(names), weights=weights, stop_early=stop_early, sparse=sparse)
    handles = []
    try:
        for name in names:
            handles += _hook(unet, name, recorder)
        yield recorder
    finally:
        for handle in handles:
            handle.remove()


def _hook(unet: Any, name: str, recorder: Recorder) -> list[Any]:
    attention = unet.get_submodule(name)
    _refuse_unusual(name, attention)
    source, patch = family_of(unet).grid_of(unet, name)

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
