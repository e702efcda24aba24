"""MobileNetV1, MobileNetV2 and its variant for small images."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from mcuq.zoo.layers import Head, SameConv2d, divisible, scaled

# (output channels at width 1, stride of the depthwise convolution) of the 13 separable blocks.
_V1_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *(((512, 1),) * 5),
    (1024, 2),
    (1024, 1),
)
_EPSILON = 1e-3
# torch counts the new sample's share: 0.003 is a running average over some 300 batches.
_MOMENTUM = 3e-3


class MobileNetV1(nn.Sequential):
    """MobileNetV1 (arXiv 1704.04861) as TensorFlow trains it: SAME padding, batch norm epsilon 1e-3.

    Layers are called conv0, dw1, pw1 .. dw13, pw13, fc, in execution order. Strides 2 at conv0 and blocks 2, 4, 6, 12.
    Channels are ``int(channels * width)``.
    """

    def __init__(
        self,
        width: float,
        classes: int,
        channels: int = 3,
        *,
        relu6: bool = True,
        bias: bool = False,
        dropout: float = 0.2,
        momentum: float = _MOMENTUM,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()

        def add(name: str, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> None:
            layers[name] = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=bias)
            layers[f"{name}_bn"] = nn.BatchNorm2d(outputs, eps=_EPSILON, momentum=momentum)
            layers[f"{name}_relu"] = nn.ReLU6() if relu6 else nn.ReLU()

        current = scaled(32, width)
        add("conv0", channels, current, 3, 2)
        for index, (outputs, stride) in enumerate(_V1_BLOCKS, start=1):
            add(f"dw{index}", current, current, 3, stride, groups=current)
            add(f"pw{index}", current, scaled(outputs, width), 1, 1)
            current = scaled(outputs, width)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        if dropout:
            layers["dropout"] = nn.Dropout(dropout)
        layers["fc"] = nn.Linear(current, classes)
        super().__init__(layers)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection; batch norm after each, ReLU6 after the first two.

    ``shortcut``: "identity" adds the input where the shape allows it; "conv" puts a 1x1 convolution with batch
    norm on the shortcut of every stride-1 block. ``expand_always`` keeps the expansion at a ratio of 1.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, ratio: int, *, shortcut: str, expand_always: bool
    ) -> None:
        super().__init__()
        hidden = inputs * ratio
        self.expand = nn.Sequential()
        if ratio != 1 or expand_always:
            self.expand = _conv_bn(inputs, hidden, 1, relu6=True)
        self.depthwise = _conv_bn(hidden, hidden, 3, stride, groups=hidden, relu6=True)
        self.project = _conv_bn(hidden, outputs, 1)
        self.residual = stride == 1 and (shortcut == "conv" or inputs == outputs)
        self.shortcut = nn.Sequential()
        if stride == 1 and shortcut == "conv":
            self.shortcut = _conv_bn(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return y + self.shortcut(x) if self.residual else y


def _conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu6: bool = False
) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers["bn"] = nn.BatchNorm2d(outputs)
    if relu6:
        layers["relu"] = nn.ReLU6()
    return nn.Sequential(layers)


# (expansion ratio, channels, repeats, stride of the first)
_V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# For 32x32 images the stem and the 24-channel stage keep the resolution.
_V2_SMALL_STAGES = (_V2_STAGES[0], (6, 24, 2, 1), *_V2_STAGES[2:])


class MobileNetV2(nn.Module):
    """MobileNetV2 (arXiv 1801.04381), symmetric padding. ``small``: the variant for 32x32 images."""

    def __init__(self, width: float, classes: int, channels: int = 3, *, small: bool = False) -> None:
        super().__init__()
        current = 32 if small else divisible(32 * width)
        self.stem = _conv_bn(channels, current, 3, 1 if small else 2, relu6=True)
        self.blocks = nn.Sequential()
        for ratio, stage_channels, repeats, stride in _V2_SMALL_STAGES if small else _V2_STAGES:
            outputs = divisible(stage_channels * width)
            for index in range(repeats):
                self.blocks.append(
                    InvertedResidual(
                        current,
                        outputs,
                        stride if index == 0 else 1,
                        ratio,
                        shortcut="conv" if small else "identity",
                        expand_always=small,
                    )
                )
                current = outputs
        last = divisible(1280 * max(1.0, width))
        self.last = _conv_bn(current, last, 1, relu6=True)
        self.head = Head(last, classes, 0.0 if small else 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.blocks(self.stem(x))))
