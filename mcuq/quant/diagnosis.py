"""Where a training went wrong: the first layer with values that are not finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mcuq.quant.quant_op import QuantOp


def first_bad_module(model: nn.Module, x: Tensor) -> str:
    """Name of the first layer of ``model`` with parameters or outputs that are not finite."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"parameter {name!r}"
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                found.append(name)

        return hook

    leaves = [(name, m) for name, m in model.named_modules() if not any(True for _ in m.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return f"output of layer {found[0]!r}" if found else "the loss itself"


def first_bad_layer(op: QuantOp, x: Tensor) -> str:
    """Name of the first layer of ``op`` with weights, batch norm or outputs that are not finite."""
    for name, layer in op.layers.items():
        if not bool(torch.isfinite(layer.real_weight()).all()):
            return f"weights of layer {name!r}"
        if layer.norm is not None and not bool(torch.isfinite(layer.norm.gain() + layer.norm.offset()).all()):
            return f"batch norm of layer {name!r}"
    with torch.no_grad():
        for name, value in op.tensors(x).items():
            if not bool(torch.isfinite(value).all()):
                return f"output of layer {name!r}"
    return "the loss itself"
