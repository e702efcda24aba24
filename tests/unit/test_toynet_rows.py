"""A residual net of depthwise blocks on symmetric grids, batch norms as fixed point, from lists of bits to codes."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcuq import data, zoo  # noqa: E402
from mcuq.errors import UsageError  # noqa: E402
from mcuq.ir.graph import Normalization  # noqa: E402
from mcuq.ir.integer import QAdd, QAvgPool, QConv2d  # noqa: E402
from mcuq.ir.quantized import QuantizedGraph  # noqa: E402
from mcuq.lower import lower  # noqa: E402
from mcuq.numerics import requantize  # noqa: E402
from mcuq.quant import QuantOp  # noqa: E402
from mcuq.quant import train as loops  # noqa: E402
from mcuq.quant.bit_lists import TOYNET_LISTS, layer_choices, parse_bits  # noqa: E402
from mcuq.reference.integer import run, run_outputs  # noqa: E402


def test_l8_lists_of_bits_are_parsed() -> None:
    assert parse_bits("32, 8, 6x3, 16") == (32, 8, 6, 6, 6, 16)
    assert all(len(parse_bits(text)) == 13 for lists in TOYNET_LISTS.values() for text in lists)
    for text in ("8, x3", "8, 1", "8; 6", "64"):
        with pytest.raises(UsageError):
            parse_bits(text)
    with pytest.raises(UsageError, match="for 10 blocks"):
        layer_choices([*(f"blocks.{i}.conv" for i in range(10)), "last", "fc"], "8x12", "8x13")


def test_lists_of_bits_become_choices_of_layers() -> None:
    """32 and 16 bits are what the device has most, 8; 6 bits are 63 levels; a list's first output is the input's."""
    layers = ["stem", *(f"blocks.{i}.{part}" for i in range(10) for part in ("dw", "expand")), "head", "fc"]
    plain = {entry["layer"]: entry for entry in layer_choices(layers, *TOYNET_LISTS["cfg-1"])}
    assert all(entry == {"layer": name, "w_bits": 8, "a_bits": 8} for name, entry in plain.items())
    assert list(plain) == layers
    second = {entry["layer"]: entry for entry in layer_choices(layers, *TOYNET_LISTS["cfg-2"])}
    assert second["blocks.0.dw"] == {"layer": "blocks.0.dw", "w_bits": 8, "a_bits": 8}
    assert all(second[f"blocks.{i}.expand"]["w_range"] == 62 for i in range(1, 7))
    assert all(second[f"blocks.{i}.expand"]["w_bits"] == 8 for i in range(7, 10))
    third = {entry["layer"]: entry for entry in layer_choices(layers, *TOYNET_LISTS["cfg-3"])}
    assert third["blocks.9.dw"] == {"layer": "blocks.9.dw", "w_range": 62, "a_range": 62}
    assert (
        third["fc"] == {"layer": "fc", "w_bits": 8, "a_bits": 8} == layer_choices(layers, *TOYNET_LISTS["cfg-1*"])[-1]
    )


def toynet(**options: object) -> QuantOp:
    torch.manual_seed(0)
    arguments = {"input_shape": (8, 8, 3), "fold_type": "ICN", "act_type": "mPACT"} | options
    op = QuantOp(zoo.build("toynet").eval(), "PerLayerDoReFa", 8, normalization=Normalization(1 / 64, 128), **arguments)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    op.calibrate([torch.randint(0, 256, (16, 3, 8, 8), generator=generator, dtype=torch.uint8)])
    op.eval()
    return op


@functools.cache
def plain() -> QuantOp:
    return toynet()


@pytest.mark.slow
def test_l8_l1_l12_l14_l17_n18_toynet_by_lists_runs_in_integers() -> None:
    """cfg-3: 6-bit blocks; a batch norm before the strided convolution, sums with one shift, integer logits."""
    names = [op.name for op in plain().graph.convs]
    op = toynet(layer_config=layer_choices(names, *TOYNET_LISTS["cfg-3"]), act_range=62)
    quantized = op.generate_deployment_model()
    levels = {w.layer: len(np.unique(w.codes)) for w in quantized.weights}
    assert levels["blocks.5.expand"] <= 63 < levels["head.fc"] and levels["blocks.0.expand"] > 63
    sums = [o.name for o in op.graph if o.name.endswith("add") or "add" in o.name]
    assert len(sums) == 10 and all(quantized.params(name).codes is not None for name in sums)
    graph = lower(quantized, logits_bits=32)
    x = np.random.default_rng(3).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    values = run(graph, x)
    with torch.no_grad(), op.quantized():
        simulated = op.tensors(torch.from_numpy(x).permute(0, 3, 1, 2))
    for name, value in simulated.items():
        if name == graph.outputs[0]:
            continue
        p = quantized.params(name)
        fake = torch.floor(value.double() / p.scale + 0.5).permute(0, 2, 3, 1).numpy() + p.zero_point
        assert (np.abs(fake - values[name]) > 1).mean() < 2e-2, name
    assert graph.tensor(graph.outputs[0]).bits == 32 and values[graph.outputs[0]].dtype == np.int64
    bn_first = [o for o in graph if isinstance(o, QConv2d) and o.groups > 1 and o.weight.shape[1:3] == (1, 1)]
    assert bn_first  # the lone batch norm is a depthwise 1x1 convolution in integers
    for add in (o for o in graph if isinstance(o, QAdd)):
        total = sum(
            Fraction(m, 1 << add.affine.shift) * int(values[n].flat[5])
            for m, n in zip(add.affine.multipliers, add.inputs, strict=True)
        ) + Fraction(add.affine.constant, 1 << add.affine.shift)
        code = min(max(int(total.__floor__()), add.clamp[0]), add.clamp[1])
        assert code == values[add.name].flat[5]  # both terms share the shift, one rounding


@pytest.mark.slow
def test_l15_average_pools_round_half_up_on_negative_sums() -> None:
    graph = lower(plain().generate_deployment_model())
    pool = next(o for o in graph if isinstance(o, QAvgPool))
    source = graph.tensor(pool.inputs[0])
    sums = np.arange(-2000, 2000)
    found = requantize(sums, pool.multiplier[0], pool.shift[0], pool.output.zero_point, *pool.clamp)
    factor = Fraction(int(pool.multiplier[0]), 1 << int(pool.shift[0]))
    exact = [(factor * int(s) + Fraction(1, 2)).__floor__() for s in sums]
    assert np.array_equal(found, np.clip(np.array(exact) + pool.output.zero_point, *pool.clamp))
    assert source.bits == 8 and min(exact) < 0


def with_scaling(q: QuantizedGraph, form: str) -> QuantizedGraph:
    return replace(q, weights=tuple(replace(w, scaling=form) for w in q.weights))


@pytest.mark.slow
def test_l2_l9_l13_fixed_point_of_32_bits_works_and_of_16_collapses() -> None:
    """Batch norms as fixed<32,10> lose at most 0.4 points of the simulated accuracy, fixed<16,8> and <16,6> all of it.

    A mantissa and an exponent per channel is the cure: 16 bits of it already do.
    """
    digits = data.load("digits")
    net = zoo.build("toynet", channels=1)
    loops.train_float(net, digits, loops.float_preset(6), validate=False)
    op = QuantOp(
        net,
        "PerLayerDoReFa",
        8,
        input_shape=digits.input_shape,
        fold_type="ICN",
        act_type="mPACT",
        normalization=digits.normalization,
    )
    loops.train_qat(op, digits, replace(loops.qat_preset(3, 8), lr=3e-4, augment=0), validate=False)
    simulated = loops.accuracy(op, digits.x_test, digits.y_test)
    quantized = op.generate_deployment_model()

    def accuracy(form: str) -> float:
        graph = lower(with_scaling(quantized, form))
        scores = run_outputs(graph, digits.x_test)[graph.outputs[0]].reshape(len(digits.y_test), -1)
        return float((scores.argmax(1) == digits.y_test).mean())

    assert simulated > 0.93
    assert accuracy("exact") >= simulated - 0.004
    assert accuracy("fixed<32,10>") >= simulated - 0.004 - 1 / len(digits.y_test)
    assert accuracy("mantissa16") >= simulated - 0.01 - 1 / len(digits.y_test)
    assert accuracy("fixed<16,8>") < 0.5 and accuracy("fixed<16,6>") < 0.5
    assert accuracy("double-shift") > accuracy("single-shift") + 0.1


@pytest.mark.slow
def test_learned_clips_keep_what_fixed_ones_lose_at_8_bits() -> None:
    """Learned clips (mPACT) within 0.3 points of float, DoReFa's fixed ones at 10 at least 1.8 below."""
    digits = data.load("digits")
    net = zoo.build("toynet", channels=1)
    loops.train_float(net, digits, loops.float_preset(6), validate=False)
    exact = loops.evaluate(lambda x: net(loops.real_inputs(x, digits.normalization)), digits.x_test, digits.y_test)
    found = {}
    for act_type in ("mPACT", "DoReFa"):
        op = QuantOp(
            copy.deepcopy(net),
            "PerLayerDoReFa",
            8,
            input_shape=digits.input_shape,
            fold_type="ICN",
            act_type=act_type,
            normalization=digits.normalization,
        )
        loops.train_qat(op, digits, replace(loops.qat_preset(3, 8), lr=3e-4, augment=0), validate=False)
        found[act_type] = loops.accuracy(op, digits.x_test, digits.y_test)
    assert exact > 0.93 and found["mPACT"] >= exact - 0.003, (exact, found)
    assert found["DoReFa"] <= exact - 0.018, (exact, found)


@pytest.mark.slow
def test_l16_a_batch_norm_takes_the_rescaling_with_it() -> None:
    """One multiplication per output: accumulators go through a single multiplier and shift to the stored code."""
    op = plain()
    graph = lower(op.generate_deployment_model())
    convs = [o for o in graph if isinstance(o, QConv2d)]
    assert len(convs) == len(op.graph.convs) and all(o.multiplier.size in (1, len(o.weight)) for o in convs)
    assert {type(o).__name__ for o in graph} == {"QInput", "QConv2d", "QAdd", "QAvgPool"}
