"""Fake quantization as one differentiable operator, alone or together with the batch norm before it.

A quantizer states a :class:`Rule`: the grid, where gradients pass, and how three sums over the tensor make the
gradient of each learned scalar. That covers LSQ (Esser et al., ICLR 2020), PACT (Choi et al., 2018), CG-PACT (Jin et
al., 2020), fixed ranges and their signed variants; the loops are those of ``mcuq.quant.kernels``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from mcuq.quant import distributed, kernels, norm_kernels
from mcuq.quant.kernels import Grid


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """A learned scalar of a quantizer and its gradient, ``inside * I + below * B + above * A``.

    I = sum of g * (y - x) where bottom < x < top; B = sum of g where x <= bottom; A = sum of g where x >= top.
    """

    parameter: Tensor
    inside: float
    below: float
    above: float

    def gradient(self, sums: Tensor) -> Tensor:
        """Shaped as the parameter; ``sums`` are I, B, A, float64 [3]."""
        if sums.device.type == "cpu":
            i, b, a = cast(list[float], sums.tolist())
            value = self.inside * i + self.below * b + self.above * a
            return torch.full_like(self.parameter, value)
        weights = torch.tensor([self.inside, self.below, self.above], dtype=sums.dtype, device=sums.device)
        return (sums * weights).sum().to(self.parameter.dtype).reshape(self.parameter.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """``y = step * clamp(floor(x / step + rounding), low, high)``; dx = g where bottom < x < top, else 0.

    Attributes:
        low, high: codes, counted from the zero point. bottom, top: values of x; y is constant outside of them.
        rounding: 1/2 rounds to nearest, half up; 0 rounds down.
    """

    step: float
    low: float
    high: float
    bottom: float
    top: float
    learned: tuple[Learned, ...] = ()
    rounding: float = 0.5

    @property
    def grid(self) -> Grid:
        return Grid(self.step, self.low, self.high, self.bottom, self.top, self.rounding)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return tuple(learned.parameter for learned in self.learned)


def fake_quantize(x: Tensor, rule: Rule) -> Tensor:
    """``x`` (any shape and layout) on the grid of ``rule``, differentiable in ``x`` and the learned scalars."""
    return cast(Tensor, FakeQuantize.apply(x, rule, *rule.parameters))


class FakeQuantize(torch.autograd.Function):
    """Keeps what the backward pass needs of ``x`` and nothing else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: Rule, *parameters: Tensor) -> Tensor:
        ctx.rule, ctx.grid = rule, rule.grid
        if not any(ctx.needs_input_grad):
            return kernels.quantize(kernels.dense(x), ctx.grid)
        y, kept = kernels.quantize_keeping(kernels.dense(x), ctx.grid)
        ctx.save_for_backward(kept)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (kept,) = ctx.saved_tensors
        rule: Rule = ctx.rule
        dx, sums = kernels.quantize_gradient(kept, grads[0], ctx.grid)
        return dx, None, *(learned.gradient(sums) for learned in rule.learned)


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """A batch norm in training: affine parameters and running statistics [C], which move by ``momentum``."""

    gamma: Tensor
    beta: Tensor
    running: tuple[Tensor, Tensor]
    momentum: float
    epsilon: float


def fuses_norm(x: Tensor) -> bool:
    """Batch norm of ``x`` and a rule can be one operator: native kernels, a whole batch, more than one value."""
    whole = kernels.layout_of(x) is not None and x.numel() > x.shape[1] and not distributed.sharded()
    return whole and kernels.means_for(x) == "native"


def norm_quantize(x: Tensor, norm: Norm, rule: Rule) -> Tensor:
    """Batch norm of x [N, C, H, W] by its own statistics, then ``rule``, as one operator where :func:`fuses_norm`.

    Equals batch norm and :func:`fake_quantize` one after the other, but for the rounding of the statistics: where
    these differ in the last place, a value on the boundary of two codes may take the other one.
    """
    return cast(Tensor, NormQuantize.apply(x, norm.gamma, norm.beta, norm, rule, *rule.parameters))


class NormQuantize(torch.autograd.Function):
    """Keeps ``x``, which the convolution's output is, and four numbers per channel."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, norm: Norm, rule: Rule, *parameters: Tensor
    ) -> Tensor:
        ctx.grid, ctx.rule = rule.grid, rule
        y, saved = norm_kernels.norm_quantize(x, gamma, beta, norm.running, norm.momentum, norm.epsilon, ctx.grid)
        ctx.save_for_backward(x, saved)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, saved = ctx.saved_tensors
        rule: Rule = ctx.rule
        dx, dnorm, sums = norm_kernels.norm_quantize_gradient(x, grads[0], saved, ctx.grid)
        return dx, dnorm[0], dnorm[1], None, None, *(learned.gradient(sums) for learned in rule.learned)


# -- sums ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A tensor on its way into a sum: ``x``, batch norm (by its own statistics), quantization.

    ``norm`` needs ``rule`` and :func:`fuses_norm`.
    """

    x: Tensor
    rule: Rule | None = None
    norm: Norm | None = None

    def value(self) -> Tensor:
        if self.rule is None:
            return self.x
        return fake_quantize(self.x, self.rule) if self.norm is None else norm_quantize(self.x, self.norm, self.rule)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What gradients are for, see :func:`_branch_gradients`."""
        affine = () if self.norm is None else (self.norm.gamma, self.norm.beta)
        return self.x, *affine, *(() if self.rule is None else self.rule.parameters)

    def statistics(self) -> Tensor | None:
        """Of the batch norm, whose running ones move."""
        n = self.norm
        return (
            None
            if n is None
            else norm_kernels.norm_statistics(self.x, n.gamma, n.beta, n.running, n.momentum, n.epsilon)
        )


def add_quantize(a: Branch, b: Branch, rule: Rule) -> Tensor:
    """``rule`` of the sum of both values: the same bits as one after the other, in one pass where it can be."""
    layout = kernels.layout_of(a.x)
    one = torch.is_grad_enabled() and not (a.rule is None and b.rule is None) and a.x.shape == b.x.shape
    one = one and layout is not None and layout == kernels.layout_of(b.x)
    if not (one and kernels.means_for(a.x) == kernels.means_for(b.x) == "native"):
        return fake_quantize(a.value() + b.value(), rule)
    if a.rule is None:
        a, b = b, a
    return cast(Tensor, AddQuantize.apply(a, b, rule, *a.tensors, *b.tensors, *rule.parameters))


class AddQuantize(torch.autograd.Function):
    """Keeps the branches that are quantized, and of the sum what :func:`kernels.quantize_keeping` keeps."""

    @staticmethod
    def forward(ctx: Any, a: Branch, b: Branch, rule: Rule, *tensors: Tensor) -> Tensor:
        assert a.rule is not None
        statistics = a.statistics(), b.statistics()
        grids = a.rule.grid, None if b.rule is None else b.rule.grid
        y, kept = norm_kernels.add_quantize(a.x, b.x, statistics, grids, rule.grid)
        ctx.rules = a.rule, b.rule, rule
        ctx.save_for_backward(kept, a.x, statistics[0], None if b.rule is None else b.x, statistics[1])
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        kept, x, statistics, other, other_statistics = ctx.saved_tensors
        first, second, rule = ctx.rules
        d, sums = kernels.quantize_gradient(kept, grads[0], rule.grid)
        a = _branch_gradients(x, statistics, d, first)
        b = _branch_gradients(other, other_statistics, d, second)
        return None, None, None, *a, *b, *(learned.gradient(sums) for learned in rule.learned)


def _branch_gradients(x: Tensor | None, statistics: Tensor | None, d: Tensor, rule: Rule | None) -> tuple[Tensor, ...]:
    """Gradients of ``Branch.tensors`` from that of its value, ``d``."""
    if x is None or rule is None:
        return (d,)
    if statistics is None:
        dx, sums = kernels.quantize_gradient(x, d, rule.grid)
        return dx, *(learned.gradient(sums) for learned in rule.learned)
    dx, dnorm, sums = norm_kernels.norm_quantize_gradient(x, d, statistics, rule.grid)
    return dx, dnorm[0], dnorm[1], *(learned.gradient(sums) for learned in rule.learned)
