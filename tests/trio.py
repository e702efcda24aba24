"""One network written three times as it is described: as a PyTorch module, an ONNX file and a TFLite file.

Each method adds one layer to all three, in the words of the format: padding is explicit in PyTorch and ONNX and SAME or
VALID in TFLite, activations are operators in two of them and fused in the third, batch norms are folded in TFLite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

from tests.tflite_writer import Net

ACTIVATIONS = {"": 0, "relu": 1, "relu6": 3}
SAME, VALID = 0, 1


@dataclass(frozen=True)
class Value:
    """A tensor: its key in PyTorch and name in ONNX, its index in TFLite, its shape [C, H, W], [C, L] or [F]."""

    name: str
    index: int
    shape: tuple[int, ...]


class Trio:
    """``input`` is the first value, the last layer's the output."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.steps: list[tuple[str, Callable[..., Any], tuple[str, ...]]] = []
        self.nodes: list[Any] = []
        self.arrays: dict[str, Any] = {}
        self.net = Net()
        self.rng = np.random.default_rng(seed)
        self.input = self.output = Value("x", self.net.tensor(self.last(shape), "float32"), shape)

    @staticmethod
    def last(shape: tuple[int, ...]) -> list[int]:
        """The batch and ``shape`` with channels last."""
        return [1, *shape[1:], shape[0]]

    def draw(self, *shape: int) -> Any:
        fan = int(np.prod(shape[1:])) or 1
        return (self.rng.normal(0, 1, shape) / np.sqrt(fan)).astype(np.float32)

    def keep(self, array: Any) -> str:
        name = f"k{len(self.arrays)}"
        self.arrays[name] = np.asarray(array)
        return name

    def tensor(self, shape: tuple[int, ...]) -> int:
        return self.net.tensor(self.last(shape), "float32")

    def step(self, shape: tuple[int, ...], function: Callable[..., Any], inputs: list[Value], index: int) -> Value:
        value = self.output = Value(f"v{len(self.steps)}", index, shape)
        self.steps.append((value.name, function, tuple(v.name for v in inputs)))
        return value

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    def simple(
        self, kinds: tuple[Callable[..., Any], str, str], inputs: list[Value], shape: Any = None, **f: Any
    ) -> Value:
        """A layer of one operator in each format, without weights."""
        function, onnx_kind, tflite_kind = kinds
        shape = inputs[0].shape if shape is None else shape
        index = self.net.op(tflite_kind, [v.index for v in inputs], self.tensor(shape), **f)
        value = self.step(shape, function, inputs, index)
        self.node(onnx_kind, [v.name for v in inputs], value.name)
        return value

    def activate(self, value: Value, kind: str) -> Value:
        """The activation that TFLite has fused into the layer of ``value``."""
        if not kind:
            return value
        function = F.relu if kind == "relu" else F.relu6
        done = self.step(value.shape, function, [value], value.index)
        if kind == "relu":
            self.node("Relu", [value.name], done.name)
        else:
            self.node("Clip", [value.name, self.keep(np.float32(0)), self.keep(np.float32(6))], done.name)
        return done

    def conv(
        self,
        x: Value,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        act: str = "",
        *,
        same: bool = True,
        depthwise: bool = False,
        norm: bool = False,
        padded_apart: bool = False,
    ) -> Value:
        """2-D or (for [C, L]) 1-D; ``padded_apart``: TFLite pads by an operator of its own, then VALID."""
        groups = x.shape[0] if depthwise else 1
        space = x.shape[1:]
        weight, bias = self.draw(outputs, x.shape[0] // groups, *[kernel] * len(space)), self.draw(outputs)
        totals = [max(0, (-(-n // stride) - 1) * stride + kernel - n) if same else 0 for n in space]
        before, after = [t // 2 for t in totals], [t - t // 2 for t in totals]
        shape = (outputs, *[(n + t - kernel) // stride + 1 for n, t in zip(space, totals, strict=True)])
        value = self.step(shape, _convolution(weight, bias, stride, before, after, groups), [x], -1)
        self.node(
            "Conv",
            [x.name, self.keep(weight), self.keep(bias)],
            value.name,
            kernel_shape=[kernel] * len(space),
            strides=[stride] * len(space),
            pads=[*before, *after],
            group=groups,
        )
        if norm:
            value, weight, bias = self._norm(value, weight, bias)
        if padded_apart:
            pads = np.array([[0, 0], *zip(before, after, strict=True), [0, 0]], dtype=np.int32)
            inner = (x.shape[0], *[n + t for n, t in zip(space, totals, strict=True)])
            x = Value("", self.net.op("PAD", [x.index, self.net.constant(pads)], self.tensor(inner)), inner)
            same = False
        index = self._tflite_conv(x, shape, weight, bias, stride, SAME if same else VALID, ACTIVATIONS[act], depthwise)
        return self.activate(Value(value.name, index, shape), act)

    def _norm(self, value: Value, weight: Any, bias: Any) -> tuple[Value, Any, Any]:
        channels = value.shape[0]
        gamma, beta, mean = (1 + self.draw(channels) / 4 for _ in range(3))
        variance = np.square(gamma) + np.float32(0.1)
        kept = [torch.tensor(a) for a in (mean, variance, gamma, beta)]
        done = self.step(value.shape, lambda v: F.batch_norm(v, *kept, training=False, eps=1e-5), [value], -1)
        self.node("BatchNormalization", [value.name, *map(self.keep, (gamma, beta, mean, variance))], done.name)
        gain = gamma / np.sqrt(variance + np.float32(1e-5))
        return done, weight * gain.reshape(-1, *[1] * (weight.ndim - 1)), (bias - mean) * gain + beta

    def _tflite_conv(
        self, x: Value, shape: tuple[int, ...], weight: Any, bias: Any, stride: int, padding: int, act: int, deep: bool
    ) -> int:
        """1-D convolutions stand between reshapes to height 1."""
        if weight.ndim == 3:
            flat, weight = self.net.tensor([1, 1, x.shape[1], x.shape[0]], "float32"), weight[:, :, None]
            inner = self.net.op("RESHAPE", [x.index], flat)
            wide = self.net.tensor([1, 1, shape[1], shape[0]], "float32")
        else:
            inner, wide = x.index, self.tensor(shape)
        order = (1, 2, 3, 0) if deep else (0, 2, 3, 1)
        constants = [self.net.constant(np.ascontiguousarray(weight.transpose(order))), self.net.constant(bias)]
        options: dict[str, Any] = {"f0": ("i8", padding), "f1": ("i32", stride), "f2": ("i32", stride)}
        options |= {"f3": ("i32", 1), "f4": ("i8", act)} if deep else {"f3": ("i8", act)}
        kind = "DEPTHWISE_CONV_2D" if deep else "CONV_2D"
        result = self.net.op(kind, [inner, *constants], wide, **options)
        return self.net.op("RESHAPE", [result], self.tensor(shape)) if len(shape) == 2 else result

    def add(self, a: Value, b: Value, act: str = "") -> Value:
        return self.activate(self.simple((torch.add, "Add", "ADD"), [a, b], f0=("i8", ACTIVATIONS[act])), act)

    def mul(self, a: Value, b: Value) -> Value:
        return self.simple((torch.mul, "Mul", "MUL"), [a, b])

    def concat(self, *values: Value) -> Value:
        shape = (sum(v.shape[0] for v in values), *values[0].shape[1:])
        axis = len(shape) if len(shape) > 1 else 1
        value = self.step(
            shape,
            lambda *v: torch.cat(v, 1),
            list(values),
            self.net.op("CONCATENATION", [v.index for v in values], self.tensor(shape), f0=("i32", axis)),
        )
        self.node("Concat", [v.name for v in values], value.name, axis=1)
        return value

    def pool(self, x: Value, kind: str, size: int = 2) -> Value:
        """``kind``: max or avg, stride = size, no padding."""
        channels, height, width = x.shape
        shape = (channels, height // size, width // size)
        options = {"f0": ("i8", VALID), **{f"f{i}": ("i32", size) for i in (1, 2, 3, 4)}}
        index = self.net.op(
            "MAX_POOL_2D" if kind == "max" else "AVERAGE_POOL_2D", [x.index], self.tensor(shape), **options
        )
        function = F.max_pool2d if kind == "max" else F.avg_pool2d
        value = self.step(shape, lambda v: function(v, size), [x], index)
        name = "MaxPool" if kind == "max" else "AveragePool"
        self.node(name, [x.name], value.name, kernel_shape=[size, size], strides=[size, size])
        return value

    def squeeze(self, x: Value, *, keep: bool = True) -> Value:
        """Global average: [C, 1, 1], or [C] without ``keep``."""
        axes = list(range(2, len(x.shape) + 1))
        shape = (x.shape[0], *[1] * len(axes)) if keep else (x.shape[0],)
        over = self.net.constant(np.array([a - 1 for a in axes], dtype=np.int32))
        index = self.net.op("MEAN", [x.index, over], self.tensor(shape), f0=("bool", keep))
        value = self.step(shape, lambda v: v.mean(axes, keepdim=keep), [x], index)
        if keep:
            self.node("GlobalAveragePool", [x.name], value.name)
        else:
            self.node("ReduceMean", [x.name, self.keep(np.array(axes))], value.name, keepdims=0)
        return value

    def resize(self, x: Value, mode: str) -> Value:
        """Twice as large, nearest or bilinear (half-pixel centres)."""
        channels, height, width = x.shape
        shape = (channels, 2 * height, 2 * width)
        size = self.net.constant(np.array(shape[1:], dtype=np.int32))
        bilinear = mode == "bilinear"
        index = self.net.op(
            "RESIZE_BILINEAR" if bilinear else "RESIZE_NEAREST_NEIGHBOR",
            [x.index, size],
            self.tensor(shape),
            **({"f3": ("bool", True)} if bilinear else {}),
        )
        value = self.step(shape, lambda v: F.interpolate(v, scale_factor=2.0, mode=mode), [x], index)
        attributes = {"mode": "linear"} if bilinear else {"mode": "nearest", "nearest_mode": "floor"}
        place = "half_pixel" if bilinear else "asymmetric"
        scales = self.keep(np.array([1, 1, 2, 2], dtype=np.float32))
        self.node("Resize", [x.name, "", scales], value.name, coordinate_transformation_mode=place, **attributes)
        return value

    def hard_swish(self, x: Value) -> Value:
        return self.simple((F.hardswish, "HardSwish", "HARD_SWISH"), [x])

    def sigmoid(self, x: Value) -> Value:
        return self.simple((torch.sigmoid, "Sigmoid", "LOGISTIC"), [x])

    def hard_sigmoid(self, x: Value) -> Value:
        """TFLite writes it out: relu6(x + 3) / 6."""
        three, sixth = (self.net.constant(np.array(v, dtype=np.float32)) for v in (3, 1 / 6))
        inner = self.net.op("ADD", [x.index, three], self.tensor(x.shape), f0=("i8", ACTIVATIONS["relu6"]))
        value = self.step(x.shape, F.hardsigmoid, [x], self.net.op("MUL", [inner, sixth], self.tensor(x.shape)))
        self.node("HardSigmoid", [x.name], value.name, alpha=1 / 6, beta=0.5)
        return value

    def flatten(self, x: Value) -> Value:
        """[C, H, W] to a vector, channels first in PyTorch and ONNX, last in TFLite."""
        shape = (int(np.prod(x.shape)),)
        value = self.step(
            shape, lambda v: torch.flatten(v, 1), [x], self.net.op("RESHAPE", [x.index], self.tensor(shape))
        )
        self.node("Flatten", [x.name], value.name)
        return value

    def linear(self, x: Value, outputs: int, act: str = "", of: tuple[int, ...] = ()) -> Value:
        """Fully connected; ``of``: the shape [C, H, W] that ``x`` was flattened from."""
        weight, bias = self.draw(outputs, x.shape[0]), self.draw(outputs)
        kept = torch.tensor(weight), torch.tensor(bias)
        value = self.step((outputs,), lambda v: F.linear(v, *kept), [x], -1)
        self.node("Gemm", [x.name, self.keep(weight), self.keep(bias)], value.name, transB=1)
        moved = np.moveaxis(weight.reshape(outputs, *of), 1, -1).reshape(outputs, -1) if of else weight
        constants = [self.net.constant(np.ascontiguousarray(moved)), self.net.constant(bias)]
        index = self.net.op(
            "FULLY_CONNECTED", [x.index, *constants], self.tensor((outputs,)), f0=("i8", ACTIVATIONS[act])
        )
        return self.activate(Value(value.name, index, value.shape), act)

    def softmax(self, x: Value) -> Value:
        index = self.net.op("SOFTMAX", [x.index], self.tensor(x.shape), f0=("f32", 1.0))
        value = self.step(x.shape, lambda v: torch.softmax(v, 1), [x], index)
        self.node("Softmax", [x.name], value.name, axis=1)
        return value

    def module(self) -> torch.nn.Module:
        return _Steps(self.steps)

    def onnx(self) -> bytes:
        ends = (self.input, self.output)
        info = [helper.make_tensor_value_info(v.name, TensorProto.FLOAT, [1, *v.shape]) for v in ends]
        constants = [numpy_helper.from_array(v, k) for k, v in self.arrays.items()]
        graph = helper.make_graph(self.nodes, "net", info[:1], info[1:], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()

    def tflite(self) -> bytes:
        return self.net.write()


class _Steps(torch.nn.Module):
    def __init__(self, steps: list[tuple[str, Callable[..., Any], tuple[str, ...]]]) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Any) -> Any:
        values = {"x": x}
        for name, function, inputs in self.steps:
            values[name] = function(*(values[i] for i in inputs))
        return values[self.steps[-1][0]]


def _convolution(
    weight: Any, bias: Any, stride: int, before: list[int], after: list[int], groups: int
) -> Callable[..., Any]:
    kept = torch.tensor(weight), torch.tensor(bias)
    function = F.conv1d if weight.ndim == 3 else F.conv2d
    if before == after:
        return lambda v: function(v, *kept, stride=stride, padding=before, groups=groups)
    pads = [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair]
    return lambda v: function(F.pad(v, pads), *kept, stride=stride, groups=groups)
