"""Files of graphs: what goes in comes out, the same bytes each time, and clear errors for everything else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sample_networks import every_operator, integer, pixels

from mcuq.errors import CheckError, ModelError, UsageError
from mcuq.ir.files import load_graph, load_integer, save_graph, save_integer
from mcuq.ir.text import to_text
from mcuq.reference import floating
from mcuq.reference.integer import run

METADATA = {"name": "every operator", "accuracy": '{"float": 0.91}', "quote": 'a"b\n\u00e4'}


def rewrite(path: Path, edit: Any) -> None:
    """Edit the header of a model file as a JSON value."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def edit_graph(path: Path, edit: Any) -> None:
    def apply(header: dict) -> None:
        graph = json.loads(header["__metadata__"]["graph"])
        edit(graph)
        header["__metadata__"]["graph"] = json.dumps(graph)

    rewrite(path, apply)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.mcuq"
    save_integer(integer(), path, METADATA)
    return path


@pytest.mark.parametrize(("weights", "activations"), [(8, 8), (4, 2), (2, 4)])
def test_integer_round_trip(tmp_path: Path, weights: int, activations: int) -> None:
    path = tmp_path / "net.mcuq"
    graph = integer(weight_bits=weights, activation_bits=activations, icn=True, asymmetric=True)
    save_integer(graph, path, METADATA)
    loaded, metadata = load_integer(path)
    assert metadata == METADATA
    assert to_text(loaded) == to_text(graph)
    before, after = run(graph, pixels(5)), run(loaded, pixels(5))
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])


def test_float_round_trip(tmp_path: Path) -> None:
    graph = every_operator()
    save_graph(graph, tmp_path / "net.mcuqf", METADATA)
    loaded, metadata = load_graph(tmp_path / "net.mcuqf")
    assert metadata == METADATA
    assert to_text(loaded) == to_text(graph)
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 3))
    before, after = floating.run(graph, x), floating.run(loaded, x)
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_integer(integer(), tmp_path / name, dict(reversed(METADATA.items())))
    save_integer(load_integer(tmp_path / "a")[0], tmp_path / "c", METADATA)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]


def test_the_safetensors_library_reads_the_file(model: Path) -> None:
    found = load_file(model)
    conv: Any = integer().op("conv")
    np.testing.assert_array_equal(found["conv/weight"], conv.weight)
    np.testing.assert_array_equal(found["conv/shift"], conv.shift)


def test_every_truncation_is_refused(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    cut = tmp_path / "cut.mcuq"
    for size in [*range(200), *range(200, len(data), 37), len(data) - 1]:
        cut.write_bytes(data[:size])
        with pytest.raises(ModelError, match=r"cut\.mcuq: the file is damaged: "):
            load_integer(cut)
    cut.write_bytes(data + b"\0")
    with pytest.raises(ModelError, match=r"bytes, \d+ are there"):
        load_integer(cut)


def test_missing_and_foreign_files(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.mcuq: cannot be read \(No such file"):
        load_integer(tmp_path / "none.mcuq")
    with pytest.raises(ModelError, match=r"cannot be read \(Is a directory"):
        load_integer(tmp_path)
    with pytest.raises(ModelError, match="it is 'mcuq-integer' version '1'; 'mcuq-float' version '1' is read here"):
        load_graph(model)
    rewrite(model, lambda header: header["__metadata__"].update(version="2"))
    with pytest.raises(ModelError, match="version '2'; 'mcuq-integer' version '1'"):
        load_integer(model)
    text = tmp_path / "text.mcuq"
    text.write_bytes(b"PK\x03\x04 this is a zip archive or a pickle")
    with pytest.raises(ModelError, match="truncated or no model file"):
        load_integer(text)


HEADER_EDITS: list[tuple[Any, str]] = [
    (lambda h: h.pop("conv/weight"), "leave a gap at byte"),
    (lambda h: h["conv/weight"].update(dtype="F32"), "dtype 'F32'; I8, U8, U16, I32, F64 are known"),
    (lambda h: h["conv/weight"].update(dtype="U8"), "holds uint8, int8 is needed"),
    (lambda h: h["conv/weight"].update(dtype=["I8"]), "dtype"),
    (lambda h: h["conv/weight"].update(shape=[4, 3, 3]), "takes 36 bytes, 108 are there"),
    (lambda h: h["conv/weight"].update(shape=[4, 3, 3, -3]), "no proper shape"),
    (lambda h: h["conv/weight"].update(shape=[1] * 9), "no proper shape"),
    (lambda h: h["conv/weight"].update(data_offsets=[0, 10**12]), "no proper place"),
    (lambda h: h["conv/weight"].update(data_offsets=[16, 124]), "overlap or leave a gap|damaged"),
    (lambda h: h["conv/weight"].update(more=1), "needs dtype, shape and data_offsets"),
    (lambda h: h.update({"conv/weight": 3}), "needs dtype, shape and data_offsets"),
    (lambda h: h["__metadata__"].update(graph="{"), "its graph is not JSON"),
    (lambda h: h["__metadata__"].update(graph="[" * 100_000), "its graph is not JSON"),
    (lambda h: h["__metadata__"].update(graph='{"ops": NaN}'), "NaN is not allowed"),
    (lambda h: h["__metadata__"].update(graph='{"ops": 1, "ops": 2}'), "a field is named twice"),
    (lambda h: h["__metadata__"].update(graph="[]"), "needs a list of ops and outputs"),
    (lambda h: h["__metadata__"].update(graph=3), "something other than text"),
    (lambda h: h["__metadata__"].update(metadata='{"a": 1}'), "something other than text"),
    (lambda h: h.update(__metadata__=[]), "metadata is no JSON object"),
]


@pytest.mark.parametrize(("edit", "text"), HEADER_EDITS)
def test_damaged_headers(model: Path, edit: Any, text: str) -> None:
    rewrite(model, edit)
    with pytest.raises(ModelError, match=rf"net\.mcuq: .*({text})"):
        load_integer(model)


GRAPH_EDITS: list[tuple[Any, str]] = [
    (lambda g: g["ops"][0].update(name="../../etc/passwd"), "rule 'names'"),
    (lambda g: g["ops"][0].update(name='x"; system("rm")'), "rule 'names'"),
    (lambda g: g["ops"][0].update(name="x" * 5000), "must be a text"),
    (lambda g: g["ops"][1].update(op="Exec"), "is a 'Exec'; QInput, QConv2d"),
    (lambda g: g["ops"][1].update(groups="4"), r"op 1\.groups must be a whole number, found '4'"),
    (lambda g: g["ops"][1].update(groups=True), "must be a whole number"),
    (lambda g: g["ops"][1].update(groups=10**30), "must be a whole number"),
    (lambda g: g["ops"][1].update(groups=2), "rule 'shapes'"),
    (lambda g: g["ops"][1].pop("clamp"), r"op 1 \(QConv2d\) lacks or adds field 'clamp'"),
    (lambda g: g["ops"][1].update(color="red"), "lacks or adds field 'color'"),
    (lambda g: g["ops"][1].update(clamp=[0, 1, 2]), "must be a list of 2"),
    (lambda g: g["ops"][1].update(clamp=[0, 300]), "rule 'codes'"),
    (lambda g: g["ops"][1]["output"].update(scale=1e999), "graph is not JSON|finite number"),
    (lambda g: g["ops"][1]["output"].update(bits=7), "rule 'bits'"),
    (lambda g: g["ops"][1]["output"].update(zero_point=4000), "rule 'zero-point'"),
    (lambda g: g["ops"][1].update(inputs=["nowhere"]), "rule 'topological'"),
    (lambda g: g["ops"][1].update(window=None), "must be an object"),
    (lambda g: g["ops"][1]["window"].update(stride=[0, 0]), "rule 'window'"),
    (lambda g: g["ops"][0].update(encoding="float"), r"must be one of \('int8', 'uint8'\)"),
    (lambda g: g["ops"][1].update(weight="dw/weight"), "unused array|rule"),
    (lambda g: g.update(outputs=["chances", "chances"]), "rule 'outputs'"),
    (lambda g: g.update(outputs="chances"), "must be a list"),
    (lambda g: g["ops"].append(g["ops"][-1]), "rule 'unique-names'"),
    (lambda g: g["ops"].pop(0), "rule 'topological'"),
    (lambda g: g["ops"].clear(), "belongs to no operator"),
]


@pytest.mark.parametrize(("edit", "text"), GRAPH_EDITS)
def test_hostile_graphs(model: Path, edit: Any, text: str) -> None:
    edit_graph(model, edit)
    with pytest.raises(ModelError, match=rf"net\.mcuq: .*({text})"):
        load_integer(model)


def test_nothing_is_written_when_the_graph_does_not_verify(tmp_path: Path) -> None:
    graph = integer()
    with pytest.raises(CheckError, match="rule 'outputs'"):
        save_integer(replace(graph, outputs=("nothing",)), tmp_path / "net.mcuq")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.mcuq"
    save_integer(integer(), path)
    old = path.read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UsageError, match=r"net\.mcuq: cannot be written \(No space left"):
        save_integer(integer(2), path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["net.mcuq"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        save_integer(integer(), tmp_path / "none" / "net.mcuq")
