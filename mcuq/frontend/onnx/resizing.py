"""Resize and Upsample of ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from mcuq.frontend import resampling
from mcuq.frontend.onnx.translate import Handlers, Node, Translator
from mcuq.frontend.views import Refusal, View
from mcuq.ir.graph import Blend


def resize(t: Translator, node: Node) -> View:
    """Nearest and linear, by scales or sizes, with every coordinate transformation but crops."""
    view = node.view()
    modern = node.proto.op_type == "Resize" and node.opset >= 11
    sizes = node.array(3) if modern else None
    given = node.get("scales") if node.opset < 9 else node.array(2 if modern else 1)
    if node.get("antialias", 0) or node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refusal("antialiasing and kept aspect ratios are not supported")
    shape, scales = _target(node, view, sizes, given)
    spatial = range(2, len(view.shape))
    if any(shape[axis] != view.shape[axis] for axis in range(len(view.shape)) if axis not in spatial):
        raise Refusal("only height and width can be resized")
    mode = node.get("mode", "nearest")
    place = node.get("coordinate_transformation_mode", "half_pixel") if modern else "asymmetric"
    rounding = node.get("nearest_mode", "round_prefer_floor") if modern else "floor"
    blends: list[Blend] = []
    for axis in spatial:
        facts = (view.shape[axis], shape[axis], scales[axis])
        if mode == "linear":
            blends.append(resampling.linear(place, *facts))
        elif mode == "nearest":
            blends.append(resampling.nearest(place, rounding, *facts))
        else:
            raise Refusal(f"mode {mode!r}; nearest and linear are supported")
    rows = blends[0] if len(blends) == 2 else Blend((0,))
    return resampling.resample(t.builder, view, node.label, rows, blends[-1], node.where)


def _target(node: Node, view: View, sizes: Any, given: Any) -> tuple[tuple[int, ...], list[float]]:
    """(output shape, scale of every axis)."""
    rank = len(view.shape)
    axes = [int(a) % rank for a in node.get("axes", range(rank))]
    shape, scales = list(view.shape), [1.0] * rank
    values = np.ravel(np.asarray(sizes if sizes is not None and np.size(sizes) else given, dtype=np.float64))
    if (given is None and sizes is None) or len(values) != len(axes) or rank not in (3, 4):
        raise Refusal("sizes or scales of every axis have to be constant")
    for axis, value in zip(axes, values.tolist(), strict=True):
        if sizes is not None and np.size(sizes):
            shape[axis], scales[axis] = int(value), value / view.shape[axis]
        else:
            shape[axis], scales[axis] = int(np.floor(view.shape[axis] * value)), value
        if not 1 <= shape[axis] <= resampling.LARGEST or scales[axis] <= 0:
            raise Refusal(f"{shape[axis]} rows or columns; 1 to {resampling.LARGEST} are supported")
    return tuple(shape), scales


HANDLERS: Handlers = {"Resize": resize, "Upsample": resize}
