"""Lowered networks against the float simulation of their quantization."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import RELU, RELU6, Net
from quantizers import assert_rounded, quantize_graph, real_output, simulate

from mcuq.errors import ModelError, OverflowProofError
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph, Normalization, Window
from mcuq.ir.integer import QAvgPool, QConv2d, QInput, QMaxPool, QRescale, QReshape
from mcuq.ir.quantized import ActivationQuant, QuantizedGraph, QuantParams
from mcuq.lower import lower
from mcuq.numerics import quantize, requantize
from mcuq.reference.floating import run as run_float
from mcuq.reference.integer import evaluate, run, run_outputs


def residual_net(seed: int, normalization: Normalization | None = None) -> Graph:
    """Every operator a device has: plain, strided, depthwise, grouped, dilated, pools, add, concat, pad."""
    net = Net((12, 12, 3), seed, normalization)
    net.conv("stem", "x", 8, stride=(2, 2), padding=(0, 0, 1, 1), bias=False)
    net.batch_norm("stem_bn", "stem")
    net.clip("stem_relu", "stem_bn", RELU6)
    net.conv("dw", "stem_relu", 8, groups=8, padding=(1, 1, 1, 1), norm=True, clamp=RELU)
    net.conv("pw", "dw", 8, (1, 1))
    net.add("sum", "pw", "stem_relu", RELU)
    net.max_pool("max", "sum", Window((3, 3), (1, 1), (1, 1, 1, 1)))
    net.avg_pool("avg", "sum", Window((3, 3), (1, 1), (1, 1, 1, 1)))
    net.conv("grouped", "sum", 6, groups=2, padding=(2, 2, 2, 2), dilation=(2, 2))
    net.concat("cat", "max", "avg", "grouped")
    net.clip("band", "cat", (-1.0, 1.5))
    net.pad("pad", "band", (1, 0, 0, 1))
    net.avg_pool("include", "pad", Window((3, 3), (2, 2), (1, 1, 1, 1)), include=True)
    net.avg_pool("global", "include")
    net.reshape("flat", "global", (1, 1, 22))
    net.conv("fc", "flat", 5, (1, 1))
    return fuse(net.graph())


def images(seed: int, count: int, shape: tuple[int, ...] = (12, 12, 3)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *shape))


def codes(q: QuantizedGraph, x: np.ndarray) -> np.ndarray:
    p = q.params("x")
    return quantize(x, p.scale, p.zero_point, p.bits)


@pytest.mark.parametrize("icn", [False, True])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_every_tensor_follows_the_simulation(icn: bool, asymmetric: bool, per_channel: bool) -> None:
    graph, x = residual_net(3), images(4, 20)
    q = quantize_graph(graph, x, icn=icn, asymmetric=asymmetric, per_channel=per_channel)
    integer, simulated = run(lower(q), codes(q, x)), simulate(q, x)
    different = {}
    for op in graph:
        p = q.params(op.name)
        distance = np.abs(integer[op.name] - quantize(simulated[op.name], p.scale, p.zero_point, p.bits))
        assert distance.max() <= 2, op.name
        different[op.name] = float(np.mean(distance > 0))
    assert different["stem"] < 0.002, different  # only ties and the rounding of the bias
    assert max(different.values()) < 0.1, different


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("weight_bits", [8, 4, 2])
def test_each_operator_alone_matches_its_definition(bits: int, weight_bits: int) -> None:
    """Fed the simulation's own codes, an operator differs only where the real value is next to a tie."""
    graph, x = residual_net(5), images(6, 10)
    q = quantize_graph(graph, x, weight_bits=weight_bits, activation_bits=bits, icn=True)
    integer = lower(q)
    simulated = simulate(q, x)
    grids = {op.name: q.params(op.name) for op in graph}
    stored = {n: quantize(simulated[n], p.scale, p.zero_point, p.bits) for n, p in grids.items()}
    for op in integer.ops[1:]:
        tensors = tuple(integer.tensor(n) for n in op.inputs)
        found = evaluate(op, tuple(stored[n] for n in op.inputs), tensors)
        real = real_output(q, graph.op(op.name), tuple(simulated[n] for n in op.inputs))
        assert_rounded(found, real, grids[op.name], op.name)


def test_argmax_equals_the_simulation_at_8_bits() -> None:
    disagreements = 0
    for seed in range(10):
        graph, x = residual_net(seed), images(seed + 100, 50)
        q = quantize_graph(graph, x, icn=bool(seed % 2))
        simulated = simulate(q, x)["fc"].reshape(50, -1)
        found = run_outputs(lower(q), codes(q, x))["fc"].reshape(50, -1)
        ties = np.sort(simulated, axis=1)
        clear = ties[:, -1] - ties[:, -2] > 1.5 * q.params("fc").scale
        disagreements += int(np.sum(simulated.argmax(axis=1)[clear] != found.argmax(axis=1)[clear]))
    assert disagreements == 0


def test_integer_network_follows_the_float_network() -> None:
    graph, x = residual_net(7), images(8, 40)
    q = quantize_graph(graph, x)
    p = q.params("fc")
    found = (run_outputs(lower(q), codes(q, x))["fc"] - p.zero_point) * p.scale
    wanted = run_float(graph, x)["fc"]
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.999


def test_raw_pixels_start_from_pixel_minus_128() -> None:
    graph = residual_net(9, Normalization(1 / 64, 120))
    pixels = np.random.default_rng(10).integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
    real = (pixels.astype(np.float64) - 120) / 64
    q = quantize_graph(graph, real)
    integer = lower(q)
    assert isinstance(integer.input, QInput)
    assert integer.input.encoding == "uint8"
    assert (integer.input.output.scale, integer.input.output.zero_point) == (1 / 64, -8)
    values = run(integer, pixels)
    np.testing.assert_array_equal(values["x"], pixels.astype(np.int64) - 128)
    p = q.params("stem")
    wanted = quantize(simulate(q, real)["stem"], p.scale, p.zero_point, 8)
    assert np.abs(values["stem"] - wanted).max() <= 1


def test_pixels_and_a_different_input_grid_are_refused() -> None:
    graph = residual_net(9, Normalization(1 / 64, 120))
    q = quantize_graph(graph, images(1, 4))
    wrong = [replace(a, params=QuantParams(8, 0.1, 0)) if a.tensor == "x" else a for a in q.activations]
    with pytest.raises(ModelError, match=r"x: quantized as .* raw pixels"):
        lower(replace(q, activations=tuple(wrong)))


def test_wide_logits_have_one_scale_and_the_exact_accumulators_order() -> None:
    graph, x = residual_net(11), images(12, 30)
    q = quantize_graph(graph, x)
    narrow, wide = lower(q), lower(q, logits_bits=32)
    fc = wide.op("fc")
    assert isinstance(fc, QConv2d)
    assert (fc.output.bits, fc.output.zero_point, fc.clamp) == (32, 0, (-(2**31), 2**31 - 1))
    w = q.weight("fc")
    assert fc.output.scale == pytest.approx(float((w.scale * q.params("flat").scale).max()))
    logits = run_outputs(wide, codes(q, x))["fc"]
    before = run(narrow, codes(q, x))["flat"]
    p = q.params("flat")
    real = (before[:, 0, 0] - p.zero_point) * p.scale @ (w.scale[:, None] * w.codes[:, 0, 0].astype(float)).T + w.bias
    np.testing.assert_allclose(logits[:, 0, 0] * fc.output.scale, real, atol=1.01 * fc.output.scale)


def test_wide_logits_pass_reshape_and_argmax_but_no_other_reader() -> None:
    net = Net((4, 4, 2), 1)
    net.conv("fc", "x", 6, (4, 4))
    net.reshape("flat", "fc", (1, 1, 6))
    net.argmax("best", "flat")
    x = images(1, 9, (4, 4, 2))
    q = quantize_graph(net.graph(), x)
    values = run(lower(q, logits_bits=32), codes(q, x))
    np.testing.assert_array_equal(values["best"][:, 0, 0, 0], values["flat"][:, 0, 0].argmax(axis=1))
    assert lower(q, logits_bits=32).tensor("flat").bits == 32
    net.softmax("chances", "flat")
    q = quantize_graph(net.graph("best", "chances"), x)
    assert lower(q, logits_bits=32).tensor("fc").bits == 8


def test_softmax_and_argmax() -> None:
    net = Net((1, 1, 4), 2)
    net.conv("fc", "x", 6, (1, 1))
    net.softmax("chances", "fc")
    net.argmax("best", "fc")
    x = images(3, 50, (1, 1, 4))
    q = quantize_graph(net.graph("chances", "best"), x)
    values, simulated = run(lower(q), codes(q, x)), simulate(q, x)
    np.testing.assert_allclose((values["chances"] + 128) / 256, simulated["chances"], atol=0.006)
    p = q.params("fc")
    grid = quantize(simulated["fc"], p.scale, p.zero_point, 8)
    agree = np.all(values["fc"] == grid, axis=(1, 2, 3))
    assert agree.mean() > 0.9
    np.testing.assert_array_equal(values["best"][agree, 0, 0, 0], grid[agree, 0, 0].argmax(axis=1))


def test_same_grid_needs_no_rescaling() -> None:
    net = Net((4, 4, 2), 1)
    net.max_pool("max", "x", Window((2, 2), (2, 2)))
    net.reshape("flat", "max", (1, 1, 8))
    q = quantize_graph(net.graph(), images(1, 3, (4, 4, 2)))
    shared = [replace(a, params=q.params("x")) for a in q.activations]
    integer = lower(replace(q, activations=tuple(shared)))
    pool = integer.op("max")
    assert isinstance(pool, QMaxPool) and pool.affine.is_identity
    assert [type(op) for op in integer] == [QInput, QMaxPool, QReshape]


def test_a_reshape_with_another_grid_is_rescaled_first() -> None:
    net = Net((4, 4, 2), 1)
    net.reshape("flat", "x", (1, 1, 32))
    x = images(1, 3, (4, 4, 2))
    q = quantize_graph(net.graph(), x)
    other = QuantParams(4, 0.5, 7)
    changed = [ActivationQuant("flat", other) if a.tensor == "flat" else a for a in q.activations]
    integer = lower(replace(q, activations=tuple(changed)))
    assert [(op.name, type(op)) for op in integer][1:] == [("flat.rescale", QRescale), ("flat", QReshape)]
    p = q.params("x")
    real = (codes(q, x) - p.zero_point) * p.scale
    found = run(integer, codes(q, x))["flat"]
    wanted = quantize(real, 0.5, 7, 4).reshape(3, 1, 1, 32)
    assert np.mean(found != wanted) < 0.02 and np.abs(found - wanted).max() <= 1


def test_average_pool_tables() -> None:
    net = Net((4, 4, 1), 1)
    net.avg_pool("edge", "x", Window((3, 3), (1, 1), (1, 1, 1, 1)))
    net.avg_pool("counted", "x", Window((3, 3), (1, 1), (1, 1, 1, 1)), include=True)
    net.avg_pool("global", "x")
    q = quantize_graph(net.graph("edge", "counted", "global"), images(1, 3, (4, 4, 1)))
    integer = lower(q)
    sizes = {op.name: op.multiplier.size for op in integer if isinstance(op, QAvgPool)}
    assert sizes == {"edge": 9, "counted": 1, "global": 1}
    edge = integer.op("edge")
    assert isinstance(edge, QAvgPool)
    factors = edge.multiplier / 2.0**edge.shift * np.arange(1, 10)
    np.testing.assert_allclose(factors, q.params("x").scale / q.params("edge").scale, rtol=1e-8)


def test_clamp_codes_are_the_quantized_bounds() -> None:
    net = Net((1, 1, 2), 1)
    for name, clamp in (("relu", RELU), ("six", RELU6), ("band", (-0.5, 0.25)), ("above", (100.0, 200.0))):
        net.conv(name, "x", 2, (1, 1), clamp=clamp)
    graph = net.graph("relu", "six", "band", "above")
    q = quantize_graph(graph, images(1, 3, (1, 1, 2)))
    params = QuantParams(8, 0.1, -20)
    q = replace(q, activations=tuple(replace(a, params=params) if a.tensor != "x" else a for a in q.activations))
    clamps = {op.name: op.clamp for op in lower(q) if isinstance(op, QConv2d)}
    assert clamps == {"relu": (-20, 127), "six": (-20, 40), "band": (-25, -17), "above": (127, 127)}


def one_conv(
    gain: list[float], bias: list[float], weights: list[list[int]], *, per_layer: bool = False, scale: float = 0.05
) -> tuple[QuantizedGraph, Graph]:
    """A 1x1 convolution of 2 inputs with the given gains, biases and weight codes."""
    net = Net((1, 1, 2), 1)
    net.conv("conv", "x", len(gain), (1, 1))
    q = quantize_graph(net.graph(), images(1, 3, (1, 1, 2)), per_channel=not per_layer)
    w = replace(
        q.weights[0],
        codes=np.array(weights, dtype=np.int8).reshape(-1, 1, 1, 2),
        scale=np.array([0.01]),
        zero_point=np.array([0]),
        gain=np.array(gain),
        bias=np.array(bias),
    )
    params = (ActivationQuant("x", QuantParams(8, 0.02, 3)), ActivationQuant("conv", QuantParams(8, scale, -7)))
    return QuantizedGraph(q.graph, (w,), params), q.graph


def extremes() -> np.ndarray:
    grid = np.array([-128, -1, 3, 127])
    return np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 1, 1, 2)


def test_negative_gain_gives_a_negative_multiplier() -> None:
    q, _ = one_conv([-2.0, 3.0], [0.1, 0.2], [[50, -20], [50, -20]])
    conv = lower(q).op("conv")
    assert isinstance(conv, QConv2d)
    assert conv.multiplier[0] < 0 < conv.multiplier[1]
    x = extremes()
    found = run(lower(q), x)["conv"]
    p = q.params("conv")
    np.testing.assert_array_equal(found, quantize(simulate(q, (x - 3) * 0.02)["conv"], p.scale, p.zero_point, 8))


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("bias", [0.0, 0.024, -0.024, 0.026, 1.0, 1000.0, -1000.0, 1e30, -1e30])
def test_channels_of_zero_gain_or_zero_weight_are_exactly_constant(bias: float, per_layer: bool) -> None:
    gains = [1.0, 1.0] if per_layer else [0.0, 1.5]
    weights = [[0, 0], [40, -3]] if per_layer else [[90, 90], [40, -3]]
    q, _ = one_conv(gains, [bias, 0.3], weights, per_layer=per_layer)
    found = run(lower(q), extremes())["conv"][..., 0]
    wanted = int(np.clip(np.floor(bias / 0.05 + 0.5) - 7, -128, 127))
    assert set(found.ravel().tolist()) == {wanted}


def test_a_constant_channel_beside_a_factor_above_one() -> None:
    """A shared multiplier of more than 1 skips codes, so the layer gets one per channel."""
    q, _ = one_conv([1.0, 1.0], [7e-5, 0.0], [[0, 0], [1, 0]], per_layer=True, scale=7e-5)
    conv = lower(q).op("conv")
    assert isinstance(conv, QConv2d) and conv.multiplier.size == 2
    assert set(run(lower(q), extremes())["conv"][..., 0].ravel().tolist()) == {1 - 7}


def test_a_vanishing_gain_is_a_constant_channel() -> None:
    q, _ = one_conv([1e-20, 1.0], [0.5, 0.0], [[90, 90], [40, -3]])
    found = run(lower(q), extremes())["conv"][..., 0]
    assert set(found.ravel().tolist()) == {10 - 7}


def test_a_bias_that_saturates_is_the_clamp() -> None:
    q, _ = one_conv([1e-3, 1.0], [1e9, 0.0], [[90, 90], [40, -3]])
    assert set(run(lower(q), extremes())["conv"][..., 0].ravel().tolist()) == {127}


def test_a_gain_too_small_for_its_weights_is_refused() -> None:
    """64 million accumulator steps of bias fit, a hundred times as many do not, and the sum still matters."""
    net = Net((32, 32, 64), 1)
    net.conv("conv", "x", 1, (32, 32))
    q = quantize_graph(net.graph(), images(1, 2, (32, 32, 64)))
    w = replace(
        q.weights[0],
        codes=np.full((1, 32, 32, 64), 120, np.int8),
        scale=np.array([1.0]),
        gain=np.array([1e-9]),
        bias=np.array([5.0]),
    )
    params = (ActivationQuant("x", QuantParams(8, 1.0, 0)), ActivationQuant("conv", QuantParams(8, 0.1, 0)))
    with pytest.raises(OverflowProofError, match=r"conv: channel 0 needs a bias of 5e\+09 accumulator steps"):
        lower(QuantizedGraph(q.graph, (w,), params))


def test_an_accumulator_that_could_overflow_is_refused_by_name() -> None:
    net = Net((40, 40, 90), 1)
    net.conv("wide_sum", "x", 2, (40, 40))
    q = quantize_graph(net.graph(), images(1, 2, (40, 40, 90)))
    codes = np.zeros((2, 40, 40, 90), np.int8)
    codes[1] = 127
    w = replace(q.weights[0], codes=codes, bias=np.zeros(2))
    params = [replace(a, params=QuantParams(8, 0.02, 0)) for a in q.activations]
    bound = 128 * 127 * 40 * 40 * 90
    with pytest.raises(OverflowProofError, match=f"wide_sum: the accumulator of channel 1 may reach {bound}, int32"):
        lower(replace(q, weights=(w,), activations=tuple(params)))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"bits": 5}, "conv: weights of 5 bits; 8, 4 and 2 are allowed"),
        ({"bits": 4}, r"conv: weight codes -?\d+..90 are outside -8..7"),
        ({"scale": np.array([np.nan])}, "conv: gain .* of channel 0 is nan"),
        ({"scale": np.array([1e12])}, "conv: .* too large"),
        ({"bias": np.array([0.0, np.inf])}, "conv: bias of channel 1 is inf"),
        ({"gain": np.ones(3)}, "conv: 3 entries of gain for 2 output channels"),
        ({"codes": np.zeros((2, 1, 1, 3), np.int8)}, r"conv: weight codes \(2, 1, 1, 3\)"),
        ({"zero_point": np.array([200])}, "conv: weight zero points 200..200 are outside"),
        ({"layer": "other"}, "conv: no quantized weights"),
    ],
)
def test_unusable_weights_are_refused(change: dict, text: str) -> None:
    q, _ = one_conv([1.0, 1.0], [0.1, 0.2], [[90, 90], [40, -3]])
    with pytest.raises(ModelError, match=text):
        lower(replace(q, weights=(replace(q.weights[0], **change),)))


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (QuantParams(3, 0.1, 0), "conv: activations of 3 bits"),
        (QuantParams(8, 0.0, 0), "conv: scale 0.0"),
        (QuantParams(8, float("nan"), 0), "conv: scale nan"),
        (QuantParams(4, 0.1, 16), "conv: zero point 16 is outside 0..15"),
        (None, "conv: no quantization parameters"),
    ],
)
def test_unusable_activations_are_refused(params: QuantParams | None, text: str) -> None:
    q, _ = one_conv([1.0, 1.0], [0.1, 0.2], [[90, 90], [40, -3]])
    kept = tuple(a for a in q.activations if a.tensor != "conv")
    added = () if params is None else (ActivationQuant("conv", params),)
    with pytest.raises(ModelError, match=text):
        lower(replace(q, activations=kept + added))


def test_bias_folding_by_hand() -> None:
    """y = Zy + round(factor * (sum x w + B - Zx sum w)), all with Python integers and fractions."""
    q, _ = one_conv([1.0, -0.5], [0.1, 0.2], [[50, -20], [7, 99]])
    conv = lower(q).op("conv")
    assert isinstance(conv, QConv2d)
    for c, (gain, bias, row) in enumerate([(1.0, 0.1, (50, -20)), (-0.5, 0.2, (7, 99))]):
        b = int(np.floor(bias / (gain * 0.02 * 0.01) + 0.5)) - 3 * sum(row)
        assert conv.bias[c] == b
        for x in extremes().reshape(-1, 2).tolist():
            acc = b + x[0] * row[0] + x[1] * row[1]
            wanted = requantize(np.array([acc]), conv.multiplier[c], conv.shift[c], -7, -128, 127)[0]
            assert run(lower(q), np.array(x).reshape(1, 1, 1, 2))["conv"][0, 0, 0, c] == wanted
