"""Whole trainings on the embedded digits: accuracy per bit width, and agreement with the integer network."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcuq import data, zoo  # noqa: E402
from mcuq.lower import lower  # noqa: E402
from mcuq.quant import (  # noqa: E402
    QuantOp,
    accuracy,
    default_fold_delay,
    evaluate,
    float_preset,
    qat_preset,
    real_inputs,
    train_float,
    train_qat,
)
from mcuq.reference import integer  # noqa: E402

CASES = [
    # weight bits, activation bits, quantizer, fold type, epochs, points below float at most
    (8, 8, "PerChannelsSymMSE", "ICN", 2, 0.01),
    (8, 8, "PerLayerAsymPACT", "folding_weights", 2, 0.01),
    (4, 4, "PerChannelsSymMSE", "ICN", 2, 0.015),
    (4, 4, "PerLayerAsymPACT", "ICN", 4, 0.03),
    (2, 2, "PerChannelsSymMSE", "ICN", 10, 0.10),
]


@pytest.fixture(scope="module")
def trained() -> Any:
    digits = data.load("digits", None)
    height, _, channels = digits.input_shape
    net = zoo.build("resnet_tiny", resolution=height, classes=10, channels=channels)
    train_float(net, digits, float_preset(20), validate=False)
    exact = evaluate(lambda x: net(real_inputs(x, digits.normalization)), digits.x_test, digits.y_test)
    return digits, net, copy.deepcopy(net.state_dict()), exact


@pytest.mark.slow
def test_float_training_reaches_its_accuracy(trained: Any) -> None:
    assert trained[3] >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("w_bits", "a_bits", "quant_type", "fold_type", "epochs", "drop"), CASES)
def test_retraining(
    trained: Any, w_bits: int, a_bits: int, quant_type: str, fold_type: str, epochs: int, drop: float
) -> None:
    digits, net, weights, exact = trained
    net.load_state_dict(weights)
    op = QuantOp(
        net,
        quant_type,
        w_bits,
        act_bits=a_bits,
        input_shape=digits.input_shape,
        fold_type=fold_type,
        fold_delay=default_fold_delay(epochs, changes=fold_type == "folding_weights"),
        normalization=digits.normalization,
    )
    train_qat(op, digits, qat_preset(epochs, min(w_bits, a_bits)), validate=False)
    fake = accuracy(op, digits.x_test, digits.y_test)
    graph = lower(op.generate_deployment_model())
    with torch.no_grad(), op.quantized():
        simulated = op(torch.from_numpy(digits.x_test).permute(0, 3, 1, 2)).argmax(1).numpy()
    scores = integer.run(graph, digits.x_test)[graph.outputs[0]].reshape(len(digits.x_test), -1)
    agreement = float(np.mean(scores.argmax(1) == simulated))
    print(f"{w_bits}/{a_bits} {quant_type} {fold_type}: float {exact:.4f}, QAT {fake:.4f}, agreement {agreement:.4f}")
    assert agreement == 1.0 if w_bits == a_bits == 8 else agreement >= 0.99
    assert fake >= exact - drop
