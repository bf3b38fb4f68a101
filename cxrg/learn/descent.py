"""One way down for the small networks: AdamW, one learning-rate cycle, clipped gradients."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from cxrg.files import atomic_write


class Descent:
    """Steps a network along its gradient, ``steps`` times in all."""

    def __init__(
        self, net: nn.Module, learning_rate: float, steps: int, *, weight_decay: float
    ) -> None:
        self._net = net
        self._adam = torch.optim.AdamW(
            net.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
        self._cycle = torch.optim.lr_scheduler.OneCycleLR(self._adam, learning_rate, steps)

    def step(self, loss: Tensor) -> float:
        """Take one step; returns the loss as a number."""
        self._adam.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._net.parameters(), 1.0)
        self._adam.step()
        self._cycle.step()
        return loss.item()

    def save(self, path: Path, steps: int) -> None:
        """Write network and optimiser after so many steps, whole or not at all."""
        kept = {
            "net": self._net.state_dict(),
            "adam": self._adam.state_dict(),
            "cycle": self._cycle.state_dict(),
            "steps": steps,
        }
        with atomic_write(path) as file:
            torch.save(kept, file)

    def resume(self, path: Path) -> int:
        """Take up what `save` wrote, if there is such a file; returns the steps already taken."""
        if not path.exists():
            return 0
        kept = torch.load(path, weights_only=True)
        self._net.load_state_dict(kept["net"])
        self._adam.load_state_dict(kept["adam"])
        self._cycle.load_state_dict(kept["cycle"])
        return int(kept["steps"])
