"""Float weights of a module in one safetensors file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from mcuq.errors import ModelError
from mcuq.ir.container import read_bytes, write_atomic
from mcuq.quant.slim_weights import load_slim


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the module's state dict. Raises UsageError when the folder cannot be written."""
    write_atomic(path, save({name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}))


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dict into ``module``: safetensors, or an ``.npz`` of slim variables (``slim_weights``).

    Raises:
        ModelError: the file is missing or damaged, holds code (a pickle), NaN weights, or does not fit the module;
            the text names the first tensors concerned.
    """
    _fill(module, load_slim(module, path) if path.suffix == ".npz" else _tensors(path), path)


def _tensors(path: Path) -> dict[str, Tensor]:
    data = read_bytes(path)
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} is not a safetensors file or is truncated ({len(data)} bytes): {error}; "
            "save one with safetensors.torch.save_file(model.state_dict(), ...)"
        ) from error


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load ``tensors`` after checking that they fit and are finite."""
    own = module.state_dict()
    wrong = [f"{n} is missing" for n in own if n not in tensors]
    wrong += [f"{n} is not part of the model" for n in tensors if n not in own]
    wrong += [
        f"{n} has shape {list(t.shape)} instead of {list(own[n].shape)}"
        for n, t in tensors.items()
        if n in own and t.shape != own[n].shape
    ]
    if wrong:
        raise ModelError(f"{path} does not fit the model: {'; '.join(wrong[:3])} ({len(wrong)} differences in all)")
    for name, tensor in tensors.items():
        bad = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
        if bad:
            raise ModelError(f"{path}: {bad} values of {name} are NaN or infinite; train again or restore the file")
    module.load_state_dict(tensors)
