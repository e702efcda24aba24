"""The zoo: published parameter and MAC counts, shapes, determinism, options, users' own modules."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcuq import zoo  # noqa: E402
from mcuq.errors import UsageError  # noqa: E402
from mcuq.frontend.torch import capture  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.ir.graph import macs  # noqa: E402

NAMES = [card.name for card in zoo.models()]
# Multiply-accumulates with padding taps and weights without biases, at the default input.
COUNTS = {
    "mobilenet_v1": (568_740_352, 4_209_088),
    "mobilenet_v2": (300_774_272, 3_469_760),
    "mobilenet_v2_cf": (95_054_336, 2_346_368),
    "resnet8": (12_501_632, 77_360),
    "resnet20": (40_813_184, 270_896),
    "ds_cnn": (2_656_768, 22_016),
    "autoencoder": (264_192, 264_192),
    "vww": (7_489_664, 208_112),
    "toynet": (25_265_152, 201_664),
}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_card_tells_the_truth(name):
    card = zoo.card(name)
    module = zoo.build_meta(name)
    assert parameters(module) == card.parameters
    height, width, channels = card.input_shape
    y = module.eval()(torch.zeros(2, channels, height, width, device="meta"))
    assert y.shape == (2, card.classes)


@pytest.mark.parametrize("name", COUNTS)
def test_macs_and_weights_equal_the_published_counts(name):
    graph = capture(zoo.build(name), zoo.card(name).input_shape).graph
    expected_macs, expected_weights = COUNTS[name]
    assert sum(macs(op) for op in graph) == expected_macs
    assert sum(conv.weight.size for conv in graph.convs) == expected_weights


LARGE = {"resnet18": (1_814_073_344, 11_506_880 + 172_032), "inception_v1": (1_498_376_192, 6_609_344)}
"""ResNet-18 with and without its three 1x1 shortcuts; Inception-v1 as torchvision counts it."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_n22_macs_and_weights_of_large_models(name):
    graph = capture(zoo.build(name), zoo.card(name).input_shape).graph
    assert (sum(macs(op) for op in graph), sum(conv.weight.size for conv in graph.convs)) == LARGE[name]


def test_n22_weights_without_shortcuts():
    module = zoo.build_meta("resnet18")
    weights = {n: p.numel() for n, p in module.named_parameters() if n.endswith("weight") and p.ndim > 1}
    shortcuts = sum(count for name, count in weights.items() if "shortcut" in name)
    assert (sum(weights.values()) - shortcuts, shortcuts) == (11_506_880, 172_032)


@pytest.mark.slow
def test_n23_weight_bytes_by_range():
    """MobileNetV1 with both ends at 8 bits: 4.2, 2.6 and 1.8 MB; binary weights are stored with 2 bits, not 1."""
    from mcuq.pipeline.bits import uniform

    graph = fuse(capture(zoo.build("mobilenet_v1"), (224, 224, 3)).graph)
    counts = [conv.weight.size for conv in graph.convs]
    for bits, megabytes in ((8, 4.2), (4, 2.6), (2, 1.8)):
        plan = uniform(graph, bits, 8, None, "cortex-m7")
        stored = sum(t.bytes for t in plan.tensors if t.kind == "weight")
        ideal = (sum(counts) - counts[0] - counts[-1]) * bits / 8 + counts[0] + counts[-1]
        assert round(ideal / 1e6, 1) == megabytes
        assert ideal <= stored < 1.03 * ideal, (bits, stored)  # rows start on bytes, kernels pad


@pytest.mark.parametrize("width, expected", [(1.0, 4_209_088), (0.75, 2_568_144), (0.5, 1_319_648), (0.25, 463_600)])
def test_n22_mobilenet_v1_element_counts(width, expected):
    module = zoo.build_meta("mobilenet-v1", width=width)
    assert sum(p.numel() for n, p in module.named_parameters() if n.endswith("weight") and p.ndim > 1) == expected


@pytest.mark.parametrize(
    "resolution, last",
    [(224, 7), (96, 3), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((192, 6), (160, 5), (128, 4)))],
)
def test_mobilenet_v1_maps_and_names(resolution, last):
    module = zoo.build("mobilenet_v1", width=0.25, resolution=resolution)
    graph = fuse(capture(module, zoo.input_shape("mobilenet_v1", resolution)).graph)
    names = [conv.name for conv in graph.convs]
    assert names == ["conv0", *(f"{k}{i}" for i in range(1, 14) for k in ("dw", "pw")), "fc"]
    assert graph.op("pw13").shape == (last, last, 256)
    # TF SAME: on an even input a stride-2 3x3 window is padded at the bottom and right only.
    assert graph.op("conv0").window.padding == (0, 0, 1, 1)
    assert graph.op("dw1").window.padding == (1, 1, 1, 1)


def test_ds_cnn_first_window():
    graph = fuse(capture(zoo.build("ds_cnn"), (49, 10, 1)).graph)
    conv = graph.convs[0]
    assert (conv.window.kernel, conv.window.stride, conv.shape) == ((10, 4), (2, 2), (25, 5, 64))
    assert conv.window.padding == (4, 1, 5, 1)


@pytest.mark.parametrize("size", range(1, 13))
@pytest.mark.parametrize("kernel, stride", [(k, t) for k in (1, 3, 4, 5) for t in (1, 2, 3)])
def test_same_padding_covers_the_input_once(size, kernel, stride):
    from mcuq.zoo.layers import same_padding

    before, after = same_padding(size, kernel, stride)
    assert 0 <= after - before <= 1
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)


@pytest.mark.parametrize("name", ["resnet_tiny", "mobilenet_v2_cf", "toynet", "lenet"])
def test_every_stage_trains(name):
    card = zoo.card(name)
    module = zoo.build(name)
    x = torch.randn(4, card.input_shape[2], *card.input_shape[:2], generator=torch.Generator().manual_seed(1))
    module(x).square().mean().backward()
    dead = [n for n, p in module.named_parameters() if p.grad is None or not torch.any(p.grad != 0)]
    assert not dead


def test_initialization_follows_the_seed_and_leaves_the_global_state():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    a, b, c = zoo.build("resnet8"), zoo.build("resnet8"), zoo.build("resnet8", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.conv.weight, c.conv.weight)


def test_initial_activations_keep_their_size():
    module = zoo.build("mobilenet_v1", width=0.25, resolution=64, classes=10).eval()
    y = module(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))).detach().numpy()
    assert np.isfinite(y).all() and 1e-3 < y.std() < 1e3


def test_options():
    module = zoo.build("lenet", resolution=28, classes=7, channels=3)
    assert module(torch.zeros(2, 3, 28, 28)).shape == (2, 7)
    assert zoo.input_shape("lenet", 28, 3) == (28, 28, 3)
    assert zoo.input_shape("mobilenet-v1", 96) == (96, 96, 3)


@pytest.mark.parametrize(
    "call, text",
    [
        ({"name": "mobilenet_v7"}, "no model 'mobilenet_v7' in the zoo; it holds mobilenet_v1"),
        ({"name": "ds_cnn", "width": 0.5}, "ds_cnn has no option width (given: 0.5); its options: classes, channels"),
        ({"name": "mobilenet_v1", "width": 0.0}, "width 0.0 is outside 0.05 .. 4.0"),
        ({"name": "mobilenet_v1", "resolution": 8}, "resolution 8 is outside 32 .. 1024"),
        ({"name": "resnet8", "classes": 0}, "0 classes"),
        ({"name": "resnet8", "channels": -1}, "-1 input channels"),
    ],
)
def test_bad_options(call, text):
    with pytest.raises(UsageError) as caught:
        zoo.build(**call)
    assert text in str(caught.value)


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_own_net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n        super().__init__(nn.Conv2d(1, 2, 3))\n"
        "def build():\n    return Net()\n"
        "def needs(width):\n    return Net()\n"
        "number = 3\nnet = Net()\n"
    )
    (tmp_path / "my_broken_net.py").write_text("raise RuntimeError('boom')\n")
    monkeypatch.chdir(tmp_path)
    yield
    for name in ("my_own_net", "my_broken_net"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("attribute", ["build", "Net", "net"])
def test_a_module_of_ones_own(own, attribute):
    path = list(sys.path)
    assert type(zoo.load(f"my_own_net:{attribute}")).__name__ == "Net"
    assert sys.path == path


@pytest.mark.parametrize(
    "spec, text",
    [
        ("my_own_net", "expected package.module:attribute"),
        ("my_own_net:a b", "expected package.module:attribute"),
        ("no_such_net_at_all:build", "cannot import no_such_net_at_all"),
        ("my_broken_net:build", "importing my_broken_net failed: RuntimeError: boom"),
        ("my_own_net:biuld", "my_own_net has no 'biuld'; it has Net, build"),
        ("my_own_net:needs", "It is called without arguments"),
        ("my_own_net:number", "my_own_net:number gave a int; a torch.nn.Module is needed"),
    ],
)
def test_a_module_of_ones_own_that_is_wrong(own, spec, text):
    with pytest.raises(UsageError) as caught:
        zoo.load(spec)
    assert text in str(caught.value)


def test_cards_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mcuq import zoo\n"
        "assert len(zoo.models()) > 5 and zoo.input_shape('vww') == (96, 96, 3)\n"
        "try:\n    zoo.build('vww')\n"
        "except Exception as error:\n    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "building a model needs torch" in result.stdout
