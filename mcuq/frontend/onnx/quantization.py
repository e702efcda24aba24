"""QDQ and QOperator nodes: scales and integer weights of quantized ONNX models.

A quantized activation is the same view as the real one; QuantizeLinear only notes its parameters. Unsigned
8-bit codes become int8 (code - 128), signed 4-bit ones unsigned (code + 8), as docs/NUMERICS.md stores them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.frontend.builder import Coded, Constant
from mcuq.frontend.onnx import layers
from mcuq.frontend.onnx.model import bits_of
from mcuq.frontend.onnx.translate import Handler, Handlers, Node, Translator, Value
from mcuq.frontend.views import Refusal, View
from mcuq.ir import graph as ir
from mcuq.ir.graph import Normalization
from mcuq.ir.quantized import QuantParams

_TYPES = {np.dtype(np.int8): (8, True), np.dtype(np.uint8): (8, False)}


def _scales(array: NDArray[Any] | None) -> NDArray[np.float64]:
    """Positive, finite scales. Raises Refusal."""
    if array is None:
        raise Refusal("its scale has to be constant")
    scale = np.asarray(array, dtype=np.float64)
    if not scale.size or not np.isfinite(scale).all() or (scale <= 0).any():
        raise Refusal(f"scales have to be positive and finite, found {scale.min() if scale.size else 'none'}")
    return scale


def _kind(t: Translator, node: Node, position: int, array: NDArray[Any] | None) -> tuple[int, bool]:
    """(bits, signed) of an integer input. Raises Refusal for types other than 8 and 4 bits."""
    names = node.proto.input
    if position < len(names) and names[position] in t.narrow:
        return t.narrow[names[position]]
    if array is None:
        return bits_of(int(node.get("output_dtype", 0))) or (8, False)
    if array.dtype not in _TYPES:
        raise Refusal(f"quantized values of type {array.dtype}; int8, uint8, int4 and uint4 are supported")
    return _TYPES[array.dtype]


def activation_params(t: Translator, node: Node, scale_at: int) -> tuple[QuantParams, bool]:
    """(parameters, signed) of an activation from inputs ``scale_at`` (scale) and the next (zero point)."""
    scale, zero = _scales(node.array(scale_at)), node.array(scale_at + 1)
    bits, signed = _kind(t, node, scale_at + 1, zero)
    if scale.size != 1 or (zero is not None and zero.size != 1):
        raise Refusal("activations need one scale per tensor")
    zero_point = 0 if zero is None else int(np.ravel(zero)[0])
    shift = {(8, True): 0, (8, False): -128, (4, True): 8, (4, False): 0}[bits, signed]
    return QuantParams(bits, float(np.ravel(scale)[0]), zero_point + shift), signed


def coded_constant(t: Translator, node: Node, at: int, scale_at: int, axis: int) -> Constant:
    """Integer weights (input ``at``) with their scale and zero point as a real constant with codes."""
    stored = node.required(at)
    scale, zero = _scales(node.array(scale_at)).ravel(), node.array(scale_at + 1)
    zero = np.zeros(1, dtype=np.int64) if zero is None else zero.astype(np.int64).ravel()
    codes = stored.value.astype(np.int64)
    size = codes.shape[axis] if codes.ndim and -codes.ndim <= axis < codes.ndim else 1
    if scale.size not in (1, size) or zero.size not in (1, scale.size) or node.get("block_size", 0):
        raise Refusal(f"{scale.size} scales for {size} channels; one per tensor or per channel is supported")
    shape = [1] * codes.ndim
    if scale.size > 1:
        shape[axis] = scale.size
        zero = np.broadcast_to(zero, scale.shape)
    real = (codes - zero.reshape(shape if zero.size > 1 else [1] * codes.ndim)) * scale.reshape(shape)
    if stored.value.dtype == np.int32:  # a bias
        return Constant(real, stored.name)
    bits, signed = _kind(t, node, at, stored.value)
    shift = 0 if signed else 1 << (bits - 1)
    coded = Coded(codes - shift, bits, scale, zero - shift, axis % max(1, codes.ndim))
    return Constant(real, stored.name, coded)


def quantize_linear(t: Translator, node: Node) -> Value:
    value = node.inputs[0]
    if isinstance(value, View):
        return t.builder.quantize(value, activation_params(t, node, 1)[0], node.where)
    stored, scale, zero = node.required(0), _scales(node.array(1)), node.array(2)
    bits, signed = _kind(t, node, 2, zero)
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    shape = [1] * stored.value.ndim
    if scale.size > 1:
        shape[int(node.get("axis", 1))] = scale.size
    offset = 0 if zero is None else zero.astype(np.int64).reshape(shape if zero.size > 1 else -1)
    codes = np.clip(np.rint(stored.value / scale.reshape(shape if scale.size > 1 else -1)) + offset, low, high)
    if bits == 4:
        t.narrow[node.proto.output[0]] = (bits, signed)
    return Constant(codes.astype(np.int8 if signed else np.uint8), stored.name)


def dequantize_linear(t: Translator, node: Node) -> Value:
    value = node.inputs[0]
    if isinstance(value, View):
        source = t.builder.ops[value.op]
        if isinstance(source, ir.Input) and value.op not in t.builder.params:
            params, signed = activation_params(t, node, 1)
            if not signed and params.bits == 8:
                pixels = Normalization(params.scale, params.zero_point + 128)
                t.builder.ops[value.op] = replace(source, normalization=pixels)
            return t.builder.quantize(value, params, node.where)
        return value
    return coded_constant(t, node, 0, 1, int(node.get("axis", 1)))


def _layer(t: Translator, node: Node, weight_at: int, axis: int, bias: NDArray[Any] | None) -> Node:
    """A QLinear node as the float layer's node: (activation, weights with codes, bias)."""
    weight = coded_constant(t, node, weight_at, weight_at + 1, axis)
    inputs: list[Value | None] = [node.inputs[0], weight]
    if bias is not None:
        scale = _scales(node.array(1)).ravel() * _scales(node.array(weight_at + 1)).ravel()
        inputs.append(Constant(bias.astype(np.float64).ravel() * scale))
    return replace(node, inputs=inputs)


def qlinear_conv(t: Translator, node: Node) -> View:
    result = layers.conv(t, _layer(t, node, 3, 0, node.array(8)))
    return t.builder.quantize(result, activation_params(t, node, 6)[0], node.where)


def qlinear_matmul(t: Translator, node: Node) -> View:
    result = layers.matmul(t, _layer(t, node, 3, 1, None))
    return t.builder.quantize(result, activation_params(t, node, 6)[0], node.where)


def qgemm(t: Translator, node: Node) -> View:
    result = layers.gemm(t, _layer(t, node, 3, 0 if node.get("transB", 0) else 1, node.array(6)))
    if len(node.inputs) < 8 or node.inputs[7] is None:
        return result
    return t.builder.quantize(result, activation_params(t, node, 7)[0], node.where)


def _plain(t: Translator, node: Node, kind: str, inputs: list[Value | None]) -> Value:
    """The float operator ``kind`` on dequantized inputs. Raises Refusal when there is none."""
    if kind not in t.handlers:
        raise Refusal(f"mcuq has no operator {kind}")
    result = t.handlers[kind](t, replace(node, inputs=inputs))
    assert isinstance(result, View | Constant)
    return result


def _operand(t: Translator, node: Node, at: int) -> Value | None:
    """An input of codes, its scale and zero point behind it; constants become real ones."""
    value = node.inputs[at]
    return Constant(coded_constant(t, node, at, at + 1, 0).value) if isinstance(value, Constant) else value


def _quantized(t: Translator, node: Node, value: Value, at: int) -> Value:
    if not isinstance(value, View):
        raise Refusal("this input has to be an activation, found a constant")
    return t.builder.quantize(value, activation_params(t, node, at)[0], node.where)


def _unary(kind: str) -> Handler:
    """(x, scale, zero point, output scale, output zero point)."""
    return lambda t, node: _quantized(t, node, _plain(t, node, kind, [node.view(0)]), 3)


def _binary(kind: str) -> Handler:
    """(a, scale, zero point, b, scale, zero point, output scale, output zero point)."""

    def handler(t: Translator, node: Node) -> Value:
        return _quantized(t, node, _plain(t, node, kind, [_operand(t, node, 0), _operand(t, node, 3)]), 6)

    return handler


def qlinear_concat(t: Translator, node: Node) -> Value:
    """(output scale, output zero point, then x, scale, zero point of every part)."""
    parts: list[Value | None] = [node.view(at) for at in range(2, len(node.inputs), 3)]
    return _quantized(t, node, _plain(t, node, "Concat", parts), 0)


HANDLERS: Handlers = {
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
}
CONTRIBUTED: Handlers = {
    "QGemm": qgemm,
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearConcat": qlinear_concat,
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearReduceMean": _unary("ReduceMean"),
    "QLinearSoftmax": _unary("Softmax"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
}
"""Operators of the ``com.microsoft`` domain that onnxruntime's quantizer writes."""
