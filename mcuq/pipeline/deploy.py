"""From a saved integer network to C, images and measurements. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mcuq.build.hotspots import hotspots
from mcuq.build.run import count
from mcuq.build.sizes import measure
from mcuq.build.toolchain import find_program
from mcuq.build.write import write_project
from mcuq.emit.project import emit_project
from mcuq.errors import ToolchainError, UsageError
from mcuq.ir.files import load_integer
from mcuq.ir.integer import IntegerGraph, QConv2d
from mcuq.ir.plans import MemoryPlan
from mcuq.ir.samples import split
from mcuq.ir.sources import TestVector
from mcuq.parity import built, compare_outputs
from mcuq.pipeline.outcomes import EmitOutcome, ProfiledLayer, ProfileOutcome, VerifyOutcome
from mcuq.pipeline.runs import RunFolder, find_run
from mcuq.pipeline.tables import say
from mcuq.plan.memory import plan_memory
from mcuq.reference.integer import run_outputs
from mcuq.reference.ranking import label_ranks, top1, top5
from mcuq.target.board import Board, load_board
from mcuq.target.core import SIZE
from mcuq.target.footprint import footprint
from mcuq.target.fusion import fusion_into
from mcuq.target.runtime import conv_kernel

DEFAULT_MACHINE = "mps2-an500"
VECTORS = 3
"""Samples in an emitted project's self-test."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A run's integer network and its record."""

    run: RunFolder
    graph: IntegerGraph
    record: dict[str, Any]


def load(path: Path | None) -> Loaded:
    """The finished run at ``path``, or the latest. Raises UsageError, DataError or ModelError."""
    run = find_run(path)
    record = run.record()
    if not run.model.exists():
        raise UsageError(f"{run.path} holds no integer network: its training has not finished; go on with --resume")
    graph, _ = load_integer(run.model)
    return Loaded(run, graph, record)


def target_board(target: str) -> Board | None:
    """``host`` is None; ``qemu`` a Cortex-M7 machine, ``qemu:NAME`` a machine or board. Raises UsageError."""
    if target == "host":
        return None
    kind, _, name = target.partition(":")
    if kind != "qemu":
        raise UsageError(f"--target {target!r} is unknown; use host, qemu, qemu:MACHINE or qemu:BOARD")
    return load_board(name or DEFAULT_MACHINE)


def verify(
    path: Path | None, target: str = "host", samples: int | None = None, *, console: Console | None = None
) -> VerifyOutcome:
    """Run the test split on the built C and compare every output byte with the oracle.

    Raises:
        UsageError, DataError, ModelError: no such run or target, or damaged files.
        ToolchainError: a compiler or emulator is missing or failed.
    """
    loaded, board = load(path), target_board(target)
    x, y, float_correct = loaded.run.read_test()
    if samples is not None and samples > len(x):
        raise UsageError(f"--samples {samples}: the run keeps {len(x)} test samples; ask for at most that many")
    x, y, float_correct = x[:samples], y[:samples], float_correct[:samples]
    if console is not None:
        say(console, f"building for {target}, then running {len(x)} samples ...")
    plan = plan_memory(loaded.graph, "portable") if board is None else _planned(loaded.graph, board)
    with built(loaded.graph, plan, board) as image:
        result, codes = compare_outputs(image, x)
    output = loaded.graph.outputs[0]
    found = {"oracle": run_outputs(loaded.graph, x)[output], "device": codes[output]}
    return VerifyOutcome(
        target=target,
        samples=len(x),
        mismatching_bytes=result.mismatching_bytes,
        compared_bytes=result.compared_bytes,
        accuracy={
            "float": float(float_correct.mean()) if len(float_correct) else None,
            **{name: accuracy(scores, y) for name, scores in found.items()},
        },
        top5={name: top5_accuracy(scores, y) for name, scores in found.items()},
        difference=str(result.first or ""),
    )


def accuracy(codes: NDArray[Any], labels: NDArray[Any]) -> float | None:
    """Share of samples whose largest score (or argmax output) is the label; None for samples without labels (-1).

    ``codes``: [N, H, W, C].
    """
    return top1(label_ranks(codes, labels)) if np.all(labels >= 0) else None


def top5_accuracy(codes: NDArray[Any], labels: NDArray[Any]) -> float | None:
    """As :func:`accuracy`, for the five largest scores; None also where there are no more than five."""
    return top5(label_ranks(codes, labels), codes) if np.all(labels >= 0) else None


def profile(path: Path | None, board_name: str) -> ProfileOutcome:
    """Executed instructions of one inference under QEMU: whole, per operator, by kind, and the hottest loops.

    Raises:
        UsageError, DataError, ModelError: no such run or board, or damaged files.
        ToolchainError: a compiler or emulator is missing or failed.
    """
    loaded, board = load(path), load_board(board_name)
    x, _, _ = loaded.run.read_test()
    graph = loaded.graph
    with built(graph, _planned(graph, board), board) as image:
        counts, found = count(image, x[0]), hotspots(image, x[0])
    layers = tuple(
        ProfiledLayer(
            name, _kernel(graph, name, board.core), instructions, _macs(graph, name), graph.tensor(name).bytes
        )
        for name, instructions in counts.operators
    )
    return ProfileOutcome(board.name, board.core, counts.total, layers, found.mix, found.functions, found.loops)


def _planned(graph: IntegerGraph, board: Board) -> MemoryPlan:
    return plan_memory(graph, board.core, cuts=board.cuts)


def _kernel(graph: IntegerGraph, name: str, core: str) -> str:
    op = graph.op(name)
    kind = type(op).__name__.removeprefix("Q").lower()
    if fusion := fusion_into(graph, name):
        return f"{_kernel(graph, fusion.conv, core)} + {kind}"
    if isinstance(op, QConv2d):
        return conv_kernel(op, graph, core).function
    return kind


def _macs(graph: IntegerGraph, name: str) -> int:
    fusion = fusion_into(graph, name)
    op = graph.op(fusion.conv if fusion else name)
    if not isinstance(op, QConv2d):
        return 0
    height, width, _ = op.output.shape
    return height * width * int(op.weight.size)


def emit(
    path: Path | None, board_name: str, out: Path | None = None, *, prefix: str = "model", build: bool = True
) -> EmitOutcome:
    """Write the C project, build it for the board and measure it. Nothing is written when building fails.

    Raises:
        UsageError, DataError, ModelError: no such run or board, bad prefix, foreign folder, damaged files.
        LimitError: the image exceeds the board; the text names section, region and bytes.
        ToolchainError: a compiler is missing or failed.
    """
    loaded, board = load(path), load_board(board_name)
    if build:
        _check_compiler(board)
    x, _, _ = loaded.run.read_test()
    plan = _planned(loaded.graph, board)
    files = emit_project(loaded.graph, plan, board, prefix=prefix, vectors=_vectors(loaded.graph, x[:VECTORS]))
    folder = out or loaded.run.path / f"c-{board.name}{'-size' if board.core.endswith(SIZE) else ''}"
    sizes = measure(files, loaded.graph, plan, board, prefix=prefix) if build else None
    write_project(files, folder)
    promise = footprint(loaded.graph, plan, board.core)
    items = (
        [(i.name, i.promised, i.measured) for i in sizes.items]
        if sizes
        else [(f.name, getattr(promise, f.name), None) for f in fields(promise)]
    )
    return EmitOutcome(
        folder=str(folder),
        board=board.name,
        files=tuple(file.path for file in files),
        flash=sizes.flash if sizes else (promise.flash, None),
        ram=sizes.ram if sizes else (promise.ram, None),
        stack=sizes.stack_bound if sizes else None,
        items=tuple(items),
    )


def _check_compiler(board: Board) -> None:
    """Raises ToolchainError, before anything is computed, when there is no compiler for ``board``."""
    try:
        find_program(board.architecture.tool("gcc"))
    except ToolchainError as error:
        raise ToolchainError(f"{error}; --no-build writes the C project without") from None


def _vectors(graph: IntegerGraph, x: NDArray[Any]) -> tuple[TestVector, ...]:
    """Inputs of the project's self-test with the oracle's outputs."""
    inputs, outputs = split(graph, x), run_outputs(graph, x)
    return tuple(
        TestVector(tuple(part[i] for part in inputs.values()), tuple(outputs[name][i] for name in graph.outputs))
        for i in range(len(x))
    )
