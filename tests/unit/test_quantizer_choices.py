"""What the command line allows of quantizers, levels and folding, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from mcuq.errors import UsageError
from mcuq.ir.plans import BitPlan, Limits, TensorBits
from mcuq.pipeline import quantizers
from mcuq.pipeline.settings import BitChoice, TrainSettings


def settings(bits: BitChoice | None = None, **given: object) -> TrainSettings:
    return TrainSettings(None, "digits", bits or BitChoice(), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "weight_bits", "act_bits"),
    [
        ({"weight_range": 1}, 2, None),
        ({"weight_range": 15, "quant_type": "PerLayerSATDefault"}, 8, None),
        ({"weight_range": 15, "quant_type": "PerLayerSATFullRange", "act_range": 2}, 8, 2),
        ({"weight_range": 14, "quant_type": "PerLayerDoReFa", "act_range": 15}, 4, 4),
        ({"act_type": "none"}, None, 8),
    ],
)
def test_ranges_decide_the_stored_bits(given: dict[str, object], weight_bits: int | None, act_bits: int | None) -> None:
    choice = quantizers.checked(settings(**given)).choice
    assert (choice.weight_bits, choice.act_bits) == (weight_bits, act_bits)


@pytest.mark.parametrize(
    ("given", "bits", "text"),
    [
        ({"quant_type": "LSQ"}, BitChoice(), "quant_type must be one of PerLayerAsymPACT"),
        ({"act_type": "ReLU"}, BitChoice(), "act_type must be one of LSQ, LSQ\\+, PACT"),
        ({"fold_type": "none"}, BitChoice(), "folding_weights, ICN, folding_thresholds"),
        ({"fold_type": "folding_weights", "quant_type": "PerLayerSATDefault"}, BitChoice(), "with --fold-type ICN or"),
        ({"fold_type": "folding_thresholds"}, BitChoice(act_bits=8), "needs outputs of 2 or 4 bits"),
        ({"weight_range": 3}, BitChoice(weight_bits=4), "--weight-range decides the bits"),
        ({"act_range": 3}, BitChoice(bits=Path("bits.json")), "--act-range decides the bits"),
        ({"act_type": "none"}, BitChoice(act_bits=4), "stores activations with 8 bits"),
        ({"weight_range": 255, "quant_type": "PerLayerSATDefault"}, BitChoice(), "take range 254"),
        ({"scaling": "fixed12"}, BitChoice(), "scaling must be one of exact"),
    ],
)
def test_wrong_choices_say_what_is_allowed(given: dict[str, object], bits: BitChoice, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        quantizers.checked(settings(bits, **given))


def test_ranges_leave_both_ends_and_overrides_come_from_a_file(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    tensors = tuple(TensorBits(f"{n}.weight", n, "weight", 4, 10) for n in names)
    tensors += tuple(TensorBits(n, n, "activation", 8 if n == "b" else 4, 10) for n in names)
    plan = BitPlan(tensors, "FEASIBLE", 0.0, 0.0, 1, 1, Limits(9, 9), "given")
    entries = quantizers.layer_entries(plan, settings(weight_range=7, act_range=5, fold_type="folding_thresholds"))
    assert {"layer": "b", "fold_type": "ICN"} in entries
    assert [e["layer"] for e in entries if "w_range" in e] == ["b"]
    assert [e["layer"] for e in entries if "a_range" in e] == ["a", "b", "c"]
    file = tmp_path / "layers.json"
    file.write_text('[{"layer": "c", "w_bits": 8}]')
    assert quantizers.layer_entries(plan, settings(layer_config=file)) == [{"layer": "c", "w_bits": 8}]
    for text in ("{", '{"layer": "c"}', "[3]"):
        file.write_text(text)
        with pytest.raises(UsageError, match="--layer-config"):
            quantizers.layer_entries(plan, settings(layer_config=file))
