"""Normalization by the statistics of the sample itself (layer, group and instance norm), written out.

Means are convolutions with equal weights or pools, the variance is the mean of squares of what is left, its
reciprocal root a table, and every element is multiplied by its own: all are operators of the device already.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.frontend.builder import Builder, Constant, map_shape
from mcuq.frontend.elementwise import binary, function
from mcuq.frontend.reductions import SQUARE, reduced
from mcuq.frontend.views import Refusal, View
from mcuq.ir.functions import Step
from mcuq.ir.graph import Window


def standardized(b: Builder, view: View, axes: set[int], epsilon: float, name: str, source: str = "") -> View:
    """``(x - mean) / sqrt(variance + epsilon)`` with mean and variance over ``axes``.

    Raises:
        Refusal: over the batch.
    """
    if 0 in axes and view.shape[0] != 1:
        raise Refusal("normalization over the batch")
    centered = binary(b, "sub", view, _mean(b, view, axes, f"{name}.mean", source), f"{name}.centered", source)
    squares = function(b, centered, f"{name}.squares", SQUARE, source)
    variance = _mean(b, squares, axes, f"{name}.variance", source)
    root = (Step("affine", (1.0, epsilon)), Step("sqrt"), Step("reciprocal"))
    return binary(b, "mul", centered, function(b, variance, f"{name}.gain", root, source), name, source)


def _mean(b: Builder, view: View, axes: set[int], name: str, source: str) -> View:
    """The mean over ``axes``, which stay with size 1. Over channels alone a convolution with one output."""
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(view.shape))
    wide = [axis for axis in axes if view.shape[axis] > 1]
    if len(wide) != 1 or view.indices is not None or wide[0] != (1 if b.channels_first else len(view.shape) - 1):
        return reduced(b, "mean", view, axes, shape, name, source)
    op, stored = b.map(view, source)
    whole = View(op, stored, map_shape(stored, b.channels_first), b.channels_first)
    weight = Constant(np.full((1, 1, 1, stored[2]), 1.0 / stored[2]))
    mean = b.conv(whole, name, weight, None, Window(), 1, map_shape((*stored[:2], 1), b.channels_first), source)
    return mean.viewed(np.arange(math.prod(stored[:2])).reshape(shape))


Constants = tuple[NDArray[Any] | None, NDArray[Any] | None]
"""Gamma and beta, where the norm has them."""


def layer_norm(
    b: Builder, view: View, axes: set[int], constants: Constants, epsilon: float, name: str, source: str = ""
) -> View:
    """:func:`standardized` over ``axes``, times gamma plus beta, which broadcast to the view."""
    return _affine(b, standardized(b, view, axes, epsilon, name, source), constants, name, source)


def group_norm(
    b: Builder, view: View, groups: int, constants: Constants, epsilon: float, name: str, source: str = ""
) -> View:
    """Normalization of each of ``groups`` groups of the channels of [1, C, ...]; gamma and beta [C].

    As many groups as channels are instance normalization, one group is normalization of the whole.
    """
    rank, channels = len(view.shape), view.shape[1]
    if rank < 3 or not 1 <= groups <= channels or channels % groups:
        raise Refusal(f"{groups} groups of {channels} channels")
    if groups in (1, channels):
        result = standardized(b, view, set(range(1 if groups == 1 else 2, rank)), epsilon, name, source)
    else:
        grouped = view.viewed(view.order.reshape(1, groups, -1))
        result = standardized(b, grouped, {2}, epsilon, name, source)
        result = result.viewed(result.order.reshape(view.shape))
    gamma, beta = (None if c is None else np.reshape(c, (channels, *[1] * (rank - 2))) for c in constants)
    return _affine(b, result, (gamma, beta), name, source)


def _affine(b: Builder, view: View, constants: Constants, name: str, source: str) -> View:
    gamma, beta = constants
    if gamma is None and beta is None:
        return view
    gain = np.ones(1) if gamma is None else np.asarray(gamma, np.float64)
    bias = np.zeros(1) if beta is None else np.asarray(beta, np.float64)
    return b.affine(view, f"{name}.affine", gain, bias, source)
