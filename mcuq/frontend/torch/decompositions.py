"""ATen operators written in terms of others before translation: statistics, distances, rarer activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._decomp import get_decompositions

aten: Any = torch.ops.aten
Axes = Sequence[int] | int | None


def _axes(x: Tensor, dim: Axes) -> list[int]:
    if dim is None or (not isinstance(dim, int) and not len(dim)):
        return list(range(x.dim()))
    return [dim] if isinstance(dim, int) else list(dim)


def _variance(x: Tensor, dim: Axes = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    axes = _axes(x, dim)
    count = math.prod(x.shape[axis] for axis in axes)
    mean = torch.square(x - x.mean(axes, keepdim=True)).mean(axes, keepdim=keepdim)
    return mean * (count / max(1e-30, count - (1.0 if correction is None else correction)))


def _variance_of(x: Tensor, dim: Axes = None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    return _variance(x, dim, correction=float(unbiased), keepdim=keepdim)


def _variance_of_all(x: Tensor, unbiased: bool = True) -> Tensor:
    return _variance(x, correction=float(unbiased))


def _root(variance: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **options: torch.sqrt(variance(*args, **options))


def _cosine(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    return (F.normalize(x1, dim=dim) * F.normalize(x2, dim=dim)).sum(dim)


def _distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    return torch.linalg.vector_norm(x1 - x2 + eps, p, -1, keepdim)


def _log_sum_exp(x: Tensor, dim: Axes, keepdim: bool = False) -> Tensor:
    return torch.log(torch.exp(x).sum(_axes(x, dim), keepdim))


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **get_decompositions(
        [aten.addcmul.default, aten.addcdiv.default, aten.hardshrink.default, aten.softshrink.default]
    ),
    aten.var.correction: _variance,
    aten.var.dim: _variance_of,
    aten.var.default: _variance_of_all,
    aten.std.correction: _root(_variance),
    aten.std.dim: _root(_variance_of),
    aten.std.default: _root(_variance_of_all),
    aten.cosine_similarity.default: _cosine,
    aten.pairwise_distance.default: _distance,
    aten.logsumexp.default: _log_sum_exp,
}
