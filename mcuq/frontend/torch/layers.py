"""ATen layers and elementwise operators to the float graph; one handler per operator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mcuq.frontend.torch.nodes import (
    Arguments,
    Handlers,
    Refusal,
    Translator,
    Value,
    aten_shape,
    handles,
    map_shape,
    owner_of,
    source_place,
    window_pair,
)
from mcuq.ir import graph as ir
from mcuq.ir.graph import Clamp, Norm, Window

HANDLERS: Handlers = {}


@handles(HANDLERS, "aten.conv2d.default", "aten.conv1d.default", "aten.conv2d.padding", "aten.conv1d.padding")
def _conv(t: Translator, node: Any, a: Arguments) -> Value:
    x = t.value(a["input"])
    weight_name, weight = t.tensor(a["weight"])
    weight = weight[:, :, None, :] if weight.ndim == 3 else weight
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    dilation = window_pair(node, a["dilation"])
    if isinstance(a["padding"], str):
        total = [d * (k - 1) if a["padding"] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        padding = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
    else:
        top, left = window_pair(node, a["padding"], 0)
        padding = (top, left, top, left)
    window = Window(kernel, window_pair(node, a["stride"]), padding, dilation)
    name = t.name(node, "conv", owner_of(weight_name))
    names = {"weight": weight_name}
    bias = None
    if a["bias"] is not None:
        names["bias"], bias = t.tensor(a["bias"])
    t.parameters[name] = names
    return t.emit(
        ir.Conv2d(
            name=name,
            inputs=(x.op,),
            shape=map_shape(node),
            source=source_place(node),
            weight=np.ascontiguousarray(weight.transpose(0, 2, 3, 1)),
            bias=bias,
            window=window,
            groups=int(a["groups"]),
        )
    )


@handles(HANDLERS, "aten.linear.default")
def _linear(t: Translator, node: Any, a: Arguments) -> Value:
    x = t.value(a["input"], flat_ok=True)
    if len(aten_shape(a["input"])) != 2:
        raise Refusal("a linear layer takes [N, F]; flatten first")
    weight_name, weight = t.tensor(a["weight"])
    height, width, channels = x.shape
    spread = weight.reshape(len(weight), channels, height, width).transpose(0, 2, 3, 1)
    name = t.name(node, "linear", owner_of(weight_name))
    names = {"weight": weight_name}
    bias = None
    if a["bias"] is not None:
        names["bias"], bias = t.tensor(a["bias"])
    t.parameters[name] = names
    return t.emit(
        ir.Conv2d(
            name=name,
            inputs=(x.op,),
            shape=(1, 1, len(weight)),
            source=source_place(node),
            weight=np.ascontiguousarray(spread),
            bias=bias,
            window=Window((height, width)),
        )
    )


@handles(HANDLERS, "aten._native_batch_norm_legit_no_training.default", "aten.batch_norm.default")
def _batch_norm(t: Translator, node: Any, a: Arguments) -> Value:
    x = t.value(a["input"])
    if a.get("training") or a.get("running_mean") is None:
        raise Refusal("batch normalization needs running statistics (track_running_stats=True)")
    mean_name, mean = t.tensor(a["running_mean"])
    variance_name, variance = t.tensor(a["running_var"])
    names = {"mean": mean_name, "variance": variance_name}
    gamma, beta = np.ones_like(mean), np.zeros_like(mean)
    if a["weight"] is not None:
        names["gamma"], gamma = t.tensor(a["weight"])
    if a["bias"] is not None:
        names["beta"], beta = t.tensor(a["bias"])
    name = t.name(node, "batch_norm", owner_of(mean_name))
    t.parameters[name] = names
    norm = Norm(gamma, beta, mean, variance, float(a["eps"]))
    return t.emit(ir.BatchNorm(name=name, inputs=(x.op,), shape=x.shape, source=source_place(node), norm=norm))


def _clip(t: Translator, node: Any, operand: Any, kind: str, clamp: Clamp) -> Value:
    """Clip of a map; of a flattened map it is the clip of the map itself."""
    x = t.value(operand, flat_ok=True)
    op = ir.Clip(name=t.name(node, kind), inputs=(x.op,), shape=x.shape, source=source_place(node), clamp=clamp)
    return Value(t.emit(op).op, x.shape, x.flat)


@handles(HANDLERS, "aten.relu.default")
def _relu(t: Translator, node: Any, a: Arguments) -> Value:
    return _clip(t, node, a["self"], "relu", (0.0, None))


@handles(HANDLERS, "aten.relu6.default")
def _relu6(t: Translator, node: Any, a: Arguments) -> Value:
    return _clip(t, node, a["self"], "relu6", (0.0, 6.0))


@handles(HANDLERS, "aten.hardtanh.default")
def _hardtanh(t: Translator, node: Any, a: Arguments) -> Value:
    low, high = float(a["min_val"]), float(a["max_val"])
    return _clip(t, node, a["self"], "relu6" if (low, high) == (0.0, 6.0) else "clip", (low, high))


@handles(HANDLERS, "aten.clamp.default", "aten.clamp_min.default", "aten.clamp_max.default")
def _clamp(t: Translator, node: Any, a: Arguments) -> Value:
    bounds = [None if v is None or math.isinf(v) else float(v) for v in (a.get("min"), a.get("max"))]
    return _clip(t, node, a["self"], "clip", (bounds[0], bounds[1]))


@handles(HANDLERS, "aten.add.Tensor")
def _add(t: Translator, node: Any, a: Arguments) -> Value:
    if not hasattr(a["other"], "meta") or a["other"].name in t.tensors or a["self"].name in t.tensors:
        raise Refusal("adding constants has no kernel; fold the constant into a layer's bias")
    left, right = t.value(a["self"], flat_ok=True), t.value(a["other"], flat_ok=True)
    if float(a["alpha"]) != 1.0:
        raise Refusal("add(alpha=...) is not supported; fold the factor into a layer's weights")
    if left.shape != right.shape or left.flat != right.flat:
        raise Refusal(f"both terms must have one shape, found {left.shape} and {right.shape}")
    op = ir.Add(name=t.name(node, "add"), inputs=(left.op, right.op), shape=left.shape, source=source_place(node))
    return Value(t.emit(op).op, left.shape, left.flat)


@handles(HANDLERS, "aten.cat.default", "aten.concat.default")
def _cat(t: Translator, node: Any, a: Arguments) -> Value:
    parts = [t.value(item) for item in a["tensors"]]
    rank = len(aten_shape(node))
    if int(a["dim"]) % rank != 1:
        raise Refusal("tensors can be joined along the channels (dim=1) only")
    if len(parts) == 1:
        return parts[0]
    return t.emit(
        ir.Concat(
            name=t.name(node, "concat"),
            inputs=tuple(p.op for p in parts),
            shape=map_shape(node),
            source=source_place(node),
        )
    )
