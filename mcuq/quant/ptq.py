"""Post-training quantization: a float graph and a few unlabelled images become a quantized graph.

The network is walked once, all images at a time, with the float and the quantized value of every tensor side by
side. Each layer's weights are rounded for the inputs it really gets, its bias then takes up the mean error that
is left, and its output's range is chosen on the float values.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mcuq.errors import DataError, UsageError
from mcuq.ir import graph as ir
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Conv2d, FloatOp, Graph
from mcuq.ir.plans import BitPlan
from mcuq.ir.quantized import ActivationQuant, QuantizedGraph, QuantParams, WeightQuant
from mcuq.ir.samples import Samples, split
from mcuq.ir.scaling import check_scaling
from mcuq.quant.activations import clip
from mcuq.quant.equalize import bounded_peaks, equalize
from mcuq.quant.fixed_norm import fixed_gain_bias
from mcuq.quant.float_model import FloatModel
from mcuq.quant.network import (
    Inputs,
    by_name,
    clamp_of,
    conv2d,
    evaluate,
    fixed_at_eight,
    moves_codes,
    non_negative,
    shares_codes,
)
from mcuq.quant.precision import Precision, with_input_grid
from mcuq.quant.ptq_ranges import GRIDS, RANGE_METHODS, Grid, RangeMethod, activation_params, fake_quantize, sample
from mcuq.quant.ptq_weights import WeightRule, quantize_weights, steps_of_form
from mcuq.quant.widths import WIDTHS, stored_bits, used_codes, width_of

Rounding = Literal["nearest", "feedback"]
SAMPLES = 1 << 17
"""Values per tensor on which its range is chosen."""
PEAK_IMAGES = 64
"""Images on which :func:`equalize` looks for channels that reach an upper bound."""
SOFTMAX, ARGMAX, UNIT = QuantParams(8, 1 / 256, -128), QuantParams(32, 1.0, 0), QuantParams(8, 1 / 128, 0)


@dataclass(frozen=True, slots=True)
class PtqOptions:
    """How :func:`ptq` decides.

    Attributes:
        activations: how ranges of activations are chosen; percentile: share kept by ``percentile``.
        weights: ``mse`` or ``absmax`` per output channel.
        rounding: ``nearest``, or ``feedback`` (``weight_rounding``); it matters below 8 bits.
        grid: ``affine``; ``threshold``: symmetric activations; ``fixed``: powers of two everywhere, one weight
            scale per layer.
        bias_correction, equalize: on or off.
        norms: batch norms ``folded`` into weights, or kept as ``fixed`` point behind them (``fixed_norm``).
        scaling: form of the requantization factors (``mcuq.ir.scaling``); ``fixed<25,3>`` is CHaiDNN's word, 24 bits
            above zero of which 22 are fractional.
        bias_grid: biases on the ``accumulator``'s grid, or rounded to the ``output``'s before.
        images: how many calibration images are used, the first ones; seed: of the sampling inside rounding.
        precision: ranges and bits given per layer; they go before everything else, and set the grid.
    """

    activations: RangeMethod = "mse"
    percentile: float = 0.9999
    weights: Literal["mse", "absmax"] = "mse"
    rounding: Rounding = "feedback"
    grid: Grid = "affine"
    bias_correction: bool = True
    equalize: bool = False
    norms: Literal["folded", "fixed"] = "folded"
    scaling: str = "exact"
    bias_grid: Literal["accumulator", "output"] = "accumulator"
    images: int = 512
    seed: int = 0
    precision: Precision | None = None


def ptq(
    graph: Graph, x_calib: Samples, bits: BitPlan | tuple[int, int], options: PtqOptions | None = None
) -> QuantizedGraph:
    """Quantize ``graph`` without training.

    Args:
        graph: float graph (fused on the way in). x_calib: uint8 pixels (with a normalization in the graph's input)
            or real inputs [N, H, W, C], no labels; of several inputs see ``ir.samples``. bits: a plan, or (weight
            bits, activation bits) for all.

    Raises:
        DataError: the images do not fit. UsageError: unknown bits or options.
    """
    options = options or PtqOptions()
    if options.precision is not None:
        options = replace(options, grid=options.precision.mode)
    _check(bits, options)
    images = {name: part[: options.images] for name, part in split(graph, x_calib).items()}
    if not all(len(part) for part in images.values()):
        raise DataError("calibration needs at least one image, got none")
    with torch.no_grad():
        if options.precision is not None:
            graph, precision = with_input_grid(fuse(graph), options.precision)
            options = replace(options, precision=precision)
        model = FloatModel(graph)
        if options.equalize:
            few = {name: part[:PEAK_IMAGES] for name, part in images.items()}
            equalize(model, bounded_peaks(model, model.inputs(few)))
        walk = _Walk(model, bits, options, torch.Generator().manual_seed(options.seed))
        walk.run(model.inputs(images))
    folded = tuple(_folded(op, model, options) if isinstance(op, Conv2d) else op for op in model.graph)
    quantized = QuantizedGraph(
        Graph(folded, model.graph.outputs),
        tuple(walk.weights),
        tuple(ActivationQuant(name, params) for name, params in walk.params.items()),
    )
    return biases_on_output_grid(quantized) if options.bias_grid == "output" else quantized


def _check(bits: BitPlan | tuple[int, int], options: PtqOptions) -> None:
    widths = (8, 4, 2) if options.grid == "affine" else WIDTHS
    if not isinstance(bits, BitPlan) and (len(bits) != 2 or any(b not in widths for b in bits)):
        more = "" if options.grid == "affine" else " (6 on this grid, too)"
        raise UsageError(f"bits must be 8, 4 or 2{more} for weights and for activations, got {bits}")
    check_scaling(options.scaling)
    if options.norms == "fixed" and isinstance(bits, BitPlan) and any(t.choice < 0 for t in bits.tensors):
        raise UsageError("one step per layer needs batch norms folded into the weights; leave --norms fixed out")
    if options.norms == "fixed" and options.equalize:
        raise UsageError("equalize folds batch norms; it does not go with norms kept as fixed point")
    known = {
        "activations": (options.activations, RANGE_METHODS),
        "weights": (options.weights, ("mse", "absmax")),
        "rounding": (options.rounding, ("nearest", "feedback")),
        "grid": (options.grid, GRIDS),
        "norms": (options.norms, ("folded", "fixed")),
        "bias_grid": (options.bias_grid, ("accumulator", "output")),
    }
    for name, (value, allowed) in known.items():
        if value not in allowed:
            raise UsageError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    if options.images < 1 or not 0.5 < options.percentile <= 1.0:
        raise UsageError(f"images must be at least 1 and percentile in (0.5, 1], got {options}")


def _folded(op: Conv2d, model: FloatModel, options: PtqOptions) -> Conv2d:
    """The layer with the weights that were quantized: batch norm folded in (unless kept), equalized."""
    if options.norms == "fixed":
        return op
    weight = model.weights[op.name].permute(0, 2, 3, 1).double().numpy()
    return replace(op, weight=np.ascontiguousarray(weight), bias=model.biases[op.name].double().numpy(), norm=None)


@dataclass(slots=True)
class _Walk:
    """One pass over the operators; values are dropped after their last reader."""

    model: FloatModel
    bits: BitPlan | tuple[int, int]
    options: PtqOptions
    generator: torch.Generator
    exact: dict[str, Tensor] = field(default_factory=dict)
    stored: dict[str, Tensor] = field(default_factory=dict)
    params: dict[str, QuantParams] = field(default_factory=dict)
    weights: list[WeightQuant] = field(default_factory=list)

    def run(self, x: Inputs) -> None:
        graph = self.model.graph
        readers = Counter(name for op in graph for name in op.inputs)
        positive, fixed, given = non_negative(graph), fixed_at_eight(graph), by_name(graph, x)
        for op in graph:
            meant = given[op.name] if op.name in given else self._meant(op)
            real = clip(meant, clamp_of(op))
            wanted = self._activation_bits(op)
            if op.name in fixed and wanted != 6:
                wanted = 8
            self.params[op.name] = params = self._choose(op, real, wanted, signed=op.name not in positive)
            computed = meant if op.name in given else self._computed(op, meant)
            self.exact[op.name] = real
            final = isinstance(op, ir.Softmax | ir.Argmax)
            self.stored[op.name] = computed if final else fake_quantize(computed, params)
            for name in op.inputs:
                readers[name] -= 1
            for name in (*op.inputs, op.name):
                if readers[name] <= 0:
                    self.exact.pop(name, None)
                    self.stored.pop(name, None)

    def _activation_bits(self, op: FloatOp) -> int:
        if self.options.precision is not None:
            given = self.options.precision.block(op.name).bw_layer_out
            if given is not None:
                return given
        inherited = width_of(self.params[op.inputs[0]]) if shares_codes(op) else None
        if not isinstance(self.bits, BitPlan):
            return self.bits[1] if inherited is None else inherited
        planned = [t.bits for t in self.bits.tensors if t.kind == "activation" and t.layer == op.name]
        return planned[0] if planned else (inherited or 8)

    def _choose(self, op: FloatOp, real: Tensor, bits: int, *, signed: bool) -> QuantParams:
        """Parameters of the tensor that ``op`` writes."""
        match op:
            case ir.Input(normalization=pixels) if pixels is not None:
                return QuantParams(8, pixels.scale, pixels.zero_point - 128)
            case ir.Softmax():
                return SOFTMAX
            case ir.Argmax():
                return ARGMAX
            case ir.L2Normalize():
                return UNIT
            case _:
                pass
        given = None if self.options.precision is None else self.options.precision.activation(op.name, bits)
        if given is not None and not moves_codes(op):
            return given
        if op.inputs and (shares_codes(op) or is_selection(op)) and width_of(self.params[op.inputs[0]]) == bits:
            return self.params[op.inputs[0]]
        options = self.options
        return activation_params(
            sample(real, SAMPLES),
            bits,
            signed=signed,
            method=options.activations,
            grid=options.grid,
            percentile=options.percentile,
        )

    def _meant(self, op: FloatOp) -> Tensor:
        """Float value of ``op``'s output before its clamp."""

        def conv(layer: Conv2d, x: Tensor) -> Tensor:
            weight, bias = self.model.weights[layer.name], self.model.biases[layer.name]
            return conv2d(x, weight, bias, layer.window, layer.groups)

        return evaluate(op, tuple(self.exact[name] for name in op.inputs), conv)

    def _computed(self, op: FloatOp, meant: Tensor) -> Tensor:
        """Value of ``op``'s output from stored inputs and with quantized weights, which are kept."""
        clamp = clamp_of(op)
        inputs = tuple(self.stored[name] for name in op.inputs)
        if not isinstance(op, Conv2d):
            return clip(evaluate(op, inputs, _no_conv), clamp)
        weight, gain, bias = self._parameters(op)
        codes, scale = self._quantize_weights(op, weight, gain)
        gain, scale = gain * torch.sign(scale), scale.abs()
        quantized = (codes * (scale * gain)[:, None, None, None]).float()
        computed = conv2d(inputs[0], quantized, bias.float(), op.window, op.groups)
        if self.options.bias_correction and not is_selection(op):
            shift = (meant.double() - computed.double()).mean(dim=(0, 2, 3))
            bias = bias + shift.float()
            computed = computed + shift.float()[None, :, None, None]
        self.weights.append(_weight_quant(op, codes, self._weight_bits(op), scale, gain, bias, self.options.scaling))
        return clip(computed, clamp)

    def _parameters(self, op: Conv2d) -> tuple[Tensor, Tensor, Tensor]:
        """(weight to quantize, gain [O] behind it, bias [O]): batch norm folded, or kept as fixed point."""
        if op.norm is None or self.options.norms == "folded":
            weight, bias = self.model.weights[op.name], self.model.biases[op.name]
            return weight, torch.ones(len(weight), dtype=torch.float64), bias
        precision = self.options.precision
        fields = {} if precision is None else dict(precision.block(op.name).norm)
        gain, bias = fixed_gain_bias(op, fields)
        weight = torch.from_numpy(np.ascontiguousarray(op.weight.transpose(0, 3, 1, 2))).float()
        return weight, torch.from_numpy(gain), torch.from_numpy(bias)

    def _weight_bits(self, op: Conv2d) -> int:
        given = None if self.options.precision is None else self.options.precision.block(op.name).bw_params
        if given is not None:
            return given
        return self.bits.weight_bits(op.name) if isinstance(self.bits, BitPlan) else self.bits[0]

    def _quantize_weights(self, op: Conv2d, weight: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """(codes, scale [O]), weights [O, I/groups, kh, kw]."""
        bits, options = self._weight_bits(op), self.options
        shared = isinstance(self.bits, BitPlan) and self.bits.steps_per_layer(op.name)
        if is_selection(op):
            return weight, torch.ones(len(weight), dtype=torch.float64)
        found = None if options.precision is None else options.precision.weight_scales(op.name, len(weight), bits)
        given = None if found is None else torch.from_numpy(found)
        if options.scaling != "exact" and given is None and options.grid == "affine":
            ratio = gain.abs() * (self.params[op.inputs[0]].scale / self.params[op.name].scale)
            rows, few = (weight.reshape(1, -1), ratio[:1]) if shared else (weight, ratio)
            given = steps_of_form(rows, bits, few, options.scaling).expand(len(weight))
        least_error = options.weights == "mse" and options.precision is None
        rule = WeightRule(
            bits,
            given,
            power_of_two=options.grid == "fixed",
            least_error=least_error,
            feedback=options.rounding == "feedback" and bits < 8,
            free=least_error and options.grid == "affine" and given is None,
            shared=shared,
        )
        source = op.inputs[0]
        return quantize_weights(op, weight, rule, self.exact[source], self.stored[source], self.generator)


def _weight_quant(
    op: Conv2d, codes: Tensor, bits: int, scale: Tensor, gain: Tensor, bias: Tensor, scaling: str
) -> WeightQuant:
    return WeightQuant(
        op.name,
        np.ascontiguousarray(codes.permute(0, 2, 3, 1).numpy().astype(np.int8)),
        stored_bits(bits),
        scale.numpy().astype(np.float64),
        np.zeros(len(codes), dtype=np.int64),
        gain.double().numpy(),
        bias.double().numpy(),
        scaling,
    )


def biases_on_output_grid(q: QuantizedGraph) -> QuantizedGraph:
    """``q`` with every bias a whole number of output codes, as CHaiDNN's threshold mode stores them.

    mcuq rounds biases to the much finer grid of the accumulator; this is for comparison and import.
    """
    weights: list[WeightQuant] = []
    for weight in q.weights:
        params = q.params(weight.layer)
        low, high = (code - params.zero_point for code in used_codes(params))
        codes = np.clip(np.floor(weight.bias / params.scale + 0.5), low, high)
        weights.append(replace(weight, bias=codes * params.scale))
    return replace(q, weights=tuple(weights))


def is_selection(op: FloatOp) -> bool:
    """A convolution that only picks elements: weights of 0 and 1, at most one 1 per output, nothing added."""
    if not isinstance(op, Conv2d) or op.norm is not None or op.clamp != ir.NO_CLAMP:
        return False
    if op.bias is not None and np.any(op.bias != 0):
        return False
    ones = (op.weight == 1.0).reshape(len(op.weight), -1).sum(axis=1)
    return bool(np.all((op.weight == 0.0) | (op.weight == 1.0)) and np.all(ones <= 1))


def _no_conv(op: Conv2d, x: Tensor) -> Tensor:
    raise AssertionError(f"{op.name} is evaluated with its own weights")
