"""Pictures and the report of a run. Pictures need matplotlib, which is imported when one is drawn."""

from __future__ import annotations

from mcuq.report.distributions import (
    ActivationRow,
    WeightRow,
    activations_picture,
    confusion_picture,
    scales_picture,
    weights_picture,
)
from mcuq.report.figures import (
    EpochPoint,
    SizeRow,
    bits_picture,
    curves_picture,
    memory_picture,
    sizes_picture,
)
from mcuq.report.html import Fact, Picture, html_report
from mcuq.report.layers import LayerRow, layer_rows
from mcuq.report.ranks import ranks_picture

__all__ = [
    "ActivationRow",
    "EpochPoint",
    "Fact",
    "LayerRow",
    "Picture",
    "SizeRow",
    "WeightRow",
    "activations_picture",
    "bits_picture",
    "confusion_picture",
    "curves_picture",
    "html_report",
    "layer_rows",
    "memory_picture",
    "ranks_picture",
    "scales_picture",
    "sizes_picture",
    "weights_picture",
]
