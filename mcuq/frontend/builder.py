"""What the file formats' translators share: emitting operators, reading views, quantization found in the file.

Weights are constants with an optional :class:`Coded` (the integer codes the file holds); quantization of
activations is noted per operator and becomes a ``QuantizedGraph`` in ``frontend.quantized``.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import ModelError, UnsupportedError, UsageError
from mcuq.frontend.problems import Problem, problem_text
from mcuq.frontend.views import (
    ZERO,
    Refusal,
    View,
    chosen_rows,
    counters,
    map_of,
    per_channel,
    rows_of,
    scatter,
    select,
)
from mcuq.ir import graph as ir
from mcuq.ir.graph import Clamp, FloatOp, Graph, Norm, Normalization, Shape, Window
from mcuq.ir.quantized import QuantParams
from mcuq.ir.rules import LARGEST_SIZE
from mcuq.ir.shapes import infer_shape

MAX_ELEMENTS = 1 << 24
"""Largest activation, in elements: 16 MB at 8 bits, more than any supported board holds."""
MAX_WEIGHTS = 1 << 24
"""All weights together: 16 MB at 8 bits."""
MAX_CONSTANTS = 1 << 20
"""Elements of an activation with which constants per element are combined."""
MAX_INPUTS = 64
"""Inputs of one network."""
_ODD = re.compile(r"[^A-Za-z0-9_.\-]")


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """Integer codes of a constant: ``scale * (codes - zero_point)``, scale and zero_point [n] along ``axis`` or [1]."""

    codes: NDArray[np.int64]
    bits: int
    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]
    axis: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant tensor of the model, with the name it has there and its codes when it is quantized."""

    value: NDArray[Any]
    name: str = ""
    coded: Coded | None = None


def safe_name(wanted: str) -> str:
    """``wanted`` in letters, digits, ``_``, ``.`` and ``-``, at most 100 characters; a path's ``/`` becomes ``.``."""
    return _ODD.sub("_", wanted[:100].replace("/", ".")).strip(".-") or "op"


def for_inputs(
    normalization: Normalization | tuple[Normalization | None, ...] | None, count: int
) -> tuple[Normalization | None, ...]:
    """The normalization of each of ``count`` inputs: one for all, or one for each. Raises UsageError."""
    found = normalization if isinstance(normalization, tuple) else (normalization,) * count
    if len(found) != count:
        raise UsageError(f"{len(found)} normalizations were given for {count} inputs")
    return found


class Builder:
    """Collects the operators of a graph; every method that emits returns a whole-map view of the new output."""

    def __init__(self, *, channels_first: bool) -> None:
        self.channels_first = channels_first
        self.ops: dict[str, FloatOp] = {}
        self.problems: list[Problem] = []
        self.coded: dict[str, Coded] = {}
        self.params: dict[str, QuantParams] = {}
        self.selections: set[str] = set()
        self._weights = 0
        self._numbers: Counter[str] = Counter()
        self._copies: dict[tuple[str, bytes], View] = {}

    def name(self, wanted: str) -> str:
        """A unique name of letters, digits, ``_``, ``.`` and ``-``: names in files are data, never trusted text.

        At most 100 characters, so that later stages can append to it. A path's ``/`` becomes ``.``.
        """
        base = safe_name(wanted)
        name = base
        while name in self.ops:
            self._numbers[base] += 1
            name = f"{base}_{self._numbers[base] + 1}"
        return name

    def emit(self, op: FloatOp, shape: tuple[int, ...]) -> View:
        """Add ``op`` with its inferred shape; the view has the model's ``shape``."""
        if isinstance(op, ir.Conv2d | ir.MaxPool | ir.AvgPool):
            op = replace(op, window=plain_window(op.window, self.ops[op.inputs[0]].shape, isinstance(op, ir.Conv2d)))
        stored = infer_shape(op, tuple(self.ops[name].shape for name in op.inputs))
        if stored[0] * stored[1] * stored[2] > MAX_ELEMENTS:
            raise Refusal(f"a tensor of shape {stored} has more than {MAX_ELEMENTS} elements")
        self.ops[op.name] = replace(op, shape=stored)
        return View(op.name, stored, shape, self.channels_first)

    def input(self, shape: tuple[int, ...], name: str, normalization: Normalization | None) -> View:
        """The network's input; ``shape`` is the model's, batch first."""
        if not 2 <= len(shape) <= 4:
            raise Refusal(f"inputs must be [N, C, H, W], [N, C, L] or [N, F], found {list(shape)}")
        stored = map_of(shape, channels_first=self.channels_first)
        op = ir.Input(name=self.name(name), inputs=(), shape=stored, normalization=normalization)
        return self.emit(op, shape)

    def rows(self, view: View, axis: int, source: str = "") -> tuple[str, Shape]:
        """Operator (and its shape H, W, C) that stores ``view`` with ``axis`` as channels, emitted when needed."""
        if view.indices is None and axis % len(view.shape) == (1 if view.channels_first else len(view.shape) - 1):
            return view.op, view.stored
        rows = rows_of(view.order, axis)
        whole = rows.size == int(np.prod(view.stored)) and np.array_equal(rows.ravel(), np.arange(rows.size))
        if whole and rows.shape == view.stored:
            return view.op, view.stored
        key = (view.op, rows.tobytes() + bytes(str(rows.shape), "ascii"))
        if key not in self._copies:
            self._copies[key] = self._copy(view, rows, whole, source)
        return self._copies[key].op, self._copies[key].stored

    def _copy(self, view: View, rows: NDArray[np.int64], whole: bool, source: str) -> View:
        height, width, channels = rows.shape
        if whole:
            name = self.name(f"{view.op}.reshape")
            op = ir.Reshape(name=name, inputs=(view.op,), shape=(height, width, channels), source=source)
            return self.emit(op, view.shape)
        moved = None if (rows == ZERO).any() else counters(rows)
        if moved is not None:
            sizes, strides, offset = moved
            name = self.name(f"{view.op}.copy")
            return self.emit(
                ir.Copy(
                    name=name,
                    inputs=(view.op,),
                    shape=(height, width, channels),
                    source=source,
                    sizes=sizes,
                    strides=strides,
                    offset=offset,
                ),
                view.shape,
            )
        if moved is None and (separate := chosen_rows(rows, view.stored)) is not None:
            name = self.name(f"{view.op}.choose")
            blends = [ir.Blend(tuple(places.tolist())) for places in separate]
            op = ir.Resample(
                name=name, inputs=(view.op,), shape=(0, 0, 0), source=source, rows=blends[0], columns=blends[1]
            )
            return self.emit(op, view.shape)
        chosen = select(rows, view.stored)
        self._reserve(chosen.weight.size)
        name = self.name(f"{view.op}.select")
        self.selections.add(name)
        return self.emit(
            ir.Conv2d(
                name=name,
                inputs=(view.op,),
                shape=(0, 0, 0),
                source=source,
                weight=chosen.weight,
                window=chosen.window,
                groups=chosen.groups,
            ),
            view.shape,
        )

    def map(self, view: View, source: str = "") -> tuple[str, Shape]:
        """:meth:`rows` with the channel axis of the model's layout."""
        map_of(view.shape, channels_first=self.channels_first)
        return self.rows(view, 1 if self.channels_first else len(view.shape) - 1, source)

    def whole(self, view: View, source: str = "") -> View:
        """``view`` as the whole output of an operator."""
        op, stored = self.map(view, source)
        return View(op, stored, view.shape, self.channels_first)

    def clip(self, view: View, name: str, clamp: Clamp, source: str = "") -> View:
        """Clip: elementwise, so any view of the map becomes the same view of the clipped map."""
        view = self.whole(view, source) if view.has_zeros else view
        op = ir.Clip(name=self.name(name), inputs=(view.op,), shape=view.stored, source=source, clamp=clamp)
        return replace(view, op=self.emit(op, view.shape).op)

    def affine(self, view: View, name: str, gain: NDArray[Any], bias: NDArray[Any], source: str = "") -> View:
        """``gain * x + bias`` with constants that broadcast to the view's shape.

        Raises:
            Refusal: the constants enlarge the tensor.
        """
        view = self.whole(view, source) if view.has_zeros else view
        channels = view.stored[2]
        if np.size(gain) == 1 and np.size(bias) == 1:
            vectors = [np.full(channels, float(np.ravel(c)[0])) for c in (gain, bias)]
        else:
            try:
                vectors = [per_channel(view, c) for c in (gain, bias)]
            except Refusal:
                return self._affine_per_element(self.whole(view, source), name, gain, bias, source)
        norm = Norm(vectors[0], vectors[1], np.zeros(channels), np.ones(channels), 0.0)
        return self.batch_norm(view, name, norm, source)

    def _affine_per_element(self, view: View, name: str, gain: NDArray[Any], bias: NDArray[Any], source: str) -> View:
        """:meth:`affine` whose constants repeat after a while in the stored order: that many channels."""
        if int(np.prod(view.shape)) > MAX_CONSTANTS:
            raise Refusal(f"constants per element of more than {MAX_CONSTANTS} elements")
        order, tables = view.order.ravel(), list[NDArray[np.float64]]()
        for constant in (gain, bias):
            try:
                spread = np.broadcast_to(constant, view.shape).ravel().astype(np.float64)
            except ValueError as error:
                text = f"a constant of shape {list(np.shape(constant))} does not fit {list(view.shape)}"
                raise Refusal(text) from error
            tables.append(np.empty(len(order)))
            tables[-1][order] = spread
        period = _period(tables)
        rows = np.arange(len(order)).reshape(1, -1, period)
        op, stored = self.rows(view.viewed(rows), 2, source)
        flat = View(op, stored, (1, *rows.shape[1:]), False)
        vectors = [table[:period] for table in tables]
        norm = Norm(vectors[0], vectors[1], np.zeros(period), np.ones(period), 0.0)
        return self.batch_norm(flat, name, norm, source).viewed(view.order)

    def constant(self, value: NDArray[Any], name: str, source: str = "") -> View:
        """``value`` as an activation: elements of the network's input times 0, plus constants."""
        given = next(op for op in self.ops.values() if isinstance(op, ir.Input))
        element = View(given.name, given.shape, value.shape, self.channels_first, np.zeros(value.shape, np.int64))
        return self.affine(self.whole(element, source), name, np.zeros(1), value, source)

    def batch_norm(self, view: View, name: str, norm: Norm, source: str = "") -> View:
        op = ir.BatchNorm(name=self.name(name), inputs=(view.op,), shape=view.stored, source=source, norm=norm)
        return replace(view, op=self.emit(op, view.shape).op)

    def concat(self, views: list[View], axis: int, name: str, source: str = "") -> View:
        """Join along any axis: along channels of maps directly, otherwise as vectors."""
        rank = len(views[0].shape)
        axis %= rank
        joined = list(views[0].shape)
        joined[axis] = sum(v.shape[axis] for v in views)
        if len(views) == 1:
            return views[0]
        in_order = all(v.indices is not None and _is_range(v) for v in views)
        channels = 1 if self.channels_first else rank - 1
        if 2 <= rank <= 4 and axis == channels and not in_order:
            try:
                parts = tuple(self.map(view, source)[0] for view in views)
            except Refusal:  # reordered, but perhaps whole, such as the boxes of a detector's heads
                return self._concat_vectors(views, axis, name, source)
            op = ir.Concat(name=self.name(name), inputs=parts, shape=(0, 0, 0), source=source)
            return self.emit(op, tuple(joined))
        if 3 <= rank <= 4 and axis not in (0, channels):
            try:
                return self._concat_maps([self._sliced(v, source) for v in views], axis, name, tuple(joined), source)
            except Refusal:
                pass
        if rank > 4 and axis == rank - 1:
            return self._concat_last(views, name, tuple(joined), source)
        return self._concat_vectors(views, axis, name, source)

    def _concat_last(self, views: list[View], name: str, shape: tuple[int, ...], source: str) -> View:
        """Tensors joined along their last axis, which becomes the channels; the others in order are rows."""
        parts = tuple(self.rows(view, len(shape) - 1, source)[0] for view in views)
        op = ir.Concat(name=self.name(name), inputs=parts, shape=(0, 0, 0), source=source)
        return self.emit(op, shape).viewed(np.arange(int(np.prod(shape))).reshape(shape))

    def _sliced(self, view: View, source: str) -> View:
        """A map; slices are copied, other orders of all elements are refused."""
        if view.indices is not None and np.unique(view.indices).size == int(np.prod(view.stored)):
            view = _same_order(view)
        return self.whole(view, source)

    def _concat_maps(self, views: list[View], axis: int, name: str, shape: tuple[int, ...], source: str) -> View:
        """Maps joined along rows or columns: joined along the channels under another shape."""
        spatial = axis - (2 if self.channels_first else 1) + 4 - len(shape)
        rows = views[0].stored[0] if spatial == 1 else 1
        flat: list[View] = []
        for view in views:
            order = np.arange(int(np.prod(view.stored))).reshape(1, rows, -1)
            op, stored = self.rows(View(view.op, view.stored, (1,), False, order), 2, source)
            flat.append(View(op, stored, order.shape, False))
        op = ir.Concat(name=self.name(name), inputs=tuple(v.op for v in flat), shape=(0, 0, 0), source=source)
        result = self.emit(op, (1, rows, sum(v.stored[2] for v in flat)))
        stored = map_of(shape, channels_first=self.channels_first)
        return result.viewed(View("", stored, shape, self.channels_first).order)

    def _concat_vectors(self, views: list[View], axis: int, name: str, source: str) -> View:
        vectors: list[str] = []
        indices: list[NDArray[np.int64]] = []
        offset = 0
        for view in views:
            if view.has_zeros:
                raise Refusal("joining padded tensors along rows or columns; pad after joining")
            size = int(np.prod(view.stored))
            flat = View(view.op, view.stored, (1, size), False, np.arange(size)[None])
            vectors.append(self.rows(flat, 1, source)[0])
            indices.append(view.order + offset)
            offset += size
        op = ir.Concat(name=self.name(name), inputs=tuple(vectors), shape=(0, 0, 0), source=source)
        joined = self.emit(op, (1, offset))
        return joined.viewed(np.concatenate(indices, axis=axis))

    def conv(
        self,
        view: View,
        name: str,
        weight: Constant,
        bias: NDArray[Any] | None,
        window: Window,
        groups: int,
        shape: tuple[int, ...],
        source: str = "",
    ) -> View:
        """Convolution; ``weight`` is OHWI, its codes (if any) as well, quantized along axis 0 or as a whole."""
        op, _ = self.map(view, source)
        self._reserve(weight.value.size)
        conv = ir.Conv2d(
            name=self.name(name),
            inputs=(op,),
            shape=(0, 0, 0),
            source=source,
            weight=np.array(weight.value, dtype=np.float64, order="C"),  # own strides: sums over it keep one order
            bias=None if bias is None else np.asarray(bias, dtype=np.float64).ravel(),
            window=window,
            groups=groups,
        )
        result = self.emit(conv, shape)
        if weight.coded is not None:
            self.coded[conv.name] = weight.coded
        return result

    def fully_connected(
        self, view: View, name: str, weight: Constant, bias: NDArray[Any] | None, source: str = ""
    ) -> View:
        """Linear layer over the last axis, ``weight`` [O, F].

        A single vector [1, F] may be any view of a map (flattened, sliced): the weights are moved instead of
        the activations. More than one row is a 1x1 convolution.
        """
        features = weight.value.shape[1]
        if not view.shape or view.shape[-1] != features:
            raise Refusal(f"weights {list(weight.value.shape)} do not fit an input of shape {list(view.shape)}")
        shape = (*view.shape[:-1], len(weight.value))
        if int(np.prod(view.shape)) == features:
            self._reserve(len(weight.value) * int(np.prod(view.stored)), keep=False)
            spread = spread_weights(weight, view)
            kernel = view.stored[:2]
            vector = View(view.op, view.stored, map_shape(view.stored, self.channels_first), self.channels_first)
            whole = self.conv(vector, name, spread, bias, Window(kernel), 1, shape, source)
            return whole.viewed(np.arange(shape[-1]).reshape(shape))
        op, stored = self.rows(view, len(view.shape) - 1, source)
        inner = View(op, stored, map_shape(stored, self.channels_first), self.channels_first)
        pointwise = replace(weight, value=weight.value[:, None, None, :], coded=_pointwise(weight.coded))
        result = self.conv(inner, name, pointwise, bias, Window(), 1, shape, source)
        return result.viewed(np.arange(int(np.prod(result.stored))).reshape(shape))

    def _reserve(self, weights: int, *, keep: bool = True) -> None:
        """Account for weights before they are made. Raises ModelError above :data:`MAX_WEIGHTS`."""
        if self._weights + weights > MAX_WEIGHTS:
            raise ModelError(f"the network has more than {MAX_WEIGHTS} weights; no supported board holds them.")
        self._weights += weights if keep else 0

    def quantize(self, view: View, params: QuantParams, source: str = "") -> View:
        """Note that ``view`` is stored with ``params``; a copy is emitted when it already is stored otherwise."""
        known = self.params.get(view.op)
        if known is None:
            self.params[view.op] = params
        elif known != params:
            view = self.clip(view, f"{view.op}.requantized", ir.NO_CLAMP, source)
            self.params[view.op] = params
        return view

    def output(self, view: View, what: str) -> str:
        """The operator that is the network's output; its (H, W, C) order must be the map's or the tensor's own."""
        if len(view.shape) > 4:  # in the tensor's own order, the last axis as channels
            return self.rows(view, len(view.shape) - 1)[0]
        if view.indices is None:
            return view.op
        size = int(np.prod(view.shape))
        if size == int(np.prod(view.stored)) and np.array_equal(view.order.ravel(), np.arange(size)):
            if isinstance(self.ops[view.op], ir.Argmax):  # 32 bits, which nothing but a layer writes
                return view.op
            return self.rows(view, 2)[0] if len(view.shape) == 3 and view.shape[2] > 1 else view.op
        try:
            return self.map(view)[0]
        except Refusal as refusal:
            self.problems.append(Problem(what, "", f"{refusal}; return the map itself, or pool it"))
            return view.op

    def graph(self, outputs: list[str]) -> Graph:
        """The collected graph. Raises UnsupportedError with all problems at once."""
        if self.problems:
            raise UnsupportedError(problem_text(self.problems))
        return Graph(tuple(self.ops.values()), tuple(dict.fromkeys(outputs)))


def plain_window(window: Window, shape: Shape, convolves: bool) -> Window:
    """``window`` over an input of ``shape`` (H, W, C) without what says nothing and formats write differently.

    The dilation of a kernel of one is 1. The stride of a single output is 1, or the kernel in a pool.
    """
    if window.transposed:
        return window
    pairs = zip(window.kernel, window.dilation, strict=True)
    window = replace(window, dilation=tuple(1 if k == 1 else d for k, d in pairs))
    every = replace(window, stride=(1, 1)).output_hw(*shape[:2])
    single = [1 if convolves else k for k in window.kernel]
    stride = tuple(alone if n == 1 else s for n, alone, s in zip(every, single, window.stride, strict=True))
    return replace(window, stride=stride)


def _same_order(view: View) -> View:
    """The whole map that ``view`` is. Raises Refusal when its elements are in another order."""
    whole = View(view.op, view.stored, view.shape, view.channels_first)
    fits = map_of(view.shape, channels_first=view.channels_first) == view.stored
    if not fits or not np.array_equal(view.order, whole.order):
        raise Refusal("a reordered map")
    return whole


def _period(tables: list[NDArray[np.float64]]) -> int:
    """The smallest number of elements after which all ``tables`` repeat. Raises Refusal above LARGEST_SIZE."""
    size = len(tables[0])
    for period in (n for n in range(1, min(size, LARGEST_SIZE) + 1) if size % n == 0 and size // n <= LARGEST_SIZE):
        if all(np.array_equal(table, np.resize(table[:period], size)) for table in tables):
            return period
    raise Refusal(f"constants that differ over more than {LARGEST_SIZE} elements")


def map_shape(stored: Shape, channels_first: bool) -> tuple[int, ...]:
    """Model shape, batch of 1 included, of a map (H, W, C)."""
    return (1, stored[2], stored[0], stored[1]) if channels_first else (1, *stored)


def spread_weights(weight: Constant, view: View) -> Constant:
    """A linear layer's weights [O, F], codes included, as OHWI weights over the view's whole stored map."""
    value = scatter(weight.value.astype(np.float64), view)
    coded = weight.coded
    if coded is not None:
        coded = replace(coded, codes=scatter(coded.codes, view, coded.zero_point))
    return replace(weight, value=value, coded=coded)


def _is_range(view: View) -> bool:
    """The whole map in its stored order: joined as vectors without a copy."""
    size = int(np.prod(view.stored))
    return view.order.size == size and np.array_equal(view.order.ravel(), np.arange(size))


def _pointwise(coded: Coded | None) -> Coded | None:
    return None if coded is None else replace(coded, codes=coded.codes[:, None, None, :])
