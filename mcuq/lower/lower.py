"""Lowering: a float graph with quantization decisions becomes an integer graph. Real numbers end here.

One function per operator; equations are docs/NUMERICS.md's. Each result is checked by ``verify`` before it is
returned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from mcuq.errors import ModelError
from mcuq.ir.graph import (
    NO_CLAMP,
    Activation,
    Add,
    Argmax,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Conv2d,
    Copy,
    Extremum,
    FloatOp,
    Graph,
    Input,
    L2Normalize,
    MaxPool,
    Mul,
    Pad,
    Prelu,
    Resample,
    Reshape,
    Softmax,
)
from mcuq.ir.integer import (
    IntegerGraph,
    IntegerOp,
    QArgmax,
    QAvgPool,
    QConcat,
    QConv2d,
    QCopy,
    QInput,
    QL2Normalize,
    QMaxPool,
    QRescale,
    QReshape,
    QSoftmax,
    QTensor,
)
from mcuq.ir.quantized import QuantizedGraph, QuantParams, WeightQuant
from mcuq.ir.verify import Level, verify
from mcuq.lower import elementwise
from mcuq.lower.parameters import checked, clamp_codes, per_channel, rescaling, tensor_of, weight_codes
from mcuq.lower.requantization import Channels, requantization
from mcuq.numerics import Affine, code_range, quantize_multiplier, softmax_table

SOFTMAX_OUTPUT = QuantParams(8, 1 / 256, -128)
L2_OUTPUT = QuantParams(8, 1 / 128, 0)
ARGMAX_OUTPUT = QuantParams(32, 1.0, 0)


def lower(q: QuantizedGraph, *, logits_bits: int = 8) -> IntegerGraph:
    """The integer network of ``q``.

    Args:
        q: a fused graph, a :class:`WeightQuant` per convolution and the parameters of every stored tensor.
            Those of an input with ``normalization``, of softmax, argmax and L2 normalization, and of operators that
            only move codes without an entry follow from the graph.
        logits_bits: 8, or 32 to keep the scores of a final convolution (also one that only reshapes and argmax
            follow) as int32 codes of one common scale.

    Raises:
        ModelError: missing or unusable quantization parameters; the text names the layer.
        OverflowProofError: an int32 accumulator could overflow.
    """
    if logits_bits not in (8, 32):
        raise ModelError(f"logits_bits must be 8 or 32, got {logits_bits}")
    lowering = _Lowering(
        {w.layer: w for w in q.weights},
        {a.tensor: a.params for a in q.activations},
        _wide(q.graph) if logits_bits == 32 else frozenset(),
        {},
        [],
    )
    for op in q.graph:
        lowering.emit(lowering.lower(op))
    graph = IntegerGraph(tuple(lowering.ops), q.graph.outputs)
    verify(graph, Level.INTEGER)
    return graph


def _wide(graph: Graph) -> frozenset[str]:
    """Convolutions, and reshapes of them, whose values reach nothing but outputs, reshapes and argmax."""
    wide: set[str] = set()
    for op in reversed(graph.ops):
        readers = graph.consumers(op.name)
        ends = all(isinstance(r, Argmax) or (isinstance(r, Reshape) and r.name in wide) for r in readers)
        if isinstance(op, Conv2d | Reshape) and ends and (readers or op.name in graph.outputs):
            wide.add(op.name)
    return frozenset(wide)


@dataclass(frozen=True, slots=True)
class _Lowering:
    """Decisions by name, and the integer operators and their tensors so far."""

    weights: dict[str, WeightQuant]
    decided: dict[str, QuantParams]
    wide: frozenset[str]
    tensors: dict[str, QTensor]
    ops: list[IntegerOp]

    def emit(self, op: IntegerOp) -> None:
        self.ops.append(op)
        self.tensors[op.name] = op.output

    def lower(self, op: FloatOp) -> IntegerOp:
        sources = tuple(self.tensors[name] for name in op.inputs)
        match op:
            case Input():
                return _input(op, self.decided.get(op.name))
            case Conv2d():
                return self._conv(op)
            case Add() | Mul() | Extremum() | Activation() | Prelu() | Pad():
                output = self._output(op)
                return elementwise.lowered(op, sources, output, self._clamp(op, output))
            case Clip():
                output = self._output(op)
                rescale = self._rescaling(op, output)
                return QRescale(
                    name=op.name, inputs=op.inputs, output=output, affine=rescale, clamp=self._clamp(op, output)
                )
            case Concat():
                output = self._output(op)
                rescales = tuple(rescaling(op.name, (self.tensors[n],), output) for n in op.inputs)
                clamp = self._clamp(op, output)
                return QConcat(name=op.name, inputs=op.inputs, output=output, affines=rescales, clamp=clamp)
            case MaxPool():
                output = self._output(op)
                return QMaxPool(
                    name=op.name,
                    inputs=op.inputs,
                    output=output,
                    window=op.window,
                    affine=self._rescaling(op, output),
                    clamp=self._clamp(op, output),
                )
            case AvgPool():
                output = self._output(op)
                return _avg_pool(op, self.tensors[op.inputs[0]], output, self._clamp(op, output))
            case Reshape() | Copy() | Resample():
                return self._moved(op)
            case L2Normalize():
                return QL2Normalize(name=op.name, inputs=op.inputs, output=tensor_of(op.shape, L2_OUTPUT))
            case Softmax():
                table = softmax_table(sources[0].scale).astype(np.uint16)
                output = tensor_of(op.shape, SOFTMAX_OUTPUT)
                return QSoftmax(name=op.name, inputs=op.inputs, output=output, table=table)
            case Argmax():
                return QArgmax(name=op.name, inputs=op.inputs, output=tensor_of(op.shape, ARGMAX_OUTPUT))
            case BatchNorm():
                raise ModelError(f"{op.name}: a batch norm of its own cannot be lowered; fuse the graph first")
            case _:
                assert_never(op)

    def _output(self, op: FloatOp) -> QTensor:
        if op.name not in self.decided:
            raise ModelError(f"{op.name}: no quantization parameters; every stored tensor needs them")
        return tensor_of(op.shape, checked(op.name, self.decided[op.name]))

    def _clamp(self, op: FloatOp, output: QTensor) -> tuple[int, int]:
        """Codes that ``op`` may write: its own clamp, within the codes its tensor uses."""
        decided = self.decided.get(op.name)
        clamp = op.clamp if isinstance(op, Conv2d | Add | Mul | Clip) else NO_CLAMP
        return clamp_codes(clamp, output, None if decided is None else decided.codes)

    def _rescaling(self, op: FloatOp, output: QTensor) -> Affine:
        return rescaling(op.name, (self.tensors[op.inputs[0]],), output)

    def _moved(self, op: Reshape | Copy | Resample) -> IntegerOp:
        """What only moves codes keeps them; where its own parameters differ, a rescaling goes before it."""
        source = self.tensors[op.inputs[0]]
        if isinstance(op, Resample) and not op.chooses:
            output = self._output(op)
            return elementwise.resample(op, op.inputs, source, output, self._clamp(op, output))
        same = QuantParams(source.bits, source.scale, source.zero_point)
        params = same if op.name in self.wide else replace(self.decided.get(op.name, same), codes=None)
        inputs = op.inputs
        if params != same:
            output = tensor_of(source.shape, checked(op.name, params))
            inputs = (f"{op.name}.rescale",)
            self.emit(
                QRescale(
                    name=inputs[0],
                    inputs=op.inputs,
                    output=output,
                    affine=rescaling(op.name, (source,), output),
                    clamp=code_range(output.bits),
                )
            )
        target = tensor_of(op.shape, params)
        match op:
            case Reshape():
                return QReshape(name=op.name, inputs=inputs, output=target)
            case Copy():
                sizes, strides = op.sizes, op.strides
                return QCopy(name=op.name, inputs=inputs, output=target, sizes=sizes, strides=strides, offset=op.offset)
            case Resample():
                return elementwise.resample(op, inputs, self.tensors[inputs[0]], target, code_range(target.bits))

    def _conv(self, op: Conv2d) -> QConv2d:
        source, weights = self.tensors[op.inputs[0]], self.weights.get(op.name)
        if weights is None:
            raise ModelError(f"{op.name}: no quantized weights; every convolution needs them")
        channels = len(op.weight)
        codes, zero_point = weight_codes(op, weights)
        unit = per_channel(op.name, "gain", weights.gain, channels) * source.scale
        unit = unit * per_channel(op.name, "weight scale", weights.scale, channels)
        if op.name in self.wide:
            scale = float(np.abs(unit).max()) or 1.0
            output = tensor_of(op.shape, checked(op.name, QuantParams(32, scale, 0)))
        else:
            output = self._output(op)
        clamp = self._clamp(op, output)
        bias = per_channel(op.name, "bias", weights.bias, channels)
        target = QuantParams(output.bits, output.scale, output.zero_point)
        origin = QuantParams(source.bits, source.scale, source.zero_point)
        scaling = "exact" if op.name in self.wide else weights.scaling
        rounded = 1 if op.name in self.wide else weights.roundings
        result = requantization(
            Channels(op.name, codes, zero_point, unit, bias, origin, target, clamp, scaling, rounded)
        )
        shared = np.all(zero_point == zero_point[0])
        return QConv2d(
            name=op.name,
            inputs=op.inputs,
            output=output,
            weight=result.weight.astype(np.int8),
            weight_bits=weights.bits,
            weight_zero_point=(zero_point[:1] if shared else zero_point).astype(np.int8),
            bias=result.bias.astype(np.int32),
            multiplier=result.multiplier.astype(np.int32),
            shift=result.shift.astype(np.uint8),
            window=op.window,
            groups=op.groups,
            clamp=clamp,
            roundings=rounded,
        )


def _input(op: Input, decided: QuantParams | None) -> QInput:
    """Raw pixels p become codes p - 128; the normalization is the tensor's scale and zero point."""
    if op.normalization is None:
        if decided is None:
            raise ModelError(f"{op.name}: the input has neither a normalization nor quantization parameters")
        return QInput(name=op.name, inputs=(), output=tensor_of(op.shape, checked(op.name, decided)))
    params = checked(op.name, QuantParams(8, op.normalization.scale, op.normalization.zero_point - 128))
    if decided is not None and not (
        (decided.bits, decided.zero_point) == (params.bits, params.zero_point)
        and math.isclose(decided.scale, params.scale, rel_tol=1e-6)
    ):
        raise ModelError(f"{op.name}: quantized as {decided}, but raw pixels with its normalization are {params}")
    return QInput(name=op.name, inputs=(), output=tensor_of(op.shape, params), encoding="uint8")


def _avg_pool(op: AvgPool, source: QTensor, output: QTensor, clamp: tuple[int, int]) -> QAvgPool:
    if source.bits == 32:
        raise ModelError(f"{op.name}: reads a 32-bit tensor; only argmax and reshape can")
    area = op.window.kernel[0] * op.window.kernel[1]
    whole = op.count_include_pad or op.window.padding == (0, 0, 0, 0)
    counts = [area] if whole else range(1, area + 1)
    try:
        pairs = np.array([quantize_multiplier(source.scale / (output.scale * n)) for n in counts], dtype=np.int64)
    except ValueError as error:
        raise ModelError(f"{op.name}: input scale / output scale is too large ({error})") from error
    return QAvgPool(
        name=op.name,
        inputs=op.inputs,
        output=output,
        window=op.window,
        multiplier=pairs[:, 0].astype(np.int32),
        shift=pairs[:, 1].astype(np.uint8),
        clamp=clamp,
    )
