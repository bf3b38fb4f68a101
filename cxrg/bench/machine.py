"""Operations of a network evaluation, and how fast this machine runs each of them alone.

One evaluation is recorded operation by operation: convolutions, matrix products and fused
attention, with the shapes, strides and precision of their inputs. Each distinct one is then timed
alone on random numbers. The sum, weighted by how often each occurs, is the least time that this
machine needs with these kernels; the evaluation's own time above that is overhead, memory traffic
and element-wise work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import flop_registry

_ATEN: Any = torch.ops.aten
# torch counts the fused attention of GPUs; a CPU's has the same first arguments.
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        _ATEN._scaled_dot_product_flash_attention
    ],
}
ENOUGH = 0.05  # seconds that one operation is repeated for


@dataclass(frozen=True, slots=True)
class _Shape:
    """A tensor without its numbers."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return cls(tuple(value.shape), value.stride(), value.dtype, value.device)

    def filled(self) -> Tensor:
        """Random numbers in the same layout, axes without a stride included."""
        reach = 1 + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        numbers = torch.randn(reach, device=self.device).to(self.dtype)
        return numbers.as_strided(self.size, self.stride)


@dataclass(slots=True)
class Operation:
    """One kind of call with given shapes: how often it came, and its floating-point operations."""

    call: Any
    inputs: tuple[Any, ...]
    structure: Any
    flops: int
    count: int = 0

    def seconds(self) -> float:
        """Time of one call, alone: the median over `ENOUGH` seconds of repetition."""
        values = [each.filled() if isinstance(each, _Shape) else each for each in self.inputs]
        args, kwargs = tree_unflatten(values, self.structure)
        timer = Timer(
            "call(*args, **kwargs)",
            globals={"call": self.call, "args": args, "kwargs": kwargs},
            num_threads=torch.get_num_threads(),
        )
        with torch.inference_mode():
            return float(timer.blocked_autorange(min_run_time=ENOUGH).median)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base is untyped
    """Collects the operations that have a formula; looks into those that are made of others."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.seen: dict[Any, Operation] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in FORMULAS:
            with self:
                # torch returns NotImplemented for an operation that is not composed of others: it
                # runs as it is.
                made = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if made is NotImplemented else made
        output = func(*args, **kwargs)
        values, structure = tree_flatten((args, kwargs))
        inputs = tuple(map(_Shape.of, values))
        operation = self.seen.get((func, inputs))
        if operation is None:
            flops = FORMULAS[packet](*args, **kwargs, out_val=output)
            operation = Operation(func, inputs, structure, flops)
            self.seen[func, inputs] = operation
        operation.count += 1
        return output


def operations(evaluate: Callable[[], object]) -> tuple[Operation, ...]:
    """The distinct operations of one evaluation that have floating-point operations to count."""
    recorder = _Recorder()
    with torch.no_grad(), recorder:
        evaluate()
    return tuple(recorder.seen.values())


def total_flops(found: Iterable[Operation]) -> int:
    """Floating-point operations of one evaluation; a multiplication and an addition are two."""
    return sum(each.flops * each.count for each in found)


def least_seconds(found: Iterable[Operation]) -> float:
    """Time of one evaluation if every operation ran as fast as alone and nothing else did."""
    return sum(each.seconds() * each.count for each in found)
