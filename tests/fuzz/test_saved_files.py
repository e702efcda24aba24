"""Damaged files of our own kinds and of users: integer networks, bits, precision, arrays. An error or a sound value.

Bytes are damaged as in ``mutations``; in JSON, values are also replaced by hostile ones: those files still parse.
"""

from __future__ import annotations

import copy
import io
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
from mcuq.data.arrays import load_npz
from mcuq.data.unlabelled import load_unlabelled
from mcuq.errors import McuqError
from mcuq.ir.bits_file import bits_text, load_bits
from mcuq.ir.files import load_integer, save_integer
from mcuq.ir.plans import BitPlan, Limits, TensorBits
from mcuq.quant.fixed_norm import NORM_FIELDS
from mcuq.quant.precision import LayerPrecision, Precision
from mcuq.quant.precision_file import load_precision, precision_text
from mcuq.quant.precision_prototxt import load_prototxt, prototxt_text
from mcuq.reference import integer as oracle
from tests.fuzz.mutations import mutate
from tests.sample_networks import integer, pixels
from tests.unit.test_ptq import network

SECONDS, BYTES = 5.0, 2 << 30
HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 1, 3, 255, 256, 2**31, 2**40, 2**63, -(2**63), 10**400, 0.5, 1e308, -0.0, "", "a", "x" * 300,
    "../../etc/passwd", "a\0b", "%s%n", [], [1], [[]], {}, {"a": 1},
)  # fmt: skip


def mutate_json(text: str, seed: int) -> str:
    """``text`` with one to three values replaced, removed or renamed."""
    rng = np.random.default_rng(seed)
    tree = json.loads(text)
    for _ in range(int(rng.integers(1, 4))):
        _replace(tree, rng)
    return json.dumps(tree)


def _replace(tree: Any, rng: np.random.Generator) -> None:
    places: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        places += [(node, key) for key in keys]
        pending += [node[key] for key in keys if isinstance(node[key], dict | list)]
    if not places:
        return
    parent, key = places[int(rng.integers(len(places)))]
    match int(rng.integers(6)):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[str(HOSTILE[int(rng.integers(len(HOSTILE)))])] = parent.pop(key)
        case 2 if isinstance(parent, list):
            parent.append(parent[key])
        case 3:
            other, at = places[int(rng.integers(len(places)))]
            parent[key] = json.loads(json.dumps(other[at])) if at in other or isinstance(other, list) else None
        case _:
            parent[key] = copy.deepcopy(HOSTILE[int(rng.integers(len(HOSTILE)))])  # later edits must not reach it


def network_file(tmp_path: Path) -> bytes:
    save_integer(integer(), tmp_path / "good.mcuq", {"name": "net"})
    return (tmp_path / "good.mcuq").read_bytes()


def mutate_network(data: bytes, seed: int) -> bytes:
    """Damage to the graph inside the header, which keeps the container readable."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"]["graph"] = mutate_json(header["__metadata__"]["graph"], seed)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def read_network(path: Path) -> None:
    """What is accepted runs: the checks were complete."""
    graph, _ = load_integer(path)
    if graph.input.output.bytes < 1 << 16 and sum(op.output.bytes for op in graph) < 1 << 20:
        oracle.run(graph, pixels(1) if graph.input.encoding == "uint8" else np.zeros((1, *graph.input.output.shape)))


def bits_file(tmp_path: Path) -> bytes:
    rows = [(f"l{i}", kind) for i in range(4) for kind in ("weight", "activation")]
    tensors = tuple(TensorBits(f"{n}.weight" if k == "weight" else n, n, k, 4, 100) for n, k in rows)  # type: ignore[arg-type]
    return bits_text(BitPlan(tensors, "OPTIMAL", 0.1, 0.1, 10, 10, Limits(100, 100), "exact")).encode()


def precision() -> Precision:
    norm = tuple((name, 12 if name.endswith("bw") else 5) for name in NORM_FIELDS)
    return Precision("fixed", (LayerPrecision("a", 8, 3.0, 6, -2.0, 8, (7.0,), norm), LayerPrecision("b", 8, 1.0)))


def threshold() -> Precision:
    return Precision("threshold", (LayerPrecision("a", 8, 3.5, 6, 0.25, 8, (0.5, 0.25)), LayerPrecision("b", 8, 1.0)))


def arrays(**named: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **named)
    return stream.getvalue()


def images(tmp_path: Path) -> bytes:
    x, y = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3), np.array([0, 1])
    return arrays(x_train=x, y_train=y, x_test=x, y_test=y, classes=np.array(["a", "b"]))


def as_json(data: bytes, seed: int) -> bytes:
    return mutate_json(data.decode(), seed).encode()


KINDS: dict[str, tuple[Callable[[Path], bytes], str, Callable[[Path], Any], Callable[[bytes, int], bytes] | None]] = {
    "network": (network_file, "net.mcuq", read_network, mutate_network),
    "bits": (bits_file, "bits.json", load_bits, as_json),
    "precision": (lambda _: precision_text(precision()).encode(), "p.json", load_precision, as_json),
    "thresholds": (lambda _: precision_text(threshold()).encode(), "p.json", load_precision, as_json),
    "prototxt": (lambda _: prototxt_text(threshold(), network()).encode(), "p.prototxt", load_prototxt, None),
    "npz": (images, "data.npz", load_npz, None),
    "pixels": (
        lambda _: arrays(x=np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)),
        "data.npz",
        lambda path: load_unlabelled(path, (4, 4, 3), 10),
        None,
    ),
}


def read_within_limits(read: Callable[[Path], Any], path: Path) -> bool:
    """Whether the file was refused; fails on other exceptions, on time and on memory."""
    started = time.process_time()
    try:
        read(path)
        refused = False
    except McuqError as error:
        refused = True
        assert str(error).strip() and len(str(error)) < 20_000
    assert time.process_time() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < BYTES
    return refused


def fuzz(tmp_path: Path, kind: str, count: int) -> None:
    make, name, read, structured = KINDS[kind]
    good, path = make(tmp_path), tmp_path / name
    path.write_bytes(good)
    assert not read_within_limits(read, path)
    before = sorted(p.name for p in tmp_path.iterdir())
    refused = 0
    for seed in range(count):
        damage = structured if structured is not None and seed % 2 else mutate
        path.write_bytes(damage(good, seed))
        refused += read_within_limits(read, path)
    assert count // 5 < refused <= count, "the mutations should mostly be noticed"
    assert sorted(p.name for p in tmp_path.iterdir()) == before, "something was written"


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(tmp_path: Path, kind: str) -> None:
    fuzz(tmp_path, kind, 100)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutated_files(tmp_path: Path, kind: str) -> None:
    fuzz(tmp_path, kind, 3_000 if kind == "network" else 10_000)  # a network that is accepted is also run
