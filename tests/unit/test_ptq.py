"""Post-training quantization: ranges, rounding, bias correction, equalization, and whole networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcuq.errors import DataError, UsageError  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.ir.graph import Conv2d, Graph, Window  # noqa: E402
from mcuq.ir.integer import QConv2d  # noqa: E402
from mcuq.ir.plans import BitPlan, Limits, TensorBits  # noqa: E402
from mcuq.ir.quantized import QuantizedGraph  # noqa: E402
from mcuq.lower.lower import lower  # noqa: E402
from mcuq.numerics import dequantize, quantize  # noqa: E402
from mcuq.quant import weight_rounding  # noqa: E402
from mcuq.quant.equalize import bounded_peaks, equalize  # noqa: E402
from mcuq.quant.float_model import FloatModel  # noqa: E402
from mcuq.quant.ptq import PtqOptions, is_selection, ptq  # noqa: E402
from mcuq.quant.ptq_ranges import GRIDS, RANGE_METHODS, activation_params, kl_threshold  # noqa: E402
from mcuq.reference import floating, integer  # noqa: E402
from tests.builders import RELU, RELU6, Net  # noqa: E402

torch.set_num_threads(1)


def values(*parts: Any) -> Any:
    return torch.from_numpy(np.concatenate([np.ravel(p) for p in parts]))


def network(seed: int = 0) -> Graph:
    """A residual network with depthwise, strided, selecting and fully connected layers."""
    net = Net((10, 10, 3), seed)
    pad = (1, 1, 1, 1)
    net.conv("a", "x", 8, padding=pad, norm=True, clamp=RELU)
    net.conv("b", "a", 8, padding=pad, groups=8, clamp=RELU)
    net.conv("c", "b", 8, (1, 1))
    net.add("d", "c", "a", RELU)
    net.max_pool("e", "d", Window((2, 2), (2, 2)))
    net.conv("f", "e", 12, padding=(0, 0, 1, 1), stride=(2, 2), clamp=RELU6)
    net.avg_pool("g", "f")
    net.conv("h", "g", 5, (1, 1))
    return fuse(net.graph())


def images(count: int = 64) -> Any:
    noise = np.random.default_rng(11).normal(0, 1, (count, 12, 12, 3))
    return noise[:, 1:-1, 1:-1] + noise[:, :-2, 1:-1] + 0.5 * noise[:, 1:-1, 2:]  # neighbours correlate


def quality(graph: Graph, q: QuantizedGraph, x: Any) -> float:
    """Signal to quantization noise of the integer network's scores, in dB."""
    lowered = lower(q)
    tensor = lowered.input.output
    codes = quantize(x, tensor.scale, tensor.zero_point, tensor.bits)
    output = lowered.tensor(lowered.outputs[0])
    actual = dequantize(integer.run(lowered, codes)[lowered.outputs[0]], output.scale, output.zero_point)
    wanted = floating.run(graph, x)[graph.outputs[0]]
    wanted_power = np.var(wanted - wanted.mean(axis=0))
    return float(10 * np.log10(wanted_power / np.square(actual - wanted).mean()))


def test_threshold_grid() -> None:
    """The largest code stands for the threshold, both ways: q(th) = 127, q(-th) = -127."""
    params = activation_params(values([-3.0, 0.5, 6.35]), 8, signed=True, method="absmax", grid="threshold")
    assert params.zero_point == 0 and params.scale == pytest.approx(6.35 / 127)
    codes = quantize(np.array([6.35, -6.35, 100.0]), params.scale, params.zero_point, 8)
    assert codes.tolist() == [127, -127, 127]


def test_dynamic_fixed_point_grid() -> None:
    """Eight bits with five after the point hold -4 .. 3.96875 and saturate at both ends."""
    params = activation_params(values([-3.9, 0.1, 3.9]), 8, signed=True, method="absmax", grid="fixed")
    assert (params.scale, params.zero_point) == (2.0**-5, 0)
    codes = quantize(np.array([-4.0, -9.0, 3.96875, 9.0, 0.03125]), params.scale, params.zero_point, 8)
    assert codes.tolist() == [-128, -128, 127, 127, 1]


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", RANGE_METHODS)
@pytest.mark.parametrize("signed", [True, False])
def test_zero_is_a_code_on_every_grid(bits: int, grid: Any, method: Any, signed: bool) -> None:
    x = np.random.default_rng(11).normal(0.3, 1, 5000)
    params = activation_params(values(x if signed else np.abs(x)), bits, signed=signed, method=method, grid=grid)
    code = quantize(np.zeros(1), params.scale, params.zero_point, bits)
    assert dequantize(code, params.scale, params.zero_point) == 0.0
    assert grid != "fixed" or np.log2(params.scale) == round(np.log2(params.scale))


@pytest.mark.parametrize("method", ["percentile", "mse", "kl"])
def test_outliers_are_clipped(method: Any) -> None:
    """One value a hundred times larger than all others does not set the range of 4-bit codes."""
    x = values(np.abs(np.random.default_rng(11).normal(0, 1, 50_000)), [100.0])
    clipped = activation_params(x, 4, signed=False, method=method)
    assert clipped.scale * 15 < 20
    assert activation_params(x, 4, signed=False, method="absmax").scale * 15 == pytest.approx(100.0)


def test_constant_tensors_get_a_usable_scale() -> None:
    for method in RANGE_METHODS:
        for grid in GRIDS:
            assert activation_params(values(np.zeros(100)), 8, signed=True, method=method, grid=grid).scale > 0


def test_divergence_keeps_uniform_values_whole() -> None:
    assert kl_threshold(np.random.default_rng(11).uniform(0, 2, 100_000), 127) > 1.9


def layer(groups: int = 1) -> tuple[Conv2d, Any, Any]:
    net = Net((6, 6, 4), 3)
    net.conv("c", "x", 8, groups=groups, bias=False)
    op = net.graph().op("c")
    assert isinstance(op, Conv2d)
    weight = torch.from_numpy(op.weight.transpose(0, 3, 1, 2).copy()).reshape(groups, 8 // groups, -1)
    x = torch.from_numpy(images(200)[:, :6, :6].repeat(2, axis=3)[..., :4].copy()).permute(0, 3, 1, 2)
    return op, weight, x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_patches_times_weights_are_the_layer(groups: int) -> None:
    op, weight, x = layer(groups)
    rows = weight_rounding.patches(op, x[:3], torch.Generator().manual_seed(0))
    product = (rows @ weight.transpose(1, 2)).permute(1, 0, 2).reshape(3, 4, 4, 8)
    expected = floating.evaluate(op, (x[:3].permute(0, 2, 3, 1).numpy(),))
    np.testing.assert_allclose(product.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("groups", [1, 4])
def test_feedback_rounding_leaves_less_output_error(groups: int) -> None:
    op, weight, x = layer(groups)
    rows = weight_rounding.patches(op, x, torch.Generator().manual_seed(0))
    steps = weight.abs().amax(2) / 7
    nearest = torch.floor(weight / steps[:, :, None] + 0.5).clamp(-8, 7)
    chosen = weight_rounding.round_with_feedback(weight, steps, weight_rounding.correlations(rows), 4)
    assert chosen.min() >= -8 and chosen.max() <= 7 and torch.equal(chosen, chosen.round())

    def error(codes: Any) -> float:
        return float((rows @ (codes * steps[:, :, None] - weight).transpose(1, 2)).square().mean())

    assert error(chosen) < (0.6 if groups == 1 else 0.85) * error(nearest)


@pytest.mark.parametrize(("groups", "bits"), [(1, 4), (4, 4), (1, 2), (4, 2)])
def test_refinement_leaves_less_output_error(groups: int, bits: int) -> None:
    op, weight, x = layer(groups)
    correlation = weight_rounding.correlations(weight_rounding.patches(op, x, torch.Generator().manual_seed(0)))
    steps = weight.abs().amax(2) / ((1 << (bits - 1)) - 0.5)
    codes = weight_rounding.round_with_feedback(weight, steps, correlation, bits)
    before = weight_rounding.output_error(weight, codes, steps, correlation)
    for refit, least in ((False, 1.0), (True, 0.97)):
        moved, fitted = weight_rounding.refine(weight, codes, steps, correlation, bits, refit=refit)
        after = weight_rounding.output_error(weight, moved, fitted, correlation)
        assert torch.all(after <= before * (1 + 1e-9)) and after.sum() < least * before.sum()
        assert moved.min() >= -(1 << (bits - 1)) and moved.max() < 1 << (bits - 1)
        assert refit or torch.equal(fitted, steps)


def test_channels_of_opposite_sign_use_the_longer_side() -> None:
    """Weights of 2 bits reach -2 .. 1: a channel with one large positive weight gets a negative multiplier."""
    net = Net((4, 4, 1), 0)
    weight = np.array([[[2.0, -1.0], [1.0, 0.0]], [[-2.0, 1.0], [-1.0, 0.0]]])[..., None]
    net.add_op(Conv2d, "c", "x", weight=weight, window=Window((2, 2)))
    x = np.random.default_rng(0).normal(0, 1, (64, 4, 4, 1))
    q = ptq(net.graph(), x, (2, 8))
    assert q.weight("c").gain.tolist() == [-1.0, 1.0] and np.all(q.weight("c").scale > 0)
    np.testing.assert_allclose(q.weight("c").codes[:, :, :, 0].astype(int)[0], [[-2, 1], [-1, 0]])
    assert quality(net.graph(), q, x) > 35
    assert any(m < 0 for m in lower(q).ops[1].multiplier)  # type: ignore[union-attr]


def test_compensation_answers_input_errors() -> None:
    op, weight, x = layer()
    meant = weight_rounding.patches(op, x, torch.Generator().manual_seed(0))
    seen = 0.9 * meant
    moved = weight_rounding.compensate(weight, seen, meant)
    before, after = (
        (seen @ w.transpose(1, 2) - meant @ weight.transpose(1, 2)).square().mean() for w in (weight, moved)
    )
    assert after < 0.2 * before
    torch.testing.assert_close(weight_rounding.compensate(weight, meant, meant), weight)


def test_equalization_keeps_the_function_and_balances() -> None:
    x = torch.from_numpy(images(8)).permute(0, 3, 1, 2).float()
    net = Net((10, 10, 3), 5)
    net.conv("a", "x", 8, norm=True, clamp=RELU)
    net.max_pool("p", "a", Window((2, 2), (2, 2)))
    net.conv("b", "p", 8, groups=8, clamp=RELU)
    net.conv("c", "b", 6, (1, 1))
    model = FloatModel(net.graph())
    model.weights["a"] *= torch.logspace(-1, 1, 8)[:, None, None, None]
    before = model.run(x)["c"]
    assert equalize(model) == 2
    torch.testing.assert_close(model.run(x)["c"], before, rtol=1e-3, atol=1e-4)
    written = model.weights["b"].flatten(1).abs().amax(1)
    read = model.weights["c"].transpose(0, 1).flatten(1).abs().amax(1)
    torch.testing.assert_close(written, read, rtol=0.05, atol=0.0)


def test_equalization_through_depthwise_and_relu6() -> None:
    """Channels that reach the bound keep their factor; the network's values on the images stay."""
    x = torch.from_numpy(images(32)).permute(0, 3, 1, 2).float()
    net = Net((10, 10, 3), 5)
    net.conv("a", "x", 8, clamp=RELU6)
    net.conv("b", "a", 8, groups=8, clamp=RELU6)
    net.conv("c", "b", 6, (1, 1))
    model = FloatModel(net.graph())
    model.weights["a"] *= torch.logspace(-1.5, 0.8, 8)[:, None, None, None]
    peaks = bounded_peaks(model, x)
    full = peaks["a"] == 6
    assert 0 < full.sum() < 8
    before, written = model.run(x), model.weights["a"].clone()
    assert equalize(model) == 0, "without peaks nothing is known about the bound"
    assert equalize(model, peaks) == 2
    after = model.run(x)
    torch.testing.assert_close(after["c"], before["c"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.weights["a"][full], written[full])
    spread = [w.flatten(1).abs().amax(1)[~full] for w in (written, model.weights["a"])]
    assert spread[1].max() / spread[1].min() < 0.3 * spread[0].max() / spread[0].min()


@pytest.mark.parametrize("method", RANGE_METHODS)
def test_eight_bits_are_close_to_float(method: Any) -> None:
    graph, x = network(), images(96)
    q = ptq(graph, x[:64], (8, 8), PtqOptions(activations=method))
    assert quality(graph, q, x[64:]) > 21


@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_works(grid: Any) -> None:
    graph, x = network(), images(96)
    q = ptq(graph, x[:64], (8, 8), PtqOptions(grid=grid))
    assert quality(graph, q, x[64:]) > (15 if grid == "fixed" else 21)
    if grid == "fixed":
        scales = np.concatenate([w.scale for w in q.weights] + [[a.params.scale] for a in q.activations])
        np.testing.assert_array_equal(np.log2(scales), np.round(np.log2(scales)))
        assert all(len(set(w.scale.tolist())) == 1 for w in q.weights)


def test_four_bit_weights_gain_from_feedback() -> None:
    """On the mean of random networks; single ones may lose a little."""
    gains: list[float] = []
    for seed in range(6):
        graph, x = network(seed), images(400)
        results = [ptq(graph, x[:300], (4, 8), PtqOptions(rounding=r)) for r in ("nearest", "feedback")]
        nearest, feedback = (quality(graph, q, x[300:]) for q in results)
        gains.append(feedback - nearest)
    assert np.mean(gains) > 0.3, gains


def test_bias_correction_removes_mean_errors() -> None:
    graph, x = network(), images(64)
    off = ptq(graph, x, (2, 8), PtqOptions(rounding="nearest", bias_correction=False))
    on = ptq(graph, x, (2, 8), PtqOptions(rounding="nearest"))

    def mean_error(q: QuantizedGraph) -> float:
        lowered = lower(q)
        t, o = lowered.input.output, lowered.tensor(lowered.outputs[0])
        codes = quantize(x, t.scale, t.zero_point, 8)
        actual = dequantize(integer.run(lowered, codes)[lowered.outputs[0]], o.scale, o.zero_point)
        return float(np.abs((actual - floating.run(graph, x)[graph.outputs[0]]).mean(axis=0)).max())

    assert mean_error(on) < 0.3 * mean_error(off)


def test_a_plan_sets_every_tensor() -> None:
    graph = network()
    weight_bits = {"a": 8, "b": 4, "c": 2, "f": 4, "h": 8}
    activation_bits = {"x": 8, "a": 4, "b": 2, "c": 8, "d": 4, "e": 4, "f": 8, "g": 8, "h": 8}
    tensors = [TensorBits(f"{n}.weight", n, "weight", b, 0) for n, b in weight_bits.items()]
    tensors += [TensorBits(n, n, "activation", b, 0) for n, b in activation_bits.items()]
    plan = BitPlan(tuple(tensors), "OPTIMAL", 0.0, 0.0, 0, 0, Limits(0, 0), "test")
    q = ptq(graph, images(32), plan)
    assert {w.layer: w.bits for w in q.weights} == weight_bits
    assert {a.tensor: a.params.bits for a in q.activations} == activation_bits
    assert q.params("d") == q.params("e")
    lower(q)


def test_selections_stay_exact() -> None:
    net = Net((6, 6, 4))
    net.conv("a", "x", 4, clamp=RELU)
    net.add_op(Conv2d, "s", "a", weight=np.eye(4)[[3, 1]].reshape(2, 1, 1, 4), window=Window((1, 1), (2, 2)))
    graph = net.graph()
    assert is_selection(graph.op("s")) and not is_selection(graph.op("a"))
    q = ptq(graph, images(16)[:, :6, :6].repeat(2, axis=3)[..., :4], (4, 8), PtqOptions())
    assert q.params("s").scale == q.params("a").scale or "s" in q.graph.outputs
    np.testing.assert_array_equal(q.weight("s").codes, graph.op("s").weight)  # type: ignore[union-attr]


def test_same_input_gives_same_codes() -> None:
    graph, x = network(), images(48)
    first, second = (ptq(graph, x, (4, 4)) for _ in range(2))
    assert first.activations == second.activations
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_array_equal(a.bias, b.bias)


def test_wrong_arguments() -> None:
    graph, x = network(), images(4)
    with pytest.raises(UsageError, match="bits must be 8, 4 or 2"):
        ptq(graph, x, (6, 8))
    with pytest.raises(UsageError, match="activations must be one of absmax, percentile, mse, kl"):
        ptq(graph, x, (8, 8), PtqOptions(activations="best"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at least one image"):
        ptq(graph, x[:0], (8, 8))
    with pytest.raises(DataError, match="the network takes"):
        ptq(graph, x[:, :5], (8, 8))


@pytest.mark.parametrize("rounding", ["feedback", "nearest"])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_one_step_for_a_layer(bits: int, rounding: str) -> None:
    """The layers that a plan gives one step have one scale and one multiplier; those it does not, one per channel."""
    graph, x, layers = network(), images(), {"a", "b", "h"}

    def plan(one: set[str]) -> BitPlan:
        tensors = [
            TensorBits(f"{op.name}.weight", op.name, "weight", bits, 0, "layer" if op.name in one else "channel")
            for op in graph.convs
        ]
        return BitPlan(tuple(tensors), "FEASIBLE", 0.0, 0.0, 0, 0, Limits(0, 0), "test")

    options = PtqOptions(rounding=rounding)  # type: ignore[arg-type]
    q = ptq(graph, x, plan(layers), options)
    lowered = {op.name: op for op in lower(q).ops if isinstance(op, QConv2d)}
    for weight in q.weights:
        assert (np.unique(weight.scale * weight.gain).size == 1) == (weight.layer in layers)
        assert (lowered[weight.layer].multiplier.size == 1) == (weight.layer in layers)
    fine, coarse = quality(graph, ptq(graph, x, plan(set()), options), x), quality(graph, q, x)
    assert coarse > max(fine - 4, {8: 30, 4: 12, 2: 3}[bits])
    with pytest.raises(UsageError, match="leave --norms fixed out"):
        ptq(graph, x, plan(layers), PtqOptions(norms="fixed"))


@pytest.mark.parametrize("form", ["fixed16", "single-shift"])
def test_one_step_for_a_layer_follows_the_form_of_factors(form: str) -> None:
    graph, x = network(), images()
    tensors = tuple(TensorBits(f"{op.name}.weight", op.name, "weight", 8, 0, "layer") for op in graph.convs)
    plan = BitPlan(tensors, "FEASIBLE", 0.0, 0.0, 0, 0, Limits(0, 0), "test")
    q = ptq(graph, x, plan, PtqOptions(scaling=form))
    for op in lower(q):
        if isinstance(op, QConv2d):
            assert op.multiplier.size == 1
            assert form != "single-shift" or int(op.multiplier[0]).bit_count() == 1
    assert quality(graph, q, x) > 20
