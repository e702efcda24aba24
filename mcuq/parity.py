"""Emitted C against the integer reference, byte for byte, on this computer or under QEMU."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.build.image import Image, build_image
from mcuq.build.run import run_samples, trace
from mcuq.build.toolchain import Toolchain
from mcuq.emit.project import emit_harness, emit_project
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.plans import MemoryPlan
from mcuq.numerics import IntArray, pack
from mcuq.reference.integer import run, run_outputs
from mcuq.target.board import Board
from mcuq.target.placement import stored

_BATCH_BYTES = 4 << 20
"""Tensor bytes compared at once; the reference holds eight bytes and more per code."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first byte, in execution order of the first sample concerned, in which device and reference differ."""

    sample: int
    tensor: str
    byte: int
    expected: int
    found: int

    def __str__(self) -> str:
        return (
            f"sample {self.sample}, tensor {self.tensor}, byte {self.byte}: "
            f"expected 0x{self.expected:02x}, found 0x{self.found:02x}"
        )


@dataclass(frozen=True, slots=True)
class ParityResult:
    """How many bytes were compared and differ; ``first`` names the first difference, None when there is none."""

    samples: int
    compared_bytes: int
    mismatching_bytes: int
    first: Difference | None

    @property
    def exact(self) -> bool:
        """Something was compared and nothing differs."""
        return self.mismatching_bytes == 0 and self.compared_bytes > 0


@contextmanager
def built(
    graph: IntegerGraph,
    plan: MemoryPlan,
    board: Board | None,
    *,
    prefix: str = "model",
    toolchain: Toolchain | None = None,
) -> Generator[Image]:
    """An image of the network in a temporary folder, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="mcuq-build-") as folder:
        files = emit_project(graph, plan, board, prefix=prefix)
        harness = emit_harness(graph, plan, board, prefix=prefix)
        yield build_image(files, harness, graph, plan, board, Path(folder), prefix=prefix, toolchain=toolchain)


def compare(
    graph: IntegerGraph,
    plan: MemoryPlan,
    board: Board | None,
    x: NDArray[Any],
    *,
    toolchain: Toolchain | None = None,
) -> ParityResult:
    """Run ``x`` [N, H, W, C] through the emitted C and compare every tensor with the reference.

    Args:
        board: None runs on this computer.
        x: raw pixels when the network takes pixels, else codes.
    """
    with built(graph, plan, board, toolchain=toolchain) as image:
        return compare_image(image, x)


def compare_image(image: Image, x: NDArray[Any]) -> ParityResult:
    """:func:`compare` with an image already built."""
    graph = image.graph
    names = tuple(name for name in image.order if stored(graph, name) == name)
    per_sample = sum(graph.tensor(name).bytes for name in names)
    batch = max(1, _BATCH_BYTES // per_sample)
    wrong = 0
    first: Difference | None = None
    for start in range(0, len(x), batch):
        part = x[start : start + batch]
        found = trace(image, part)
        expected = _stored(graph, run(graph, part))
        wrong += sum(int(np.count_nonzero(found[name] != expected[name])) for name in names)
        first = first or _first(names, expected, found, start)
    return ParityResult(len(x), per_sample * len(x), wrong, first)


def compare_outputs(image: Image, x: NDArray[Any]) -> tuple[ParityResult, dict[str, IntArray]]:
    """The network's outputs only, with an image already built; also returns the device's codes [N, H, W, C]."""
    graph = image.graph
    codes = run_samples(image, x)
    expected = _stored(graph, run_outputs(graph, x))
    found = _stored(graph, codes)
    wrong = sum(int(np.count_nonzero(found[name] != expected[name])) for name in graph.outputs)
    size = sum(graph.tensor(name).bytes for name in graph.outputs)
    return ParityResult(len(x), size * len(x), wrong, _first(graph.outputs, expected, found, 0)), codes


def _stored(graph: IntegerGraph, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.uint8]]:
    return {name: pack(codes, graph.tensor(name).bits).reshape(len(codes), -1) for name, codes in values.items()}


def _first(
    names: tuple[str, ...],
    expected: Mapping[str, NDArray[np.uint8]],
    found: Mapping[str, NDArray[np.uint8]],
    start: int,
) -> Difference | None:
    for sample in range(len(expected[names[0]])):
        for name in names:
            differs = np.flatnonzero(expected[name][sample] != found[name][sample])
            if len(differs):
                byte = int(differs[0])
                pair = int(expected[name][sample, byte]), int(found[name][sample, byte])
                return Difference(start + sample, name, byte, *pair)
    return None
