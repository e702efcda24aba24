"""The float network: a frozen, topologically ordered tuple of operators.

Every operator has exactly one output, and the output tensor bears the operator's name (SSA by name), so
``op.inputs`` are names of earlier operators. Activations have shape (H, W, C), batch 1 implied; a vector is
(1, 1, C). Weights are OHWI. A linear layer is a convolution whose kernel covers its whole input.

Front ends may produce ``BatchNorm`` and ``Clip`` as operators of their own; ``ir.fuse.fuse`` moves them into
the producing convolution or addition (``norm``, ``clamp``), after which every operator's output is a point
where activations are quantized.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import UsageError
from mcuq.ir.functions import Function

FloatArray = NDArray[np.float64]
Shape = tuple[int, int, int]
Clamp = tuple[float | None, float | None]
"""Lower and upper clip of an activation; None is unbounded. ReLU is (0.0, None), ReLU6 (0.0, 6.0)."""

NO_CLAMP: Clamp = (None, None)


@dataclass(frozen=True, slots=True)
class Window:
    """Sliding window of a convolution or pool. Padding is (top, left, bottom, right), in input pixels.

    ``input_dilation`` n puts n - 1 rows (columns) of zeros between those of the input before anything else: a
    transposed convolution is one of stride 1 over such an input, with mirrored weights.
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    input_dilation: tuple[int, int] = (1, 1)

    @property
    def transposed(self) -> bool:
        return self.input_dilation != (1, 1)

    def output_hw(self, height: int, width: int) -> tuple[int, int]:
        """Output height and width for an input of ``height`` x ``width`` (floor mode)."""
        top, left, bottom, right = self.padding
        height, width = (height - 1) * self.input_dilation[0] + 1, (width - 1) * self.input_dilation[1] + 1
        span_h = (self.kernel[0] - 1) * self.dilation[0] + 1
        span_w = (self.kernel[1] - 1) * self.dilation[1] + 1
        return (
            (height + top + bottom - span_h) // self.stride[0] + 1,
            (width + left + right - span_w) // self.stride[1] + 1,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Batch normalization per channel: ``gamma * (x - mean) / sqrt(variance + epsilon) + beta``; arrays [C]."""

    gamma: FloatArray
    beta: FloatArray
    mean: FloatArray
    variance: FloatArray
    epsilon: float

    def gain_bias(self) -> tuple[FloatArray, FloatArray]:
        """(gain, bias) with ``norm(x) = gain * x + bias``."""
        gain = self.gamma / np.sqrt(self.variance + self.epsilon)
        return gain, self.beta - self.mean * gain


@dataclass(frozen=True, slots=True)
class Normalization:
    """How raw uint8 pixels become the network's input: ``scale * (pixel - zero_point)``, zero_point 0..255."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Op:
    """Common fields: ``name`` (unique; also the output tensor), ``inputs`` (names), ``shape`` (output H, W, C).

    ``source`` is where the operator stands in the user's model, for error texts only.
    """

    name: str
    inputs: tuple[str, ...]
    shape: Shape
    source: str = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Input(Op):
    """Network input. With ``normalization`` the device takes raw uint8 pixels."""

    normalization: Normalization | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Conv2d(Op):
    """Convolution, depthwise and fully connected: weight [O, kh, kw, I/groups], bias [O] or None."""

    weight: FloatArray
    bias: FloatArray | None = None
    window: Window = field(default_factory=Window)
    groups: int = 1
    norm: Norm | None = None
    clamp: Clamp = NO_CLAMP


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BatchNorm(Op):
    """A batch normalization not (yet) part of a convolution."""

    norm: Norm


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Clip(Op):
    """ReLU, ReLU6, clamp."""

    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Add(Op):
    """Elementwise sum, or first less second, of two tensors of one shape, then clamp."""

    clamp: Clamp = NO_CLAMP
    subtract: bool = False


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Mul(Op):
    """Elementwise product, then clamp. Sizes of the second tensor may be 1 where the first's are larger."""

    clamp: Clamp = NO_CLAMP


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Extremum(Op):
    """Elementwise maximum (or minimum) of two tensors of one shape."""

    smallest: bool = False


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Activation(Op):
    """A function of every element (see ``ir.functions``)."""

    function: Function


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Prelu(Op):
    """``x`` where it is not negative, else ``slope * x``; slope [C]."""

    slope: FloatArray


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Concat(Op):
    """Concatenation along the channels."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MaxPool(Op):
    window: Window


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AvgPool(Op):
    """Average pool; a global pool has a kernel of the whole input. Padding taps count as zeros if asked."""

    window: Window
    count_include_pad: bool = False


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pad(Op):
    """Padding (top, left, bottom, right) with one value."""

    padding: tuple[int, int, int, int]
    value: float = 0.0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Copy(Op):
    """Moved elements: flat (H, W, C) input index ``offset + sum counter_i * strides_i``, row-major over ``sizes``.

    Transposes, slices with any step, interleaving, repetition. ``sizes`` multiply to the output's elements.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Blend:
    """Where one axis of a resampled map comes from: ``((UNIT - w) * x[first] + w * x[first + 1]) / UNIT``.

    One entry per output position; without ``weights`` they are all zero and positions are only chosen.
    """

    first: tuple[int, ...]
    weights: tuple[int, ...] = ()


BLEND_UNIT = 1 << 11


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Resample(Op):
    """Rows and columns chosen, repeated or blended: resizing (nearest, bilinear), reflecting and repeating borders."""

    rows: Blend
    columns: Blend

    @property
    def chooses(self) -> bool:
        """Values are only moved."""
        return not (self.rows.weights or self.columns.weights)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class L2Normalize(Op):
    """Every pixel's channels divided by their Euclidean length; zeros stay zeros."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reshape(Op):
    """Same codes in (H, W, C) order under another shape."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Softmax(Op):
    """Softmax over the channels of every pixel."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Argmax(Op):
    """Index of the largest channel of every pixel (lowest index on ties); shape (H, W, 1)."""


FloatOp = (
    Input
    | Conv2d
    | BatchNorm
    | Clip
    | Add
    | Mul
    | Extremum
    | Activation
    | Prelu
    | Concat
    | MaxPool
    | AvgPool
    | Pad
    | Copy
    | Resample
    | Reshape
    | L2Normalize
    | Softmax
    | Argmax
)


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A network: operators in topological order and the names of its outputs."""

    ops: tuple[FloatOp, ...]
    outputs: tuple[str, ...]

    def __iter__(self) -> Iterator[FloatOp]:
        return iter(self.ops)

    def op(self, name: str) -> FloatOp:
        """The operator called ``name``. Raises KeyError."""
        for op in self.ops:
            if op.name == name:
                return op
        raise KeyError(name)

    def consumers(self, name: str) -> tuple[FloatOp, ...]:
        """Operators that read tensor ``name``, in order."""
        return tuple(op for op in self.ops if name in op.inputs)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The network's inputs, in the order in which callers give them."""
        return tuple(op for op in self.ops if isinstance(op, Input))

    @property
    def input(self) -> Input:
        """The network's only input. Raises UsageError when there are several."""
        if len(self.inputs) != 1:
            names = ", ".join(op.name for op in self.inputs)
            raise UsageError(f"the network has {len(self.inputs)} inputs ({names}), this needs one")
        return self.inputs[0]

    @property
    def convs(self) -> tuple[Conv2d, ...]:
        """Layers with weights, in execution order: the layer indices users and the paper count by."""
        return tuple(op for op in self.ops if isinstance(op, Conv2d))


def macs(op: Any) -> int:
    """Multiply-accumulates of one operator (padding taps counted), batch 1; 0 without weights."""
    weight = getattr(op, "weight", None)
    if weight is None:
        return 0
    height, width, _ = op.shape
    return int(height * width * weight.size)


def is_depthwise(groups: int, weight_shape: tuple[int, ...], input_channels: int) -> bool:
    """One filter per channel: groups == input channels == output channels > 1 or a single-channel 1-to-1 map."""
    return groups == input_channels == weight_shape[0] and groups > 1
