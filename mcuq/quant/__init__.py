"""Quantization-aware training, calibration and sensitivity, on the float graph of any captured module."""

from mcuq.quant.quant_op import QuantOp

__all__ = ["QuantOp"]
