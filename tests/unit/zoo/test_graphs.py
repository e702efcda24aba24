"""Every model of the zoo: the fused float graph computes what the module computes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcuq import zoo  # noqa: E402
from mcuq.frontend.torch import capture  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.reference.floating import run  # noqa: E402

SMALL = {
    "mobilenet_v1": {"width": 0.25, "resolution": 33, "classes": 10},
    "mobilenet_v2": {"width": 0.35, "resolution": 32, "classes": 10},
    "mobilenet_v2_cf": {"resolution": 8},
    "resnet8": {"resolution": 12},
    "resnet20": {"resolution": 12},
    "resnet20_a": {"resolution": 12},
    "resnet18": {"width": 0.25, "resolution": 32, "classes": 10},
    "inception_v1": {"width": 0.25, "resolution": 32, "classes": 10},
    "vww": {"resolution": 32},
    "lenet": {"resolution": 28},
    "toynet": {"resolution": 10},
}


NAMES = [card.name for card in zoo.models()]
LARGE = ("resnet18", "inception_v1")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in NAMES])
def test_graph_equals_module(name):
    options = SMALL.get(name, {})
    module = zoo.build(name, **options)
    shape = zoo.input_shape(name, options.get("resolution"))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in module.modules():  # statistics of a trained net, not 0 and 1
            if isinstance(layer, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
                layer.running_mean.normal_(0, 0.2, generator=generator)
                layer.running_var.uniform_(0.5, 2, generator=generator)
                layer.weight.uniform_(-1, 1.5, generator=generator)
                layer.bias.normal_(0, 0.2, generator=generator)
    module.double().eval()
    x = torch.randn(2, shape[2], *shape[:2], generator=generator, dtype=torch.float64)
    expected = module(x).detach().numpy()
    graph = fuse(capture(module, shape).graph)
    tensors = run(graph, np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)))
    actual = tensors[graph.outputs[0]].reshape(expected.shape)
    assert np.abs(expected).max() > 1e-6
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
