"""One step of tuning: the losses of a batch of phrases at random noise.

Latents come from the forward process, not from inversion, so that a step is one evaluation of the
denoiser. Attention is read where grounding reads it, by the same hooks, with gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from cxrg.anatomy import LOCATIONS
from cxrg.attention.watch import watch
from cxrg.chest.matcher import places
from cxrg.chest.vocabulary import matcher, opposite
from cxrg.learn.tune import losses
from cxrg.learn.tune.config import LossConfig
from cxrg.learn.tune.study import Study, Triple
from cxrg.model.adapters.prompt_vectors import PromptVectors
from cxrg.model.model import Model


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PhraseBatch:
    """Rows of one step: ``z0`` float32 ``(B, C, h, w)``, ``masks`` float32 ``(B, g, g)`` in [0, 1],
    ``others`` the masks of the same places on the other side, 0 where there is none."""

    z0: Tensor
    masks: Tensor
    others: Tensor
    triples: tuple[Triple, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ForwardResult:
    """What one evaluation shows: maps ``(B, h, w)`` of the place's and the finding's words, mean
    over layers, per layer features ``(B, D)`` under the finding's map and of its words, and the
    mean squared error ``(B,)`` of the output."""

    location: Tensor
    finding: Tensor
    features: tuple[tuple[Tensor, Tensor], ...]
    error: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StudySampler:
    """Studies ready to be drawn from: ``latents`` float32 ``(N, C, h, w)``, one per study."""

    studies: Sequence[Study]
    latents: Tensor
    template: float

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Every triple: number of the study, and of the triple in it."""
        return [(i, j) for i, study in enumerate(self.studies) for j in range(len(study.triples))]

    def draw(self, chosen: NDArray[np.int64], words: Random) -> PhraseBatch:
        """The batch of these pairs ``(B, 2)``, with their phrases drawn anew."""
        rows = [(self.studies[i], self.studies[i].triples[j]) for i, j in chosen]
        texts = [
            triple.template
            if not triple.phrases or words.random() < self.template
            else words.choice(triple.phrases)
            for _, triple in rows
        ]
        return PhraseBatch(
            z0=self.latents[torch.from_numpy(chosen[:, 0])],
            masks=_masks((study, triple.location) for study, triple in rows),
            others=_masks((study, opposite(triple.location)) for study, triple in rows),
            triples=tuple(triple for _, triple in rows),
            texts=tuple(texts),
        )


def _masks(wanted: Iterator[tuple[Study, str | None]]) -> Tensor:
    cells = [
        study.masks[LOCATIONS.index(name)] if name else np.zeros_like(study.masks[0])
        for study, name in wanted
    ]
    return torch.from_numpy(np.stack(cells).astype(np.float32) / 255)


def token_weights(model: Model, texts: Sequence[str], table: str) -> Tensor:
    """float32 ``(B, L)``: the mean over the tokens of a text's first location or finding."""
    padded = model.tokenizer(
        list(texts),
        padding="max_length",
        max_length=model.text_length,
        truncation=True,
        return_offsets_mapping=True,
    )
    owners = [
        places(offsets, matcher(table)(text)[:1])
        for text, offsets in zip(texts, padded["offset_mapping"], strict=True)
    ]
    marked = torch.tensor([[owner is not None for owner in row] for row in owners]).float()
    return marked / marked.sum(1, keepdim=True).clamp_min(1)


def forward(
    model: Model,
    vectors: PromptVectors,
    batch: PhraseBatch,
    layers: Sequence[str],
    *,
    times: Tensor,
    noise: Tensor,
) -> ForwardResult:
    """Run the denoiser once and record the attention of places and findings.

    Args:
        times: int64 ``(B,)``, training timesteps.
        noise: float32, of the latents' shape.
    """
    place = model.device
    with torch.no_grad():
        plain = model.encode_text(list(batch.texts))
    slots = vectors.token_slots(model.tokenizer, batch.texts, model.text_length)
    conditioning = replace(plain, embeds=vectors.apply(plain.embeds, slots))
    schedule, z0, noise = model.schedule, batch.z0.to(place), noise.to(place)
    alpha, sigma = (
        share[times].float()[:, None, None, None].to(place)
        for share in (schedule.alpha, schedule.sigma)
    )
    z_t = alpha * z0 + sigma * noise
    velocity = alpha * noise - sigma * z0
    wanted = noise if schedule.prediction_type == "epsilon" else velocity
    where = token_weights(model, batch.texts, "locations").to(place)
    what = token_weights(model, batch.texts, "findings").to(place)
    unet = model.denoiser
    with (
        watch(unet, layers, where) as of_place,
        watch(unet, layers, what) as of_finding,
        projections(unet, layers) as seen,
    ):
        output = model.denoise(z_t, times, conditioning)
        maps = dict(of_finding.maps)
        return ForwardResult(
            location=_joined(of_place.maps.values()),
            finding=_joined(maps.values()),
            features=tuple(
                (
                    (losses.normalised(maps[name]).flatten(1)[:, None] @ query.float())[:, 0],
                    (what[:, None] @ key.float())[:, 0],
                )
                for name, (query, key) in seen.items()
            ),
            error=(output - wanted).square().mean((1, 2, 3)),
        )


@contextmanager
def projections(unet: torch.nn.Module, names: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Queries ``(B, P, D)`` and keys ``(B, L, D)`` of layers, per name, while the block runs."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [
        unet.get_submodule(f"{name}.{part}").register_forward_hook(
            lambda _, args, output, name=name: seen[name].append(output)
        )
        for name in names
        for part in ("to_q", "to_k")
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _joined(maps: Iterable[Tensor]) -> Tensor:
    """The mean of maps of several sizes, at the largest."""
    several = list(maps)
    size = max((each.shape[-2:] for each in several), key=tuple)
    large = [F.interpolate(each[:, None], size, mode="bilinear")[:, 0] for each in several]
    return torch.stack(large).mean(0)


def terms(
    result: ForwardResult, batch: PhraseBatch, vectors: PromptVectors, weights: LossConfig
) -> dict[str, Tensor]:
    """The terms of the loss that have a weight, unweighted, by name."""
    mask = at(batch.masks, result.location)
    made: dict[str, Callable[[], Tensor]] = {
        "inside": lambda: losses.inside(result.location, mask),
        "outside": lambda: losses.outside(result.finding, mask),
        "dice": lambda: losses.dice(result.location, mask),
        "nce": lambda: _contrast(result, batch),
        "diffusion": lambda: result.error.mean(),
        "residual": lambda: vectors.residuals.square().sum(),
    }
    return {name: term() for name, term in made.items() if getattr(weights, name)}


def _contrast(result: ForwardResult, batch: PhraseBatch) -> Tensor:
    templates = [triple.template for triple in batch.triples]
    same = torch.tensor(
        [[a == b for b in templates] for a in templates], device=result.finding.device
    )
    each = [losses.nce(seen, words, same) for seen, words in result.features]
    return torch.stack(each).mean()


def at(masks: Tensor, maps: Tensor) -> Tensor:
    """Masks ``(B, g, g)`` averaged over the positions of maps ``(B, h, w)``."""
    size = (maps.shape[-2], maps.shape[-1])
    return F.adaptive_avg_pool2d(masks[:, None], size)[:, 0].to(maps.device)
