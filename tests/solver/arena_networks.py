"""Random integer networks of the usual families, for the planner: shapes and bits matter, weights are zero."""

from __future__ import annotations

import random

import numpy as np

from mcuq.ir.graph import Shape, Window
from mcuq.ir.integer import (
    IntegerGraph,
    IntegerOp,
    QAdd,
    QConcat,
    QConv2d,
    QInput,
    QMaxPool,
    QRescale,
    QReshape,
    QTensor,
)
from mcuq.numerics import Affine, code_range


class Builder:
    """Adds operators with sizes drawn from a seed; each call returns the new tensor's name."""

    def __init__(self, seed: int, shape: Shape = (8, 8, 4)) -> None:
        self.rng = random.Random(seed)
        self.ops: list[IntegerOp] = [QInput(name="x", inputs=(), output=self._tensor(shape, 8))]

    def _tensor(self, shape: Shape, bits: int | None = None) -> QTensor:
        return QTensor(shape, bits or self.rng.choice((8, 8, 4, 2)), 0.1, 0)

    def shape(self, name: str) -> Shape:
        return next(op.output.shape for op in self.ops if op.name == name)

    def _push(self, op: IntegerOp) -> str:
        self.ops.append(op)
        return op.name

    def _name(self, kind: str) -> str:
        return f"{kind}{len(self.ops)}"

    def conv(self, source: str, channels: int | None = None, bits: int | None = None, kernel: int | None = None) -> str:
        height, width, depth = self.shape(source)
        out = channels or self.rng.randint(1, 24)
        k = kernel or self.rng.choice((1, 3))
        output = self._tensor((height, width, out), bits)
        return self._push(
            QConv2d(
                name=self._name("conv"),
                inputs=(source,),
                output=output,
                weight=np.zeros((out, k, k, depth), np.int8),
                weight_bits=8,
                weight_zero_point=np.zeros(1, np.int8),
                bias=np.zeros(out, np.int32),
                multiplier=np.ones(out, np.int32),
                shift=np.ones(out, np.uint8),
                window=Window((k, k), (1, 1), (k // 2,) * 4),
                groups=1,
                clamp=code_range(output.bits),
            )
        )

    def add(self, a: str, b: str, bits: int | None = None) -> str:
        output = self._tensor(self.shape(a), bits)
        affine = Affine((1, 1), 0, 1)
        return self._push(
            QAdd(name=self._name("add"), inputs=(a, b), output=output, affine=affine, clamp=code_range(output.bits))
        )

    def rescale(self, source: str, bits: int | None = None) -> str:
        output = self._tensor(self.shape(source), bits)
        affine = Affine((1,), 0, 1)
        return self._push(
            QRescale(
                name=self._name("rescale"),
                inputs=(source,),
                output=output,
                affine=affine,
                clamp=code_range(output.bits),
            )
        )

    def concat(self, *sources: str) -> str:
        height, width, _ = self.shape(sources[0])
        output = self._tensor((height, width, sum(self.shape(s)[2] for s in sources)))
        affines = tuple(Affine((1,), 0, 1) for _ in sources)
        return self._push(
            QConcat(
                name=self._name("concat"),
                inputs=sources,
                output=output,
                affines=affines,
                clamp=code_range(output.bits),
            )
        )

    def pool(self, source: str) -> str:
        height, width, channels = self.shape(source)
        window = Window((2, 2), (2, 2))
        shape = (*window.output_hw(height, width), channels)
        output = QTensor(shape, next(op.output.bits for op in self.ops if op.name == source), 0.1, 0)
        return self._push(
            QMaxPool(
                name=self._name("pool"),
                inputs=(source,),
                output=output,
                window=window,
                affine=Affine.identity(),
                clamp=code_range(output.bits),
            )
        )

    def reshape(self, source: str, shape: Shape | None = None) -> str:
        height, width, channels = self.shape(source)
        tensor = next(op.output for op in self.ops if op.name == source)
        target = QTensor(shape or (1, height * width, channels), tensor.bits, 0.1, 0)
        return self._push(QReshape(name=self._name("reshape"), inputs=(source,), output=target))

    def graph(self, *outputs: str) -> IntegerGraph:
        return IntegerGraph(tuple(self.ops), outputs or (self.ops[-1].name,))


def chain(seed: int, ops: int) -> IntegerGraph:
    b = Builder(seed)
    last = "x"
    while len(b.ops) < ops:
        kind = b.rng.random()
        if kind < 0.15 and b.shape(last)[0] > 2 and b.shape(last)[1] > 2:
            last = b.pool(last)
        elif kind < 0.3:
            last = b.rescale(last)
        else:
            last = b.conv(last)
    b.reshape(last)
    return b.graph()


def residual(seed: int, ops: int) -> IntegerGraph:
    b = Builder(seed)
    last = b.conv("x")
    while len(b.ops) < ops:
        wide = b.shape(last)[2]
        branch = b.conv(last)
        if b.rng.random() < 0.5:
            last = b.add(b.conv(branch, wide), last)
        else:
            wide = b.rng.randint(2, 24)
            last = b.add(b.conv(branch, wide), b.conv(last, wide, kernel=1))
    return b.graph()


def inception(seed: int, ops: int) -> IntegerGraph:
    b = Builder(seed)
    last = "x"
    while len(b.ops) < ops:
        branches: list[str] = []
        for _ in range(b.rng.randint(2, 5)):
            tip = last
            for _ in range(b.rng.randint(1, 3)):
                tip = b.conv(tip)
            branches.append(tip)
        last = b.conv(b.concat(*branches), b.rng.randint(4, 16), kernel=1)
    return b.graph()


def dense(seed: int, ops: int) -> IntegerGraph:
    b = Builder(seed)
    last = b.conv("x", 8)
    while len(b.ops) < ops:
        for _ in range(b.rng.randint(2, 5)):
            last = b.concat(last, b.conv(b.conv(last, kernel=1), b.rng.randint(2, 8), kernel=3))
        last = b.conv(last, b.rng.randint(4, 12), kernel=1)
    return b.graph()


def unet(seed: int, ops: int) -> IntegerGraph:
    """Skips across a valley of channels (no resizing operator exists, so the valley is in channels)."""
    b = Builder(seed)
    last = "x"
    while len(b.ops) < ops:
        skips: list[str] = []
        for _ in range(b.rng.randint(2, 6)):
            last = b.conv(b.conv(last))
            skips.append(last)
            last = b.conv(last, b.rng.randint(1, 6))
        for skip in reversed(skips):
            last = b.conv(b.concat(last, skip))
    return b.graph()


def wild(seed: int, ops: int) -> IntegerGraph:
    """Random directed graph: each operator reads recent tensors; a few outputs."""
    b = Builder(seed)
    names = ["x"]
    while len(b.ops) < ops:
        recent = names[-b.rng.randint(1, 5) :]
        source = b.rng.choice(recent)
        kind = b.rng.random()
        if kind < 0.2:
            twins = [n for n in names[-8:] if b.shape(n) == b.shape(source)]
            names.append(b.add(source, b.rng.choice(twins)))
        elif kind < 0.35:
            other = [n for n in names[-6:] if b.shape(n)[:2] == b.shape(source)[:2]]
            names.append(b.concat(source, b.rng.choice(other)))
        elif kind < 0.45:
            names.append(b.rescale(source))
        elif kind < 0.5:
            names.append(b.reshape(source))
        else:
            names.append(b.conv(source, b.rng.choice((2, 4, 8, 12))))
    read = {i for op in b.ops for i in op.inputs}
    return b.graph(*[n for n in names if n not in read])


FAMILIES = {"chain": chain, "residual": residual, "inception": inception, "dense": dense, "unet": unet, "wild": wild}
