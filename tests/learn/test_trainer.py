"""The training loop: steps equal to a loop by hand, checkpoints of all forms, and failures."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cxrg.errors import UsageError
from cxrg.learn.trainer import Trainer, TrainerConfig, one_cycle

STEPS = 9


def module() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def loss_of(net: nn.Module, step: int) -> Tensor:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
    return 10 * net(x).square().mean()


def falling(step: int) -> dict[str, float]:
    return {"lr": 0.1 / (step + 1)}


def config(**changes: Any) -> TrainerConfig:
    base = {"steps": STEPS, "schedule": falling, "weight_decay": 0.01, "checkpoint_every": 100}
    return TrainerConfig(**{**base, **changes})


def nothing(*_: object) -> None:
    """Ignores losses and checks."""


def trained(net: nn.Module, settings: TrainerConfig, checkpoint: Path, **more: Any) -> Trainer[Any]:
    trainer = Trainer(net, settings, checkpoint=checkpoint, **more)
    trainer.run(lambda step: {"loss": loss_of(net, step)}, nothing)
    return trainer


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


class AveragedLoop:
    """The loop that cxrg 0.1 had for the denoiser, and its checkpoint."""

    settings = config(ema=0.9)

    def __init__(self) -> None:
        self.net, self.average = module(), module()
        self.adam = torch.optim.AdamW(self.net.parameters(), lr=0.1, weight_decay=0.01)

    def run(self, steps: range) -> None:
        for step in steps:
            loss = loss_of(self.net, step)
            for group in self.adam.param_groups:
                group["lr"] = 0.1 / (step + 1)
            self.adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.adam.step()
            with torch.no_grad():
                decay = min(0.9, (step + 1) / (step + 10))
                for kept, now in zip(self.average.parameters(), self.net.parameters(), strict=True):
                    kept.lerp_(now, 1 - decay)

    def stored(self, step: int) -> dict[str, Any]:
        return {
            "pair": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.adam.state_dict(),
            "step": step,
        }


class CycleLoop:
    """The loop that cxrg 0.1 had for autoencoder and segmenter, and its checkpoint."""

    settings = config(schedule=one_cycle(0.1, STEPS))

    def __init__(self) -> None:
        self.net = self.average = module()
        self.adam = torch.optim.AdamW(self.net.parameters(), lr=0.1, weight_decay=0.01)
        self.cycle = torch.optim.lr_scheduler.OneCycleLR(self.adam, 0.1, STEPS)

    def run(self, steps: range) -> None:
        for step in steps:
            self.adam.zero_grad()
            loss_of(self.net, step).backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.adam.step()
            self.cycle.step()

    def stored(self, step: int) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "adam": self.adam.state_dict(),
            "cycle": self.cycle.state_dict(),
            "steps": step,
        }


LOOPS = pytest.mark.parametrize("loop", [AveragedLoop, CycleLoop])


@LOOPS
def test_steps_equal_a_loop_by_hand(loop: type[AveragedLoop | CycleLoop], tmp_path: Path) -> None:
    by_hand = loop()
    by_hand.run(range(STEPS))
    trainer = trained(module(), loop.settings, tmp_path / "c.pt")
    assert_equal(trainer.module, by_hand.net)
    assert_equal(trainer.average, by_hand.average)


@LOOPS
def test_checkpoints_of_the_first_release_resume(
    loop: type[AveragedLoop | CycleLoop], tmp_path: Path
) -> None:
    by_hand = loop()
    by_hand.run(range(4))
    torch.save(by_hand.stored(4), tmp_path / "c.pt")
    by_hand.run(range(4, STEPS))
    fresh = module()
    nn.init.zeros_(fresh.weight)
    trainer = trained(fresh, loop.settings, tmp_path / "c.pt")
    assert_equal(trainer.module, by_hand.net)
    assert_equal(trainer.average, by_hand.average)


def test_tuning_checkpoints_of_the_first_release_resume(tmp_path: Path) -> None:
    """Vectors as a table of tensors, and what the recipe keeps beside them on the same level."""
    parameters = nn.ParameterDict({"gate": nn.Parameter(torch.ones(2))})
    adam = torch.optim.AdamW(parameters.values(), lr=0.1)
    old = {
        "vectors": {"gate": torch.tensor([2.0, 3.0])},
        "average": {"gate": torch.tensor([4.0, 5.0])},
        "optimiser": adam.state_dict(),
        "step": 7,
        "best": {"gate": torch.tensor([6.0, 7.0])},
        "energies": {0: {"location": 0.5}},
    }
    torch.save(old, tmp_path / "c.pt")
    from cxrg.learn.tune.recipe import Selection

    extra = Selection()
    trainer = Trainer(parameters, config(ema=0.9), checkpoint=tmp_path / "c.pt", extra=extra)
    assert trainer.step == 7
    assert trainer.module["gate"].tolist() == [2, 3]
    assert trainer.average["gate"].tolist() == [4, 5]
    assert extra.best["gate"].tolist() == [6, 7]
    assert extra.energies == {0: {"location": 0.5}}


class Counter:
    """A recipe's own part of a checkpoint."""

    checks = 0

    def state_dict(self) -> dict[str, Any]:
        return {"checks": self.checks}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.checks = state["checks"]


def test_an_interrupted_run_resumes_to_the_same_end(tmp_path: Path) -> None:
    settings = config(ema=0.9, checkpoint_every=4, checkpoint_at=(3,))
    whole = trained(module(), settings, tmp_path / "whole.pt")

    def run(report: Callable[..., None]) -> tuple[Trainer[Any], list[int]]:
        net, extra, checked = module(), Counter(), []
        trainer = Trainer(net, settings, checkpoint=tmp_path / "parts.pt", extra=extra)

        def check(now: Trainer[Any]) -> None:
            extra.checks += 1
            checked.append(now.step)

        try:
            trainer.run(lambda step: {"loss": loss_of(net, step)}, report, check)
        except KeyboardInterrupt:
            return trainer, checked
        assert extra.checks == 4
        return trainer, checked

    def interrupt(_: str, step: int, *rest: object) -> None:
        if step == 6:
            raise KeyboardInterrupt

    assert run(interrupt)[1] == [3, 4]
    resumed, checked = run(nothing)
    assert checked == [8, 9]
    assert_equal(resumed.module, whole.module)
    assert_equal(resumed.average, whole.average)
    assert run(nothing)[0].step == STEPS  # a finished run does nothing


def test_the_first_loss_is_minimised_and_all_are_reported(tmp_path: Path) -> None:
    net, lines = module(), []
    trainer = Trainer(net, config(steps=1), checkpoint=tmp_path / "c.pt")
    second = nn.Parameter(torch.ones(()))
    expected = loss_of(net, 0).item()
    trainer.run(
        lambda step: {"first": loss_of(net, step), "second": 3 * second},
        lambda *line: lines.append(line),
    )
    assert lines == [("first", 1, 1, expected), ("second", 1, 1, 3.0)]
    assert second.grad is None


def test_frozen_and_empty_parameters_are_left_out(tmp_path: Path) -> None:
    net = nn.ParameterDict()
    net["frozen"] = nn.Parameter(torch.ones(2), requires_grad=False)
    net["empty"] = nn.Parameter(torch.zeros(0))
    net["free"] = nn.Parameter(torch.ones(2))
    before = copy.deepcopy(net)
    trainer = Trainer(net, config(), checkpoint=tmp_path / "c.pt")
    trainer.run(lambda _: {"loss": net["free"].sum() + net["frozen"].sum()}, nothing)
    assert torch.equal(net["frozen"], before["frozen"])
    assert (net["free"] < before["free"]).all()
    stored = torch.load(tmp_path / "c.pt", weights_only=True)
    assert [group["params"] for group in stored["optimiser"]["param_groups"]] == [[0]]


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path: Path) -> None:
    net = module()
    trainer = Trainer(net, config(), checkpoint=tmp_path / "c.pt")
    with pytest.raises(UsageError, match="first: the loss is nan at step 0; lower learning_rate"):
        trainer.run(lambda step: {"first": loss_of(net, step) * torch.nan}, nothing)
    assert_equal(net, module())


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    trained(module(), config(), path)
    for net, settings in ((nn.Linear(5, 2), config()), (module(), config(ema=0.9))):
        with pytest.raises(UsageError, match=r"c\.pt: does not fit this configuration"):
            Trainer(net, settings, checkpoint=path)
