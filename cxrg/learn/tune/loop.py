"""Descent on the vectors alone: AdamW, warm-up and cosine, an average, and what is kept.

Every random choice of a step comes from the seed and the step, so a run that was stopped goes on to
the same end. What is kept is not the last average but the one whose attention, on held-out images,
lies most in the places that their reports name: no box is ever looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxrg.chest.vocabulary import terms as vocabulary
from cxrg.errors import UsageError
from cxrg.files import atomic_write
from cxrg.learn.log import Report
from cxrg.learn.tune import losses
from cxrg.learn.tune.config import TuneConfig
from cxrg.learn.tune.objective import Source, at, read, terms
from cxrg.model.adapters.prompt_vectors import TABLES, PromptVectors
from cxrg.model.model import Model
from cxrg.phrase.encode import encode_phrase

NAMES = ("prefix", "gate", "residuals")
LOOKS = 64
"""Held-out phrases that are looked at; each with noise of its own."""
Energies = dict[str, float]


def new_vectors(model: Model, config: TuneConfig) -> PromptVectors:
    """Vectors that change nothing yet: gates and residuals are 0.

    The prefix begins as what the encoder makes of the configured words, over and over if they are
    fewer than its vectors.
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


@dataclass(kw_only=True, slots=True)
class State:
    """Everything that a checkpoint holds.

    Attributes:
        vectors: what the gradient moves.
        average: their exponential moving average.
        best: the average that looked best on held-out images, as tensors by name.
        energies: what held-out images showed, by step; step 0 is the frozen model.
    """

    vectors: PromptVectors
    average: PromptVectors
    optimiser: torch.optim.Optimizer
    step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    energies: dict[int, Energies] = field(default_factory=dict)

    @classmethod
    def new(cls, model: Model, config: TuneConfig) -> State:
        vectors = new_vectors(model, config)
        copied = {name: getattr(vectors, name).detach().clone() for name in NAMES}
        moved = [p for name in NAMES if (p := getattr(vectors, name)).numel()]
        return cls(
            vectors=vectors,
            average=PromptVectors(**copied, terms=vectors.terms),
            optimiser=torch.optim.AdamW(moved, lr=config.learning_rate, weight_decay=0.0),
        )

    @property
    def best_step(self) -> int:
        """The step whose average is kept."""
        return max(self.energies, key=lambda step: score(self.energies[step]))

    def kept(self) -> PromptVectors:
        """The vectors that looked best."""
        return PromptVectors(**self.best, terms=self.vectors.terms)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        held: dict[str, Any] = {
            "vectors": {name: getattr(self.vectors, name).detach() for name in NAMES},
            "average": {name: getattr(self.average, name) for name in NAMES},
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "best": self.best,
            "energies": self.energies,
        }
        with atomic_write(path) as file:
            torch.save(held, file)

    def resume(self, path: Path) -> None:
        """Take up what `save` wrote, if there is such a file."""
        if not path.exists():
            return
        held = torch.load(path, weights_only=True)
        with torch.no_grad():
            for part in ("vectors", "average"):
                for name in NAMES:
                    getattr(getattr(self, part), name).copy_(held[part][name])
        self.optimiser.load_state_dict(held["optimiser"])
        self.step, self.best, self.energies = held["step"], held["best"], held["energies"]


def learning_rate(config: TuneConfig, step: int) -> float:
    """Linear warm-up, then half a cosine to 0."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * (1 + math.cos(math.pi * min(done, 1))) / 2


def score(energies: Energies) -> float:
    """What the vectors that are kept are best at."""
    return energies["location"] + energies["finding"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Course:
    """What stays the same from step to step: ``times`` are the first and last timestep."""

    model: Model
    config: TuneConfig
    layers: Sequence[str]
    times: tuple[int, int]
    learn: Source
    held_out: Source

    def run(self, state: State, report: Report, save: Callable[[State], None]) -> None:
        """Go from ``state.step`` to the end; ``save`` is called at every check."""
        pairs = np.array(self.learn.pairs)
        if not state.energies:
            self._check(state)
            save(state)
        while state.step < self.config.steps:
            self._step(state, pairs, report)
            if state.step % self.config.check_every == 0 or state.step == self.config.steps:
                self._check(state)
                save(state)

    def _step(self, state: State, pairs: NDArray[np.int64], report: Report) -> None:
        config, step = self.config, state.step
        rng = np.random.default_rng([config.seed, 1, step])
        chosen = pairs[rng.integers(len(pairs), size=config.batch)]
        batch = self.learn.draw(chosen, Random(f"{config.seed} {step}"))
        times, noise = self._noise(rng, batch.z0)
        reading = read(self.model, state.vectors, batch, self.layers, times=times, noise=noise)
        made = terms(reading, batch, state.vectors, config.loss)
        weighted = [getattr(config.loss, name) * value for name, value in made.items()]
        loss = torch.stack(weighted).sum()
        if not torch.isfinite(loss):
            raise UsageError(f"the loss is {loss.item()} at step {step}; lower learning_rate")
        for group in state.optimiser.param_groups:
            group["lr"] = learning_rate(config, step)
        state.optimiser.zero_grad()
        torch.autograd.backward(loss)
        moved = [p for group in state.optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(moved, config.clip)
        state.optimiser.step()
        state.step += 1
        # As in training: a fixed decay would keep the first average at the start for long.
        decay = min(config.ema, state.step / (state.step + 9))
        with torch.no_grad():
            for name in NAMES:
                getattr(state.average, name).lerp_(getattr(state.vectors, name), 1 - decay)
        for name, value in {"loss": loss, **made}.items():
            report(name, state.step, config.steps, value.item())

    def _noise(self, rng: np.random.Generator, z0: Tensor) -> tuple[Tensor, Tensor]:
        times = rng.integers(self.times[0], self.times[1] + 1, size=len(z0))
        noise = rng.standard_normal(tuple(z0.shape), dtype=np.float32)
        return torch.from_numpy(times), torch.from_numpy(noise)

    def _check(self, state: State) -> None:
        """Look at the held-out images, and keep the average if none looked better."""
        state.energies[state.step] = self.energies(state.average)
        if state.best_step == state.step:
            state.best = {name: getattr(state.average, name).detach().clone() for name in NAMES}

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
        chosen = pairs[rng.permutation(len(pairs))[:LOOKS]]
        words = Random(f"{self.config.seed} held out")
        found: dict[str, list[Tensor]] = {"location": [], "finding": [], "other side": []}
        for first in range(0, len(chosen), self.config.batch):
            batch = self.held_out.draw(chosen[first : first + self.config.batch], words)
            times, noise = self._noise(rng, batch.z0)
            reading = read(self.model, vectors, batch, self.layers, times=times, noise=noise)
            mask, other = at(batch.masks, reading.location), at(batch.others, reading.location)
            found["location"].append(losses.energy(reading.location, mask))
            found["finding"].append(losses.energy(reading.finding, mask))
            sided = other.flatten(1).amax(1) > 0
            found["other side"].append(losses.energy(reading.finding, other)[sided])
        joined = {name: torch.cat(parts) for name, parts in found.items()}
        return {name: float(values.mean()) for name, values in joined.items() if len(values)}
