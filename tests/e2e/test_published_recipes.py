"""Recipes as their authors give them, on their data where it is at hand ($MCUQ_DATA), shortened to a CPU minute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcuq import data, zoo  # noqa: E402
from mcuq.data.dataset import Dataset  # noqa: E402
from mcuq.lower import lower  # noqa: E402
from mcuq.quant import QuantOp  # noqa: E402
from mcuq.quant import train as loops  # noqa: E402
from mcuq.reference.integer import run_outputs  # noqa: E402


def published(name: str) -> Dataset:
    folder = data.find_data_dir()
    if folder is None or not (folder / f"{name}.npz").is_file():
        pytest.skip(f"{name}.npz is not in $MCUQ_DATA")
    return data.load(name, folder)


@pytest.mark.slow
def test_lenet_on_mnist_clamped_and_then_quantized_to_16_levels() -> None:
    """N2D2's two phases of SAT, two epochs each in place of 150; its documentation reports 98.95 and 99.18 %."""
    mnist = published("mnist")
    net = zoo.build("lenet", resolution=28, channels=1)

    def phase(epochs: int, clamped: int, lr: float) -> QuantOp:
        op = QuantOp(
            net,
            "PerLayerSATDefault",
            input_shape=mnist.input_shape,
            weight_range=15,
            act_range=15,
            fold_type="ICN",
            fold_delay=epochs,
            clamp_epochs=clamped,
            normalization=mnist.normalization,
            layer_config=[{"layer": name, "w_bits": 8} for name in ("conv1", "fc2")],
        )
        loops.train_qat(op, mnist, replace(loops.qat_preset(epochs, 4), lr=lr), validate=False)
        op.eval()
        return op

    op = phase(2, 2, 6e-3)
    op.start_epoch(0)  # still in its first phase: weights are mapped, nothing is rounded
    assert loops.accuracy(op, mnist.x_test, mnist.y_test) >= 0.989
    op = phase(2, 0, 3e-3)
    simulated = loops.accuracy(op, mnist.x_test, mnist.y_test)
    quantized = op.generate_deployment_model()
    assert all(len(np.unique(quantized.weight(name).codes)) <= 16 for name in ("conv2", "conv3", "fc1"))
    graph = lower(quantized)
    scores = run_outputs(graph, mnist.x_test)[graph.outputs[0]].reshape(len(mnist.y_test), -1)
    deployed = float((scores.argmax(1) == mnist.y_test).mean())
    assert deployed >= 0.991 and abs(deployed - simulated) <= 0.001
