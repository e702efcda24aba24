"""bits.json: written, read, edited by hand, and every mistake named."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_networks import every_operator

from mcuq.errors import McuqError, ModelError, UsageError
from mcuq.ir.bits_file import bits_text, load_bits, parse_bits, save_bits
from mcuq.ir.fuse import fuse
from mcuq.ir.plans import BitPlan, Limits, TensorBits


def plan() -> BitPlan:
    graph = fuse(every_operator())
    weights = [TensorBits(f"{op.name}.weight", op.name, "weight", 4, op.weight.size // 2) for op in graph.convs]
    activations = [TensorBits(op.name, op.name, "activation", 8, 10) for op in graph if op.name != "best"]
    return BitPlan(
        tensors=(*weights, *activations),
        status="OPTIMAL",
        objective=0.1 + 0.2,
        bound=0.3,
        flash_used=1234,
        ram_used=567,
        limits=Limits(2048, 600),
        method="exact",
        order=tuple(op.name for op in graph),
        quant_types=(("conv", "PL"), ("fc", "PC")),
        fold_types=(("conv", "icn"),),
    )


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"tensors": ()},
        {"status": "FEASIBLE", "bound": 0.0},
        {"status": "INFEASIBLE", "objective": float("inf"), "tensors": ()},
    ],
)
def test_round_trip(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "bits.json"
    wanted = replace(plan(), **changed)
    save_bits(wanted, path)
    assert load_bits(path) == wanted
    assert bits_text(load_bits(path)) == path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["bits.json"]


def test_text_has_one_tensor_per_line() -> None:
    text = bits_text(plan())
    json.loads(text)
    assert '  {"name": "conv.weight", "layer": "conv", "kind": "weight", "bits": 4, "bytes": 54},\n' in text
    assert ' "flash": {"used": 1234, "limit": 2048},\n' in text
    assert text.startswith('{\n "version": 1,\n "method": "exact",\n "status": "OPTIMAL",\n')


def test_an_edit_by_hand_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "bits.json"
    text = bits_text(plan()).replace(
        '"kind": "weight", "bits": 4, "bytes": 54', '"kind": "weight", "bits": 2, "bytes": 54'
    )
    path.write_text(text)
    found = load_bits(path, fuse(every_operator()))
    assert found.weight_bits("conv") == 2
    assert found.weight_bits("fc") == 4
    assert (found.status, found.objective) == ("OPTIMAL", plan().objective)


def test_one_step_for_the_layer_is_said_and_taken(tmp_path: Path) -> None:
    path = tmp_path / "bits.json"
    text = bits_text(plan())
    assert "granularity" not in text
    path.write_text(text.replace('"bits": 4, "bytes": 54', '"bits": 4, "granularity": "layer", "bytes": 54', 1))
    found = load_bits(path, fuse(every_operator()))
    assert found.steps_per_layer("conv") and not found.steps_per_layer("fc")
    assert [t.choice for t in found.tensors if t.kind == "weight" and t.layer in ("conv", "fc")] == [-4, 4]
    assert bits_text(found) == path.read_text()


ROW = '{"name": "conv.weight", "layer": "conv", "kind": "weight", "bits": 4, "bytes": 54}'
EDITS: list[tuple[str, str, str]] = [
    ('"bits": 4, "bytes": 54', '"bits": 3, "bytes": 54', "tensor conv.weight: bits must be 8 or 4 or 2, found 3"),
    ('"bits": 4, "bytes": 54', '"bits": 32, "bytes": 54', "tensor conv.weight: bits must be 8 or 4 or 2, found 32"),
    ('"bits": 4, "bytes": 54', '"bits": "4", "bytes": 54', "tensor conv.weight: bits must be .* found '4'"),
    ('"bits": 4, "bytes": 54', '"bits": true, "bytes": 54', "tensor conv.weight: bits must be .* found True"),
    ('"bits": 4, "bytes": 54', '"bits": 4, "bytes": -1', "tensor conv.weight: bytes must be a whole number"),
    ('"bits": 4, "bytes": 54', '"bits": 4', "tensor 0 lacks the field bytes"),
    ('"bits": 4, "bytes": 54', '"bits": 4, "bytes": 54, "why": 1', "tensor 0 has an unknown field 'why'"),
    (
        '"kind": "weight", "bits": 4, "bytes": 54',
        '"kind": "bias", "bits": 4, "bytes": 54',
        "must be weight or activation",
    ),
    (ROW, ROW.replace('"bytes"', '"granularity": "row", "bytes"'), "granularity must be channel or layer, found 'row'"),
    (
        '"kind": "activation", "bits": 8',
        '"kind": "activation", "bits": 8, "granularity": "layer"',
        "tensor x: granularity must be channel, found 'layer'",
    ),
    (ROW, ROW.replace('"conv.weight"', '"convolution.weight"'), "the weight of layer conv has another name"),
    (ROW, ROW.replace("conv", "conb"), "tensor conb.weight: the network has no layer conb; did you mean conv?"),
    (ROW, ROW.replace("conv", "zzzzz"), "the network has no layer zzzzz$"),
    (ROW, ROW.replace("conv", "max"), "tensor max.weight: layer max has no weights"),
    (ROW + ",", "", "no bits for the weights of conv; add a line"),
    (ROW, f"{ROW}, {ROW}", "tensor conv.weight is listed twice"),
    ('"OPTIMAL"', '"GOOD"', "status must be one of OPTIMAL, FEASIBLE, INFEASIBLE, found 'GOOD'"),
    ('"version": 1', '"version": 2', "version 2 of the bits file; version 1"),
    ('"used": 1234', '"used": 1.5', "flash used must be a whole number"),
    ('"objective"', '"objektive"', "the file lacks the field objective"),
    (' "tensors": [', ' "tensors": [,', "list of bits is not JSON"),
    ('"method": "exact"', '"method": NaN', "NaN is not allowed"),
    ('"fold_types": {"conv": "icn"}', '"fold_types": ["icn"]', "fold_types must be an object"),
]


@pytest.mark.parametrize(("old", "new", "text"), EDITS)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, text: str) -> None:
    path = tmp_path / "bits.json"
    good = bits_text(plan())
    assert old in good
    path.write_text(good.replace(old, new, 1))
    with pytest.raises(ModelError, match=rf"bits\.json: .*{text}"):
        load_bits(path, fuse(every_operator()))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.json: cannot be read \(No such file"):
        load_bits(tmp_path / "none.json")
    with pytest.raises(UsageError, match="cannot be written"):
        save_bits(plan(), tmp_path / "none" / "bits.json")


def test_mutated_files_are_refused_or_read() -> None:
    rng = random.Random(7)
    good, read = bits_text(plan()).encode(), 0
    for _ in range(300):
        changed = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(len(changed))] = rng.choice(b'0123456789",:{}[]ax \xff')
        try:
            assert isinstance(parse_bits(bytes(changed[: rng.choice((len(changed), 500))])), BitPlan)
            read += 1
        except McuqError as error:
            assert len(str(error)) < 1000
    assert 0 < read < 250
