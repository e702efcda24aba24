"""Rules of a graph at every level, checked between any two passes and after reading any file.

Each rule has a name, which the error quotes: ``names``, ``unique-names``, ``topological``, ``inputs``,
``outputs``, ``window``, ``shapes``, ``arrays``, ``finite``, ``clamp``, ``normalization``, ``fused`` and, for integer
graphs, ``bits``, ``scale``, ``zero-point``, ``codes``, ``multiplier``, ``affine``, ``accumulator``, ``softmax``,
``l2-normalize``.
"""

from __future__ import annotations

import math
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import ModelError
from mcuq.ir import functions
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Activation, Add, BatchNorm, Clamp, Clip, Conv2d, FloatOp, Graph, Input, Mul, Norm, Pad, Prelu
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.integer_rules import check_integer_arrays, check_integer_op
from mcuq.ir.rules import check_shapes, check_structure, fail


class Level(Enum):
    """What a graph has become: as captured, fused, or integers only."""

    FLOAT = "float"
    FUSED = "fused"
    INTEGER = "integer"


def verify(graph: Graph | IntegerGraph, level: Level) -> None:
    """Check every rule of ``level``.

    Raises:
        CheckError: a rule does not hold; the text quotes it and names the operator.
        ModelError: a parameter is NaN or infinite; the text names layer, array and count.
        OverflowProofError: an int32 accumulator could overflow.
    """
    if isinstance(graph, IntegerGraph) != (level is Level.INTEGER):
        fail("level", f"a {type(graph).__name__} cannot be at level {level.value}")
    check_structure(graph)
    if isinstance(graph, IntegerGraph):
        for op in graph:
            check_integer_arrays(op)
        check_shapes(graph)
        for op in graph:
            check_integer_op(op, tuple(graph.tensor(name) for name in op.inputs))
        return
    for op in graph:
        _check_parameters(op)
    check_shapes(graph)
    if level is Level.FUSED:
        _check_fused(graph)


def _check_parameters(op: FloatOp) -> None:
    match op:
        case Input():
            pixels = op.normalization
            if pixels is not None and not (
                math.isfinite(pixels.scale) and pixels.scale > 0 and 0 <= pixels.zero_point <= 255
            ):
                fail("normalization", f"{op.name} has {pixels}; scale must be above 0 and zero_point in 0..255")
        case Conv2d():
            _check_conv(op)
        case BatchNorm():
            _check_norm(op.name, op.norm, op.shape[2])
        case Clip() | Add() | Mul():
            _check_clamp(op.name, op.clamp)
        case Activation():
            functions.check(op.function, f"rule 'function': {op.name}")
        case Prelu():
            _check_vector(op.name, "slope", op.slope, op.shape[2])
        case Pad():
            if not math.isfinite(op.value):
                raise ModelError(f"rule 'finite': {op.name}: pads with {op.value}")
        case _:
            pass


def _check_conv(op: Conv2d) -> None:
    if op.weight.ndim != 4:
        fail("arrays", f"{op.name}: weights have shape {op.weight.shape}; (O, height, width, I/groups) is needed")
    _check_finite(op.name, "weight", op.weight)
    if op.bias is not None:
        _check_vector(op.name, "bias", op.bias, len(op.weight))
    if op.norm is not None:
        _check_norm(op.name, op.norm, len(op.weight))
    _check_clamp(op.name, op.clamp)


def _check_norm(name: str, norm: Norm, channels: int) -> None:
    for what in ("gamma", "beta", "mean", "variance"):
        _check_vector(name, what, getattr(norm, what), channels)
    if not math.isfinite(norm.epsilon):
        raise ModelError(f"rule 'finite': {name}: epsilon is {norm.epsilon}")
    smallest = float(norm.variance.min(initial=math.inf)) + norm.epsilon
    if smallest <= 0:
        fail("finite", f"{name}: variance + epsilon is {smallest:g} in a channel; it must be above 0")


def _check_vector(name: str, what: str, values: NDArray[np.float64], length: int) -> None:
    if values.shape != (length,):
        fail("arrays", f"{name}: {what} has shape {values.shape}, the layer has {length} channels")
    _check_finite(name, what, values)


def _check_finite(name: str, what: str, values: NDArray[np.float64]) -> None:
    count = int(np.count_nonzero(~np.isfinite(values)))
    if count:
        raise ModelError(
            f"rule 'finite': {name}: {count} of {values.size} values of {what} are NaN or infinite; "
            "the training that wrote them diverged"
        )


def _check_clamp(name: str, clamp: Clamp) -> None:
    low, high = (-math.inf if clamp[0] is None else clamp[0]), (math.inf if clamp[1] is None else clamp[1])
    if not low <= high:
        fail("clamp", f"{name} clamps to {clamp}; the lower bound must not exceed the upper")


def _check_fused(graph: Graph) -> None:
    kept = {op.name: type(op) for op in fuse(graph)}
    for op in graph:
        if kept.get(op.name) is not type(op):
            fail("fused", f"{op.name} ({type(op).__name__}) can still be fused; call ir.fuse.fuse first")
