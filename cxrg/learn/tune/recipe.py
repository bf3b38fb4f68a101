"""The recipe of prompt tuning: which vectors are trained, on which losses, and which are kept.

Every random choice of a step comes from the seed and the step. The vectors that are kept are not
the last average but the one whose attention, on held-out images, falls most inside the places that
their reports name; no box is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxrg.chest.vocabulary import terms as vocabulary
from cxrg.learn.log import Report
from cxrg.learn.trainer import Trainer, TrainerConfig
from cxrg.learn.tune import losses
from cxrg.learn.tune.config import TuneConfig
from cxrg.learn.tune.objective import StudySampler, at, forward, terms
from cxrg.model.adapters.prompt_vectors import TABLES, PromptVectors
from cxrg.model.model import Model
from cxrg.phrase.encode import encode_phrase

NAMES = ("prefix", "gate", "residuals")
HELD_OUT_PHRASES = 64
"""Held-out phrases evaluated at a check; each with its own noise."""
Energies = dict[str, float]


def new_vectors(model: Model, config: TuneConfig) -> PromptVectors:
    """Vectors that change nothing yet: gates and residuals are 0.

    The prefix starts as the encoder's output for the configured words, repeated if they have fewer
    tokens than the prefix has vectors.
    """
    width = int(model.embedding("").embeds.shape[-1])
    prefix = torch.zeros(0, width)
    if config.prefix:
        prompt = encode_phrase(model, config.prefix_text)
        own = prompt.embeds[prompt.span].float().cpu()
        prefix = own[torch.arange(config.prefix) % len(own)].clone()
    words = vocabulary() if config.residuals else {table: {} for table in TABLES}
    count = sum(map(len, words.values()))
    return PromptVectors(
        prefix=nn.Parameter(prefix.to(model.device)),
        gate=nn.Parameter(torch.zeros(config.prefix, device=model.device)),
        residuals=nn.Parameter(torch.zeros(count, width, device=model.device)),
        terms=words,
    )


def as_module(vectors: PromptVectors) -> nn.ParameterDict:
    """The vectors as a module that `Trainer` takes; it shares their parameters."""
    module = nn.ParameterDict()
    for name in NAMES:  # one by one: a dictionary would be sorted
        module[name] = getattr(vectors, name)
    return module


def as_vectors(tensors: Mapping[str, Any], words: PromptVectors) -> PromptVectors:
    """Vectors from tensors by name, with the vocabulary of others."""
    return PromptVectors(**{name: tensors[name] for name in NAMES}, terms=words.terms)


@dataclass(kw_only=True, slots=True, eq=False)
class Selection:
    """Which averaged vectors are kept.

    Attributes:
        best: tensors by name, of the average with the best `score` on held-out images.
        energies: results on held-out images by step; step 0 is the frozen model.
    """

    best: dict[str, Tensor] = field(default_factory=dict)
    energies: dict[int, Energies] = field(default_factory=dict)

    @property
    def best_step(self) -> int:
        """The step whose average is kept."""
        return max(self.energies, key=lambda step: score(self.energies[step]))

    def add(self, step: int, energies: Energies, average: nn.ParameterDict) -> None:
        """Record a check; keep this average if none before it scored as high."""
        self.energies[step] = energies
        if self.best_step == step:
            self.best = {name: average[name].detach().clone() for name in NAMES}

    def state_dict(self) -> dict[str, Any]:
        """What the checkpoint holds."""
        return {"best": self.best, "energies": self.energies}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over a checkpoint's values."""
        self.best, self.energies = state["best"], state["energies"]


def learning_rate(config: TuneConfig, step: int) -> float:
    """Linear warm-up, then half a cosine to 0."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * (1 + math.cos(math.pi * min(done, 1))) / 2


def score(energies: Energies) -> float:
    """The sum that is highest for the vectors that are kept."""
    return energies["location"] + energies["finding"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tuning:
    """What stays the same from step to step: ``times`` are the first and last timestep."""

    model: Model
    config: TuneConfig
    layers: Sequence[str]
    times: tuple[int, int]
    learn: StudySampler
    held_out: StudySampler

    def run(
        self,
        vectors: PromptVectors,
        report: Report,
        *,
        checkpoint: Path,
        checked: Callable[[int, Energies], None] = lambda step, energies: None,
    ) -> Selection:
        """Train the vectors to the configured end, from ``checkpoint`` if it exists.

        Args:
            vectors: trained in place.
            report: called with the losses of every step.
            checkpoint: file of the training's state.
            checked: called with the results on held-out images.

        Raises:
            UsageError: the loss is not finite, or the checkpoint does not fit the configuration.
        """
        config, selection = self.config, Selection()
        loop = TrainerConfig(
            steps=config.steps,
            schedule=lambda step: {"lr": learning_rate(config, step)},
            weight_decay=0.0,
            clip=config.clip,
            ema=config.ema,
            checkpoint_every=config.check_every,
        )
        trainer = Trainer(as_module(vectors), loop, checkpoint=checkpoint, extra=selection)

        def check(trainer: Trainer[nn.ParameterDict]) -> None:
            found = self.energies(as_vectors(dict(trainer.average.items()), vectors))
            selection.add(trainer.step, found, trainer.average)
            checked(trainer.step, found)

        if not selection.energies:
            check(trainer)
            trainer.save()
        pairs = np.array(self.learn.pairs)
        trainer.run(lambda step: self._losses(vectors, pairs, step), report, check)
        return selection

    def _losses(
        self, vectors: PromptVectors, pairs: NDArray[np.int64], step: int
    ) -> dict[str, Tensor]:
        """The weighted sum, then its terms unweighted."""
        config = self.config
        rng = np.random.default_rng([config.seed, 1, step])
        chosen = pairs[rng.integers(len(pairs), size=config.batch)]
        batch = self.learn.draw(chosen, Random(f"{config.seed} {step}"))
        times, noise = self._noise(rng, batch.z0)
        result = forward(self.model, vectors, batch, self.layers, times=times, noise=noise)
        each = terms(result, batch, vectors, config.loss)
        weighted = [getattr(config.loss, name) * value for name, value in each.items()]
        return {"loss": torch.stack(weighted).sum(), **each}

    def _noise(self, rng: np.random.Generator, z0: Tensor) -> tuple[Tensor, Tensor]:
        times = rng.integers(self.times[0], self.times[1] + 1, size=len(z0))
        noise = rng.standard_normal(tuple(z0.shape), dtype=np.float32)
        return torch.from_numpy(times), torch.from_numpy(noise)

    @torch.no_grad()
    def energies(self, vectors: PromptVectors) -> Energies:
        """Shares of attention in the named place, the same images and noise every time.

        Returns:
            ``location`` and ``finding``: of those words' attention, the share in the place that the
            phrase names; ``other side``: of the finding's, the share in that place's mirror,
            where any of the places has one.
        """
        pairs = np.array(self.held_out.pairs)
        rng = np.random.default_rng([self.config.seed, 2])
        chosen = pairs[rng.permutation(len(pairs))[:HELD_OUT_PHRASES]]
        words = Random(f"{self.config.seed} held out")
        found: dict[str, list[Tensor]] = {"location": [], "finding": [], "other side": []}
        for first in range(0, len(chosen), self.config.batch):
            batch = self.held_out.draw(chosen[first : first + self.config.batch], words)
            times, noise = self._noise(rng, batch.z0)
            result = forward(self.model, vectors, batch, self.layers, times=times, noise=noise)
            mask, other = at(batch.masks, result.location), at(batch.others, result.location)
            found["location"].append(losses.energy(result.location, mask))
            found["finding"].append(losses.energy(result.finding, mask))
            sided = other.flatten(1).amax(1) > 0
            found["other side"].append(losses.energy(result.finding, other)[sided])
        joined = {name: torch.cat(parts) for name, parts in found.items()}
        return {name: float(values.mean()) for name, values in joined.items() if len(values)}
