"""Building blocks the definitions share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]


def same_padding(size: int, kernel: int, stride: int) -> Pair:
    """(before, after) of TensorFlow's SAME padding: output ceil(size / stride), the odd pixel goes last."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, which depends on the input's size."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size, self.stride
        top, bottom = same_padding(int(input.shape[2]), kernel[0], stride[0])
        left, right = same_padding(int(input.shape[3]), kernel[1], stride[1])
        if (top, left) == (bottom, right):
            return F.conv2d(input, self.weight, self.bias, stride, (top, left), self.dilation, self.groups)
        padded = F.pad(input, (left, right, top, bottom))
        return F.conv2d(padded, self.weight, self.bias, stride, (0, 0), self.dilation, self.groups)


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution without bias, padding 1."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


def scaled(channels: int, width: float) -> int:
    """``channels * width`` truncated, at least 1."""
    return max(1, int(channels * width))


def divisible(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of ``divisor``, never more than 10 % below ``channels`` (the MobileNetV2 rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class Head(nn.Sequential):
    """Global average, dropout, one linear layer: [N, C, H, W] -> [N, classes]."""

    def __init__(self, channels: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        if dropout:
            self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, classes)


class PaddedShortcut(nn.Module):
    """Every ``stride``-th pixel, the new channels zero on both sides: shortcut A of He et al. 2015.

    A 1x1 convolution with constant weights 0 and 1, which is also how the device computes it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight: Tensor
        before = (outputs - inputs) // 2
        self.register_buffer("weight", torch.eye(outputs)[:, before : before + inputs, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, None, self.stride)


class BasicBlock(nn.Module):
    """conv-BN-ReLU-conv-BN + shortcut, ReLU.

    ``same``: TF SAME padding. ``bias``: biases in front of the norms. ``shortcut_norm``: the 1x1 shortcut has a
    norm instead of a bias. There is a shortcut convolution when shape or channels change; with ``padded`` it is a
    :class:`PaddedShortcut`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        same: bool = False,
        bias: bool = False,
        shortcut_norm: bool = True,
        padded: bool = False,
    ) -> None:
        super().__init__()

        def conv(channels: int, step: int) -> nn.Conv2d:
            if same:
                return SameConv2d(channels, outputs, 3, step, bias=bias)
            return nn.Conv2d(channels, outputs, 3, step, 1, bias=bias)

        self.conv1 = conv(inputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Sequential()
        if padded and (stride != 1 or inputs != outputs):
            self.shortcut = PaddedShortcut(inputs, outputs, stride)
        elif stride != 1 or inputs != outputs:
            self.shortcut.add_module("conv", nn.Conv2d(inputs, outputs, 1, stride, bias=not shortcut_norm))
            if shortcut_norm:
                self.shortcut.add_module("bn", nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
