"""Restricted requantization factors: their errors, and that the integer operator computes exactly them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from builders import RELU, Net
from quantizers import quantize_graph

from mcuq.errors import UsageError
from mcuq.ir.fuse import fuse
from mcuq.ir.integer import QConv2d
from mcuq.ir.quantized import QuantizedGraph, QuantParams
from mcuq.ir.scaling import restricted
from mcuq.lower import lower
from mcuq.numerics import quantize_multiplier
from mcuq.parity import compare
from mcuq.plan.memory import plan_memory
from mcuq.reference.integer import accumulate, run

FACTORS = np.exp(np.random.default_rng(0).uniform(np.log(1e-5), np.log(0.49), 2000)) * np.tile([1.0, -1.0], 1000)


def conv_net(seed: int = 0) -> QuantizedGraph:
    """Convolution, batch norm with a negative, a zero and a tiny variance channel, ReLU, 8-bit weights."""
    net = Net((6, 6, 3), seed)
    net.conv("conv", "x", 8, padding=(1, 1, 1, 1), norm=True, clamp=RELU)
    net.conv("next", "conv", 4, padding=(1, 1, 1, 1), clamp=RELU)
    graph = fuse(net.graph())
    conv = next(op for op in graph.convs if op.name == "conv")
    assert conv.norm is not None
    conv.norm.gamma[0] *= -1.0
    conv.norm.gamma[1] = 0.0
    conv.norm.variance[2] = 0.0
    x = np.random.default_rng(seed).uniform(0.0, 1.0, size=(8, 6, 6, 3))
    return quantize_graph(graph, x, icn=True)


def with_scaling(q: QuantizedGraph, form: str) -> QuantizedGraph:
    return replace(q, weights=tuple(replace(w, scaling=form) for w in q.weights))


@pytest.mark.parametrize(
    ("form", "bound"),
    [
        ("mantissa16", lambda f: 2.0**-15 + 0 * f),
        ("fixed16", lambda f: 2.0**-17 / f),
        ("fixed32", lambda f: 2.0**-33 / f + 1e-15),
        ("single-shift", lambda f: 1 / 3 + 0 * f),
        ("double-shift", lambda f: 1 / 7 + 0 * f),
        ("fixed<32,10>", lambda f: 2.0**-23 / f),
        ("fixed<16,8>", lambda f: 2.0**-9 / f),
    ],
)
def test_n16_every_form_keeps_its_error_bound_and_is_a_multiplier_of_the_device(form: str, bound) -> None:  # type: ignore[no-untyped-def]
    rounded = restricted(FACTORS, form)
    error = np.abs(rounded / FACTORS - 1.0)
    assert np.all(error <= bound(np.abs(FACTORS)))
    assert error.max() > 0  # it is a restriction
    for factor in rounded[:200].tolist():
        multiplier, shift = quantize_multiplier(factor)
        assert Fraction(multiplier, 1 << shift) == Fraction(factor)
    assert restricted(np.zeros(1), form).tolist() == [0.0]


def test_n16_coarser_forms_make_larger_errors() -> None:
    factors = FACTORS[np.abs(FACTORS) > 1e-3]
    worst = {f: np.abs(restricted(factors, f) / factors - 1).max() for f in ("fixed32", "fixed16", "double-shift")}
    single = np.abs(restricted(factors, "single-shift") / factors - 1).max()
    assert worst["fixed32"] < worst["fixed16"] < worst["double-shift"] < single
    assert single > 0.3 and worst["double-shift"] > 0.13


@pytest.mark.parametrize("form", ["fixed16", "fixed32", "single-shift", "double-shift", "fixed<32,10>", "fixed<16,8>"])
def test_n16_l2_layers_compute_exactly_the_restricted_factor(form: str) -> None:
    """Codes equal floor(acc * factor + 1/2) in exact rationals, and shift forms are what their formulas say."""
    q = with_scaling(conv_net(), form)
    graph = lower(q)
    op = graph.op("conv")
    assert isinstance(op, QConv2d)
    x = np.random.default_rng(5).integers(-128, 128, size=(2, 6, 6, 3))
    values = run(graph, x)
    acc = accumulate(op, values["x"], graph.tensor("x"))
    w, source, target = q.weight("conv"), q.params("x"), q.params("conv")
    factors = restricted(w.gain * w.scale * source.scale / target.scale, form)
    for channel in (0, 1, 3, 4, 5, 6, 7):
        if factors[channel] == 0.0:
            assert len(np.unique(values["conv"][..., channel])) == 1
            continue
        exact = [
            int((Fraction(float(factors[channel])) * int(a) + Fraction(1, 2)).__floor__())
            for a in acc[0, :, :, channel].reshape(-1)
        ]
        expected = np.clip(np.array(exact) + target.zero_point, *op.clamp)
        assert np.array_equal(expected, values["conv"][0, :, :, channel].reshape(-1)), channel


@pytest.mark.parametrize("form", ["exact", "fixed32"])
def test_n15_the_fused_layer_is_scale_bias_and_clip_of_sat_fusion(form: str) -> None:
    """``y = round(clamp(acc + bias, 0, clip) * scale)`` with N2D2's fused parameters gives the integer graph's codes.

    sign(f) goes into the weights there and into the multiplier here; f is gamma / sigma, 0 for a constant channel.
    """
    q = with_scaling(conv_net(), form)
    graph = lower(q)
    x = np.random.default_rng(7).integers(-128, 128, size=(16, 6, 6, 3))
    codes = run(graph, x)["conv"]
    w, source, target = q.weight("conv"), q.params("x"), q.params("conv")
    conv = next(op for op in q.graph.convs if op.name == "conv")
    assert conv.norm is not None
    norm = conv.norm
    f = norm.gamma / np.sqrt(norm.variance + norm.epsilon)
    steps_in, steps_out = 255, 255
    alpha_in, alpha_out = source.scale * steps_in, target.scale * steps_out
    bias = (0.0 if conv.bias is None else conv.bias) - norm.mean
    op = graph.op("conv")
    assert isinstance(op, QConv2d)
    unsigned = replace(op, weight=w.codes, bias=np.zeros_like(op.bias))
    acc = accumulate(unsigned, x - source.zero_point, replace(graph.tensor("x"), zero_point=0))
    for c in np.flatnonzero(f):
        sign, k = np.sign(f[c]), 1.0 / w.scale[c]
        scale = sign * (alpha_in / steps_in) * (steps_out / alpha_out) * f[c] / k
        offset = sign * ((norm.beta[c] + bias[c] * f[c]) / f[c]) * (steps_in / alpha_in) * k
        clip = sign * (alpha_out * steps_in) / (f[c] * alpha_in) * k
        y = np.floor(np.clip(sign * acc[..., c] + offset, 0, clip) * scale + 0.5)
        assert np.abs(y + target.zero_point - codes[..., c]).max() <= 1
        assert np.mean(y + target.zero_point != codes[..., c]) < 0.01  # the bias is a whole accumulator step here


@pytest.mark.parametrize("clip_rounded", [True, False])
@pytest.mark.parametrize("bias_rounded", [True, False])
@pytest.mark.parametrize("weights_rounded", [True, False])
def test_each_rounding_of_sat_fusion(weights_rounded: bool, bias_rounded: bool, clip_rounded: bool) -> None:
    """Whole weights and biases give the integer network's codes, every one; a whole clip changes none of them.

    Weights here are on a grid of odd range (w = k / 15): K = 15 is their exact image, K = floor(15 / 2) rounds again.
    """
    q = conv_net()
    rng = np.random.default_rng(3)
    odd = (2 * rng.integers(-8, 8, q.weight("conv").codes.shape) + 1).astype(np.int8)
    w = replace(q.weight("conv"), codes=odd, scale=np.array([1 / 15]), zero_point=np.zeros(1, np.int64))
    q = replace(q, weights=tuple(w if one.layer == "conv" else one for one in q.weights))
    graph = lower(q)
    op = graph.op("conv")
    assert isinstance(op, QConv2d) and np.array_equal(op.weight[w.gain != 0], odd[w.gain != 0])
    source, target = q.params("x"), q.params("conv")
    x = rng.integers(-128, 128, size=(16, 6, 6, 3))
    codes = run(graph, x)["conv"]
    k = 7 if weights_rounded else 15
    image = np.floor(odd / 15 * k + 0.5).astype(np.int8)
    blank = replace(op, weight=image, bias=np.zeros_like(op.bias), weight_zero_point=np.zeros(1, np.int8))
    acc = accumulate(blank, x - source.zero_point, replace(graph.tensor("x"), zero_point=0))
    rounded = lambda value, yes: np.floor(value + 0.5) if yes else value  # noqa: E731
    different = 0.0
    for c in np.flatnonzero(w.gain):
        factor = w.gain[c] * source.scale / target.scale / k
        offset = rounded(w.bias[c] / (w.gain[c] * source.scale) * k, bias_rounded)
        clip = rounded((op.clamp[1] - target.zero_point) / abs(factor), clip_rounded)
        sign = np.sign(factor)
        y = np.floor(np.clip(sign * (acc[..., c] + offset), 0, clip) * abs(factor) + 0.5) + target.zero_point
        difference = np.abs(y - codes[..., c])
        different = max(different, float(np.mean(difference > 0)))
        assert weights_rounded or difference.max() <= (0 if bias_rounded else 1), c
    assert (different > 0.3) == weights_rounded, "half of the levels are lost there"
    assert weights_rounded or different < 0.02


@pytest.mark.parametrize("form", ["fixed<32,10>", "fixed<16,8>", "single-shift"])
def test_c_computes_batch_norms_kept_as_fixed_point(form: str) -> None:
    """Byte for byte the oracle's codes, which are the exact floor of the fixed-point product."""
    graph = lower(with_scaling(conv_net(), form))
    x = np.random.default_rng(4).integers(-128, 128, size=(6, 6, 6, 3)).astype(np.int8)
    result = compare(graph, plan_memory(graph, "portable"), None, x)
    assert result.exact and result.compared_bytes > 0, result.first


def test_forms_that_do_not_exist_are_refused() -> None:
    for form in ("fixed8", "fixed<8>", "fixed<40,10>", "fixed<8,9>", "float"):
        with pytest.raises(UsageError, match="scaling"):
            restricted(FACTORS, form)


@pytest.mark.parametrize(("bits", "zero", "used"), [(4, 7, (0, 14)), (8, -128, (-128, -98)), (2, 1, (0, 2))])
def test_tensors_can_use_fewer_codes_than_their_bits_hold(bits: int, zero: int, used: tuple[int, int]) -> None:
    q = conv_net()
    limited = tuple(
        replace(a, params=QuantParams(bits, 0.1, zero, used)) if a.tensor == "conv" else a for a in q.activations
    )
    graph = lower(replace(q, activations=limited))
    codes = run(graph, np.random.default_rng(5).integers(-128, 128, size=(8, 6, 6, 3)))["conv"]
    assert codes.min() == zero and codes.max() == used[1]
