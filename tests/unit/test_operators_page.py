"""The table of operators names exactly what the front ends read, and the page is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcuq.frontend.operators import ROWS, page

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def listed(front_end: str) -> list[str]:
    return [name for row in ROWS for name in getattr(row, front_end)]


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "write mcuq.frontend.operators.page() to docs/operators.md"


def test_onnx_rows_are_the_handlers() -> None:
    pytest.importorskip("onnx")
    from mcuq.frontend.onnx import HANDLERS, constants, qonnx, quantization

    contributed = {f"com.microsoft.{name}" for name in quantization.CONTRIBUTED}
    contributed |= {f"qonnx.{name}" for name in set(qonnx.HANDLERS) - {"Trunc"}}
    assert sorted(listed("onnx")) == sorted(set(HANDLERS) | set(constants.STRUCTURAL) | contributed)


def test_tflite_rows_are_the_handlers() -> None:
    from mcuq.frontend.tflite import HANDLERS

    assert sorted(listed("tflite")) == sorted(HANDLERS)


def test_torch_rows_are_the_handlers() -> None:
    pytest.importorskip("torch")
    from mcuq.frontend.torch import HANDLERS
    from mcuq.frontend.torch.decompositions import DECOMPOSITIONS

    read = {*HANDLERS, *map(str, DECOMPOSITIONS)}
    assert sorted(listed("torch")) == sorted({name.split(".")[1] for name in read})
