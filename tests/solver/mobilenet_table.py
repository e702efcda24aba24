"""MobileNetV1 as a fused float graph, from its layer table alone (weights are zeros without memory)."""

from __future__ import annotations

import numpy as np

from mcuq.ir.graph import AvgPool, Conv2d, FloatOp, Graph, Input, Window

CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDED = (2, 4, 6, 12)


def mobilenet_v1(width: float, resolution: int) -> Graph:
    ops: list[FloatOp] = [Input(name="x", inputs=(), shape=(resolution, resolution, 3))]

    def conv(name: str, channels: int, kernel: int, stride: int, depthwise: bool = False) -> None:
        height, wide, depth = ops[-1].shape
        groups = depth if depthwise else 1
        total = max(kernel - stride, 0)
        pad = (total // 2, total // 2, total - total // 2, total - total // 2)
        window = Window((kernel, kernel), (stride, stride), pad)
        ops.append(
            Conv2d(
                name=name,
                inputs=(ops[-1].name,),
                shape=(*window.output_hw(height, wide), channels),
                weight=np.broadcast_to(0.0, (channels, kernel, kernel, depth // groups)),
                window=window,
                groups=groups,
            )
        )

    depth = int(32 * width)
    conv("conv0", depth, 3, 2)
    for block, out in enumerate(CHANNELS, start=1):
        conv(f"dw{block}", depth, 3, 2 if block in STRIDED else 1, depthwise=True)
        depth = int(out * width)
        conv(f"pw{block}", depth, 1, 1)
    height, wide, _ = ops[-1].shape
    ops.append(AvgPool(name="pool", inputs=(ops[-1].name,), shape=(1, 1, depth), window=Window((height, wide))))
    conv("fc", 1000, 1, 1)
    return Graph(tuple(ops), ("fc",))
