"""A fused float graph as a torch function with batch norms folded; parts of it can be run again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcuq.errors import DataError
from mcuq.ir import graph as ir
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph
from mcuq.ir.samples import Samples, split
from mcuq.quant.activations import clip
from mcuq.quant.network import Inputs, by_name, clamp_of, conv2d, evaluate


class FloatModel:
    """Evaluates ``graph`` (fused on the way in) on [N, C, H, W] tensors in float32.

    Attributes:
        graph: fused. weights: layer -> [O, I/groups, kh, kw] with the batch norm folded in. biases: layer -> [O].
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = fuse(graph)
        self.weights: dict[str, Tensor] = {}
        self.biases: dict[str, Tensor] = {}
        for op in self.graph.convs:
            weight = np.asarray(op.weight, dtype=np.float64)
            bias = np.zeros(len(weight)) if op.bias is None else np.asarray(op.bias, dtype=np.float64)
            if op.norm is not None:
                gain, offset = op.norm.gain_bias()
                weight, bias = weight * gain[:, None, None, None], bias * gain + offset
            folded = torch.from_numpy(np.ascontiguousarray(weight.transpose(0, 3, 1, 2))).float()
            self.weights[op.name] = folded
            self.biases[op.name] = torch.from_numpy(np.ascontiguousarray(bias)).float()
        self._downstream = _descendants(self.graph)

    def inputs(self, x: Samples | Tensor, *, grad: bool = False) -> tuple[Tensor, ...]:
        """Real inputs [N, C, H, W] from [N, H, W, C] pixels (uint8) or real values; several: see ``ir.samples``.

        Args:
            grad: they require gradients.

        Raises:
            DataError: shape or type do not fit the network's input.
        """
        parts = split(self.graph, x.numpy() if isinstance(x, Tensor) else x)
        return tuple(_real(source, parts[source.name]).requires_grad_(grad) for source in self.graph.inputs)

    def run(
        self,
        x: Inputs,
        *,
        weights: dict[str, Tensor] | None = None,
        stored: Callable[[str, Tensor], Tensor] = lambda _, value: value,
    ) -> dict[str, Tensor]:
        """Every tensor for real inputs x [N, C, H, W].

        Args:
            weights: in place of the layers' own. stored: what is kept of a tensor (name, value) before it is read.
        """
        values: dict[str, Tensor] = {}
        given = by_name(self.graph, x)
        for op in self.graph:
            value = given[op.name] if op.name in given else self._evaluate(op, values, weights or self.weights)
            values[op.name] = stored(op.name, value)
        return values

    def rerun(
        self, values: dict[str, Tensor], changed: str, *, tensor: Tensor | None = None, weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``values`` after ``changed``'s output (``tensor``) or weights (``weight``) were replaced.

        Only operators that depend on the change are evaluated.
        """
        result = dict(values)
        weights = self.weights
        if weight is not None:
            weights = {**self.weights, changed: weight}
            result[changed] = self._evaluate(self.graph.op(changed), result, weights)
        if tensor is not None:
            result[changed] = tensor
        for op in self._downstream[changed]:
            result[op.name] = self._evaluate(op, result, weights)
        return result

    def _evaluate(self, op: ir.FloatOp, values: dict[str, Tensor], weights: dict[str, Tensor]) -> Tensor:
        def conv(layer: ir.Conv2d, x: Tensor) -> Tensor:
            return conv2d(x, weights[layer.name], self.biases[layer.name], layer.window, layer.groups)

        inputs = tuple(values[name] for name in op.inputs)
        return clip(evaluate(op, inputs, conv), clamp_of(op))

    def scores(self) -> str:
        """Name of the tensor with class scores: the first output, or what goes into its softmax or argmax."""
        op = self.graph.op(self.graph.outputs[0])
        while isinstance(op, ir.Softmax | ir.Argmax):
            op = self.graph.op(op.inputs[0])
        return op.name


def _real(source: ir.Input, x: NDArray[Any]) -> Tensor:
    batch = torch.as_tensor(np.ascontiguousarray(x))
    real = batch.permute(0, 3, 1, 2).float()
    if batch.dtype == torch.uint8:
        if source.normalization is None:
            raise DataError("uint8 inputs need a normalization in the graph's input")
        real = (real - source.normalization.zero_point) * source.normalization.scale
    return real


def _descendants(graph: Graph) -> dict[str, tuple[ir.FloatOp, ...]]:
    reach: dict[str, set[str]] = {op.name: set() for op in graph}
    for op in reversed(graph.ops):
        for name in op.inputs:
            reach[name] |= {op.name} | reach[op.name]
    return {name: tuple(op for op in graph if op.name in found) for name, found in reach.items()}


def batches(x: NDArray[Any], size: int) -> Iterable[NDArray[Any]]:
    """Slices of at most ``size`` along the first axis."""
    return (x[start : start + size] for start in range(0, len(x), size))
