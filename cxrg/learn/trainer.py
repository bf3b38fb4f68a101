"""One training loop: gradient steps, a learning-rate schedule, averaged weights, checkpoints.

A recipe is a configuration and an objective. The objective computes the losses of a step from the
number of the step alone (its random choices are seeded with it), so a run that was interrupted and
resumed ends with the same weights, bit for bit, as one that was not.

The loop knows nothing of the network. Initial weights are loaded into the module before its trainer
is made; device, precision, memory layout and compilation are up to the module and the objective.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from cxrg.errors import UsageError
from cxrg.files import atomic_write
from cxrg.learn.log import Report

CHECKPOINT_EVERY = 200
"""Steps between checkpoints unless a configuration gives them."""

Objective = Callable[[int], Mapping[str, Tensor]]
"""Computes the losses of a step, by name in the log; the first one is minimised."""

Schedule = Callable[[int], Mapping[str, Any]]
"""Returns the optimiser's settings at a step, such as ``{"lr": 1e-3}``."""

_Module = TypeVar("_Module", bound=nn.Module)

_OLDER_NAMES = {
    "net": "weights",
    "pair": "weights",
    "vectors": "weights",
    "adam": "optimiser",
    "steps": "step",
}
"""Names in checkpoints of cxrg 0.1, which had one loop per recipe, and their present names."""


class Stateful(Protocol):
    """Whatever a recipe keeps in the checkpoint beside weights and optimiser."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerConfig:
    """How long and how fast a module is trained.

    Attributes:
        steps: gradient steps in all.
        schedule: the optimiser's settings by step.
        weight_decay: of AdamW.
        checkpoint_every: steps between checkpoints; one more is written at the end.
        clip: the largest norm of the gradient.
        ema: decay of the exponential moving average of the weights; None: no average.
        checkpoint_at: further steps with a checkpoint.
    """

    steps: int
    schedule: Schedule
    weight_decay: float
    checkpoint_every: int
    clip: float = 1.0
    ema: float | None = None
    checkpoint_at: tuple[int, ...] = ()

    @classmethod
    def one_cycle(cls, steps: int, learning_rate: float, weight_decay: float) -> TrainerConfig:
        """One cycle of the learning rate, with a checkpoint every `CHECKPOINT_EVERY` steps."""
        return cls(
            steps=steps,
            schedule=one_cycle(learning_rate, steps),
            weight_decay=weight_decay,
            checkpoint_every=CHECKPOINT_EVERY,
        )

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is written after so many steps."""
        return step % self.checkpoint_every == 0 or step in self.checkpoint_at or step == self.steps


class Trainer(Generic[_Module]):
    """Trains a module with AdamW; parameters that need no gradient stay as they are.

    Attributes:
        module: what is trained.
        average: a copy of the module with averaged weights; the module itself without ``ema``.
        step: gradient steps taken.
    """

    def __init__(
        self,
        module: _Module,
        config: TrainerConfig,
        *,
        checkpoint: Path,
        extra: Stateful | None = None,
    ) -> None:
        """Continue from the file ``checkpoint`` if it exists, otherwise start at step 0.

        Raises:
            UsageError: the checkpoint belongs to another configuration.
        """
        self.module = module
        self.average = module if config.ema is None else copy.deepcopy(module)
        self.step = 0
        self._config = config
        self._checkpoint = checkpoint
        self._extra = extra
        # An empty parameter would count in the optimiser's list without ever being trained.
        self._parameters = [p for p in module.parameters() if p.requires_grad and p.numel()]
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=config.schedule(0)["lr"], weight_decay=config.weight_decay
        )
        if checkpoint.exists():
            self._resume()

    def run(
        self,
        objective: Objective,
        report: Report,
        check: Callable[[Trainer[_Module]], None] = lambda trainer: None,
    ) -> None:
        """Train to the configured step; a finished run returns at once.

        Args:
            objective: computes the losses of a step.
            report: called with every loss of every step.
            check: called before each checkpoint is written.

        Raises:
            UsageError: the loss is not finite.
        """
        while self.step < self._config.steps:
            losses = objective(self.step)
            self._descend(*next(iter(losses.items())))
            for name, loss in losses.items():
                report(name, self.step, self._config.steps, loss.item())
            if self._config.is_due(self.step):
                check(self)
                self.save()

    def _descend(self, name: str, loss: Tensor) -> None:
        """Take one gradient step and update the average."""
        if not torch.isfinite(loss):
            raise UsageError(
                f"{name}: the loss is {loss.item()} at step {self.step}; lower learning_rate"
            )
        for group in self._optimiser.param_groups:
            group.update(self._config.schedule(self.step))
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._parameters, self._config.clip)
        self._optimiser.step()
        self.step += 1
        if self._config.ema is not None:
            # With a fixed decay, early averages would stay near the initial weights for long.
            _move_average(
                self.average, self.module, min(self._config.ema, self.step / (self.step + 9))
            )

    def save(self) -> None:
        """Write the checkpoint, whole or not at all.

        Raises:
            WriteError: it cannot be written.
        """
        state: dict[str, Any] = {
            "weights": self.module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
        }
        if self._config.ema is not None:
            state["average"] = self.average.state_dict()
        if self._extra is not None:
            state |= self._extra.state_dict()
        with atomic_write(self._checkpoint) as file:
            torch.save(state, file)

    def _resume(self) -> None:
        stored = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        state = {_OLDER_NAMES.get(name, name): value for name, value in stored.items()}
        try:
            self.module.load_state_dict(state["weights"])
            if self._config.ema is not None:
                self.average.load_state_dict(state["average"])
            self._optimiser.load_state_dict(state["optimiser"])
            if self._extra is not None:
                self._extra.load_state_dict(state)
            self.step = int(state["step"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"{self._checkpoint}: does not fit this configuration ({error}); "
                "use the run's own settings or another --out"
            ) from error


@torch.no_grad()
def _move_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Update an exponential moving average of a module's parameters."""
    for mean, now in zip(average.parameters(), module.parameters(), strict=True):
        mean.lerp_(now, 1 - decay)


def one_cycle(learning_rate: float, steps: int) -> Schedule:
    """torch's ``OneCycleLR`` (Smith and Topin, 2018): learning rate up and down, momentum opposite.

    All values are listed in advance, so that a run can resume at any step.
    """
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=learning_rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, steps)
    values = []
    for _ in range(steps):
        values.append({name: optimiser.param_groups[0][name] for name in ("lr", "betas")})
        optimiser.step()
        cycle.step()
    return values.__getitem__
