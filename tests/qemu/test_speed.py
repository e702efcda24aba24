"""Executed instructions per multiply-accumulate of the portable kernels stay within their budgets.

Budgets are some 5 % above what arm-none-eabi-gcc 12.2 -O2 reaches; ``python tests/qemu/speed.py`` prints the table.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from drivers import TARGETS
from speed import measure

BUDGETS = {
    "cortex-m0plus": {
        "pointwise 4x4x512->512 a8w8o8": 4.5,
        "pointwise 4x4x512->512 a8w4o8": 4.3,
        "pointwise 4x4x512->512 a8w2o8": 3.7,
        "conv3x3 8x8x64->64 a8w8o8": 4.5,
        "depthwise3x3 14x14x64 a8w8o8": 21.7,
        "fully connected 640->128 a8w8o8": 6.0,
    },
    "cortex-m3": {
        "pointwise 4x4x512->512 a8w8o8": 2.6,
        "pointwise 4x4x512->512 a8w4o8": 2.4,
        "pointwise 4x4x512->512 a8w2o8": 1.85,
        "conv3x3 8x8x64->64 a8w8o8": 2.6,
        "depthwise3x3 14x14x64 a8w8o8": 10.2,
        "fully connected 640->128 a8w8o8": 3.4,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("core", BUDGETS)
def test_instructions_per_mac_within_budget(core: str, tmp_path: Path) -> None:
    target = next(target for target in TARGETS if target.core == core)
    measured = measure(target, tmp_path)
    over = {name: (measured[name], limit) for name, limit in BUDGETS[core].items() if measured[name] > limit}
    assert over == {}
