"""Transposed convolutions as convolutions of stride 1 over the input with zeros between its pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from mcuq.frontend.builder import Builder, Constant
from mcuq.frontend.views import Refusal, View
from mcuq.ir.graph import Window

Pair = tuple[int, int]


def from_iohw(weight: Constant, groups: int) -> Constant:
    """Weights [I, O/groups, kh, kw] (or [I, O/groups, k]) as the convolution's: OHWI, mirrored; codes as well."""

    def moved(array: NDArray[Any]) -> NDArray[Any]:
        array = array[:, :, None, :] if array.ndim == 3 else array
        inputs, outputs, height, width = array.shape
        parts = array.reshape(groups, inputs // groups, outputs, height, width).transpose(0, 2, 3, 4, 1)
        return parts.reshape(groups * outputs, height, width, inputs // groups)[:, ::-1, ::-1]

    if weight.value.ndim not in (3, 4) or groups < 1 or weight.value.shape[0] % groups:
        raise Refusal(f"weights {list(weight.value.shape)} with {groups} groups")
    coded = weight.coded
    if coded is not None:
        per_output = coded.scale.size == 1 or (coded.axis == 1 and groups == 1)
        coded = replace(coded, codes=moved(coded.codes), axis=0) if per_output else None
    return replace(weight, value=moved(weight.value), coded=coded)


def convolution(
    b: Builder,
    view: View,
    name: str,
    weight: Constant,
    bias: NDArray[Any] | None,
    stride: Pair,
    padding: tuple[Pair, Pair],
    output_padding: Pair,
    dilation: Pair,
    groups: int,
    source: str = "",
) -> View:
    """The transposed convolution of ``view``; ``weight`` is OHWI, mirrored.

    Args:
        padding: (before, after) of rows and of columns: how much is cut off the output's sides.

    Raises:
        Refusal: more is cut off than the kernel reaches.
    """
    _, stored = b.map(view, source)
    kernel = (weight.value.shape[1], weight.value.shape[2])
    spans = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    before = [span - p[0] for span, p in zip(spans, padding, strict=True)]
    after = [span - p[1] + more for span, p, more in zip(spans, padding, output_padding, strict=True)]
    if min(*before, *after) < 0 or min(*stride, *dilation, *kernel) < 1:
        raise Refusal(f"padding {padding} beyond a kernel of {kernel}")
    if weight.value.shape[3] * groups != stored[2]:
        raise Refusal(f"weights of {weight.value.shape[3] * groups} channels do not fit {stored[2]}")
    window = Window(kernel, (1, 1), (before[0], before[1], after[0], after[1]), dilation, stride)
    height, width = window.output_hw(*stored[:2])
    sizes, outputs = (height, width)[4 - len(view.shape) :], len(weight.value)
    shape = (1, outputs, *sizes) if b.channels_first else (1, *sizes, outputs)
    return b.conv(view, name, weight, bias, window, groups, shape, source)
