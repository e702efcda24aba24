"""Small float graphs for tests: a builder that infers shapes and draws parameters from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from mcuq.ir.functions import Step
from mcuq.ir.graph import (
    Activation,
    Add,
    Argmax,
    AvgPool,
    BatchNorm,
    Blend,
    Clip,
    Concat,
    Conv2d,
    Copy,
    Extremum,
    FloatOp,
    Graph,
    Input,
    L2Normalize,
    MaxPool,
    Mul,
    Norm,
    Normalization,
    Pad,
    Prelu,
    Resample,
    Reshape,
    Shape,
    Softmax,
    Window,
)
from mcuq.ir.shapes import infer_shape

RELU, RELU6 = (0.0, None), (0.0, 6.0)


class Net:
    """Adds operators by short calls; each returns the new tensor's name."""

    def __init__(self, shape: Shape, seed: int = 0, normalization: Normalization | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.ops: list[FloatOp] = [Input(name="x", inputs=(), shape=shape, normalization=normalization)]

    def shape(self, name: str) -> Shape:
        return next(op.shape for op in self.ops if op.name == name)

    def add_op(self, kind: Any, name: str, *inputs: str, **fields: Any) -> str:
        shapes = tuple(self.shape(i) for i in inputs)
        op = kind(name=name, inputs=inputs, shape=fields.pop("shape", (0, 0, 0)), **fields)
        self.ops.append(kind(**{**{f: getattr(op, f) for f in _fields(op)}, "shape": infer_shape(op, shapes)}))
        return name

    def norm(self, channels: int) -> Norm:
        r = self.rng
        sign = r.choice([-1.0, 1.0], channels)
        return Norm(
            sign * r.uniform(0.5, 1.5, channels),
            r.normal(0, 0.5, channels),
            r.normal(0, 0.3, channels),
            r.uniform(0.5, 2.0, channels),
            1e-3,
        )

    def conv(
        self,
        name: str,
        source: str,
        channels: int,
        kernel: tuple[int, int] = (3, 3),
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        bias: bool = True,
        norm: bool = False,
        clamp: Any = (None, None),
    ) -> str:
        fan = self.shape(source)[2] // groups
        taps = fan * kernel[0] * kernel[1]
        return self.add_op(
            Conv2d,
            name,
            source,
            weight=self.rng.normal(0, 1 / np.sqrt(taps), (channels, *kernel, fan)),
            bias=self.rng.normal(0, 0.2, channels) if bias else None,
            window=Window(kernel, stride, padding, dilation),
            groups=groups,
            norm=self.norm(channels) if norm else None,
            clamp=clamp,
        )

    def batch_norm(self, name: str, source: str) -> str:
        return self.add_op(BatchNorm, name, source, norm=self.norm(self.shape(source)[2]))

    def clip(self, name: str, source: str, clamp: Any = RELU) -> str:
        return self.add_op(Clip, name, source, clamp=clamp)

    def add(self, name: str, a: str, b: str, clamp: Any = (None, None), subtract: bool = False) -> str:
        return self.add_op(Add, name, a, b, clamp=clamp, subtract=subtract)

    def mul(self, name: str, a: str, b: str, clamp: Any = (None, None)) -> str:
        return self.add_op(Mul, name, a, b, clamp=clamp)

    def extremum(self, name: str, a: str, b: str, smallest: bool = False) -> str:
        return self.add_op(Extremum, name, a, b, smallest=smallest)

    def activation(self, name: str, source: str, kind: str, *parameters: float) -> str:
        return self.add_op(Activation, name, source, function=(Step(kind, parameters),))

    def prelu(self, name: str, source: str) -> str:
        return self.add_op(Prelu, name, source, slope=self.rng.uniform(-0.3, 0.5, self.shape(source)[2]))

    def transpose(self, name: str, source: str, axes: tuple[int, int, int]) -> str:
        shape = self.shape(source)
        strides = (shape[1] * shape[2], shape[2], 1)
        sizes = tuple(shape[axis] for axis in axes)
        return self.add_op(Copy, name, source, shape=sizes, sizes=sizes, strides=tuple(strides[a] for a in axes))

    def upsample(self, name: str, source: str, *, linear: bool = False) -> str:
        """Twice the rows and columns, nearest or bilinear with half-pixel centres."""
        axes = []
        for size in self.shape(source)[:2]:
            if linear:
                places = [min(max((i + 0.5) / 2 - 0.5, 0), size - 1) for i in range(2 * size)]
                first = tuple(int(place) for place in places)
                shares = tuple(int((place % 1) * 2048) for place in places)
                axes.append(Blend(first, shares))
            else:
                axes.append(Blend(tuple(i // 2 for i in range(2 * size))))
        return self.add_op(Resample, name, source, rows=axes[0], columns=axes[1])

    def l2_normalize(self, name: str, source: str) -> str:
        return self.add_op(L2Normalize, name, source)

    def concat(self, name: str, *sources: str) -> str:
        return self.add_op(Concat, name, *sources)

    def max_pool(self, name: str, source: str, window: Window) -> str:
        return self.add_op(MaxPool, name, source, window=window)

    def avg_pool(self, name: str, source: str, window: Window | None = None, include: bool = False) -> str:
        window = window or Window(kernel=self.shape(source)[:2])
        return self.add_op(AvgPool, name, source, window=window, count_include_pad=include)

    def pad(self, name: str, source: str, padding: tuple[int, int, int, int], value: float = 0.0) -> str:
        return self.add_op(Pad, name, source, padding=padding, value=value)

    def reshape(self, name: str, source: str, shape: Shape) -> str:
        return self.add_op(Reshape, name, source, shape=shape)

    def softmax(self, name: str, source: str) -> str:
        return self.add_op(Softmax, name, source)

    def argmax(self, name: str, source: str) -> str:
        return self.add_op(Argmax, name, source)

    def graph(self, *outputs: str) -> Graph:
        return Graph(tuple(self.ops), outputs or (self.ops[-1].name,))


def _fields(op: FloatOp) -> list[str]:
    return list(type(op).__dataclass_fields__)
