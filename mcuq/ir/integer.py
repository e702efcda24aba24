"""The integer network: what the oracle interprets and the emitted C computes, bit for bit.

Same conventions as ``ir.graph`` (one output per operator, tensor named after it, shapes (H, W, C)). Scales are
carried as metadata for reports; no operator reads them. See docs/NUMERICS.md for each operator's equation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import UsageError
from mcuq.ir.graph import Shape, Window
from mcuq.numerics import Affine, tensor_bytes

Encoding = Literal["int8", "uint8"]


@dataclass(frozen=True, slots=True)
class QTensor:
    """A stored activation: shape (H, W, C), bits 8 (int8), 4, 2 (unsigned) or 32, real = scale * (q - zero_point)."""

    shape: Shape
    bits: int
    scale: float
    zero_point: int

    @property
    def bytes(self) -> int:
        return tensor_bytes(self.shape, self.bits)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class IntegerBase:
    name: str
    inputs: tuple[str, ...]
    output: QTensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QInput(IntegerBase):
    """Network input. ``uint8``: the caller writes raw pixels p, the network starts from p - 128 (p ^ 0x80)."""

    encoding: Encoding = "int8"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QConv2d(IntegerBase):
    """``y = clamp(requantize(bias + sum x * (w - zw)))``; padding taps read the input's zero point.

    Attributes:
        weight: int8 codes [O, kh, kw, I/groups]; weight_bits in {8, 4, 2};
        weight_zero_point: int8 [O] or [1]; all zero when symmetric;
        bias: int32 [O], with the input zero point folded in: ``bias - zx * sum(w - zw)``;
        multiplier: int32 [O] or [1]; shift: uint8 [O] or [1];
        clamp: (lo, hi) output codes, inside the code range. With output.bits == 32 the same equation,
        clamp the int32 range, output zero point 0;
        roundings: 2 to round as TFLite's reference kernels do (``numerics.requantize``), at 8 bits.
    """

    weight: NDArray[np.int8]
    weight_bits: int
    weight_zero_point: NDArray[np.int8]
    bias: NDArray[np.int32]
    multiplier: NDArray[np.int32]
    shift: NDArray[np.uint8]
    window: Window
    groups: int
    clamp: tuple[int, int]
    roundings: int = 1


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QAdd(IntegerBase):
    """``affine`` of two tensors of one shape (bits may differ)."""

    affine: Affine
    clamp: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QMul(IntegerBase):
    """``requantize((a - za) * (b - zb))``; multiplier and shift have one entry. Sizes of b may be 1 (repeated)."""

    multiplier: NDArray[np.int32]
    shift: NDArray[np.uint8]
    clamp: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QExtremum(IntegerBase):
    """The larger (``smallest``: smaller) of both inputs, each rescaled by its own affine."""

    affines: tuple[Affine, ...]
    smallest: bool
    clamp: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QTable(IntegerBase):
    """``entries[x - lowest code]``: int8 [256], [16] or [4] for inputs of 8, 4 or 2 bits."""

    entries: NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QPrelu(IntegerBase):
    """``affine`` of ``x - zx`` where that is not negative, else with ``multiplier[c]`` (int32 [C]) as its factor."""

    affine: Affine
    multiplier: NDArray[np.int32]
    clamp: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QConcat(IntegerBase):
    """Concatenation along channels; input i is rescaled by ``affines[i]`` (each with one multiplier)."""

    affines: tuple[Affine, ...]
    clamp: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QMaxPool(IntegerBase):
    """``affine(max of the window)``; padding taps are left out."""

    window: Window
    affine: Affine
    clamp: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QAvgPool(IntegerBase):
    """``requantize(sum over valid taps of (x - zx))`` with entry ``n - 1`` of the tables, n = number of valid taps.

    Tables of length 1 hold the single entry used for every n (no padding, or padding counted as zeros).
    """

    window: Window
    multiplier: NDArray[np.int32]
    shift: NDArray[np.uint8]
    clamp: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QPad(IntegerBase):
    """Border of the code ``border`` around ``affine(x)``. Padding (top, left, bottom, right)."""

    padding: tuple[int, int, int, int]
    border: int
    affine: Affine
    clamp: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QRescale(IntegerBase):
    """Elementwise ``affine`` of one tensor: requantizing copy, clip, change of bits."""

    affine: Affine
    clamp: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QCopy(IntegerBase):
    """Moved codes: flat input index ``offset + sum counter_i * strides_i``, row-major over ``sizes``."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QResample(IntegerBase):
    """Rows and columns chosen (codes kept), or blended: ``requantize`` of the four neighbours' weighted ``x - zx``.

    Attributes:
        row, column: uint16 [output height], [output width]: the first of two neighbouring rows and columns;
        row_weight, column_weight: shares of the second ones in 1 / 2048, uint16 of the same sizes; all zero: choose;
        multiplier, shift: one entry.
    """

    row: NDArray[np.uint16]
    column: NDArray[np.uint16]
    row_weight: NDArray[np.uint16]
    column_weight: NDArray[np.uint16]
    multiplier: NDArray[np.int32]
    shift: NDArray[np.uint8]
    clamp: tuple[int, int]

    @property
    def chooses(self) -> bool:
        """Codes are only moved."""
        return not (self.row_weight.any() or self.column_weight.any())


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QL2Normalize(IntegerBase):
    """``numerics.l2_normalize`` over the channels; output int8, scale 1/128, zero point 0."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QReshape(IntegerBase):
    """Same codes in (H, W, C) order under another shape; an alias when the packed rows agree, else a copy."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QSoftmax(IntegerBase):
    """``numerics.softmax``; output int8, scale 1/256, zero point -128. ``table``: uint16 [256]."""

    table: NDArray[np.uint16]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class QArgmax(IntegerBase):
    """Lowest index of every pixel's largest channel; output 32 bits, shape (H, W, 1)."""


IntegerOp = (
    QInput
    | QConv2d
    | QAdd
    | QMul
    | QExtremum
    | QTable
    | QPrelu
    | QConcat
    | QMaxPool
    | QAvgPool
    | QPad
    | QRescale
    | QCopy
    | QResample
    | QReshape
    | QL2Normalize
    | QSoftmax
    | QArgmax
)


@dataclass(frozen=True, slots=True, eq=False)
class IntegerGraph:
    """An integer network: operators in topological order and the names of its outputs."""

    ops: tuple[IntegerOp, ...]
    outputs: tuple[str, ...]

    def __iter__(self) -> Iterator[IntegerOp]:
        return iter(self.ops)

    def op(self, name: str) -> IntegerOp:
        for op in self.ops:
            if op.name == name:
                return op
        raise KeyError(name)

    def tensor(self, name: str) -> QTensor:
        return self.op(name).output

    def consumers(self, name: str) -> tuple[IntegerOp, ...]:
        return tuple(op for op in self.ops if name in op.inputs)

    @property
    def inputs(self) -> tuple[QInput, ...]:
        """The network's inputs, in the order in which callers give them."""
        return tuple(op for op in self.ops if isinstance(op, QInput))

    @property
    def input(self) -> QInput:
        """The network's only input. Raises UsageError when there are several."""
        if len(self.inputs) != 1:
            names = ", ".join(op.name for op in self.inputs)
            raise UsageError(f"the network has {len(self.inputs)} inputs ({names}), this needs one")
        return self.inputs[0]


def reshape_is_alias(source: QTensor, target: QTensor) -> bool:
    """True when both shapes store the same codes in the same bytes."""
    return source.bytes == target.bytes and (
        source.shape[2] == target.shape[2]
        or (source.shape[2] * source.bits % 8 == 0 and target.shape[2] * target.bits % 8 == 0)
    )


def arrays(op: Any) -> dict[str, NDArray[Any]]:
    """Names and values of the numpy arrays an operator holds (for files, hashes and diffs)."""
    names = (
        "weight",
        "weight_zero_point",
        "bias",
        "multiplier",
        "shift",
        "table",
        "entries",
        "row",
        "column",
        "row_weight",
        "column_weight",
    )
    return {n: getattr(op, n) for n in names if hasattr(op, n)}
