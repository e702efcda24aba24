"""Plain post-training quantization and its float simulation, independent of the product's, for tests of lowering."""

from __future__ import annotations

import numpy as np

from mcuq.ir.graph import Argmax, Conv2d, Copy, FloatOp, Graph, Input, L2Normalize, Resample, Reshape, Softmax
from mcuq.ir.quantized import ActivationQuant, QuantizedGraph, QuantParams, WeightQuant
from mcuq.numerics import code_range, dequantize, quantize, weight_range
from mcuq.reference.floating import evaluate, run


def quantize_graph(
    graph: Graph,
    x: np.ndarray,
    *,
    weight_bits: int = 8,
    activation_bits: int = 8,
    per_channel: bool = True,
    asymmetric: bool = False,
    icn: bool = False,
) -> QuantizedGraph:
    """Min-max ranges of ``x`` for activations, of the values for weights; batch norm folded, or kept with ``icn``."""
    values = run(graph, x)
    weights = tuple(
        _weights(op, weight_bits, per_channel=per_channel, asymmetric=asymmetric, icn=icn) for op in graph.convs
    )
    activations: dict[str, QuantParams] = {}
    for op in graph:
        match op:
            case Input(normalization=pixels) if pixels is not None:
                activations[op.name] = QuantParams(8, pixels.scale, pixels.zero_point - 128)
            case Reshape() | Copy():
                activations[op.name] = activations[op.inputs[0]]
            case Resample() if op.chooses:
                activations[op.name] = activations[op.inputs[0]]
            case L2Normalize():
                activations[op.name] = QuantParams(8, 1 / 128, 0)
            case Softmax() | Argmax():
                pass
            case _:
                activations[op.name] = activation_params(values[op.name], activation_bits)
    return QuantizedGraph(graph, weights, tuple(ActivationQuant(n, p) for n, p in activations.items()))


def activation_params(values: np.ndarray, bits: int) -> QuantParams:
    lo, hi = code_range(bits)
    low, high = min(values.min(), 0.0), max(values.max(), 1e-3)
    scale = float((high - low) / (hi - lo))
    return QuantParams(bits, scale, int(np.clip(np.floor(lo - low / scale + 0.5), lo, hi)))


def _weights(op: Conv2d, bits: int, *, per_channel: bool, asymmetric: bool, icn: bool) -> WeightQuant:
    channels = len(op.weight)
    gain, bias = op.norm.gain_bias() if op.norm else (np.ones(channels), np.zeros(channels))
    bias = bias + (0 if op.bias is None else gain * op.bias)
    real = op.weight if icn else op.weight * gain[:, None, None, None]
    flat = real.reshape(channels, -1) if per_channel else real.reshape(1, -1)
    lo, hi = weight_range(bits)
    if asymmetric:
        low, high = np.minimum(flat.min(axis=1), 0), np.maximum(flat.max(axis=1), 1e-9)
        scale = (high - low) / (hi - lo)
        zero = np.clip(np.floor(lo - low / scale + 0.5), lo, hi)
    else:
        scale, zero = np.maximum(np.abs(flat).max(axis=1), 1e-9) / hi, np.zeros(len(flat))
    spread = (slice(None), None, None, None)
    codes = np.clip(np.floor(real / scale[spread] + 0.5) + zero[spread], lo, hi).astype(np.int8)
    return WeightQuant(op.name, codes, bits, scale, zero.astype(np.int64), gain if icn else np.ones(channels), bias)


def real_output(q: QuantizedGraph, op: FloatOp, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
    """An operator of real inputs with its weights and bias on their grids, before its output is rounded."""
    if not isinstance(op, Conv2d):
        return evaluate(op, inputs)
    w, spread = q.weight(op.name), (slice(None), None, None, None)
    real = w.scale[spread] * (w.codes.astype(np.float64) - w.zero_point[spread])
    plain = Conv2d(name=op.name, inputs=op.inputs, shape=op.shape, weight=real, window=op.window, groups=op.groups)
    unit = w.gain * w.scale * q.params(op.inputs[0]).scale  # biases are whole accumulator steps
    bias = np.where(unit == 0, w.bias, np.floor(w.bias / np.where(unit == 0, 1, unit) + 0.5) * unit)
    y = evaluate(plain, inputs) * w.gain + bias
    return np.clip(y, *op.clamp) if op.clamp != (None, None) else y


def simulate(q: QuantizedGraph, x: np.ndarray) -> dict[str, np.ndarray]:
    """Fake quantization in float64: every tensor rounded to its grid, weights by their codes' values.

    Softmax and argmax stay real; tensors without parameters keep their value.
    """
    decided = {a.tensor: a.params for a in q.activations}
    values: dict[str, np.ndarray] = {}
    for op in q.graph:
        inputs = tuple(values[name] for name in op.inputs)
        y = np.asarray(x, dtype=np.float64) if isinstance(op, Input) else real_output(q, op, inputs)
        p = decided.get(op.name)
        if p is not None and p.bits != 32:
            y = dequantize(quantize(y, p.scale, p.zero_point, p.bits), p.scale, p.zero_point)
        values[op.name] = y
    return values


def assert_rounded(codes: np.ndarray, real: np.ndarray, params: QuantParams, name: str) -> None:
    """``codes`` are the rounded ``real`` values, or their neighbours where those lie within 1/100 code of a tie."""
    wanted = quantize(real, params.scale, params.zero_point, params.bits)
    distance = np.abs(codes - wanted)
    assert distance.max(initial=0) <= 1, name
    place = real[distance > 0] / params.scale + 0.5
    assert np.all(np.abs(place - np.round(place)) < 0.01), name
