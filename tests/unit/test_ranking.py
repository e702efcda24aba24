"""Ranks of labels among scores, against sorting; top-1 and top-5 of the fake-quantized and the deployed network."""

from __future__ import annotations

import numpy as np
import pytest

from mcuq.reference.ranking import label_ranks, top1, top5


def test_r33_top1_and_top5_equal_a_sorted_list() -> None:
    rng = np.random.default_rng(3)
    scores = rng.integers(-4, 4, (200, 1, 1, 10))  # many ties
    labels = rng.integers(0, 10, 200)
    order = [sorted(range(10), key=lambda c: (-row[c], c)) for row in scores.reshape(200, 10).tolist()]
    expected = [row.index(label) for row, label in zip(order, labels.tolist(), strict=True)]
    ranks = label_ranks(scores, labels)
    assert ranks.tolist() == expected
    assert top1(ranks) == np.mean(scores.reshape(200, 10).argmax(1) == labels)
    assert top5(ranks, scores) == sum(rank < 5 for rank in expected) / 200


def test_no_top5_of_five_classes_or_of_a_chosen_class() -> None:
    few = np.arange(10).reshape(2, 5)
    assert (
        label_ranks(few, np.array([4, 0])).tolist() == [0, 4] and top5(label_ranks(few, np.array([4, 0])), few) is None
    )
    chosen = np.array([[7], [3]])
    ranks = label_ranks(chosen, np.array([7, 5]))
    assert top1(ranks) == 0.5 and top5(ranks, chosen) is None


def test_labels_without_a_score_are_never_right() -> None:
    assert label_ranks(np.zeros((3, 2)), np.array([2, 1, 0])).tolist() == [2, 1, 0]


def test_r33_fake_quantized_and_deployed_networks_are_ranked_alike() -> None:
    pytest.importorskip("torch")
    import torch

    from mcuq import data
    from mcuq.lower import lower
    from mcuq.quant import QuantOp
    from mcuq.quant.evaluate import quantized_ranks
    from mcuq.reference.integer import run_outputs

    digits = data.load("digits")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(128, 10)
    )
    op = QuantOp(net, "PerChannelsSymMSE", 8, input_shape=digits.input_shape, normalization=digits.normalization)
    op.calibrate([torch.from_numpy(digits.x_train[:64]).permute(0, 3, 1, 2)])
    x, y = digits.x_test[:200], digits.y_test[:200]
    graph = lower(op.generate_deployment_model())
    deployed = run_outputs(graph, x)[graph.outputs[0]]
    simulated, exact = quantized_ranks(op, x, y), label_ranks(deployed, y)
    assert abs(top1(simulated) - top1(exact)) <= 0.03
    five = top5(exact, deployed)
    assert five is not None and top1(exact) < five < 1 and abs(five - np.mean(simulated < 5)) <= 0.03
