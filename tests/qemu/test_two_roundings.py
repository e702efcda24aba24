"""Convolutions that round twice, as TFLite's reference kernels: exact integers, oracle, host C and every core agree."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from bench import Layer as Plain
from bench import convolution_case
from cases import Case
from convolutions import Layer, build
from drivers import HOSTS, PORTABLE, TARGETS, Host, check_on_host, check_on_target, that_fit
from dsp import EXTRA, SOURCES, on_dsp, parameters, sources
from exact import Geometry, convolution_sums, requantize, requantize_twice
from nets import integer_net, samples
from test_dsp import extreme
from test_parity import MACHINES, board_of

from mcuq.errors import CheckError
from mcuq.ir.graph import Window
from mcuq.ir.integer import IntegerGraph, QConv2d, QInput, QTensor
from mcuq.ir.verify import Level, verify
from mcuq.parity import compare
from mcuq.plan.memory import plan_memory
from mcuq.reference import integer
from mcuq.target.kernels_dsp import CORES as DSP_CORES
from mcuq.target.kernels_mve import MVE_CORES

SHIFTS = (20, 31, 32, 33, 34, 38, 45, 55)


def twice_rounded(acc: int, multiplier: int, shift: int) -> int:
    """The product to a multiple of 2^31, half up; then by a power of two, half away from zero."""
    if shift <= 31:
        return (acc * multiplier + (1 << (shift - 1))) >> shift
    high = (acc * multiplier + (1 << 30)) >> 31
    exponent = shift - 31
    magnitude = (abs(high) + (1 << (exponent - 1))) >> exponent
    return magnitude if high >= 0 else -magnitude


def channels_of_all_shifts(multiplier: int) -> IntegerGraph:
    """Every code of an input of one channel, in channels of all shifts; biases put sums on and around ties."""
    source, output = QTensor((16, 16, 1), 8, 0.1, 0), QTensor((16, 16, 3 * len(SHIFTS)), 8, 0.1, 3)
    shift = np.repeat(np.array(SHIFTS, np.uint8), 3)
    halves = np.array([1 << max(0, int(s) - 31) for s in shift], np.int64)
    bias = np.clip(halves * np.tile([-3, 0, 1], len(SHIFTS)), -(2**30), 2**30)
    conv = QConv2d(
        name="y",
        inputs=("x",),
        output=output,
        weight=np.ones((len(shift), 1, 1, 1), np.int8),
        weight_bits=8,
        weight_zero_point=np.zeros(1, np.int8),
        bias=bias.astype(np.int32),
        multiplier=np.full(len(shift), multiplier, np.int32),
        shift=shift,
        window=Window(),
        groups=1,
        clamp=(-128, 127),
        roundings=2,
    )
    return IntegerGraph((QInput(name="x", inputs=(), output=source), conv), ("y",))


@pytest.mark.parametrize("multiplier", [1 << 30, (1 << 31) - 1, 1518500250, -1234567891])
def test_exact_integers(multiplier: int) -> None:
    """2^30 makes every half an exact tie."""
    graph = channels_of_all_shifts(multiplier)
    verify(graph, Level.INTEGER)
    x = np.arange(-128, 128).reshape(1, 16, 16, 1)
    conv = graph.op("y")
    assert isinstance(conv, QConv2d)
    wanted = [
        [min(127, max(-128, 3 + twice_rounded(code + int(b), multiplier, int(s))))
         for b, s in zip(conv.bias, conv.shift, strict=True)]
        for code in x.ravel().tolist()
    ]  # fmt: skip
    np.testing.assert_array_equal(integer.run_outputs(graph, x)["y"].reshape(256, -1), wanted)
    result = compare(graph, plan_memory(graph, "portable"), None, x)
    assert result.exact, result.first


def rounding_twice(weight_bits: int, asymmetric: bool) -> IntegerGraph:
    graph = integer_net(23, weight_bits, 8, asymmetric=asymmetric)
    ops = (
        replace(op, roundings=2) if isinstance(op, QConv2d) and not op.window.transposed and op.output.bits == 8 else op
        for op in graph
    )
    return IntegerGraph(tuple(ops), graph.outputs)


@pytest.mark.parametrize(("weight_bits", "asymmetric"), [(8, False), (4, True)])
def test_networks_on_this_computer(weight_bits: int, asymmetric: bool) -> None:
    graph = rounding_twice(weight_bits, asymmetric)
    result = compare(graph, plan_memory(graph, "portable"), None, samples(graph, 11, 2))
    assert result.exact, result.first


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_networks_on_every_core(machine: str) -> None:
    graph, board = rounding_twice(8, False), board_of(machine)
    assert board is not None
    result = compare(graph, plan_memory(graph, board.core), board, samples(graph, 11, 2))
    assert result.exact, result.first


def test_only_codes_of_eight_bits() -> None:
    graph = integer_net(23, 8, 4)
    ops = tuple(replace(op, roundings=2) if isinstance(op, QConv2d) else op for op in graph)
    with pytest.raises(CheckError, match="roundings"):
        verify(IntegerGraph(ops, graph.outputs), Level.INTEGER)


@cache
def layers(seed: int) -> list[Case]:
    """Layers that round twice: every kernel, ties, sums of both signs, zero points, and bits that stay portable."""
    rng, found = np.random.default_rng(seed), list[Layer]()

    def add(size: tuple[int, int, int], outputs: int, side: tuple[int, int], stride: int, groups: int = 1) -> None:
        number = int(rng.integers(2**31))
        found.append(Layer(size, outputs, side, (stride, stride), (1, 1), groups, "same", 8, 8, 8, number, roundings=2))

    for channels, outputs in itertools.product((1, 3, 4, 6, 16, 33), (1, 2, 5, 8)):
        add((int(rng.integers(1, 4)), int(rng.integers(1, 4)), channels), outputs, (1, 1), 1)
    for channels, stride in itertools.product((3, 4, 5), (1, 2)):
        add((int(rng.integers(3, 7)), int(rng.integers(3, 7)), channels), int(rng.integers(1, 7)), (3, 3), stride)
    add((9, 4, 1), 4, (10, 4), 2)
    for width, stride in itertools.product((1, 2, 3, 7, 13, 15, 29, 31, 61, 63, 83, 120), (1, 2)):
        height = int(rng.integers(1, 3 if width > 15 else 7))
        add((height * stride, width * stride - stride // 2, 3), 3, (3, 3), stride, 3)
    more = [
        replace(layer, input_bits=xb, weight_bits=wb, seed=layer.seed + 1)
        for layer, (xb, wb) in zip(found[::4], itertools.cycle(((4, 8), (8, 4), (2, 2), (8, 2))), strict=False)
    ]
    return [build(layer) for layer in (*found, *more)]


def fast(seed: int, core: str, family: str) -> list[Case]:
    """The layers as the compiler runs them on ``core``, where that is by a kernel of the family."""
    moved = (on_dsp(case, core, (f"_{family}",)) for case in layers(seed))
    return [case for case in moved if case is not None]


@pytest.mark.parametrize(
    "host", [pytest.param(h, id=h.name, marks=() if h is HOSTS[0] else pytest.mark.slow) for h in HOSTS]
)
def test_every_kernel_on_this_computer(host: Host, tmp_path: Path) -> None:
    cases = [*layers(1), *fast(1, "cortex-m4", "dsp")]
    assert check_on_host(host, cases, tmp_path, kernels=(*PORTABLE, *SOURCES), extra=EXTRA) == []


CORES = {target.core: target for target in TARGETS if target.machine != "netduinoplus2"}


@pytest.mark.parametrize(
    "core", [pytest.param(c, marks=() if c in ("cortex-m4", "cortex-m55") else pytest.mark.slow) for c in CORES]
)
def test_every_kernel_on_every_core(core: str, tmp_path: Path) -> None:
    target, cases, kernels, extra = CORES[core], list(layers(1)), PORTABLE, None
    if core in DSP_CORES:
        cases += fast(1, "cortex-m4", "dsp")
        kernels, extra = (*PORTABLE, *sources(core)), EXTRA
    if core in MVE_CORES:
        cases += fast(1, core, "mve")
    assert check_on_target(target, that_fit(cases, target), tmp_path, kernels=kernels, extra=extra) == []


def test_the_layers_reach_every_kernel() -> None:
    named = re.findall(r"CONVOLUTION\((mcuq_\w+_twice_(?:dsp|mve))\)", EXTRA.read_text(encoding="ascii"))
    planes = itertools.product((1, 2), (16, 32, 64, 128, 256))
    wanted = {*named, *(f"mcuq_depthwise3x3_w8_s{s}_p{p}_twice_dsp" for s, p in planes)}
    reached = {case.kernel for case in (*fast(1, "cortex-m4", "dsp"), *fast(1, "cortex-m55", "mve"))}
    assert len(wanted) == 18 and reached == wanted
    portable = {case.kernel for case in layers(1)}
    assert portable == {f"mcuq_{name}_w{bits}_twice" for name in ("conv2d", "depthwise") for bits in (8, 4, 2)}


def test_the_layers_show_the_second_rounding() -> None:
    """With one rounding some outputs of either sign would be others: the layers have what tells the two apart."""
    for core, family in (("cortex-m4", "dsp"), ("cortex-m55", "mve")):
        cases = [case for case in layers(1)[::3] if on_dsp(case, core, (f"_{family}",)) is not None]
        differing = {np.sign(a - b) for case in cases for a, b in zip(*both_roundings(case), strict=True)}
        assert differing == {-1, 0, 1}


def both_roundings(case: Case) -> tuple[list[int], list[int]]:
    """The outputs of a case of bytes, and what one rounding would make of the same sums."""
    assert case.conv is not None and case.weights is not None
    conv, scalars = case.conv, case.scalars
    image = np.frombuffer(case.buffers[0][1], np.int8).astype(np.int64).reshape(conv.input_shape)
    p, channels = parameters(case), conv.output_shape[2]
    bias, multiplier, shift, zeros = (
        np.broadcast_to(np.asarray(a, np.int64), (channels,))
        for a in (p.bias, p.multiplier, p.shift, p.weight_zero_point)
    )
    window, pad = conv.window, (conv.window.padding[0], conv.window.padding[1])
    geometry = Geometry(window.kernel, window.stride, window.dilation, pad, conv.output_shape[:2])
    sums = convolution_sums(image, scalars[19], case.weights, zeros, geometry, conv.groups) + bias
    once = [
        requantize(int(a), int(m), int(s), *scalars[20:23])
        for pixel in sums.reshape(-1, channels)
        for a, m, s in zip(pixel, multiplier, shift, strict=True)
    ]
    return np.frombuffer(case.expected, np.int8).tolist(), once


def at_limit(depth: int, bias: int, scale: tuple[int, int]) -> Case:
    """A pointwise layer whose sums are all ``depth`` * 2^14 + ``bias``."""
    case = extreme(depth, 8, 8, bias, scale=scale)
    assert case.conv is not None
    zero, lo, hi = case.scalars[20:23]
    code = requantize_twice((depth << 14) + bias, *scale, zero, lo, hi)
    expected = bytes([code & 255]) * len(case.expected)
    return replace(case, conv=replace(case.conv, roundings=2), expected=expected)


def kernel_of(case: Case, core: str) -> str | None:
    moved = on_dsp(case, core, ("_dsp", "_mve"))
    return None if moved is None else moved.kernel


def test_sums_and_scales_at_the_limit(tmp_path: Path) -> None:
    """256 * 2^23 and 2 * 2^30 are 2^31: one less is the largest sum; shifts from 32 to 54, with Helium to 55."""
    shared, clean, helium = "mcuq_conv2d_w8_twice_dsp", "mcuq_conv2d_w8c_twice_dsp", "mcuq_conv2d_w8_twice_mve"
    last, large = 2**30 - 1 - 2**23, (2**30, 54)
    conditions: list[tuple[int, int, tuple[int, int], str | None, str | None]] = [
        (512, -1, (2**30, 46), shared, helium),
        (512, 0, (2**30, 46), clean, helium),
        (512, last, large, clean, helium),
        (512, last + 1, large, None, helium),
        (512, last, (2**31 - 1, 55), None, helium),
        (1, -(2**14) - 300, (2**30, 32), shared, helium),
        (1, -(2**14) + 9, (2**30, 31), None, None),
        (1, -1, (-(2**30), 46), None, helium),
    ]
    for depth, bias, scale, dsp, mve in conditions:
        assert kernel_of(at_limit(depth, bias, scale), "cortex-m4") == dsp, (depth, bias, scale)
        assert kernel_of(at_limit(depth, bias, scale), "cortex-m55") == mve, (depth, bias, scale)
    for core, family in (("cortex-m4", "_dsp"), ("cortex-m55", "_mve")):
        cases = [on_dsp(at_limit(depth, bias, scale), core, (family,)) for depth, bias, scale, *_ in conditions]
        chosen, kernels = [case for case in cases if case is not None], (*PORTABLE, *sources(core))
        assert len(chosen) == (4 if family == "_dsp" else 7)
        assert check_on_target(CORES[core], chosen, tmp_path, kernels=kernels, extra=EXTRA) == []


@pytest.mark.parametrize("side", [-1, 1])
def test_sums_around_every_boundary_of_codes(side: int, tmp_path: Path) -> None:
    """A layer that adds its input to biases on a boundary: every channel sees the sums around one of them."""
    rng = np.random.default_rng(side % 3)
    cases: list[Case] = []
    for multiplier, shift in ((2**30, 37), (2**31 - 1, 36), (int(rng.integers(2**30, 2**31)), 38)):
        width = (1 << shift) / multiplier
        bias = np.array([side * round((code + 0.5) * width) for code in range(128)])
        image = np.arange(-128, 128).reshape(16, 16, 1)
        weights = np.ones((128, 1, 1, 1), np.int64)
        layer = Plain("pointwise", (16, 16, 1), 128)
        case = convolution_case(layer, image, 0, weights, bias, (multiplier, shift))
        zero, lo, hi = case.scalars[20:23]
        codes = [requantize_twice(int(x + b), multiplier, shift, zero, lo, hi) for x in image.ravel() for b in bias]
        assert case.conv is not None
        expected = np.array(codes).astype(np.int8).tobytes()
        cases.append(replace(case, conv=replace(case.conv, roundings=2), expected=expected))
    for core, family in (("cortex-m4", "_dsp"), ("cortex-m55", "_mve")):
        moved = [fast for case in cases if (fast := on_dsp(case, core, (family,))) is not None]
        assert len(moved) == len(cases)
        kernels = (*PORTABLE, *sources(core))
        assert check_on_target(CORES[core], moved, tmp_path, kernels=kernels, extra=EXTRA) == []
