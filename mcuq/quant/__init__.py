"""Quantization-aware training, calibration and sensitivity, on the float graph of any captured module."""

from mcuq.quant.data_free import data_free
from mcuq.quant.quant_op import QuantOp
from mcuq.quant.sensitivity import fit, kl, sqnr

__all__ = ["QuantOp", "data_free", "fit", "kl", "sqnr"]
