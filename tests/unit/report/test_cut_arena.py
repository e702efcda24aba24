"""The picture of an arena in two regions."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mcuq.ir.plans import Buffer, MemoryPlan
from mcuq.report import memory_picture
from mcuq.report.style import INK


def widest_line(cuts: tuple[int, ...]) -> int:
    """Most pixels of the ink's color in one row of the picture of an arena of 3,072 bytes."""
    buffers = (Buffer("x", 0, 1024, 0, 1), Buffer("conv", 1024, 2048, 1, 2))
    png = memory_picture(MemoryPlan(("x", "conv", "out"), buffers, 3072, 3072, cuts=cuts))
    ink = np.array([int(INK[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) == ink).all(axis=2).sum(axis=1).max())


def test_a_line_marks_where_the_next_region_begins() -> None:
    assert widest_line((1024,)) > widest_line((4096,)) == widest_line(())
