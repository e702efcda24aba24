"""Every rule of a graph, broken on purpose; the error quotes the rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import RELU, Net
from quantizers import quantize_graph

from mcuq.errors import CheckError, McuqError, ModelError, OverflowProofError
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph, Norm, Normalization, Window
from mcuq.ir.integer import IntegerGraph, QTensor
from mcuq.ir.verify import Level, verify
from mcuq.lower import lower
from mcuq.numerics import Affine


def captured() -> Graph:
    net = Net((8, 8, 3), 1, Normalization(1 / 64, 120))
    net.conv("conv", "x", 4, padding=(1, 1, 1, 1))
    net.batch_norm("bn", "conv")
    net.clip("relu", "bn", RELU)
    net.conv("dw", "relu", 4, groups=4, padding=(1, 1, 1, 1), norm=True)
    net.add("sum", "relu", "dw")
    net.max_pool("max", "sum", Window((2, 2), (2, 2)))
    net.avg_pool("avg", "max", Window((3, 3), (1, 1), (1, 1, 1, 1)))
    net.concat("cat", "max", "avg")
    net.pad("pad", "cat", (1, 0, 0, 0))
    net.avg_pool("global", "pad")
    net.reshape("flat", "global", (1, 1, 8))
    net.conv("fc", "flat", 3, (1, 1))
    net.softmax("chances", "fc")
    net.argmax("best", "fc")
    return net.graph("chances", "best")


def integer() -> IntegerGraph:
    graph = fuse(captured())
    return lower(quantize_graph(graph, np.random.default_rng(0).normal(size=(4, 8, 8, 3))))


def change(graph: Any, name: str, **fields: Any) -> Any:
    return replace(graph, ops=tuple(replace(op, **fields) if op.name == name else op for op in graph))


def assert_breaks(graph: Any, level: Level, rule: str, text: str, kind: type[McuqError] = CheckError) -> None:
    with pytest.raises(kind, match=f"^rule '{rule}': .*{text}"):
        verify(graph, level)


def test_sound_graphs_verify() -> None:
    verify(captured(), Level.FLOAT)
    verify(fuse(captured()), Level.FUSED)
    verify(fuse(captured()), Level.FLOAT)
    verify(integer(), Level.INTEGER)


def test_levels() -> None:
    assert_breaks(captured(), Level.INTEGER, "level", "Graph cannot be at level integer")
    assert_breaks(integer(), Level.FUSED, "level", "IntegerGraph cannot be at level fused")
    assert_breaks(captured(), Level.FUSED, "fused", "bn .BatchNorm. can still be fused")


@pytest.mark.parametrize("name", ["", "a b", "x;y", "../x", "a" * 129, "a/b", "ü", ".a", 'a"b', "a\n"])
def test_hostile_names(name: str) -> None:
    graph = captured()
    renamed = replace(graph, ops=(replace(graph.ops[0], name=name), *graph.ops[1:]))
    assert_breaks(renamed, Level.FLOAT, "names", "is not a name")


def test_structure() -> None:
    graph = captured()
    assert_breaks(replace(graph, ops=()), Level.FLOAT, "inputs", "no operators")
    assert_breaks(replace(graph, ops=(*graph.ops, graph.op("fc"))), Level.FLOAT, "unique-names", "called fc")
    assert_breaks(change(graph, "fc", inputs=("chances",)), Level.FLOAT, "topological", "fc reads 'chances'")
    assert_breaks(replace(graph, ops=graph.ops[::-1]), Level.FLOAT, "topological", "")
    second = replace(graph.ops[0], name="y")
    assert_breaks(replace(graph, ops=(*graph.ops, second)), Level.FLOAT, "inputs", "found x, y later")
    assert_breaks(replace(graph, outputs=()), Level.FLOAT, "outputs", "no outputs")
    assert_breaks(replace(graph, outputs=("nothing",)), Level.FLOAT, "outputs", "'nothing' is no operator's")
    assert_breaks(replace(graph, outputs=("fc", "fc")), Level.FLOAT, "outputs", "listed twice")


FLOAT_CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("conv", {"shape": (8, 8, 5)}, "shapes", r"conv computes shape \(8, 8, 4\), stored is \(8, 8, 5\)"),
    ("x", {"shape": (8, 8, 70000)}, "shapes", "three sizes in 1..65535"),
    ("x", {"shape": (60000, 60000, 3)}, "shapes", "more than 268435456 values"),
    ("x", {"shape": (8, 8, 4)}, "shapes", "do not fit 4 input channels"),
    ("conv", {"window": Window((3, 3), (0, 1))}, "window", r"conv has stride \(0, 1\); 1..255"),
    ("conv", {"window": Window((3, 3), (1, 1), (-1, 0, 0, 0))}, "window", "padding .* 0..255"),
    ("conv", {"window": Window((3, 3), (1, 1), (256, 0, 0, 0))}, "window", "padding .* 0..255"),
    ("conv", {"window": Window((3, 3), dilation=(0, 1))}, "window", "dilation"),
    ("conv", {"window": Window((5, 5))}, "shapes", r"do not fit a \(5, 5\) kernel"),
    ("conv", {"groups": 2}, "shapes", "with 2 groups do not fit 3 input channels"),
    ("conv", {"groups": 0}, "shapes", "with 0 groups"),
    ("conv", {"bias": np.zeros(3)}, "arrays", r"bias has shape \(3,\), the layer has 4"),
    ("conv", {"weight": np.zeros((4, 27))}, "arrays", r"weights have shape \(4, 27\)"),
    ("conv", {"clamp": (6.0, 0.0)}, "clamp", "lower bound must not exceed"),
    ("conv", {"clamp": (float("nan"), None)}, "clamp", "lower bound"),
    ("x", {"normalization": Normalization(0.0, 3)}, "normalization", "scale must be above 0"),
    ("x", {"normalization": Normalization(1.0, 256)}, "normalization", "zero_point in 0..255"),
    ("bn", {"norm": Norm(np.ones(4), np.ones(4), np.ones(4), np.zeros(4), 0.0)}, "finite", "variance . epsilon is 0"),
    ("bn", {"norm": Norm(np.ones(4), np.ones(3), np.ones(4), np.ones(4), 0.0)}, "arrays", "beta has shape"),
    ("max", {"window": Window((2, 2), (2, 2), (3, 0, 0, 0))}, "shapes", ""),
    ("avg", {"window": Window((2, 2), (1, 1), (2, 0, 0, 0))}, "shapes", ""),
    ("sum", {"inputs": ("relu",)}, "shapes", "Add takes 2 inputs, found 1"),
    ("sum", {"inputs": ("relu", "x")}, "shapes", "two equal shapes"),
    ("flat", {"shape": (1, 1, 9)}, "shapes", "the number of values differs"),
]


@pytest.mark.parametrize(("name", "fields", "rule", "text"), FLOAT_CASES)
def test_float_rules(name: str, fields: dict[str, Any], rule: str, text: str) -> None:
    assert_breaks(change(captured(), name, **fields), Level.FLOAT, rule, text)


def test_nan_weights_name_layer_and_count() -> None:
    weight = captured().convs[1].weight.copy()
    weight[1, 1, 1, 0] = np.nan
    weight[2, 0, 0, 0] = -np.inf
    text = "dw: 2 of 36 values of weight are NaN or infinite"
    assert_breaks(change(captured(), "dw", weight=weight), Level.FLOAT, "finite", text, ModelError)


def test_a_pool_window_wholly_in_its_padding_is_refused() -> None:
    net = Net((4, 4, 1))
    net.max_pool("max", "x", Window((2, 2), (1, 1), (2, 0, 0, 0)))
    assert_breaks(net.graph(), Level.FLOAT, "window", "max: a window lies wholly in the padding")
    net = Net((4, 4, 1))
    net.avg_pool("avg", "x", Window((2, 2), (1, 1), (0, 0, 0, 2)), include=True)
    verify(net.graph(), Level.FLOAT)


def conv_array(name: str, field: str, value: Any) -> dict[str, Any]:
    array = getattr(integer().op(name), field).copy()
    array.flat[0] = value
    return {field: array}


def output(name: str, **fields: Any) -> dict[str, Any]:
    return {"output": replace(integer().tensor(name), **fields)}


INTEGER_CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("conv", output("conv", bits=5), "bits", "conv has 5 bits"),
    ("conv", output("conv", bits=32, zero_point=0), "codes|bits", ""),
    ("max", output("max", bits=32, zero_point=0), "bits", "only logits and argmax"),
    ("conv", output("conv", scale=float("inf")), "scale", "scale inf"),
    ("conv", output("conv", scale=-1.0), "scale", "above 0"),
    ("conv", output("conv", zero_point=128), "zero-point", "zero point 128; -128..127"),
    ("conv", {"clamp": (-129, 0)}, "codes", "clamps to -129..0"),
    ("conv", {"clamp": (5, 4)}, "codes", "clamps to 5..4"),
    ("conv", {"weight_bits": 3}, "bits", "weights of 3 bits"),
    ("conv", {"weight_bits": 2}, "codes", "weight holds .* -2..1 is allowed"),
    ("conv", {"bias": np.zeros(3, np.int32)}, "arrays", "bias has 3 entries; 4 needed"),
    ("conv", {"bias": np.zeros(4, np.int64)}, "arrays", "bias holds int64, int32 is needed"),
    ("conv", {"multiplier": np.ones(2, np.int32)}, "arrays", "multiplier has 2 entries; 1 or 4"),
    ("conv", {"multiplier": np.ones(1, np.int32)}, "arrays", "shift has 4 entries; 1 needed"),
    ("conv", {"weight_zero_point": np.zeros(2, np.int8)}, "arrays", "weight_zero_point has 2 entries"),
    ("conv", conv_array("conv", "shift", 0), "multiplier", "shifts 0.."),
    ("conv", conv_array("conv", "shift", 56), "multiplier", "..56; 1..55"),
    ("conv", conv_array("conv", "multiplier", -(2**31)), "multiplier", "magnitudes below 2"),
    ("sum", {"affine": Affine((1,), 0, 0)}, "affine", "1 multipliers for 2 inputs"),
    ("sum", {"affine": Affine((1, 1), 0, 25)}, "affine", "shifts by 25"),
    ("sum", {"affine": Affine((2**23, 2**23), 0, 24)}, "affine", "may reach 2147483648"),
    ("sum", {"affine": Affine((1, 1), 2**31, 1)}, "affine", "may reach"),
    ("cat", {"affines": (Affine.identity(),)}, "affine", "1 rescalings for 2 inputs"),
    ("avg", {"multiplier": np.ones(5, np.int32)}, "arrays", "multiplier has 5 entries; 1 or 9"),
    ("flat", output("flat", zero_point=99), "codes", "it only moves its input's codes"),
    ("chances", {"table": np.zeros(256, np.uint16)}, "softmax", "starts with 0"),
    ("chances", {"table": np.full(255, 2**15, np.uint16)}, "arrays", "255 entries; 256"),
    ("chances", output("chances", zero_point=0), "softmax", "zero point -128"),
    ("best", output("best", bits=8), "bits", "an argmax has 32 bits"),
    ("x", output("x", bits=4, zero_point=0), "bits", "raw pixels take 8"),
    ("best", {"output": QTensor((1, 1, 3), 32, 1.0, 0)}, "shapes", "best computes shape"),
]


@pytest.mark.parametrize(("name", "fields", "rule", "text"), INTEGER_CASES)
def test_integer_rules(name: str, fields: dict[str, Any], rule: str, text: str) -> None:
    assert_breaks(change(integer(), name, **fields), Level.INTEGER, f"({rule})", text)


def test_a_possible_overflow_is_found() -> None:
    graph = change(integer(), "conv", **conv_array("conv", "bias", 2**31 - 1))
    assert_breaks(graph, Level.INTEGER, "accumulator", "conv: channel 0 may reach", OverflowProofError)


def test_the_accumulator_proof_is_tight() -> None:
    """The largest provable bias passes, one more does not."""
    graph = integer()
    conv: Any = graph.op("conv")
    reach = 128 * int(np.abs(conv.weight[0].astype(int)).sum())
    verify(change(graph, "conv", **conv_array("conv", "bias", 2**31 - 1 - reach)), Level.INTEGER)
    with pytest.raises(OverflowProofError):
        verify(change(graph, "conv", **conv_array("conv", "bias", 2**31 - reach)), Level.INTEGER)
