"""Rules that hold for float and integer graphs alike: names, order, windows, shapes (see ``ir.verify``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from mcuq.errors import CheckError, ModelError
from mcuq.ir.graph import AvgPool, Conv2d, FloatOp, Graph, Input, MaxPool, Pad, Shape, Window
from mcuq.ir.integer import IntegerGraph, IntegerOp, QAvgPool, QConv2d, QInput, QMaxPool, QPad
from mcuq.ir.shapes import infer_shape

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
"""Names of operators: what every later file, symbol and comment can carry."""
LARGEST_SIZE = 65535
"""Heights, widths and channels are uint16 on the device."""
LARGEST_TENSOR = 1 << 28
"""Values of one tensor: far above any board, small enough that no file makes the interpreter eat the machine."""
LARGEST_WINDOW = 255
"""Kernels, strides, dilations and paddings are uint8 on the device."""


def fail(rule: str, text: str) -> NoReturn:
    """Raise CheckError quoting the rule."""
    raise CheckError(f"rule '{rule}': {text}")


def check_structure(graph: Graph | IntegerGraph) -> None:
    """Names, order, outputs. Raises CheckError."""
    if not graph.ops:
        fail("inputs", "the graph has no operators")
    seen: set[str] = set()
    for op in graph.ops:
        if not NAME.fullmatch(op.name):
            fail("names", f"{op.name[:140]!r} is not a name: 1 to 128 letters, digits, '_', '.' or '-'")
        if op.name in seen:
            fail("unique-names", f"two operators are called {op.name}")
        for name in op.inputs:
            if name not in seen:
                fail("topological", f"{op.name} reads {name[:140]!r}, which no earlier operator writes")
        seen.add(op.name)
    _check_inputs(graph)
    if not graph.outputs:
        fail("outputs", "the graph has no outputs")
    for name in graph.outputs:
        if name not in seen:
            fail("outputs", f"output {name[:140]!r} is no operator's")
    if len(set(graph.outputs)) != len(graph.outputs):
        fail("outputs", f"an output is listed twice: {', '.join(graph.outputs)}")


def _check_inputs(graph: Graph | IntegerGraph) -> None:
    """There is an input; several come first, so that all are there when the first operator runs, and are read."""
    inputs = [op.name for op in graph.ops if isinstance(op, Input | QInput)]
    if not inputs:
        fail("inputs", "the graph has no input")
    if len(inputs) == 1:
        return
    if inputs != [op.name for op in graph.ops[: len(inputs)]]:
        fail("inputs", f"inputs have to come before all other operators, found {', '.join(inputs)} later")
    needed = {*graph.outputs, *(name for op in graph.ops for name in op.inputs)}
    for name in inputs:
        if name not in needed:
            fail("inputs", f"{name} is one of {len(inputs)} inputs, but nothing reads it; remove it from the model")


def check_shapes(graph: Graph | IntegerGraph) -> None:
    """Windows are sane, stored shapes are the inferred ones. Raises CheckError."""
    shapes: dict[str, Shape] = {}
    for op, stored in _stored(graph):
        inputs = tuple(shapes[name] for name in op.inputs)
        if len(stored) != 3 or not all(1 <= size <= LARGEST_SIZE for size in stored):
            fail("shapes", f"{op.name} has shape {stored}; three sizes in 1..{LARGEST_SIZE} are allowed")
        if stored[0] * stored[1] * stored[2] > LARGEST_TENSOR:
            fail("shapes", f"{op.name} has shape {stored}, more than {LARGEST_TENSOR} values")
        match op:
            case Conv2d() | QConv2d() if op.window.transposed:
                _check_window(op.name, op.window)
                if op.window.stride != (1, 1):
                    fail("window", f"{op.name} has stride {op.window.stride} over a dilated input; 1 is allowed")
            case MaxPool() | QMaxPool() | AvgPool() | QAvgPool() if op.window.transposed:
                fail("window", f"{op.name}: only convolutions may dilate their input")
            case Conv2d() | QConv2d() | MaxPool() | QMaxPool() | AvgPool() | QAvgPool():
                _check_window(op.name, op.window)
            case Pad() | QPad():
                _check_bytes(op.name, "padding", op.padding, 0)
            case _:
                pass
        try:
            inferred = infer_shape(op, inputs)
        except ModelError as error:
            fail("shapes", str(error))
        if inferred != stored:
            fail("shapes", f"{op.name} computes shape {inferred}, stored is {stored}")
        _check_taps(op, inputs)
        shapes[op.name] = stored


def _stored(graph: Graph | IntegerGraph) -> Iterator[tuple[FloatOp | IntegerOp, Shape]]:
    if isinstance(graph, Graph):
        yield from ((op, op.shape) for op in graph)
    else:
        yield from ((op, op.output.shape) for op in graph)


def _check_window(name: str, window: Window) -> None:
    _check_bytes(name, "kernel", window.kernel, 1)
    _check_bytes(name, "stride", window.stride, 1)
    _check_bytes(name, "dilation", window.dilation, 1)
    _check_bytes(name, "padding", window.padding, 0)
    _check_bytes(name, "input dilation", window.input_dilation, 1)


def _check_bytes(name: str, what: str, values: tuple[int, ...], low: int) -> None:
    if not all(low <= value <= LARGEST_WINDOW for value in values):
        fail("window", f"{name} has {what} {values}; {low}..{LARGEST_WINDOW} is allowed")


def _check_taps(op: FloatOp | IntegerOp, inputs: tuple[Shape, ...]) -> None:
    """Every window of a pool that leaves out its padding holds a pixel, else its result is undefined."""
    match op:
        case AvgPool(count_include_pad=True):
            return
        case QAvgPool() if op.multiplier.size == 1 and op.window.kernel != (1, 1):
            return
        case MaxPool() | QMaxPool() | AvgPool() | QAvgPool():
            window, (height, width, _) = op.window, inputs[0]
        case _:
            return
    rows, columns = window.output_hw(height, width)
    top, left, _, _ = window.padding
    vertical = empty_window(height, rows, window.kernel[0], window.stride[0], window.dilation[0], top)
    horizontal = empty_window(width, columns, window.kernel[1], window.stride[1], window.dilation[1], left)
    if vertical or horizontal:
        fail("window", f"{op.name}: a window lies wholly in the padding {window.padding}; pad less")


def empty_window(size: int, outputs: int, kernel: int, stride: int, dilation: int, before: int) -> bool:
    """True when along one axis some window of ``kernel`` taps has none inside the image."""
    starts = (index * stride - before for index in range(outputs))
    return any(all(not 0 <= start + tap * dilation < size for tap in range(kernel)) for start in starts)
