"""CHaiDNN's two modes of quantization without training: grids, widths, words, batch norms, files, checks of layers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcuq.errors import ModelError, UsageError  # noqa: E402
from mcuq.frontend.operators import ROWS, UNSUPPORTED  # noqa: E402
from mcuq.frontend.torch import capture  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.ir.graph import Conv2d, Graph, Norm, Normalization  # noqa: E402
from mcuq.ir.integer import IntegerGraph, QAdd, QConv2d  # noqa: E402
from mcuq.ir.quantized import QuantizedGraph  # noqa: E402
from mcuq.lower.lower import lower  # noqa: E402
from mcuq.numerics import quantize, requantize  # noqa: E402
from mcuq.quant.fixed_norm import NORM_FIELDS, fixed_gain_bias, to_fixed  # noqa: E402
from mcuq.quant.precision import LayerPrecision, Precision, precision_of, uniform  # noqa: E402
from mcuq.quant.precision_file import load_precision, precision_text, save_precision  # noqa: E402
from mcuq.quant.precision_prototxt import LAYERS, load_prototxt, prototxt_text  # noqa: E402
from mcuq.quant.ptq import PtqOptions, ptq  # noqa: E402
from mcuq.quant.ptq_ranges import activation_params  # noqa: E402
from mcuq.quant.ptq_weights import weight_fl  # noqa: E402
from mcuq.reference import floating, integer  # noqa: E402
from mcuq.reference.threshold_words import (  # noqa: E402
    FRACTION,
    SCALING,
    average_word,
    requantization_word,
    requantize_shift,
    requantize_word,
)
from tests.builders import RELU, Net  # noqa: E402
from tests.unit.test_ptq import images, network, quality, values  # noqa: E402


@pytest.mark.parametrize(("bits", "top"), [(8, 127), (6, 31)])
def test_c1_threshold_mode(bits: int, top: int) -> None:
    """sf = th / (2^(bw-1) - 1), symmetric; q(th) = 127 (31), q(-th) = -127 (-31)."""
    threshold = 6.35
    params = activation_params(values([-3.0, threshold]), bits, signed=True, method="absmax", grid="threshold")
    assert params.scale == pytest.approx(threshold / top) and params.zero_point == 0 and params.bits == 8
    codes = quantize(np.array([threshold, -threshold]), params.scale, 0, 8)
    assert codes.tolist() == [top, -top]


def test_c2_weight_thresholds_per_channel() -> None:
    """Missing ones are the largest magnitude per filter; a list has one value per channel."""
    graph, x = network(), images(8)
    q = ptq(graph, x, (8, 8), PtqOptions(precision=Precision("threshold", ())))
    for op in q.graph.convs:
        largest = np.abs(op.weight).reshape(len(op.weight), -1).max(axis=1)
        np.testing.assert_allclose(q.weight(op.name).scale * 127, largest, rtol=1e-6)
        assert np.abs(q.weight(op.name).codes.reshape(len(op.weight), -1)).max(axis=1).tolist() == [127] * len(largest)
    given = tuple(np.linspace(0.1, 0.4, 8))
    block = Precision("threshold", (LayerPrecision("a", bw_params=6, params=given),))
    np.testing.assert_allclose(ptq(graph, x, (8, 8), PtqOptions(precision=block)).weight("a").scale * 31, given)
    short = Precision("threshold", (LayerPrecision("a", params=given[:3]),))
    with pytest.raises(UsageError, match="a has 8 output channels, its precision block 3 thresholds"):
        ptq(graph, x, (8, 8), PtqOptions(precision=short))


def test_c3_dynamic_fixed_point() -> None:
    """fl = 5 in 8 bits covers -4 .. 3.96875; fl may be negative or exceed the width; ties go up on mcuq's grid."""
    five = Precision("fixed", (LayerPrecision("x", layer_out=5.0),)).activation("x", 8)
    assert five is not None and five.scale == 2.0**-5
    codes = quantize(np.array([-4.0, -9.0, 3.96875, 9.0, 1.5 / 32, -1.5 / 32]), five.scale, five.zero_point, 8)
    assert codes.tolist() == [-128, -128, 127, 127, 2, -1]  # half up; half away from zero would be -2
    for fl in (-3.0, 12.0):
        params = Precision("fixed", (LayerPrecision("x", layer_out=fl),)).activation("x", 8)
        assert params is not None and params.scale == 2.0**-fl
    graph = network()
    blocks = uniform(graph, "fixed", (8, 8, 8), (12, 14, -3))
    q = ptq(graph, images(8), (8, 8), PtqOptions(precision=blocks))
    assert q.params("x").scale == 2.0**-12 and q.params("a").scale == 8.0
    assert requantize_shift(np.array([5, -5, 6, -6]), 2, -128, 127).tolist() == [1, -1, 2, -2]


@pytest.mark.parametrize("mode", ["threshold", "fixed"])
def test_c4_six_bits_saturate(mode: Any) -> None:
    """6-bit codes lie in -32 .. 31 in tensors of 8 bits: network, oracle and layers without clamp of their own."""
    net = Net((6, 6, 3), 4)
    net.conv("a", "x", 6, padding=(1, 1, 1, 1))
    net.conv("b", "x", 6, padding=(1, 1, 1, 1), clamp=RELU)
    net.concat("c", "a", "b")
    net.avg_pool("d", "c")
    net.conv("e", "d", 4, (1, 1))
    graph, x = fuse(net.graph()), images(32)[:, :6, :6]
    tight = uniform(graph, mode, (6, 6, 6), (4, 5, 4) if mode == "fixed" else None)
    q = ptq(graph, x, (8, 8), PtqOptions(precision=tight, activations="mse"))
    lowered = lower(q)
    tensor = lowered.input.output
    found = integer.run(lowered, np.clip(quantize(5 * x, tensor.scale, 0, 8), -32, 31))
    extremes = [(int(codes.min()), int(codes.max())) for codes in found.values()]
    assert all(low >= -32 and high <= 31 for low, high in extremes)
    assert (-32, 31) in extremes, "nothing saturated: the test shows nothing"
    assert all(w.bits == 8 and w.codes.min() >= -32 and w.codes.max() <= 31 for w in q.weights)


def test_c4_other_widths_are_rejected(tmp_path: Path) -> None:
    graph, x = network(), images(4)
    with pytest.raises(UsageError, match=r"bits must be 8, 4 or 2 \(6 on this grid, too\)"):
        ptq(graph, x, (7, 8), PtqOptions(grid="threshold"))
    path = tmp_path / "deploy.prototxt"
    for wrong in (4, 7, 16):
        path.write_text(f'layer {{ name: "a" precision_param {{ quant_type: "Xilinx" bw_params: {wrong} }} }}')
        with pytest.raises(ModelError, match=f"bw_params of a is {wrong}; 8 and 6 bits can be stored"):
            load_prototxt(path)


def test_c6_producer_and_consumer_thresholds() -> None:
    graph = network()
    q = ptq(graph, images(16), (8, 8), PtqOptions(grid="threshold"))
    own = precision_of(q, "threshold")
    assert all("d: its inputs have different ranges" in text for text in own.warnings(graph))
    by_name = {b.layer: b for b in own.layers}
    for op in graph.ops[1:]:
        assert op.name == "d" or by_name[op.name].layer_in == by_name[op.inputs[0]].layer_out
    edited = tuple(replace(b, layer_in=9.0) if b.layer == "b" else b for b in own.layers)
    text = next(t for t in Precision("threshold", edited).warnings(graph) if t.startswith("b"))
    assert "b reads a with range 9.0" in text and "a drop in accuracy may be observed" in text


def every_field() -> LayerPrecision:
    norm = tuple((name, 12 if name.endswith("bw") else 5) for name in NORM_FIELDS)
    return LayerPrecision("a", 8, 3.0, 6, -2.0, 8, (7.0,), norm)


def test_c8_every_field_is_read_back(tmp_path: Path) -> None:
    """All of precision_param: bw, fl and th of input, output and params, ten fields of BatchNorm and Scale."""
    threshold = LayerPrecision("b", 8, 2.5, 8, 0.1 + 0.2, 6, (0.637, 0.374))
    for precision in (Precision("fixed", (every_field(),)), Precision("threshold", (threshold,))):
        save_precision(precision, tmp_path / "p.json")
        text = (tmp_path / "p.json").read_text()
        assert load_precision(tmp_path / "p.json") == precision and precision_text(precision) == text
        (tmp_path / "p.prototxt").write_text(prototxt_text(precision, network()))
        assert load_prototxt(tmp_path / "p.prototxt").precision == precision
    fields = {*NORM_FIELDS, *(f"{k}_{p}" for k in ("bw", "fl") for p in ("layer_in", "layer_out", "params"))}
    save_precision(Precision("fixed", (every_field(),)), tmp_path / "p.json")
    assert all(f'"{name}"' in (tmp_path / "p.json").read_text() for name in fields)


def test_c9_words_of_24_bits() -> None:
    """The word, its bound, and the device's rounding against half away from zero: only negative halves differ."""
    assert requantization_word(0.5, 0.25, 0.125) == 1 << FRACTION
    with pytest.raises(UsageError, match="it has to be below 4"):
        requantization_word(1.0, 4.0, 1.0)
    assert requantization_word(1.0, 3.9999998, 1.0) == (1 << 24) - 1
    rng = np.random.default_rng(0)
    for word in (1 << 21, 3 << 20, 1, (1 << 24) - 1, *rng.integers(1, 1 << 24, 20).tolist()):
        acc = np.concatenate([np.arange(-3000, 3001), rng.integers(-(1 << 17), 1 << 17, 5000)])
        ours = requantize(acc, word, FRACTION, 0, -128, 127)
        theirs = requantize_word(acc, word, 0, -128, 127)
        exact = [acc_ * word for acc_ in acc.tolist()]
        half = np.array([v < 0 and (v % (1 << FRACTION)) == 1 << (FRACTION - 1) for v in exact])
        inside = (theirs > -128) & (theirs < 127)
        np.testing.assert_array_equal(ours[~half], theirs[~half])
        np.testing.assert_array_equal((ours - theirs)[half & inside], 1)
    assert requantize_word(np.array([-1]), 1 << 21, 0, -128, 127).tolist() == [-1]
    assert requantize(np.array([-1]), 1 << 21, FRACTION, 0, -128, 127).tolist() == [0]
    assert [average_word(n) for n in (4, 9, 49)] == [16384, 7282, 1337]


def with_words() -> tuple[QuantizedGraph, IntegerGraph]:
    q = ptq(network(), images(32), (8, 8), PtqOptions(grid="threshold", scaling=SCALING))
    return q, lower(q)


def test_c9_the_device_multiplies_by_words() -> None:
    q, lowered = with_words()
    for op in lowered:
        if not isinstance(op, QConv2d):
            continue
        scales = q.weight(op.name).scale
        ratio = lowered.tensor(op.inputs[0]).scale / op.output.scale
        words = [requantization_word(float(s), ratio, 1.0) for s in scales]
        multiplier = np.broadcast_to(op.multiplier, len(words)).astype(object)
        shift = np.broadcast_to(op.shift, len(words))
        np.testing.assert_array_equal([int(m) << FRACTION for m in multiplier], [
            word << int(s) for word, s in zip(words, shift, strict=True)
        ])  # fmt: skip


def test_c10_bias_grids() -> None:
    """A bias in output codes is off by up to half a code, one on the accumulator's grid by next to nothing."""
    graph, x = network(), images(128)
    options = PtqOptions(grid="threshold", bias_correction=False)
    fine = ptq(graph, x[:64], (8, 8), options)
    coarse = ptq(graph, x[:64], (8, 8), replace(options, bias_grid="output"))
    for ours, theirs in zip(fine.weights, coarse.weights, strict=True):
        step = coarse.params(ours.layer).scale
        codes = theirs.bias / step
        np.testing.assert_allclose(codes, np.round(codes), atol=1e-9)
        assert np.abs(theirs.bias - np.clip(ours.bias, -128 * step, 127 * step)).max() <= step / 2 + 1e-9
    assert quality(graph, fine, x[64:]) > quality(graph, coarse, x[64:]) + 0.5


def normed(seed: int = 7) -> Graph:
    net = Net((8, 8, 3), seed)
    net.conv("a", "x", 6, padding=(1, 1, 1, 1), norm=True, clamp=RELU)
    net.conv("b", "a", 6, (1, 1), clamp=RELU)
    net.batch_norm("scale", "b")
    net.conv("c", "scale", 4, (1, 1), norm=True)
    net.avg_pool("d", "c")
    return fuse(net.graph())


def test_c11_batch_norm_as_fixed_point() -> None:
    """gamma_by_std, mean and beta rounded to bw and fl; a scale without batch norm has mean 0 and variance 1."""
    graph, x = normed(), images(96)[:, :8, :8]
    options = PtqOptions(grid="fixed", norms="fixed", bias_correction=False)
    wide = ptq(graph, x[:64], (8, 8), options)
    assert quality(graph, wide, x[64:]) > 12
    norm = (("scale_gamma_by_std_bw", 6), ("scale_gamma_by_std_fl", 4), ("scale_beta_bw", 8), ("scale_beta_fl", 3))
    given = Precision("fixed", (LayerPrecision("a", norm=norm),))
    op = graph.op("a")
    assert isinstance(op, Conv2d) and op.norm is not None
    exact, _ = op.norm.gain_bias()
    weight = ptq(graph, x[:64], (8, 8), replace(options, precision=given)).weight("a")
    wanted = np.clip(np.floor(exact * 16 + 0.5), -32, 31) / 16
    np.testing.assert_array_equal(weight.gain, wanted)
    mean = to_fixed(op.norm.mean, 16, 15 - int(np.ceil(np.log2(np.abs(op.norm.mean).max()))))
    beta = np.clip(np.floor(op.norm.beta * 8 + 0.5), -128, 127) / 8
    bias = np.zeros(6) if op.bias is None else op.bias
    np.testing.assert_allclose(weight.bias, (bias - mean) * wanted + beta, atol=1e-12)
    alone = Norm(np.array([0.5, -2.0]), np.array([1.0, 0.25]), np.zeros(2), np.ones(2), 0.0)
    layer = Conv2d(name="s", inputs=("x",), shape=(1, 1, 2), weight=np.ones((2, 1, 1, 1)), groups=2, norm=alone)
    gain, offset = fixed_gain_bias(layer, {})
    assert gain.tolist() == [0.5, -2.0] and offset.tolist() == [1.0, 0.25]


def test_c12_fused_weights_get_their_own_range() -> None:
    """fl = bw - (1 | 2 | ceil(log2 max) + 1); thresholds are the largest magnitudes of the fused filters."""
    for largest, integer_bits in ((0.3, 1), (0.999, 1), (1.0, 2), (1.5, 2), (2.0, 2), (3.0, 3), (5.0, 4)):
        assert weight_fl(largest, 8) == 8 - integer_bits and weight_fl(largest, 6) == 6 - integer_bits
    graph, x = normed(), images(16)[:, :8, :8]
    fixed = ptq(graph, x, (8, 8), PtqOptions(grid="fixed", weights="absmax"))
    threshold = ptq(graph, x, (8, 8), PtqOptions(grid="threshold", weights="absmax"))
    for name in ("a", "c"):
        op = graph.op(name)
        assert isinstance(op, Conv2d) and op.norm is not None
        fused = op.weight * op.norm.gain_bias()[0][:, None, None, None]
        largest = np.abs(fused).reshape(len(fused), -1).max(axis=1)
        assert set(fixed.weight(name).scale.tolist()) == {2.0 ** -weight_fl(float(np.float32(largest.max())), 8)}
        np.testing.assert_allclose(threshold.weight(name).scale * 127, largest, rtol=1e-6)


@pytest.mark.parametrize("mode", ["Xilinx", "DynamicFixed"])
def test_c13_layers_that_need_precision(tmp_path: Path, mode: str) -> None:
    """22 layer types; a block that lacks and one that nothing reads are told by layer."""
    assert len(LAYERS) == 22
    at = 0 if mode == "Xilinx" else 1
    block = f'precision_param {{ quant_type: "{mode}" bw_layer_in: 8 bw_layer_out: 8 }}'
    for kind, needs in LAYERS.items():
        path = tmp_path / f"{kind}.prototxt"
        path.write_text(
            f'layer {{ name: "with" type: "{kind}" {block} }}\nlayer {{ name: "without" type: "{kind}" }}\n'
        )
        messages = load_prototxt(path).messages
        assert any(m.startswith("without: ") and "needs a precision_param" in m for m in messages) == bool(needs[at])
        assert any(m.startswith("with: ") and "no precision" in m for m in messages) == (needs[at] is False)
    yes = {kind for kind, needs in LAYERS.items() if needs[at]}
    both = {"Convolution", "BatchNorm", "Scale", "Pooling", "Permute", "Eltwise", "DepthwiseConvolution"}
    assert both <= yes and yes - both == (set() if at else {"Concat", "ReLU", "Deconvolution", "Normalize", "Input"})


def test_c14_eltwise_ranges() -> None:
    """Equal ranges add saturating integers; different ones are warned about and rescaled."""
    net = Net((4, 4, 3), 2)
    net.conv("a", "x", 4)
    net.conv("b", "x", 4)
    net.add("s", "a", "b")
    graph, x = fuse(net.graph()), images(8)[:, :4, :4]
    equal = uniform(graph, "fixed", (8, 8, 8), (4, 6, 5))
    assert equal.warnings(graph) == ()
    lowered = lower(ptq(graph, x, (8, 8), PtqOptions(precision=equal)))
    op = lowered.op("s")
    assert isinstance(op, QAdd)
    left, right = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    tensors = tuple(lowered.tensor(name) for name in op.inputs)
    added = integer.evaluate(op, (left, right), tensors)
    np.testing.assert_array_equal(added, np.clip(left + right, -128, 127))
    blocks = tuple(replace(b, layer_out=7.0) if b.layer == "b" else b for b in equal.layers)
    different = Precision("fixed", blocks)
    texts = different.warnings(graph)
    assert any(t.startswith("s: its inputs have different ranges (a 5.0, b 7.0)") for t in texts)
    op = lower(ptq(graph, x, (8, 8), PtqOptions(precision=different))).op("s")
    assert isinstance(op, QAdd) and op.affine.multipliers[0] == 4 * op.affine.multipliers[1]


def test_c15_every_layer_is_read_or_listed_as_unsupported() -> None:
    """CHaiDNN's layers by the operator of ONNX that says the same, or by their words in the table of what stays out."""
    read = {name for row in ROWS for name in row.onnx}
    found = {
        "depthwise": "Conv", "dilated": "Conv", "deconvolution": "ConvTranspose", "concat": "Concat",
        "permute": "Transpose", "crop": "Slice", "L2-norm": "LpNormalization", "softmax": "Softmax",
        "argmax": "ArgMax", "flatten": "Flatten", "reshape": "Reshape", "power": "Pow", "dropout": "Dropout",
        "CReLU": "Neg",
    }  # fmt: skip
    assert set(found.values()) - {"ConvTranspose"} <= read, sorted(set(found.values()) - read)
    listed = " ".join(what for what, _ in UNSUPPORTED)
    assert "prior boxes" in listed and "non-maximum suppression" in listed


def test_c15_crelu_is_exact_on_the_device_grid() -> None:
    """concat(relu(x), relu(-x)) after a convolution: each half from the same codes."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 5, 3)

        def forward(self, x: Any) -> Any:
            x = self.conv(x)
            return torch.relu(torch.cat([x, -x], 1))

    torch.manual_seed(1)
    net, x = Net().eval(), images(24)
    graph = fuse(capture(net, (10, 10, 3)).graph)
    q = ptq(graph, x, (8, 8), PtqOptions(precision=uniform(graph, "fixed", (8, 8, 8), (5, 7, 5))))
    lowered = lower(q)
    tensor = lowered.input.output
    codes = integer.run(lowered, quantize(x, tensor.scale, tensor.zero_point, 8))[lowered.outputs[0]]
    real = net(torch.from_numpy(x).float().permute(0, 3, 1, 2)).detach().permute(0, 2, 3, 1).numpy()
    output = lowered.tensor(lowered.outputs[0])
    error = output.scale * (codes - output.zero_point) - np.clip(real, 0, 127 / 32)
    assert codes.shape[3] == 10 and np.sqrt(np.square(error).mean()) <= 2 * output.scale
    assert not np.any((codes[..., :5] > 0) & (codes[..., 5:] > 0)), "of x and -x one is zero"


def test_c16_precision_of_other_layers_is_warned_about() -> None:
    net = Net((4, 4, 3), 2)
    net.conv("a", "x", 4, (4, 4))
    net.softmax("p", "a")
    found = Precision("threshold", (LayerPrecision("p", layer_out=1.0), LayerPrecision("q"))).warnings(net.graph())
    assert found == (
        "p: a Softmax has no precision of its own; it is not used",
        "q: the network has no such layer; its precision is not used",
    )


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no host compiler: install gcc")
@pytest.mark.parametrize("bits", [pytest.param(8, marks=pytest.mark.slow), 6])
def test_c17_simulator_equals_device(bits: int) -> None:
    """Not one byte of any tensor differs between oracle and compiled C, in threshold mode with 24-bit words."""
    from mcuq.parity import compare
    from mcuq.plan.memory import plan_memory

    graph, x = network(), images(32)
    precision = uniform(graph, "threshold", (bits, bits, bits))
    lowered = lower(ptq(graph, x, (8, 8), PtqOptions(precision=precision, scaling=SCALING)))
    codes = np.random.default_rng(0).integers(-128 if bits == 8 else -32, 128 if bits == 8 else 32, (4, 10, 10, 3))
    result = compare(lowered, plan_memory(lowered, "portable", effort=1.0), None, codes)
    assert result.exact and result.mismatching_bytes == 0, result.first


def test_pixels_get_a_copy_on_the_input_grid() -> None:
    """Pixels keep their own codes; a block for the input inserts the copy, and the file names it as the input."""
    net = Net((6, 6, 2), 1, normalization=Normalization(1 / 64, 128))
    net.conv("a", "x", 4, clamp=RELU)
    graph = fuse(net.graph())
    pixels = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 2)).astype(np.uint8)
    q = ptq(graph, pixels, (8, 8), PtqOptions(precision=uniform(graph, "fixed", (6, 6, 6), (4, 5, 4))))
    found = integer.run(lower(q), pixels)
    wanted = np.clip(np.floor((pixels.astype(float) - 128) / 64 * 16 + 0.5), -32, 31)
    np.testing.assert_array_equal(found["x.grid"], wanted)
    own = precision_of(q, "fixed", uniform(graph, "fixed", (6, 6, 6)))
    assert own.block("x").layer_out == 4.0 and own.block("x").bw_layer_out == 6 and own.block("a").bw_params == 6
    assert {b.layer for b in own.layers} == {"x", "a"}
    again = ptq(graph, pixels, (8, 8), PtqOptions(precision=own))
    for ours, theirs in zip(q.weights, again.weights, strict=True):
        np.testing.assert_array_equal(ours.codes, theirs.codes)
    assert q.activations == again.activations


def test_float_model_agrees_with_six_bits() -> None:
    graph, x = network(), images(96)
    q = ptq(graph, x[:64], (6, 6), PtqOptions(grid="threshold"))
    assert quality(graph, q, x[64:]) > 12
    assert floating.run(graph, x[:1])[graph.outputs[0]].shape == (1, 1, 1, 5)
