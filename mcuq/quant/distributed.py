"""Training on several processes (``torchrun``): each takes its part of every batch, the result is that of one process.

Batch statistics and ranges are those of the whole batch, gradients are summed by DistributedDataParallel, everything
else is computed alike by all. Only the order of sums differs (and the masks of dropout, drawn per process).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from mcuq.errors import UsageError

T = TypeVar("T")
_sharding: list[bool] = []


def world() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """0 for the process that writes."""
    return dist.get_rank() if world() > 1 else 0


@contextmanager
def processes(device: str) -> Generator[str]:
    """Join the other processes of a ``torchrun``, if there are any; gives the device of this one.

    Raises:
        UsageError: there is no such device, or this torch cannot communicate.
    """
    if device.partition(":")[0] != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise UsageError(f"--device {device!r} is not there; use cpu{' or cuda' if torch.cuda.is_available() else ''}")
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1 or world() > 1:
        yield device
        return
    if not dist.is_available():
        raise UsageError("this torch is built without torch.distributed; train in one process")
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def of_first(value: T) -> T:
    """``value`` of the first process, in all of them."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def part(batch: Tensor) -> Tensor:
    """This process's part of a batch."""
    return batch if world() == 1 else batch.tensor_split(world())[rank()]


def total(*values: float, device: str = "cpu") -> list[float]:
    """Sums of ``values`` over all processes."""
    if world() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return cast(list[float], sums.tolist())


@contextmanager
def sharding() -> Generator[None]:
    """Inside, tensors hold this process's part of a batch; statistics are those of all parts."""
    _sharding.append(world() > 1)
    try:
        yield
    finally:
        _sharding.pop()


def sharded() -> bool:
    """Tensors hold this process's part of a batch."""
    return bool(_sharding) and _sharding[-1]


def extremes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest ``low`` and the highest ``high`` of all parts."""
    if sharded():
        low, high = low.clone(), high.clone()
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
    return low, high


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        result = x.clone()
        dist.all_reduce(result)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        result = grads[0].clone()
        dist.all_reduce(result)
        return result


def batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    momentum: float,
    epsilon: float,
) -> Tensor:
    """Batch norm in training, of x [N, C, ...], by the statistics of all parts; running ones move by ``momentum``."""
    dims = [d for d in range(x.dim()) if d != 1]
    column = [1, -1, *[1] * (x.dim() - 2)]
    count = total(x.numel() // x.shape[1], device=str(x.device))[0]
    average = cast(Tensor, _Sum.apply(x.sum(dims))) / count
    centred = x - average.view(column)
    spread = cast(Tensor, _Sum.apply(centred.square().sum(dims))) / count
    with torch.no_grad():
        if mean is not None and variance is not None:
            mean.lerp_(average.detach(), momentum)
            variance.lerp_(spread.detach() * (count / max(1.0, count - 1.0)), momentum)
    factor = torch.rsqrt(spread + epsilon)
    y = centred * (factor if gamma is None else factor * gamma).view(column)
    return y if beta is None else y + beta.view(column)


def momentum_of(module: nn.Module) -> float:
    """Weight of the next batch in the running statistics of a batch norm; counts it."""
    momentum = getattr(module, "momentum", 0.1)
    batches = getattr(module, "num_batches_tracked", None)
    if isinstance(batches, Tensor):
        batches.add_(1)
        if momentum is None:
            momentum = 1.0 / float(batches)
    return 0.1 if momentum is None else float(momentum)


def parallel(module: nn.Module, ignored: Iterable[nn.Parameter] = ()) -> nn.Module:
    """``module`` with gradients summed over the processes; itself when there is one.

    Args:
        ignored: parameters whose gradients do not come from ``backward``.
    """
    if world() == 1:
        return module
    skip = {id(p) for p in ignored}
    names = [name for name, p in module.named_parameters() if id(p) in skip]
    ddp = nn.parallel.DistributedDataParallel
    ddp._set_params_and_buffers_to_ignore_for_model(module, names)  # pyright: ignore[reportPrivateUsage]
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            _synchronize(child)
    return ddp(module, broadcast_buffers=False, find_unused_parameters=True)


def _synchronize(norm: _BatchNorm) -> None:
    """Let a batch norm of the user's module take the statistics of all parts."""

    def forward(input: Tensor) -> Tensor:
        if not (norm.training and sharded()):
            return type(norm).forward(norm, input)
        momentum = momentum_of(norm)
        return batch_norm(input, norm.running_mean, norm.running_var, norm.weight, norm.bias, momentum, norm.eps)

    norm.forward = forward
