"""Lowering: a float graph with quantization decisions becomes an integer graph. Real numbers end here.

One function per operator; equations are docs/NUMERICS.md's. Each result is checked by ``verify`` before it is
returned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from mcuq.errors import ModelError
from mcuq.ir.graph import (
    Add,
    Argmax,
    AvgPool,
    BatchNorm,
    Clamp,
    Clip,
    Concat,
    Conv2d,
    FloatOp,
    Graph,
    Input,
    MaxPool,
    Pad,
    Reshape,
    Shape,
    Softmax,
)
from mcuq.ir.integer import (
    IntegerGraph,
    IntegerOp,
    QAdd,
    QArgmax,
    QAvgPool,
    QConcat,
    QConv2d,
    QInput,
    QMaxPool,
    QPad,
    QRescale,
    QReshape,
    QSoftmax,
    QTensor,
)
from mcuq.ir.quantized import QuantizedGraph, QuantParams, WeightQuant
from mcuq.ir.verify import Level, verify
from mcuq.lower.requantization import Channels, requantization
from mcuq.numerics import Affine, affine, code_range, quantize_multiplier, softmax_table, weight_range

SOFTMAX_OUTPUT = QuantParams(8, 1 / 256, -128)
ARGMAX_OUTPUT = QuantParams(32, 1.0, 0)


def lower(q: QuantizedGraph, *, logits_bits: int = 8) -> IntegerGraph:
    """The integer network of ``q``.

    Args:
        q: a fused graph, a :class:`WeightQuant` per convolution and the parameters of every stored tensor.
            Those of an input with ``normalization``, of softmax and argmax outputs, and of reshapes without an
            entry follow from the graph.
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
        match op:
            case Input():
                return _input(op, self.decided.get(op.name))
            case Conv2d():
                return self._conv(op)
            case Add():
                output = self._output(op)
                rescale = _affine(op.name, tuple(self.tensors[n] for n in op.inputs), output)
                return QAdd(
                    name=op.name, inputs=op.inputs, output=output, affine=rescale, clamp=_codes(op.clamp, output)
                )
            case Clip():
                output = self._output(op)
                rescale = self._rescaling(op, output)
                return QRescale(
                    name=op.name, inputs=op.inputs, output=output, affine=rescale, clamp=_codes(op.clamp, output)
                )
            case Concat():
                output = self._output(op)
                rescales = tuple(_affine(op.name, (self.tensors[n],), output) for n in op.inputs)
                clamp = code_range(output.bits)
                return QConcat(name=op.name, inputs=op.inputs, output=output, affines=rescales, clamp=clamp)
            case MaxPool():
                output = self._output(op)
                return QMaxPool(
                    name=op.name,
                    inputs=op.inputs,
                    output=output,
                    window=op.window,
                    affine=self._rescaling(op, output),
                    clamp=code_range(output.bits),
                )
            case AvgPool():
                return _avg_pool(op, self.tensors[op.inputs[0]], self._output(op))
            case Pad():
                output = self._output(op)
                return QPad(
                    name=op.name,
                    inputs=op.inputs,
                    output=output,
                    padding=op.padding,
                    affine=self._rescaling(op, output),
                    clamp=code_range(output.bits),
                )
            case Reshape():
                return self._reshape(op)
            case Softmax():
                source = self.tensors[op.inputs[0]]
                table = softmax_table(source.scale).astype(np.uint16)
                output = _tensor(op.shape, SOFTMAX_OUTPUT)
                return QSoftmax(name=op.name, inputs=op.inputs, output=output, table=table)
            case Argmax():
                return QArgmax(name=op.name, inputs=op.inputs, output=_tensor(op.shape, ARGMAX_OUTPUT))
            case BatchNorm():
                raise ModelError(f"{op.name}: a batch norm of its own cannot be lowered; fuse the graph first")
            case _:
                assert_never(op)

    def _output(self, op: FloatOp) -> QTensor:
        if op.name not in self.decided:
            raise ModelError(f"{op.name}: no quantization parameters; every stored tensor needs them")
        return _tensor(op.shape, _checked(op.name, self.decided[op.name]))

    def _rescaling(self, op: FloatOp, output: QTensor) -> Affine:
        return _affine(op.name, (self.tensors[op.inputs[0]],), output)

    def _reshape(self, op: Reshape) -> QReshape:
        """A reshape keeps its input's codes; where its own parameters differ, a rescaling goes before it."""
        source = self.tensors[op.inputs[0]]
        same = QuantParams(source.bits, source.scale, source.zero_point)
        params = same if op.name in self.wide else self.decided.get(op.name, same)
        inputs = op.inputs
        if params != same:
            output = _tensor(source.shape, _checked(op.name, params))
            inputs = (f"{op.name}.rescale",)
            self.emit(
                QRescale(
                    name=inputs[0],
                    inputs=op.inputs,
                    output=output,
                    affine=_affine(op.name, (source,), output),
                    clamp=code_range(output.bits),
                )
            )
        return QReshape(name=op.name, inputs=inputs, output=_tensor(op.shape, params))

    def _conv(self, op: Conv2d) -> QConv2d:
        source, weights = self.tensors[op.inputs[0]], self.weights.get(op.name)
        if weights is None:
            raise ModelError(f"{op.name}: no quantized weights; every convolution needs them")
        channels = len(op.weight)
        codes, zero_point = _weight_codes(op, weights)
        unit = _per_channel(op.name, "gain", weights.gain, channels) * source.scale
        unit = unit * _per_channel(op.name, "weight scale", weights.scale, channels)
        if op.name in self.wide:
            scale = float(np.abs(unit).max()) or 1.0
            output = _tensor(op.shape, _checked(op.name, QuantParams(32, scale, 0)))
        else:
            output = self._output(op)
        clamp = _codes(op.clamp, output)
        bias = _per_channel(op.name, "bias", weights.bias, channels)
        target = QuantParams(output.bits, output.scale, output.zero_point)
        origin = QuantParams(source.bits, source.scale, source.zero_point)
        result = requantization(Channels(op.name, codes, zero_point, unit, bias, origin, target, clamp))
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
        )


def _tensor(shape: Shape, params: QuantParams) -> QTensor:
    return QTensor(shape, params.bits, params.scale, params.zero_point)


def _checked(name: str, params: QuantParams) -> QuantParams:
    if params.bits not in (8, 4, 2, 32):
        raise ModelError(f"{name}: activations of {params.bits} bits; 8, 4 and 2 are allowed")
    if not (math.isfinite(params.scale) and params.scale > 0):
        raise ModelError(f"{name}: scale {params.scale}; it must be finite and above 0")
    lo, hi = code_range(params.bits)
    if not lo <= params.zero_point <= hi:
        raise ModelError(f"{name}: zero point {params.zero_point} is outside {lo}..{hi}")
    return params


def _codes(clamp: Clamp, output: QTensor) -> tuple[int, int]:
    """The code range, narrowed by the codes of a real clamp."""
    lo, hi = code_range(output.bits)

    def code(bound: float) -> int:
        real = min(max(bound / output.scale + output.zero_point, lo - 1.0), hi + 1.0)
        return min(max(math.floor(real + 0.5), lo), hi)

    low, high = clamp
    return lo if low is None else code(low), hi if high is None else code(high)


def _affine(name: str, sources: tuple[QTensor, ...], output: QTensor) -> Affine:
    for source in sources:
        if source.bits == 32:
            raise ModelError(f"{name}: reads a 32-bit tensor; only argmax and reshape can")
    try:
        return affine(
            tuple(s.scale for s in sources),
            tuple(s.zero_point for s in sources),
            tuple(s.bits for s in sources),
            output.scale,
            output.zero_point,
        )
    except ValueError as error:
        raise ModelError(f"{name}: {error}") from error


def _input(op: Input, decided: QuantParams | None) -> QInput:
    """Raw pixels p become codes p - 128; the normalization is the tensor's scale and zero point."""
    if op.normalization is None:
        if decided is None:
            raise ModelError(f"{op.name}: the input has neither a normalization nor quantization parameters")
        return QInput(name=op.name, inputs=(), output=_tensor(op.shape, _checked(op.name, decided)))
    params = _checked(op.name, QuantParams(8, op.normalization.scale, op.normalization.zero_point - 128))
    if decided is not None and not (
        (decided.bits, decided.zero_point) == (params.bits, params.zero_point)
        and math.isclose(decided.scale, params.scale, rel_tol=1e-6)
    ):
        raise ModelError(f"{op.name}: quantized as {decided}, but raw pixels with its normalization are {params}")
    return QInput(name=op.name, inputs=(), output=_tensor(op.shape, params), encoding="uint8")


def _avg_pool(op: AvgPool, source: QTensor, output: QTensor) -> QAvgPool:
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
        clamp=code_range(output.bits),
    )


def _weight_codes(op: Conv2d, weights: WeightQuant) -> tuple[np.ndarray, np.ndarray]:
    """(codes int64 [O, kh, kw, I/groups], zero points int64 [O]), checked against the layer and the bits."""
    if weights.bits not in (8, 4, 2):
        raise ModelError(f"{op.name}: weights of {weights.bits} bits; 8, 4 and 2 are allowed")
    if weights.codes.shape != op.weight.shape:
        raise ModelError(f"{op.name}: weight codes {weights.codes.shape}, the layer's weights are {op.weight.shape}")
    lo, hi = weight_range(weights.bits)
    codes = weights.codes.astype(np.int64)
    zero_point = _per_channel(op.name, "weight zero point", weights.zero_point, len(codes)).astype(np.int64)
    for what, values in (("codes", codes), ("zero points", zero_point)):
        if values.size and (values.min() < lo or values.max() > hi):
            found = f"{values.min()}..{values.max()}"
            raise ModelError(f"{op.name}: weight {what} {found} are outside {lo}..{hi} ({weights.bits} bits)")
    return codes, zero_point


def _per_channel(name: str, what: str, values: object, channels: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if array.size not in (1, channels):
        raise ModelError(f"{name}: {array.size} entries of {what} for {channels} output channels; 1 or {channels}")
    return np.broadcast_to(array, (channels,))
