"""Small networks: ResNets, LeNet, ToyNet, keyword spotting, the autoencoder."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from mcuq.zoo.layers import BasicBlock, Head, SameConv2d, conv3x3, scaled


class ResNet20(nn.Module):
    """ResNet-20 for 32x32 images (arXiv 1512.03385) with 1x1 convolution and batch norm where shapes change.

    ``padded``: shortcuts without parameters instead (option A), as in most published checkpoints.
    """

    def __init__(self, width: float, classes: int, channels: int = 3, *, padded: bool = False) -> None:
        super().__init__()
        current = scaled(16, width)
        self.conv = conv3x3(channels, current)
        self.bn = nn.BatchNorm2d(current)
        self.blocks = nn.Sequential()
        for outputs, first_stride in ((16, 1), (32, 2), (64, 2)):
            for index in range(3):
                stride = first_stride if index == 0 else 1
                self.blocks.append(BasicBlock(current, scaled(outputs, width), stride, padded=padded))
                current = scaled(outputs, width)
        self.head = Head(current, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(torch.relu(self.bn(self.conv(x)))))


class ResNet8(nn.Module):
    """The image classification model of MLPerf Tiny: TF SAME padding, biases, plain 1x1 shortcuts."""

    def __init__(self, width: float, classes: int, channels: int = 3, *, reference: bool = True) -> None:
        super().__init__()
        a, b, c = (scaled(n, width) for n in (16, 32, 64))
        self.conv: nn.Conv2d = SameConv2d(channels, a, 3, bias=reference)
        self.bn = nn.BatchNorm2d(a)
        self.blocks = nn.Sequential(
            *(
                BasicBlock(i, o, s, same=reference, bias=reference, shortcut_norm=not reference)
                for i, o, s in ((a, a, 1), (a, b, 2), (b, c, 2))
            )
        )
        self.head = Head(c, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(torch.relu(self.bn(self.conv(x)))))


class DSCNN(nn.Sequential):
    """The keyword spotting model of MLPerf Tiny: a 10x4 convolution of stride 2, four separable blocks."""

    def __init__(self, classes: int, channels: int = 1) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()

        def add(name: str, conv: nn.Conv2d) -> None:
            layers[name] = conv
            layers[f"{name}_bn"] = nn.BatchNorm2d(64)
            layers[f"{name}_relu"] = nn.ReLU()

        add("conv0", SameConv2d(channels, 64, (10, 4), 2))
        layers["dropout0"] = nn.Dropout(0.2)
        for index in range(1, 5):
            add(f"dw{index}", SameConv2d(64, 64, 3, groups=64))
            add(f"pw{index}", nn.Conv2d(64, 64, 1))
        layers["dropout"] = nn.Dropout(0.4)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(64, classes)
        super().__init__(layers)


class Autoencoder(nn.Sequential):
    """The anomaly detection model of MLPerf Tiny: 640-128-128-128-128-8-128-128-128-128-640, BN and ReLU between.

    Takes [N, 640, 1, 1] or [N, 640]; the output is the reconstruction [N, 640].
    """

    def __init__(self, size: int = 640) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        current = size
        for index, outputs in enumerate((128, 128, 128, 128, 8, 128, 128, 128, 128), start=1):
            layers[f"fc{index}"] = nn.Linear(current, outputs)
            layers[f"fc{index}_bn"] = nn.BatchNorm1d(outputs)
            layers[f"fc{index}_relu"] = nn.ReLU()
            current = outputs
        layers["fc10"] = nn.Linear(current, size)
        super().__init__(layers)


class LeNet(nn.Sequential):
    """LeNet-5 with batch norm, for 32x32 images; ``padding`` 2 takes 28x28 images as if zero-padded to 32x32.

    conv5x5-6, max 2, conv5x5-16, max 2, conv5x5-120, fc 84, fc classes. Larger images are pooled to 1x1 at the end.
    """

    def __init__(self, classes: int, channels: int = 1, *, padding: int = 0) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for name, inputs, outputs in (("conv1", channels, 6), ("conv2", 6, 16), ("conv3", 16, 120)):
            layers[name] = nn.Conv2d(inputs, outputs, 5, padding=padding if name == "conv1" else 0, bias=False)
            layers[f"{name}_bn"] = nn.BatchNorm2d(outputs)
            layers[f"{name}_relu"] = nn.ReLU()
            if name != "conv3":
                layers[f"{name}_pool"] = nn.MaxPool2d(2)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["dropout1"] = nn.Dropout(0.2)
        layers["fc1"] = nn.Linear(120, 84)
        layers["fc1_relu"] = nn.ReLU()
        layers["dropout2"] = nn.Dropout(0.2)
        layers["fc2"] = nn.Linear(84, classes)
        super().__init__(layers)


class _ToyBlock(nn.Module):
    """Optional BN and strided convolution, then depthwise, BN, 1x1 (x4), ReLU, 1x1, plus the block's input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.down = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.down = nn.Sequential(
                OrderedDict(bn=nn.BatchNorm2d(inputs), conv=nn.Conv2d(inputs, outputs, stride, stride, bias=False))
            )
        self.depthwise = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.expand = nn.Conv2d(outputs, 4 * outputs, 1, bias=False)
        self.project = nn.Conv2d(4 * outputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return self.project(torch.relu(self.expand(self.bn(self.depthwise(x))))) + x


class ToyNet(nn.Module):
    """ToyNet for 32x32 images: stages of 1, 3, 3, 3 blocks with 16, 32, 32, 64 channels, strides 1, 2, 1, 2."""

    def __init__(self, classes: int, channels: int = 3) -> None:
        super().__init__()
        current = 16
        self.stem = nn.Sequential(OrderedDict(conv=conv3x3(channels, current), bn=nn.BatchNorm2d(current)))
        self.blocks = nn.Sequential()
        for repeats, outputs, first_stride in ((1, 16, 1), (3, 32, 2), (3, 32, 1), (3, 64, 2)):
            for index in range(repeats):
                self.blocks.append(_ToyBlock(current, outputs, first_stride if index == 0 else 1))
                current = outputs
        self.last = nn.Sequential(OrderedDict(conv=nn.Conv2d(current, 512, 1, bias=False), bn=nn.BatchNorm2d(512)))
        self.head = Head(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.blocks(self.stem(x))))
