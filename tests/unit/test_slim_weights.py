"""Weights from another layout: HWIO kernels, other names, one class more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcuq import zoo  # noqa: E402
from mcuq.errors import ModelError  # noqa: E402
from mcuq.quant.slim_weights import slim_name  # noqa: E402
from mcuq.quant.weights_file import load_weights  # noqa: E402


def variables(module: torch.nn.Module, background: bool) -> dict[str, np.ndarray]:
    """What a slim checkpoint of ``module`` would hold."""
    arrays = {}
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        value = tensor.numpy()
        if name.startswith("fc."):
            value = (
                np.concatenate([np.full((1, *value.shape[1:]), 77.0, dtype=np.float32), value]) if background else value
            )
            value = value.T[None, None] if value.ndim == 2 else value
        elif value.ndim == 4:
            value = value.transpose((2, 3, 0, 1) if name.startswith("dw") else (2, 3, 1, 0))
        arrays[slim_name(name)] = value
    return arrays


@pytest.mark.parametrize("background", [True, False])
def test_r34_slim_checkpoints_load_and_drop_the_background_class(tmp_path: Path, background: bool) -> None:
    source, target = (zoo.build("mobilenet_v1", width=0.25, classes=10, seed=s) for s in (1, 2))
    arrays = variables(source, background)
    assert arrays["MobilenetV1/Conv2d_0/weights"].shape == (3, 3, 3, 8)
    assert arrays["MobilenetV1/Conv2d_13_depthwise/depthwise_weights"].shape == (3, 3, 256, 1)
    assert arrays["MobilenetV1/Logits/Conv2d_1c_1x1/weights"].shape == (1, 1, 256, 10 + background)
    np.savez(tmp_path / "slim.npz", **arrays)
    load_weights(target, tmp_path / "slim.npz")
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name]), name


def test_r34_what_does_not_fit_is_named(tmp_path: Path) -> None:
    module = zoo.build("mobilenet_v1", width=0.25, classes=10)
    arrays = variables(module, False)
    del arrays["MobilenetV1/Conv2d_4_pointwise/BatchNorm/gamma"]
    np.savez(tmp_path / "slim.npz", **arrays)
    with pytest.raises(ModelError, match="lacks MobilenetV1/Conv2d_4_pointwise/BatchNorm/gamma"):
        load_weights(module, tmp_path / "slim.npz")
    with pytest.raises(ModelError, match="MobileNetV1 only"):
        load_weights(zoo.build("resnet8"), tmp_path / "slim.npz")
    np.savez(tmp_path / "wide.npz", **variables(zoo.build("mobilenet_v1", width=0.5, classes=10), False))
    with pytest.raises(ModelError, match="has shape"):
        load_weights(module, tmp_path / "wide.npz")
