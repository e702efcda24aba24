"""One export for many captures: weights of the moment, and no second tracing where it would find the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mcuq import zoo
from mcuq.errors import ModelError, UsageError
from mcuq.frontend.torch import capture, export
from mcuq.ir.graph import BatchNorm, Conv2d
from mcuq.ir.text import to_text


def test_a_program_takes_the_weights_of_the_moment() -> None:
    """Of the module that was exported and of its copies; refuses another shape and weights that became NaN."""
    conv, norm = nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3)
    module = nn.Sequential(conv, norm, nn.ReLU())
    program, twin = export(module, (8, 8, 2)), copy.deepcopy(module)
    assert isinstance(norm.running_mean, torch.Tensor)
    with torch.no_grad():
        conv.weight.add_(1.0)
        norm.running_mean.add_(3.0)
    seen: list[float] = []
    for changed in (module, twin):
        found, fresh = capture(changed, (8, 8, 2), program=program), capture(changed, (8, 8, 2))
        assert found.parameters == fresh.parameters
        assert to_text(found.graph) == to_text(fresh.graph)
        for a, b in zip(found.graph, fresh.graph, strict=True):
            if isinstance(a, Conv2d) and isinstance(b, Conv2d):
                assert np.array_equal(a.weight, b.weight)
                seen.append(float(a.weight.sum()))
            if isinstance(a, BatchNorm) and isinstance(b, BatchNorm):
                assert np.array_equal(a.norm.mean, b.norm.mean)
    assert seen[0] == pytest.approx(seen[1] + 54, rel=1e-4)
    with pytest.raises(UsageError, match="exported for input"):
        capture(module, (8, 9, 2), program=program)
    with torch.no_grad():
        conv.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"0\.weight"):
        capture(module, (8, 8, 2), program=program)


@pytest.mark.parametrize("name", ["resnet_tiny", "ds_cnn", "autoencoder"])
def test_what_needs_no_second_tracing_gives_the_same_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, shape = zoo.build(name, seed=3), zoo.input_shape(name)
    once = capture(module, shape)
    monkeypatch.setattr("mcuq.frontend.torch._is_plain", lambda program: False)
    twice = capture(module, shape)
    assert to_text(once.graph) == to_text(twice.graph)
    assert once.parameters == twice.parameters
