"""Quantization-aware training, calibration and sensitivity, on the float graph of any captured module."""

from mcuq.quant.data_free import data_free
from mcuq.quant.evaluate import accuracy, evaluate, real_inputs
from mcuq.quant.quant_op import QuantOp
from mcuq.quant.sensitivity import fit, kl, sqnr
from mcuq.quant.settings import (
    EpochResult,
    Progress,
    Step,
    TrainConfig,
    default_fold_delay,
    float_preset,
    knows_by_heart,
    qat_preset,
    taught_preset,
)
from mcuq.quant.train import reestimate_batch_norm, train_float, train_qat

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
    "knows_by_heart",
    "qat_preset",
    "real_inputs",
    "reestimate_batch_norm",
    "sqnr",
    "taught_preset",
    "train_float",
    "train_qat",
]
