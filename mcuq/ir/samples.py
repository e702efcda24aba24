"""Samples of networks with several inputs: by name, in order, or joined into one vector per sample.

A joined sample is (1, 1, C): the values of all inputs, each in (H, W, C) order, one input after another. Files, data
sets and the harness hold samples so; with one input a sample is simply that input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import DataError
from mcuq.ir.graph import Graph, Shape
from mcuq.ir.integer import IntegerGraph

Samples = NDArray[Any] | Sequence[NDArray[Any]] | Mapping[str, NDArray[Any]]
"""One array [N, H, W, C] of a single or a joined input; or one per input, in the graph's order or by name."""

InputShape = tuple[int, ...] | tuple[tuple[int, ...], ...]
"""Shape of the only input as users write it, or one shape per input."""


def input_shapes(graph: Graph | IntegerGraph) -> dict[str, Shape]:
    """Name and (H, W, C) of every input, in order."""
    if isinstance(graph, Graph):
        return {op.name: op.shape for op in graph.inputs}
    return {op.name: op.output.shape for op in graph.inputs}


def sample_shape(graph: Graph | IntegerGraph) -> Shape:
    """(H, W, C) of a sample: the input's, or the joined vector's."""
    shapes = list(input_shapes(graph).values())
    return shapes[0] if len(shapes) == 1 else (1, 1, sum(prod(shape) for shape in shapes))


def split(graph: Graph | IntegerGraph, x: Samples) -> dict[str, NDArray[Any]]:
    """The array [N, H, W, C] of every input by name.

    Raises:
        DataError: arrays are missing, too many, or of other shapes or numbers of samples.
    """
    shapes = input_shapes(graph)
    if isinstance(x, Mapping):
        if set(x) != set(shapes):
            raise DataError(f"inputs {', '.join(sorted(x))} were given, the network takes {', '.join(shapes)}")
        found = {name: np.asarray(x[name]) for name in shapes}
    elif isinstance(x, np.ndarray):
        found = dict(zip(shapes, _cut(x, list(shapes.values())), strict=True))
    else:
        if len(x) != len(shapes):
            raise DataError(f"{len(x)} arrays were given, the network takes {len(shapes)}: {', '.join(shapes)}")
        found = {name: np.asarray(part) for name, part in zip(shapes, x, strict=True)}
    for name, part in found.items():
        if part.ndim != 4 or part.shape[1:] != shapes[name]:
            sizes = ", ".join(map(str, shapes[name]))
            raise DataError(f"input {name} has shape {part.shape}, the network takes (N, {sizes})")
    counts = [len(part) for part in found.values()]
    if len(set(counts)) > 1:
        raise DataError(f"inputs have {', '.join(map(str, counts))} samples; give equal numbers")
    return found


def _cut(x: NDArray[Any], shapes: list[Shape]) -> list[NDArray[Any]]:
    if len(shapes) == 1:
        return [x]
    sizes = [prod(shape) for shape in shapes]
    if x.ndim != 4 or x.shape[1:] != (1, 1, sum(sizes)):
        raise DataError(
            f"samples have shape {x.shape}; one array for each of {len(shapes)} inputs is needed, or one "
            f"(N, 1, 1, {sum(sizes)})"
        )
    parts = np.split(x.reshape(len(x), -1), list(accumulate(sizes))[:-1], axis=1)
    return [part.reshape(len(x), *shape) for part, shape in zip(parts, shapes, strict=True)]


def joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """One array of samples: the only part itself, else (N, 1, 1, C) with all values of each sample."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)[:, None, None, :]
