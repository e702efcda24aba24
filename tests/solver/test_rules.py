"""The paper's rules against goldens: bits, bytes, fold types, cut sequences and typed infeasibility.

Goldens come from running the authors' published code (github.com/mrusci/training-mixed-precision-quantized-networks)
on MobileNetV1.
"""

from __future__ import annotations

import pytest
from mobilenet_table import mobilenet_v1

from mcuq.errors import InfeasibleError, UsageError
from mcuq.ir.plans import BitPlan, Limits
from mcuq.plan import rules
from mcuq.plan.paper import PaperLayer, flash_bits, paper_layers, ram_bits, static_bytes
from mcuq.plan.rules import cut_activations, cut_weights, mixed

LARGE = Limits(2_048_000, 512_000)
SMALL = Limits(1_048_576, 524_288)
BIG_W = "8888888888888848484848884822"
TAIL_W = "8888888888888888888888888844"
PL_W = "8888888888888848484848482822"
PC_W = "8888888888488848484848482822"
ALL_W = "8" * 28
FULL_RAM = {224: 1_204_224, 192: 884_736, 160: 614_400, 128: 393_216}
"""8-bit peak RAM at width 1.0; it scales with the width."""

# limits, width, resolution, output bits of layers 0..11, MixPL (weights, flash, ICN layers), MixPC (weights,
# flash), RAM
GOLDENS = [
    (LARGE, 1.0, 224, "442844488888", (BIG_W, 1939504, 12), (BIG_W, 1984884), 401408),
    (LARGE, 1.0, 192, "844884888888", (BIG_W, 1938088, 9), (BIG_W, 1984884), 442368),
    (LARGE, 1.0, 160, "884888888888", (BIG_W, 1937304, 7), (BIG_W, 1984884), 409600),
    (LARGE, 1.0, 128, "888888888888", (BIG_W, 1936992, 6), (BIG_W, 1984884), 393216),
    (LARGE, 0.75, 224, "844884888888", (TAIL_W, 1931272, 4), (TAIL_W, 1978532), 451584),
    (LARGE, 0.75, 192, "884888888888", (TAIL_W, 1930688, 2), (TAIL_W, 1978532), 442368),
    (LARGE, 0.75, 160, "888888888888", (TAIL_W, 1930456, 1), (TAIL_W, 1978532), 460800),
    (LARGE, 0.75, 128, "888888888888", (TAIL_W, 1930456, 1), (TAIL_W, 1978532), 294912),
    (LARGE, 0.5, 224, "884888888888", (ALL_W, 1346096, 0), (ALL_W, 1381588), 401408),
    (LARGE, 0.5, 192, "888888888888", (ALL_W, 1346096, 0), (ALL_W, 1381588), 442368),
    (LARGE, 0.5, 160, "888888888888", (ALL_W, 1346096, 0), (ALL_W, 1381588), 307200),
    (LARGE, 0.5, 128, "888888888888", (ALL_W, 1346096, 0), (ALL_W, 1381588), 196608),
    (LARGE, 0.25, 224, "888888888888", (ALL_W, 479104, 0), (ALL_W, 498180), 301056),
    (LARGE, 0.25, 192, "888888888888", (ALL_W, 479104, 0), (ALL_W, 498180), 221184),
    (LARGE, 0.25, 160, "888888888888", (ALL_W, 479104, 0), (ALL_W, 498180), 153600),
    (LARGE, 0.25, 128, "888888888888", (ALL_W, 479104, 0), (ALL_W, 498180), 98304),
    (SMALL, 0.75, 224, "844884888888", (PL_W, 1015384, 10), (PC_W, 1030820), 451584),
    (SMALL, 0.75, 192, "884888888888", (PL_W, 1014800, 8), (PC_W, 1030820), 442368),
    (SMALL, 0.75, 160, "888888888888", (PL_W, 1014568, 7), (PC_W, 1030820), 460800),
    (SMALL, 0.75, 128, "888888888888", (PL_W, 1014568, 7), (PC_W, 1030820), 294912),
    (SMALL, 0.5, 224, "884888888888", (TAIL_W, 961728, 2), (TAIL_W, 994516), 401408),
    (SMALL, 0.5, 192, "888888888888", (TAIL_W, 961576, 1), (TAIL_W, 994516), 442368),
    (SMALL, 0.5, 160, "888888888888", (TAIL_W, 961576, 1), (TAIL_W, 994516), 307200),
    (SMALL, 0.5, 128, "888888888888", (TAIL_W, 961576, 1), (TAIL_W, 994516), 196608),
    (SMALL, 0.25, 224, "888888888888", (ALL_W, 479104, 0), (ALL_W, 498180), 301056),
    (SMALL, 0.25, 192, "888888888888", (ALL_W, 479104, 0), (ALL_W, 498180), 221184),
    (SMALL, 0.25, 160, "888888888888", (ALL_W, 479104, 0), (ALL_W, 498180), 153600),
    (SMALL, 0.25, 128, "888888888888", (ALL_W, 479104, 0), (ALL_W, 498180), 98304),
]


def weights(plan: BitPlan) -> str:
    return "".join(str(t.bits) for t in plan.tensors if t.kind == "weight")


def outputs(plan: BitPlan) -> str:
    layers = [name for name, _ in plan.quant_types]
    return "".join(str(plan.activation_bits(name)) for name in layers)


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda g: f"{g[1]}-{g[2]}-{g[0].flash}")
def test_mobilenet_bits_and_bytes(golden: tuple) -> None:
    limits, width, resolution, activations, (pl_bits, pl_flash, icn), (pc_bits, pc_flash), ram = golden
    graph = mobilenet_v1(width, resolution)
    pl = mixed(graph, limits, "MixPL", original_fold_types=True)
    pc = mixed(graph, limits, "MixPC", original_fold_types=True)
    assert (outputs(pl), weights(pl)) == (activations + "8" * 16, pl_bits)
    assert (outputs(pc), weights(pc)) == (activations + "8" * 16, pc_bits)
    assert (pl.flash_used, pl.ram_used) == (pl_flash, ram)
    assert (pc.flash_used, pc.ram_used) == (pc_flash, ram)
    assert sum(fold == "ICN" for _, fold in pl.fold_types[:-1]) == icn
    assert {quant for _, quant in pl.quant_types} == {"PerLayerAsymPACT"}
    assert set(pc.fold_types) == {(layer.name, "ICN") for layer in graph.convs}


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda g: f"{g[1]}-{g[2]}-{g[0].flash}")
def test_sub_byte_layers_take_icn(golden: tuple) -> None:
    """Our own fold types: the same bits everywhere, and never folded batch norm under a sub-byte tensor."""
    limits, width, resolution, activations, (pl_bits, pl_flash, _), _, _ = golden
    plan = mixed(mobilenet_v1(width, resolution), limits, "MixPL")
    assert (outputs(plan), weights(plan)) == (activations + "8" * 16, pl_bits)
    for layer, fold in plan.fold_types:
        sub_byte = plan.weight_bits(layer) < 8 or plan.activation_bits(layer) < 8
        assert fold == ("ICN" if sub_byte else "folding_weights")
    quirk = (limits, width, resolution) == (LARGE, 0.5, 224)  # weights fit at once under a 4-bit activation
    assert plan.flash_used - pl_flash == (5 * 32 - 8 if quirk else 0)  # ICN of pw1


@pytest.mark.parametrize("resolution", FULL_RAM)
@pytest.mark.parametrize("scheme", ["MixPL", "MixPC"])
def test_width_1_does_not_fit_a_megabyte(resolution: int, scheme: str) -> None:
    least = {"MixPL": 1_155_112, "MixPC": 1_168_932}[scheme]
    with pytest.raises(InfeasibleError, match=f"need {least} bytes, {least - SMALL.flash} too many.*pw13"):
        mixed(mobilenet_v1(1.0, resolution), SMALL, scheme)


@pytest.mark.parametrize(
    ("width", "limits", "scheme", "start", "sequence", "end"),
    [
        (
            1.0,
            LARGE,
            "MixPL",
            4_257_424,
            "pw13:4 fc:4 pw12:4 pw13:2 fc:2 pw7:4 pw8:4 pw9:4 pw10:4",
            1_939_504,
        ),
        (0.75, LARGE, "MixPC", 2_657_444, "fc:4 pw13:4", 1_978_532),
        (
            0.75,
            SMALL,
            "MixPC",
            2_657_444,
            "fc:4 pw13:4 pw12:4 fc:2 pw13:2 pw7:4 pw8:4 pw9:4 pw10:4 pw11:4 pw12:2 pw5:4",
            1_030_820,
        ),
    ],
)
def test_weight_cuts_in_order(width: float, limits: Limits, scheme: str, start: int, sequence: str, end: int) -> None:
    layers = paper_layers(mobilenet_v1(width, 224))
    bits = cut_activations(layers, limits.ram)
    before, _ = cut_weights(layers, bits, 10**9, scheme, original_fold_types=True)
    assert flash_bits(layers, before) == 8 * start
    choices, cuts = cut_weights(layers, bits, limits.flash, scheme, original_fold_types=True)
    assert " ".join(f"{cut.layer}:{cut.bits}" for cut in cuts) == sequence
    assert flash_bits(layers, choices) == 8 * end


def _chain(*sizes: tuple[int, int]) -> list[PaperLayer]:
    return [PaperLayer(f"layer{k}", n_in, n_out, 1, 1) for k, (n_in, n_out) in enumerate(sizes)]


def test_activation_cuts_of_three_layers() -> None:
    chain = _chain((10, 90), (90, 90), (90, 10))
    assert cut_activations(chain, 120) == (4, 4, 8)
    assert cut_activations(chain, 60) == (2, 2, 8)
    assert cut_activations(chain, 180) == (8, 8, 8)


def test_tie_cuts_the_output() -> None:
    chain = _chain((50, 100), (100, 100), (100, 100), (100, 50))
    assert cut_activations(chain, 150) == (8, 4, 8, 8)


def test_activation_infeasibility_is_typed_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the published code sweeps forever: 28 outputs can be halved twice, so that fewer sweeps than that do."""
    looks = 0

    def counted(layer: PaperLayer, in_bits: int, out_bits: int) -> int:
        nonlocal looks
        looks += 1
        assert looks <= 28 * 2 * 28
        return ram_bits(layer, in_bits, out_bits)

    monkeypatch.setattr(rules, "ram_bits", counted)
    with pytest.raises(InfeasibleError, match=r"layer pw1 does not fit 262144 bytes.* need 38912 bytes more"):
        mixed(mobilenet_v1(1.0, 224), Limits(4_500_000, 262_144), "MixPL")
    assert looks


def test_static_bytes_per_layer() -> None:
    c = 10
    assert static_bytes(c, "PerLayerAsymPACT", "folding_weights", last=False) == 4 * c + 20
    assert static_bytes(c, "PerLayerAsymPACT", "ICN", last=False) == 9 * c + 12
    assert static_bytes(c, "PerChannelsAsymMinMax", "ICN", last=False) == 10 * c + 8
    assert static_bytes(c, "PerLayerAsymPACT", "ICN", last=True) == 4 * c + 20
    assert static_bytes(c, "PerChannelsAsymMinMax", "ICN", last=True) == 7 * c + 4


@pytest.mark.parametrize("width", [1.0, 0.75, 0.5, 0.25])
@pytest.mark.parametrize("resolution", FULL_RAM)
def test_eight_bit_peak(width: float, resolution: int) -> None:
    graph = mobilenet_v1(width, resolution)
    plan = mixed(graph, Limits(10**7, 10**7), "MixPL")
    assert plan.ram_used == FULL_RAM[resolution] * width
    elements = {1.0: 4_209_088, 0.75: 2_568_144, 0.5: 1_319_648, 0.25: 463_600}
    assert sum(layer.weights for layer in paper_layers(graph)) == elements[width]


def test_delta_decides_which_layers_count_as_equal() -> None:
    """Shares 0.52 and 0.48: within 0.05 the layer nearest the input is cut, within 0.01 the largest."""
    layers = (PaperLayer("near", 1, 1, 480, 1), PaperLayer("far", 1, 1, 520, 1))
    bits = (8, 8)
    size = flash_bits(layers, cut_weights(layers, bits, 10**6, "MixPC")[0]) // 8
    _, wide = cut_weights(layers, bits, size - 1, "MixPC")
    _, narrow = cut_weights(layers, bits, size - 1, "MixPC", delta=0.01)
    assert (wide[0].layer, narrow[0].layer) == ("near", "far")


def test_unknown_rule_is_refused() -> None:
    with pytest.raises(UsageError, match="MixPL or MixPC"):
        mixed(mobilenet_v1(0.25, 128), LARGE, "MixXX")  # type: ignore[arg-type]
