"""Quantization-aware training, calibration and sensitivity, on the float graph of any captured module."""

from mcuq.quant.data_free import data_free
from mcuq.quant.quant_op import QuantOp
from mcuq.quant.sensitivity import fit, kl, sqnr
from mcuq.quant.train import (
    EpochResult,
    Progress,
    Step,
    TrainConfig,
    accuracy,
    default_fold_delay,
    evaluate,
    float_preset,
    qat_preset,
    real_inputs,
    train_float,
    train_qat,
)

__all__ = [
    "EpochResult",
    "Progress",
    "QuantOp",
    "Step",
    "TrainConfig",
    "accuracy",
    "data_free",
    "default_fold_delay",
    "evaluate",
    "fit",
    "float_preset",
    "kl",
    "qat_preset",
    "real_inputs",
    "sqnr",
    "train_float",
    "train_qat",
]
