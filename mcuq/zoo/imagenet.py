"""Networks for images of 224 x 224 that are not MobileNets: ResNet-18 and Inception-v1."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from mcuq.zoo.layers import BasicBlock, Head, scaled

_INCEPTION = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)
"""Channels of each block: 1x1; reduction and 3x3; reduction and second 3x3; behind the pool."""
_POOL_AFTER = (1, 6)


class ResNet18(nn.Module):
    """ResNet-18 (arXiv 1512.03385): 7x7 stem of stride 2, max pool, four stages of two basic blocks."""

    def __init__(self, width: float, classes: int, channels: int = 3) -> None:
        super().__init__()
        current = scaled(64, width)
        self.stem = _conv_bn(channels, current, 7, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential()
        for outputs, first_stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            for index in range(2):
                self.blocks.append(BasicBlock(current, scaled(outputs, width), first_stride if index == 0 else 1))
                current = scaled(outputs, width)
        self.head = Head(current, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.pool(self.stem(x))))


class InceptionV1(nn.Module):
    """GoogLeNet (arXiv 1409.4842) with batch norm, without side outputs; 3x3 kernels replace 5x5, as in torchvision."""

    def __init__(self, width: float, classes: int, channels: int = 3) -> None:
        super().__init__()
        first, second, third = (scaled(n, width) for n in (64, 64, 192))
        self.stem = nn.Sequential(
            _conv_bn(channels, first, 7, 2),
            nn.MaxPool2d(3, 2, 1),
            _conv_bn(first, second, 1),
            _conv_bn(second, third, 3),
            nn.MaxPool2d(3, 2, 1),
        )
        self.blocks = nn.Sequential()
        current = third
        for index, block in enumerate(_INCEPTION):
            chosen = tuple(scaled(n, width) for n in block)
            self.blocks.append(_Inception(current, chosen))
            current = chosen[0] + chosen[2] + chosen[4] + chosen[5]
            if index in _POOL_AFTER:
                self.blocks.append(nn.MaxPool2d(3, 2, 1))
        self.head = Head(current, classes, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


class _Inception(nn.Module):
    """Four branches, joined along channels."""

    def __init__(self, inputs: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pooled = channels
        self.one = _conv_bn(inputs, one, 1)
        self.three = nn.Sequential(_conv_bn(inputs, reduce3, 1), _conv_bn(reduce3, three, 3))
        self.five = nn.Sequential(_conv_bn(inputs, reduce5, 1), _conv_bn(reduce5, five, 3))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), _conv_bn(inputs, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs), relu=nn.ReLU()))
