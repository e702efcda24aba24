"""Training state on disk: safetensors for tensors, JSON for the rest, verified by SHA-256.

A folder holds ``state.json`` and the tensor file it names. The tensor file is written first under a name of
its own; replacing ``state.json`` is the one step that makes the new state current, so that a crash at any
time leaves the old state or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from mcuq.errors import TrainingError

FORMAT = 2
STATE_FILE = "state.json"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Tensors by name, and a JSON document."""

    tensors: dict[str, Tensor]
    document: dict[str, Any]


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Make ``checkpoint`` the current state of ``folder``.

    Raises:
        TrainingError: the disk is full or the folder cannot be written; the old state stays.
    """
    data = save({name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    file = f"tensors-{digest[:16]}.safetensors"
    document = {"format": FORMAT, "file": file, "sha256": digest, **checkpoint.document}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / file, data)
        _replace(folder / STATE_FILE, (json.dumps(document, indent=1) + "\n").encode())
        for old in folder.glob("tensors-*.safetensors"):
            if old.name != file:
                old.unlink()
    except OSError as error:
        raise TrainingError(
            f"cannot write the checkpoint {folder}: {error.strerror}; free space or choose another folder"
        ) from error


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def exists(folder: Path) -> bool:
    """A checkpoint was written to ``folder``."""
    return (folder / STATE_FILE).is_file()


def read(folder: Path) -> Checkpoint:
    """The current state of ``folder``.

    Raises:
        TrainingError: there is none, or it is damaged; the text says what does not fit.
    """
    path = folder / STATE_FILE
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise TrainingError(f"there is no checkpoint in {folder}; start without --resume") from error
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(document, dict) or not {"format", "file", "sha256"} <= set(cast(dict[str, Any], document)):
        raise _damaged(path, "it is not a training state")
    document = cast(dict[str, Any], document)
    if document["format"] != FORMAT:
        raise TrainingError(f"checkpoint {path} has format {document['format']}, this version reads {FORMAT}")
    file = folder / Path(str(document["file"])).name
    try:
        data = file.read_bytes()
    except OSError as error:
        raise _damaged(file, error.strerror or str(error)) from error
    if hashlib.sha256(data).hexdigest() != document["sha256"]:
        raise _damaged(file, f"its SHA-256 differs ({len(data)} bytes; truncated or edited)")
    try:
        return Checkpoint(load(data), document)
    except Exception as error:  # safetensors has an error type of its own
        raise _damaged(file, str(error)) from error


def _damaged(path: Path, why: str) -> TrainingError:
    return TrainingError(f"checkpoint {path} is damaged: {why}; delete its folder and train again")


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """State of a module, one entry per tensor even where it is registered under two names."""
    seen: set[int] = set()
    result: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            result[f"module.{name}"] = tensor.detach()
    return result


def load_module(module: nn.Module, checkpoint: Checkpoint, where: Path) -> None:
    """Put the state of :func:`module_tensors` back.

    Raises:
        TrainingError: names or shapes differ: the checkpoint is of another network or configuration.
    """
    state = {
        name.removeprefix("module."): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith("module.")
    }
    expected = {name.removeprefix("module."): tensor for name, tensor in module_tensors(module).items()}
    for name in sorted(set(state) ^ set(expected)):
        raise TrainingError(f"checkpoint {where} is of another network or configuration: tensor {name!r}")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape or state[name].dtype != tensor.dtype:
            raise TrainingError(
                f"checkpoint {where} is of another network: {name!r} is {tuple(state[name].shape)}, "
                f"expected {tuple(tensor.shape)}"
            )
    module.load_state_dict(state, strict=False)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State tensors of an optimizer, by parameter index and key."""
    state = cast(dict[int, dict[str, Any]], optimizer.state_dict()["state"])
    return {
        f"optimizer.{index}.{key}": value
        for index, entries in state.items()
        for key, value in entries.items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Put the state of :func:`optimizer_tensors` back; groups keep their own settings."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
