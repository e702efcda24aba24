"""MobileNetV1 weights in the layout of TensorFlow's slim checkpoints, as an ``.npz`` of its variables.

Variables are named ``MobilenetV1/Conv2d_3_pointwise/weights`` and so on; kernels are [H, W, I, O], depthwise ones
[H, W, I, 1]. Such checkpoints score 1001 classes, of which the first is "background"; it goes when the module has one
class less.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from mcuq.data.arrays import read_npz
from mcuq.errors import ModelError

_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def load_slim(module: nn.Module, path: Path) -> dict[str, Tensor]:
    """A state dict for ``module`` (the zoo's ``mobilenet_v1``) from the variables in ``path``.

    Raises:
        ModelError: variables are missing, or the module has layers that slim's MobileNetV1 has not.
        DataError: not an ``.npz`` file, or damaged.
    """
    own = module.state_dict()
    names = {name: slim_name(name) for name in own if not name.endswith("num_batches_tracked")}
    arrays = read_npz(path, tuple(names.values()))
    missing = [variable for variable in names.values() if variable not in arrays]
    if missing:
        raise ModelError(f"{path} lacks {', '.join(missing[:3])} ({len(missing)} of {len(names)} variables)")
    state = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    for name, variable in names.items():
        tensor = torch.from_numpy(arrays[variable]).float()
        if tensor.dim() == 4:
            depthwise = variable.endswith("depthwise_weights")
            tensor = tensor.permute((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        if name.startswith("fc."):
            tensor = tensor.reshape(tensor.shape[:2]) if tensor.dim() == 4 else tensor
            tensor = tensor[1:] if len(tensor) == len(own[name]) + 1 else tensor
        state[name] = tensor.contiguous()
    return state


def slim_name(name: str) -> str:
    """The variable of a tensor of the zoo's ``mobilenet_v1``. Raises ModelError when there is none."""
    found = re.fullmatch(r"(conv0|dw\d+|pw\d+)(_bn)?\.(\w+)", name)
    if name in ("fc.weight", "fc.bias"):
        return f"MobilenetV1/Logits/Conv2d_1c_1x1/{'weights' if name == 'fc.weight' else 'biases'}"
    if found is None or (found[2] and found[3] not in _NORM) or (not found[2] and found[3] != "weight"):
        raise ModelError(f"{name}: slim checkpoints hold MobileNetV1 only (--model mobilenet_v1)")
    kind, number = found[1][:2], found[1][2:]
    scope = {"co": "Conv2d_0", "dw": f"Conv2d_{number}_depthwise", "pw": f"Conv2d_{number}_pointwise"}[kind]
    if found[2]:
        return f"MobilenetV1/{scope}/BatchNorm/{_NORM[found[3]]}"
    return f"MobilenetV1/{scope}/{'depthwise_weights' if kind == 'dw' else 'weights'}"
