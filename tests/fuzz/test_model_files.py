"""Mutated model files: each is refused with a McuqError or is a graph that verifies. Nothing else."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from sample_networks import every_operator, integer

from mcuq.errors import McuqError
from mcuq.ir.files import load_graph, load_integer, save_graph, save_integer
from mcuq.ir.verify import Level, verify

HOSTILE: list[Any] = [
    *(0, 1, -1, 2, 3, 7, 255, 256, 65535, 65536, -(2**31), 2**31, 2**63, 10**40, 0.5, -0.0, 1e-320, 1e308),
    *(None, True, False, "", "x", "conv", "conv/weight", "../x", "\x00", "a" * 2000, [], {}, [[]], [1], {"op": 1}),
]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One of: flipped, cut, doubled or exchanged bytes; one to three JSON values replaced, dropped or doubled."""
    choice = rng.randrange(8)
    if choice == 0:
        return data[: rng.randrange(len(data))]
    if choice == 1:
        position, size = rng.randrange(len(data)), rng.randrange(1, 40)
        return data[:position] + data[position + size :]
    if choice == 2:
        position, size = rng.randrange(len(data)), rng.randrange(1, 40)
        return data[: position + size] + data[position:]
    if choice == 3:
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 8)):
            changed[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(changed)
    return mutate_json(data, rng)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    in_graph = rng.random() < 0.7
    tree = json.loads(header["__metadata__"]["graph"]) if in_graph else header
    for _ in range(rng.randrange(1, 4)):
        change_node(tree, rng)
    if in_graph:
        header["__metadata__"]["graph"] = json.dumps(tree)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def change_node(tree: Any, rng: random.Random) -> None:
    """Walk down to a random place and replace, drop or double what is there."""
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.85:
            node = node[key]
            continue
        action = rng.randrange(4)
        if action == 0:
            del node[key]
        elif action == 1 and isinstance(node, list):
            node.insert(key, node[key])
        elif action == 2 and type(node[key]) is int:
            node[key] += rng.choice((-1, 1, 128, -(2**20)))
        else:
            node[key] = rng.choice(HOSTILE)
        return


def check_mutations(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """(refused, accepted) of ``count`` mutated files of each kind."""
    rng = random.Random(seed)
    save_integer(integer(asymmetric=True), folder / "integer", {"name": "net"})
    save_graph(every_operator(), folder / "float", {"name": "net"})
    good = {name: (folder / name).read_bytes() for name in ("integer", "float")}
    refused = accepted = 0
    for index in range(count):
        kind = "float" if index % 3 == 0 else "integer"
        path = folder / "mutated"
        path.write_bytes(mutate(good[kind], rng))
        try:
            if kind == "float":
                verify(load_graph(path)[0], Level.FLOAT)
            else:
                verify(load_integer(path)[0], Level.INTEGER)
            accepted += 1
        except McuqError as error:
            assert str(error).startswith(str(path)), error
            assert len(str(error)) < 1000
            refused += 1
    return refused, accepted


@pytest.mark.parametrize("seed", range(3))
def test_mutated_files(tmp_path: Path, seed: int) -> None:
    refused, accepted = check_mutations(tmp_path, 100, seed)
    assert refused > 50 and accepted > 0


@pytest.mark.slow
def test_many_mutated_files(tmp_path: Path) -> None:
    refused, accepted = check_mutations(tmp_path, 10_000, 1234)
    assert refused > 5000 and accepted > 100
