"""Executed instructions per multiply-accumulate of usual layers: ``python tests/qemu/speed.py [core ...]``."""

from __future__ import annotations

import math
import sys
import tempfile
from functools import cache
from pathlib import Path

from cases import Case
from convolutions import Layer, build
from drivers import TARGETS, Target, instructions

ARENA = 1 << 20


def _layer(size: tuple[int, int, int], outputs: int, kernel: int, bits: tuple[int, int, int], groups: int = 1) -> Layer:
    same = "same" if kernel > 1 else "valid"
    return Layer(size, outputs, (kernel, kernel), (1, 1), (1, 1), groups, same, *bits, seed=7, usual=True)


@cache
def layers() -> dict[str, Case]:
    """Layers of the kinds that small networks spend their time in; few pixels, full depth."""
    shapes: dict[str, Layer] = {}
    for bits in ((8, 8, 8), (8, 4, 8), (8, 2, 8), (4, 4, 4), (2, 2, 2)):
        name = "a{}w{}o{}".format(*bits)
        shapes[f"pointwise 4x4x512->512 {name}"] = _layer((4, 4, 512), 512, 1, bits)
        shapes[f"pointwise 5x5x64->64 {name}"] = _layer((5, 5, 64), 64, 1, bits)
        shapes[f"conv3x3 8x8x64->64 {name}"] = _layer((8, 8, 64), 64, 3, bits)
        shapes[f"depthwise3x3 14x14x64 {name}"] = _layer((14, 14, 64), 64, 3, bits, groups=64)
        shapes[f"fully connected 640->128 {name}"] = _layer((1, 1, 640), 128, 1, bits)
    shapes["conv3x3 16x16x3->8 a8w8o8"] = _layer((16, 16, 3), 8, 3, (8, 8, 8))
    return {name: build(layer) for name, layer in shapes.items()}


def macs(case: Case) -> int:
    """Multiply-accumulates of a convolution, padding taps included."""
    assert case.conv is not None
    return math.prod(case.conv.output_shape) * math.prod(case.conv.weight_shape[1:])


def measure(target: Target, folder: Path) -> dict[str, float]:
    """Executed instructions per MAC of every layer on one target."""
    large = Target(target.core, target.machine, arena=ARENA)
    cases = layers()
    counted = instructions(large, list(cases.values()), folder)
    return {name: n / macs(case) for (name, case), n in zip(cases.items(), counted, strict=True)}


def main() -> None:
    chosen = sys.argv[1:] or ["cortex-m0plus", "cortex-m3", "cortex-m4"]
    targets = [next(t for t in TARGETS if t.core == core) for core in chosen]
    with tempfile.TemporaryDirectory() as folder:
        columns = [measure(target, Path(folder)) for target in targets]
    print(f"{'instructions per MAC (QEMU)':44}" + "".join(f"{name:>15}" for name in chosen))
    for name in layers():
        print(f"{name:44}" + "".join(f"{column[name]:15.2f}" for column in columns))


if __name__ == "__main__":
    main()
