"""Weights that forward computes from parameters: captured as constants, not trained."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils.parametrizations import spectral_norm, weight_norm  # noqa: E402

from mcuq.errors import UnsupportedError  # noqa: E402
from mcuq.frontend.torch import capture  # noqa: E402
from mcuq.quant import QuantOp  # noqa: E402


def test_normalized_weights_are_captured_and_refused_in_training() -> None:
    torch.manual_seed(0)
    first, last = weight_norm(nn.Conv2d(3, 4, 3)), spectral_norm(nn.Conv2d(4, 2, 1))
    model = nn.Sequential(first, nn.ReLU(), last).eval()
    for op, layer in zip(capture(model, (5, 5, 3)).graph.convs, (first, last), strict=True):
        wanted = torch.as_tensor(layer.weight).detach().numpy()
        np.testing.assert_allclose(op.weight.transpose(0, 3, 1, 2), wanted, rtol=1e-6)
    with pytest.raises(UnsupportedError, match=r"layers 0, 2: .*computed in forward.*remove_parametrizations"):
        QuantOp(model, weight_bits=8, act_bits=8, input_shape=(5, 5, 3))
