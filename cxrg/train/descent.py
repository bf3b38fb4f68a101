"""One way down for the small networks: AdamW, one learning-rate cycle, clipped gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Descent:
    """Steps a network along its gradient, ``steps`` times in all."""

    def __init__(
        self, net: nn.Module, learning_rate: float, steps: int, *, weight_decay: float
    ) -> None:
        self._weights = list(net.parameters())
        self._adam = torch.optim.AdamW(self._weights, lr=learning_rate, weight_decay=weight_decay)
        self._cycle = torch.optim.lr_scheduler.OneCycleLR(self._adam, learning_rate, steps)

    def step(self, loss: Tensor) -> float:
        """Take one step; returns the loss as a number."""
        self._adam.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._adam.step()
        self._cycle.step()
        return loss.item()
