"""A model that others trained, within less memory than 8 bits need: mixed bits without training, to the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
from mcuq import load_integer, pipeline
from mcuq.data.fetch import find_data_dir
from mcuq.ir.integer import QConv2d

DATA = find_data_dir()
LIMITS, SMALL = (30000, 8500), (26500, 10500)
CODE = ("runtime code", "model code", "startup")
SCALE, ZERO = 0.5847029, 211
"""Of the keywords' features as uint8 codes."""


@pytest.mark.slow
@pytest.mark.skipif(
    DATA is None or not (DATA / "models" / "mlperf_tiny_kws_dscnn.onnx").is_file(), reason="no models: set MCUQ_DATA"
)
@pytest.mark.parametrize(("board", "limits"), [("stm32f4", LIMITS), ("rp2040", SMALL)])
def test_keywords_within_limits(tmp_path: Path, board: str, limits: tuple[int, int]) -> None:
    assert DATA is not None
    with np.load(DATA / "kws_speech_commands_eval.npz") as data:
        x, y = (data["mfcc_int8"].astype(int) + 128).astype(np.uint8), data["y"]
    np.savez(tmp_path / "own.npz", x_train=x[:100], y_train=y[:100], x_test=x[100:], y_test=y[100:])
    settings = pipeline.QuantizeSettings(
        DATA / "models" / "mlperf_tiny_kws_dscnn.onnx",
        str(tmp_path / "own.npz"),
        pipeline.BitChoice(mem_constraint=f"{limits[0]},{limits[1]}", board=board),
        mean=(ZERO / 255,),
        std=(1 / (255 * SCALE),),
    )
    run = tmp_path / "run"
    quantized = pipeline.quantize(settings, run)
    assert quantized.fits
    graph, _ = load_integer(run / "model.mcuq")
    convolutions = [op for op in graph if isinstance(op, QConv2d)]
    assert len({op.weight_bits for op in convolutions}) > 1 and len({op.output.bits for op in convolutions}) > 1
    single = {op.name for op in convolutions if op.multiplier.size == 1}
    assert 0 < len(single) < len(convolutions)
    assert single == {t.layer for t in quantized.solve.plan.tensors if t.granularity == "layer"}
    accuracy = quantized.accuracy
    assert accuracy["oracle"] > accuracy["float"] - 0.05
    image = pipeline.emit(run, board)
    assert image.flash[0] == quantized.promised[0] and image.ram[0] == image.ram[1]  # type: ignore[index]
    assert all(promised == measured for name, promised, measured in image.items if name not in CODE)
    assert image.flash[1] is not None and image.flash[1] <= limits[0] * 1.01
    assert image.ram[1] is not None and image.ram[1] <= limits[1]
    assert pipeline.verify(run, f"qemu:{board}", samples=5).mismatching_bytes == 0
